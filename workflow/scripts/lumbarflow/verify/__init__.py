"""Verifies that nothing identifying of the originals is in what the workflow wrote.

It stands beside de-identification and knows nothing of it: no table, no code, no rule is shared, so
that a mistake there is not repeated here. :class:`lumbarflow.verify.values.Witness` sees the
originals, :func:`lumbarflow.verify.search.search` looks for what it saw, and
:func:`lumbarflow.verify.quarantine.quarantine` takes away what holds any of it.
"""
