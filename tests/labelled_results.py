"""Tables of labelled and measured vertebrae, made up, as a run leaves them for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from lumbarflow.files import write_png, write_table

LEVELS = ("T12", "L1", "L2", "L3", "L4", "L5", "S1")
DISCS = [f"{above}/{below}" for above, below in pairwise(LEVELS[1:])]
#: name, sites, unit, typical value, standard deviation of errors and tolerance.
KINDS = (
    ("lordosis", ("L1-S1",), "deg", 48.0, 2.0, 5.0),
    ("sacral_slope", ("S1",), "deg", 38.0, 1.5, 5.0),
    ("segmental_angle", DISCS, "deg", 14.0, 1.5, 4.0),
    ("disc_height_anterior", DISCS, "mm", 11.0, 0.5, 1.5),
    ("disc_height_middle", DISCS, "mm", 9.5, 0.5, 1.5),
    ("disc_height_posterior", DISCS, "mm", 6.0, 0.5, 1.5),
    ("slip", DISCS, "mm", 0.8, 0.8, 3.0),
    ("slip_percent", DISCS, "%", 2.5, 2.0, 8.0),
    ("slip_grade", DISCS, "1", 0.0, 0.0, 0.5),
    ("wedge_ratio", LEVELS[1:6], "1", 0.96, 0.03, 0.1),
    ("genant_grade", LEVELS[1:6], "1", 0.0, 0.0, 0.5),
)
KEYS = ["image_id", "name", "site"]
CHANGED = {
    "patient_id": "string", "name": "string", "site": "string", "consecutive": "bool",
    "first_to_last": "bool", "study_day_from": "int64", "study_day_to": "int64",
    "value_from": "float64", "value_to": "float64", "change": "float64", "unit": "string",
    "smallest_detectable_change": "float64", "status": "string", "reason": "string",
}  # fmt: skip


def write_labelled(
    results: Path,
    models: Sequence[str],
    films: Mapping[str, str],
    seed: int = 0,
) -> None:
    """Write what the report reads of levels and measurements.

    Args:
        results: the results folder.
        models: of which the first errs least.
        films: patient_id of each test film.
        seed: of the errors.
    """
    rng = np.random.default_rng(seed)
    drawn = measured(rng, films)
    instances, compared = [], []
    for place, model in enumerate(models):
        instances.append(_instances(rng, model, films, 0.02 * place))
        table = drawn.copy()
        scale = 1 + 0.4 * place
        table["value"] += (
            scale
            * table["name"].map({kind[0]: kind[4] for kind in KINDS})
            * (rng.normal(size=len(table)))
        )
        table["confidence"] = rng.beta(8, 1 + place, len(table))
        table["status"] = np.where(table["confidence"] < 0.5, "uncertain", "measured")
        table["reason"] = np.where(table["status"] == "uncertain", "the level is not certain", "")
        lost = rng.random(len(table)) < 0.03 * (1 + place)
        table.loc[lost, "value"] = np.nan
        table.loc[lost, ["status", "reason"]] = "not_measurable", "S1 was not found"
        write_table(results / f"measurements/{model}.parquet", table)
        write_table(results / f"measurements/vertebrae/{model}.parquet", vertebrae(rng, films))
        write_table(results / f"measurements/changes/{model}.parquet", changes(table, films))
        for against in ("annotation", "truth"):
            compared.append(_compared(rng, model, against, table, drawn))
    write_table(results / "measurements/changes/annotation.parquet", changes(drawn, films))
    compared = pd.concat(compared, ignore_index=True)
    write_table(results / "metrics/instances.parquet", pd.concat(instances, ignore_index=True))
    write_table(results / "metrics/measurements.parquet", compared)
    write_table(results / "metrics/measurement_summary.parquet", _summary(compared))
    write_table(results / "metrics/reliability.parquet", _reliability(compared))
    picture = np.full((1300, 1100, 3), 60, np.uint8)
    picture[:, 700:] = 255
    for image_id in films:
        write_png(results / f"measurements/overlays/{models[0]}/{image_id}.png", picture)


def measured(rng: np.random.Generator, films: Mapping[str, str]) -> pd.DataFrame:
    """Rows of `measurements/{source}.parquet`, all of them measured."""
    rows = [
        {
            **{"image_id": image_id, "name": name, "site": site, "unit": unit},
            "value": value if name.endswith("grade") else value * rng.normal(1, 0.15),
            **{"confidence": 1.0, "status": "measured", "reason": ""},
        }
        for image_id in films
        for name, sites, unit, value, *_ in KINDS
        for site in sites
    ]
    return pd.DataFrame(rows)


def vertebrae(rng: np.random.Generator, films: Mapping[str, str]) -> pd.DataFrame:
    """Rows of `measurements/vertebrae/{source}.parquet`."""
    rows = [
        {
            **{"image_id": image_id, "instance_id": f"{image_id}-{n}", "level": level},
            "class_name": "sacral_vertebra" if level == "S1" else "lumbar_vertebra",
            "level_probability": rng.beta(30, 1),
            **{"anterior": "right", "anterior_probability": 0.99, "flags": "possible_l6"},
        }
        for image_id in films
        for n, level in enumerate(LEVELS)
    ]
    return pd.DataFrame(rows).astype({"level": "string"})


def changes(table: pd.DataFrame, films: Mapping[str, str]) -> pd.DataFrame:
    """Rows of `measurements/changes/{source}.parquet`: a film a day, 180 days apart."""
    tolerances = {kind[0]: kind[5] for kind in KINDS}
    by_film = dict(iter(table.groupby("image_id")))
    rows = []
    for patient in sorted(set(films.values())):
        days = [image_id for image_id in films if films[image_id] == patient]
        for k, (before, after) in enumerate(pairwise(days)):
            both = by_film[before].merge(by_film[after], on=["name", "site", "unit"])
            both["change"] = both["value_y"] - both["value_x"]
            for row in both.rename(columns={"name": "kind"}).itertuples():
                limit = tolerances[row.kind]
                status = "changed" if abs(row.change) > limit else "within_error"
                rows.append(
                    {
                        **{"patient_id": patient, "name": row.kind, "site": row.site},
                        **{"consecutive": True, "first_to_last": len(days) == 2},
                        **{"study_day_from": 180 * k, "study_day_to": 180 * (k + 1)},
                        **{"value_from": row.value_x, "value_to": row.value_y, "unit": row.unit},
                        **{"change": row.change, "smallest_detectable_change": limit},
                        "status": "not_comparable" if np.isnan(row.change) else status,
                        "reason": "not measurable" if np.isnan(row.change) else "",
                    }
                )
    return pd.DataFrame(rows, columns=list(CHANGED)).astype(CHANGED)


def _instances(
    rng: np.random.Generator, model: str, films: Mapping[str, str], wrong: float
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
                    "iou_unrepaired": 0.3 if lost or rng.random() < 0.2 else 0.9,
                    "level_unrepaired": given if rng.random() > 0.1 else None,
                }
            )
    strings = ["level", "predicted_level", "level_unrepaired"]
    return pd.DataFrame(rows).astype(dict.fromkeys(strings, "string"))


def _compared(
    rng: np.random.Generator, model: str, against: str, table: pd.DataFrame, drawn: pd.DataFrame
) -> pd.DataFrame:
    both = table.merge(drawn[[*KEYS, "value"]].rename(columns={"value": "reference"}), on=KEYS)
    if against == "truth":
        both["reference"] += 0.1 * rng.normal(size=len(both))
    both["error"] = both["value"] - both["reference"]
    both["tolerance"] = both["name"].map({kind[0]: kind[5] for kind in KINDS})
    both["right"] = (both["error"].abs() <= both["tolerance"]).astype("boolean")
    both["right"] = both["right"].mask(both["error"].isna())
    return both.assign(model=model, against=against)


def _summary(compared: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (model, against, name, unit), table in compared.groupby(
        ["model", "against", "name", "unit"]
    ):
        errors = table["error"].dropna()
        spread = 1.96 * errors.std()
        metrics = {
            "share_measurable": (table["value"].notna().mean(), len(table)),
            "bias": (errors.mean(), len(errors)),
            "mae": (errors.abs().mean(), len(errors)),
            "limit_low": (errors.mean() - spread, len(errors)),
            "limit_high": (errors.mean() + spread, len(errors)),
            "icc": (0.95, len(errors)),
        }
        for metric, (value, n) in metrics.items():
            rows.append(
                {
                    **{"model": model, "against": against, "name": name, "site": "all"},
                    **{"unit": unit, "metric": metric, "value": value, "n": n},
                    **{"ci_low": value - 0.2, "ci_high": value + 0.2},
                }
            )
    return pd.DataFrame(rows)


def _reliability(compared: pd.DataFrame) -> pd.DataFrame:
    judged = compared[compared["right"].notna()]
    rows = []
    for (model, against), table in judged.groupby(["model", "against"]):
        for low, high in ((0, 0.6), (0.6, 0.8), (0.8, 0.9), (0.9, 1.01)):
            inside = table[(table["confidence"] >= low) & (table["confidence"] < high)]
            if len(inside):
                right = float(inside["right"].mean())
                rows.append(
                    {
                        **{"model": model, "against": against, "bin_low": low, "bin_high": high},
                        **{"n": len(inside), "confidence": inside["confidence"].mean()},
                        **{"right": right, "ci_low": max(0, right - 0.1)},
                        "ci_high": min(1, right + 0.05),
                    }
                )
    return pd.DataFrame(rows)
