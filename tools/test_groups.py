"""A pytest plugin: stop after the first folder of tests in which something failed.

`make test` gives pytest the folders cheap first, in one run with one closing line. Within a folder
every test runs, so that one failure does not hide the others.
"""

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item, nextitem):
    """Run a test; ask pytest to stop where the next one is of another folder and one failed."""
    done = yield
    if nextitem is not None and item.session.testsfailed:
        here, there = item.path.parent, nextitem.path.parent
        if here != there:
            item.session.shouldfail = f"not going on after a failure in {here.name}"
    return done
