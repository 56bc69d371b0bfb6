"""Tables of labelled and measured vertebrae, made up, as a run leaves them for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from lumbarflow.evaluate.labelling import score_labels
from lumbarflow.files import write_png, write_table
from lumbarflow.measure.changes import changes
from lumbarflow.measure.film import MEASUREMENTS, VERTEBRAE

LEVELS = ("T12", "L1", "L2", "L3", "L4", "L5", "S1")
DISCS = [f"{above}/{below}" for above, below in pairwise(LEVELS[1:])]
#: name, sites, unit, typical value and standard deviation of errors.
KINDS = (
    ("lordosis", ("L1-S1", "L1-L5"), "deg", 48.0, 2.0),
    ("sacral_slope", ("S1",), "deg", 38.0, 1.5),
    ("segmental_angle", DISCS, "deg", 14.0, 1.5),
    ("disc_height_anterior", DISCS, "mm", 11.0, 0.5),
    ("disc_height_middle", DISCS, "mm", 9.5, 0.5),
    ("disc_height_posterior", DISCS, "mm", 6.0, 0.5),
    ("slip", DISCS, "mm", 0.8, 0.8),
    ("slip_percent", DISCS, "%", 2.5, 2.0),
    ("slip_grade", DISCS, "1", 0.0, 0.0),
    ("wedge_ratio", LEVELS[1:6], "1", 0.96, 0.03),
    ("genant_grade", LEVELS[1:6], "1", 0.0, 0.0),
)


def write_labelled(
    results: Path, models: Sequence[str], films: Mapping[str, str], seed: int = 0
) -> None:
    """Write what the report reads of levels and measurements.

    Args:
        results: the results folder.
        models: of which the first errs least.
        films: patient_id of each test film.
        seed: of the errors.
    """
    rng = np.random.default_rng(seed)
    ids = list(films)
    drawn = measured(rng, ids)
    patients = list(films.values())
    # A film a day.
    manifest = pd.DataFrame({"image_id": ids, "patient_id": patients, "study_id": ids})
    manifest["study_day"] = 180 * manifest.groupby("patient_id").cumcount()
    instances, tables = [], {}
    for place, model in enumerate(models):
        instances.append(_instances(rng, model, ids, 0.02 * place))
        table = tables[model] = _as_seen(rng, drawn, place)
        write_table(results / f"measurements/{model}.parquet", table)
        write_table(results / f"measurements/vertebrae/{model}.parquet", vertebrae(rng, ids))
        write_table(results / f"measurements/changes/{model}.parquet", changes(table, manifest))
    write_table(results / "measurements/changes/annotation.parquet", changes(drawn, manifest))
    instances = pd.concat(instances, ignore_index=True)
    write_table(results / "metrics/instances.parquet", instances)
    scores = score_labels(
        instances,
        tables,
        {"annotation": drawn, "truth": drawn.assign(value=drawn["value"] + 0.1)},
        manifest.assign(subset="test"),
        {"seed": 0, "bootstrap_samples": 50},
    )
    for name, table in scores.items():
        write_table(results / f"metrics/{name}.parquet", table)
    picture = np.full((1300, 1100, 3), 60, np.uint8)
    picture[:, 700:] = 255
    for model in models:
        for image_id in films:
            write_png(results / f"measurements/overlays/{model}/{image_id}.png", picture)


def measured(rng: np.random.Generator, films: Sequence[str]) -> pd.DataFrame:
    """Rows of `measurements/{source}.parquet`, all of them measured."""
    rows = [
        {
            **{"image_id": image_id, "name": name, "site": site, "unit": unit},
            "value": value if name.endswith("grade") else value * rng.normal(1, 0.15),
            **{"confidence": 1.0, "status": "measured", "reason": ""},
        }
        for image_id in films
        for name, sites, unit, value, _ in KINDS
        for site in sites
    ]
    return pd.DataFrame(rows, columns=list(MEASUREMENTS)).astype(MEASUREMENTS)


def vertebrae(rng: np.random.Generator, films: Sequence[str]) -> pd.DataFrame:
    """Rows of `measurements/vertebrae/{source}.parquet`, without their corners."""
    rows = [
        {
            **{"image_id": image_id, "instance_id": f"{image_id}-{n}", "level": level},
            "class_name": "sacral_vertebra" if level == "S1" else "lumbar_vertebra",
            **{"level_probability": rng.beta(30, 1), "quality": 0.9, "cut": False, "repair": ""},
            **{"anterior": "right", "anterior_probability": 0.99, "flags": "possible_l6"},
        }
        for image_id in films
        for n, level in enumerate(LEVELS)
    ]
    return pd.DataFrame(rows, columns=list(VERTEBRAE)).astype(VERTEBRAE)


def _as_seen(rng: np.random.Generator, drawn: pd.DataFrame, place: int) -> pd.DataFrame:
    """What a network makes of it: errors, doubts, and values that it lacks."""
    table = drawn.copy()
    errors = table["name"].map({kind[0]: kind[4] for kind in KINDS})
    table["value"] += (1 + 0.4 * place) * errors * rng.normal(size=len(table))
    table["confidence"] = rng.beta(8, 1 + place, len(table))
    doubtful = table["confidence"] < 0.5
    table.loc[doubtful, ["status", "reason"]] = "uncertain", "the level is not certain"
    lost = rng.random(len(table)) < 0.03 * (1 + place)
    table.loc[lost, "value"] = np.nan
    table.loc[lost, ["status", "reason"]] = "not_measurable", "S1 was not found"
    return table


def _instances(
    rng: np.random.Generator, model: str, films: Sequence[str], wrong: float
) -> pd.DataFrame:
    rows = []
    for image_id in films:
        shift = int(rng.random() < wrong)
        for place, level in enumerate(LEVELS):
            given = LEVELS[max(place - shift, 0)]
            lost = rng.random() < 0.02 + wrong
            rows.append(
                {
                    **{"model": model, "image_id": image_id, "level": level},
                    "class_name": "sacral_vertebra" if level == "S1" else "lumbar_vertebra",
                    **{"matched_instance_id": f"{image_id}-{place}", "iou": 0.3 if lost else 0.9},
                    "predicted_level": None if rng.random() < wrong else given,
                    "level_probability": 0.95,
                    "iou_unrepaired": 0.3 if lost or rng.random() < 0.2 else 0.9,
                    "level_unrepaired": given if rng.random() > 0.1 else None,
                }
            )
    strings = ["level", "predicted_level", "level_unrepaired"]
    return pd.DataFrame(rows).astype(dict.fromkeys(strings, "string"))
