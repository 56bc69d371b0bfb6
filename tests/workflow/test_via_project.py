"""The target via_project at the very start: no annotation, no trained network."""

from __future__ import annotations

import numpy as np
import pandas as pd
from harness import Workflow
from via2 import open_project

from lumbarflow.files import write_png

CONFIG = {
    "source": "folder",
    "folder": {"path": "films", "view": "lateral"},
    "results": "results",
}


def test_begins_without_annotations_and_all_says_how(tmp_path):
    rng = np.random.default_rng(3)
    for number in range(3):
        picture = rng.integers(30, 200, (160, 90)).astype(np.uint8)
        write_png(tmp_path / f"films/film{number}.png", picture)
    workflow = Workflow(tmp_path, CONFIG)

    whole = workflow.run()
    assert whole.status != 0
    assert "annotations.via: missing" in whole.output and "via_project" in whole.output
    assert "Traceback" not in whole.output

    begun = workflow.run("--printshellcmds", "via_project")
    assert begun.status == 0, begun.output
    project = tmp_path / "results/annotations/via_project.json"
    films, definitions = open_project(project, page=project.with_name("via.html"))
    ranking = pd.read_parquet(tmp_path / "results/annotations/ranking.parquet")
    assert [film.picture.stem for film in films] == ranking["image_id"].tolist()
    assert len(films) == 3
    assert all(film.picture.is_file() and not film.regions for film in films)
    assert "lumbar_vertebra" in definitions["region"]["structure"]["options"]
