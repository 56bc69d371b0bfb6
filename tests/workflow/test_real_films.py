"""The 26 real films of config/films.yaml, up to what the networks are trained on."""

from __future__ import annotations

import csv

import cv2
import pandas as pd
import yaml
from harness import ROOT, Workflow

from lumbarflow.acquire.folder import film_names
from lumbarflow.deidentify import pseudonyms


def test_real_films_are_prepared_as_the_split_file_says(tmp_path, data):
    config = yaml.safe_load((ROOT / "config/films.yaml").read_text())
    films = data / "lumbar_films"
    config["results"] = "results"
    config["folder"]["path"] = str(films / "films")
    config["annotations"]["via"] = [str(films / "via_project.json")]
    workflow = Workflow(tmp_path, config)
    run = workflow.run("--until", "prepare")
    assert run.status == 0, run.output

    keyed = pseudonyms.load(tmp_path / ".lumbarflow/pseudonym.key")
    names = film_names(films / "films", keyed)
    splits = pd.read_parquet(workflow.results / "incoming/splits.parquet")
    found = {names[row.image_id]: row.subset for row in splits.itertuples()}
    with (ROOT / "config/films_split.csv").open() as handle:
        wanted = {row["file_name"]: row["subset"] for row in csv.DictReader(handle)}
    assert found == wanted

    findings = pd.read_parquet(workflow.results / "incoming/annotations/qc.parquet")
    assert set(findings["severity"]) <= {"info"}
    for image_id in splits["image_id"]:
        mask = cv2.imread(str(workflow.results / f"prepared/masks/{image_id}.png"), -1)
        assert set(mask.ravel()) == {0, 1}
    for path in workflow.results.rglob("*"):
        assert not any(name in path.name for name in wanted)
