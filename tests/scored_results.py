"""Tables of classes, boundaries and scores, made up, as a run leaves them for the report."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lumbarflow.evaluate.class_summary import summarise_classes
from lumbarflow.evaluate.film import BOUNDARIES, COUNTS, DETECTIONS, FOREGROUND, INSTANCES, RIGHT
from lumbarflow.evaluate.scores import score_reliability
from lumbarflow.evaluate.tables import pixel_tables
from lumbarflow.files import write_table

#: Structures of each class on a film that has it, and the side of one in pixels.
STRUCTURES = {
    **{"lumbar_vertebra": (6, 180), "sacral_vertebra": (1, 170), "cage": (1, 60)},
    **{"screw": (4, 40), "instrumentation": (2, 50)},
}
#: Every second film has a cage, and so on.
EVERY = {"cage": 2, "screw": 3, "instrumentation": 4}
VERTEBRAE = ("lumbar_vertebra", "sacral_vertebra")


def scored_tables(
    models: Sequence[str],
    films: Mapping[str, str],
    *,
    absent: Collection[str] = (),
    unpredicted: Mapping[str, Collection[str]] | None = None,
    invented: Mapping[str, Collection[str]] | None = None,
    without_spacing: int = 0,
    levels: bool = True,
    seed: int = 0,
) -> dict[str, pd.DataFrame]:
    """What the rule `evaluate` leaves of classes.

    Args:
        models: of which each errs more than the one before.
        films: patient_id of each test film.
        absent: classes that are annotated nowhere.
        unpredicted: by model, classes that it does not predict.
        invented: by model, absent classes that it predicts.
        without_spacing: so many of the films have none.
        levels: whether annotators named levels.
        seed: of the errors.

    Returns:
        The tables counts, boundaries, detections, instances, per_image, class_summary and
        score_reliability.
    """
    rng = np.random.default_rng(seed)
    rows: dict[str, list[dict]] = {
        name: [] for name in ("counts", "boundaries", "detections", "instances")
    }
    for place, model in enumerate(models):
        for number, image_id in enumerate(films):
            key = {"model": model, "image_id": image_id}
            unit = "px" if number < without_spacing else "mm"
            merged = dict.fromkeys(list(COUNTS)[3:], 0) | {"matched_iou": 0.0}
            for name, (count, side) in STRUCTURES.items():
                drawn = name not in absent and number % EVERY.get(name, 1) == 0
                seen = drawn or name in (invented or {}).get(model, ())
                seen = seen and name not in (unpredicted or {}).get(model, ())
                row = _counted(rng, count, side, drawn, seen, place)
                rows["counts"].append(key | {"class_name": name} | row)
                rows["boundaries"].append(key | {"class_name": name} | _bounded(rng, row, unit))
                if name in VERTEBRAE:
                    merged = {column: merged[column] + row[column] for column in row}
                for n in range(row["predicted_instances"]):
                    # Later networks are the more certain, and the less right.
                    score = rng.beta(4 + place, 1)
                    right = n < row["matched_instances"] and rng.random() < score**0.7
                    rows["detections"].append(
                        key
                        | {"instance_id": f"{image_id}-{name}-{n}", "class_name": name}
                        | {"score": score, "structure_id": "s0", "iou": 0.8 * right}
                        | {column: right and rng.random() < 1 - k / 9
                           for k, column in enumerate(RIGHT)}
                    )  # fmt: skip
            merged["n_pixels"] = 2500 * 1200
            rows["counts"].append(key | {"class_name": FOREGROUND} | merged)
            rows["boundaries"].append(
                key | {"class_name": FOREGROUND} | _bounded(rng, merged, unit)
            )
            rows["instances"] += _vertebrae(rng, key, merged, place, levels)
    types = {
        **{"counts": COUNTS, "boundaries": BOUNDARIES},
        **{"detections": DETECTIONS, "instances": INSTANCES},
    }
    tables = {
        name: pd.DataFrame(rows[name], columns=list(columns)).astype(columns)
        for name, columns in types.items()
    }
    patients = pd.DataFrame({"image_id": list(films), "patient_id": list(films.values())})
    tables["per_image"], _ = pixel_tables(tables["counts"])
    tables["class_summary"] = summarise_classes(tables, patients, seed=0, n_boot=30)
    tables["score_reliability"] = score_reliability(tables["detections"])
    return tables


def write_scored(results: Path, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write what the report reads of them; `per_image` and `instances` only where there is none."""
    for name, table in tables.items():
        path = results / f"metrics/{name}.parquet"
        if name not in ("per_image", "instances") or not path.exists():
            write_table(path, table)


def _counted(
    rng: np.random.Generator, count: int, side: int, drawn: bool, seen: bool, place: int
) -> dict[str, float]:
    reference, predicted = count * side**2 * drawn, int(count * side**2 * seen)
    agreeing = drawn and seen
    both = int(reference * rng.uniform(0.82, 0.97) * (1 - 0.02 * place)) if agreeing else 0
    pairs = int(rng.binomial(count, 0.95 - 0.05 * place)) if agreeing else 0
    return {
        **{"n_both": both, "n_reference": reference, "n_predicted": predicted},
        **{"n_pixels": 2500 * 1200, "reference_instances": count * drawn},
        **{"predicted_instances": count * seen, "matched_instances": pairs},
        "matched_iou": pairs * rng.uniform(0.75, 0.9),
    }


def _bounded(rng: np.random.Generator, row: Mapping[str, float], unit: str) -> dict:
    reference, predicted = row["n_reference"] > 0, row["n_predicted"] > 0
    scale = 1 if unit == "mm" else 7
    distance = scale * rng.gamma(2, 0.8) if reference and predicted else np.nan
    near = rng.uniform(0.6, 0.98) if reference and predicted else 0.0
    return {
        **{"unit": unit, "tolerance": float(scale)},
        **dict.fromkeys(list(BOUNDARIES)[5:9], 1.0),
        **{"hausdorff_95": distance, "mean_distance": distance / 3},
        "surface_dice": near if reference or predicted else np.nan,
    }


def _vertebrae(
    rng: np.random.Generator, key: Mapping[str, str], merged: Mapping, place: int, levels: bool
) -> list[dict]:
    rows = []
    for n in range(merged["reference_instances"]):
        found = merged["predicted_instances"] > n and rng.random() < 0.97 - 0.03 * place
        level = ("T12", "L1", "L2", "L3", "L4", "L5", "S1")[n % 7] if levels else None
        rows.append(
            {
                **key,
                **{"class_name": "lumbar_vertebra", "level": level, "matched_instance_id": f"i{n}"},
                **{"iou": 0.85 if found else 0.2, "level_probability": 0.9},
                "predicted_level": level if rng.random() < 0.9 else "L3",
                "waviness": 1.3 + 0.2 * rng.random() + 0.1 * place if found else np.nan,
                "reference_waviness": 1.1 + 0.1 * rng.random() if found else np.nan,
            }
        )
    return rows
