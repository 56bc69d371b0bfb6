"""The one exception that users are meant to see."""


class InputError(Exception):
    """Input that the workflow cannot work with.

    The message is one sentence that names the file or configuration key and the fix. It never
    contains identifying data. :func:`lumbarflow.jobs.job` prints it without a traceback.
    """
