"""Runs that several tests look at."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from harness import ROOT, TINY, Workflow


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory) -> Workflow:
    """A complete run of the tiny cohort through the embedded archive with all five networks."""
    workflow = Workflow(tmp_path_factory.mktemp("tiny"), TINY)
    run = workflow.run()
    assert run.status == 0, run.output
    return workflow


@pytest.fixture
def data() -> Path:
    """Real films; not part of the project."""
    folder = Path(os.environ.get("LUMBARFLOW_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real films at {folder}: set LUMBARFLOW_DATA")
    return folder
