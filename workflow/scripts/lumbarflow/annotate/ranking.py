"""Which films to annotate next: those that teach the networks most.

The networks are a committee (Seung, Opper and Sompolinsky, "Query by committee", COLT 1992): where
they disagree, or are unsure, at least some of them have something to learn. Films of a patient
resemble each other, so a patient's further films wait.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
from pycocotools import mask as coco_mask

from .. import runs
from ..files import read_json

COLUMNS = {
    "image_id": "string",
    "order": "int64",
    "score": "float64",
    "outline_disagreement": "float64",
    "count_disagreement": "float64",
    "low_confidence": "float64",
    "patient_films_before": "int64",
    "value": "float64",
    "models": "int64",
    "reason": "string",
}

DISCOUNT = 0.5
"""Factor of the score for each film of the same patient that is annotated or comes before."""


def rank(
    films: pd.DataFrame,
    annotated: Iterable[str],
    predictions: Mapping[str, pd.DataFrame],
    foreground: Sequence[str],
) -> pd.DataFrame:
    """The films that have no annotation, in the order in which annotating them helps most.

    The score is the mean of three parts from 0 to 1, the disagreement of pairs of networks being
    two of them:

    - outline_disagreement: 1 - Dice of the merged foregrounds, mean over the pairs;
    - count_disagreement: of all structures (by class, and level where it is known) that either of a
      pair counts, the share that the other does not count; mean over the pairs;
    - low_confidence: 1 - mean score of the instances, mean over the networks; 1 for a network that
      finds nothing.

    Parts that cannot be told are null and left out of the mean: with one network there are no
    pairs, with none all films count alike. The order is that of `value`, the score times
    :data:`DISCOUNT` for each film of the same patient that has an annotation or comes before.

    Args:
        films: image_id and patient_id of the accepted films.
        annotated: image_ids of the films that have annotations.
        predictions: the predictions of each network on all films without annotations, as in
            `predictions/{model}.parquet`.
        foreground: classes whose union is compared.

    Returns:
        A row a film, by order (from 1): the columns of :data:`COLUMNS`.
    """
    annotated = set(annotated)
    done = films["image_id"].isin(annotated)
    rows = films.loc[~done, ["image_id", "patient_id"]].sort_values("image_id")
    by_film = [dict(tuple(table.groupby("image_id"))) for table in predictions.values()]
    parts = [
        _parts([found.get(image_id) for found in by_film], foreground)
        for image_id in rows["image_id"]
    ]
    names = ["outline_disagreement", "count_disagreement", "low_confidence"]
    rows[names] = pd.DataFrame(parts, columns=names, index=rows.index, dtype="float64")
    rows["score"] = rows[names].mean(axis=1)
    rows["models"] = len(predictions)
    # Within a patient the value falls from film to film, so one sort does what choosing the best
    # film again and again would do.
    rows = rows.sort_values("score", ascending=False, kind="stable")
    before = films.loc[done, "patient_id"].value_counts()
    rows["patient_films_before"] = rows.groupby("patient_id").cumcount() + rows["patient_id"].map(
        before
    ).fillna(0).astype("int64")
    rows["value"] = rows["score"].fillna(1.0) * DISCOUNT ** rows["patient_films_before"]
    rows = rows.sort_values("value", ascending=False, kind="stable")
    rows["order"] = range(1, len(rows) + 1)
    rows["reason"] = [_reason(row) for row in rows.to_dict("records")]
    return rows[list(COLUMNS)].astype(COLUMNS).reset_index(drop=True)


def unannotated(manifest: pd.DataFrame, records: str | Path | None) -> list[str]:
    """The image_ids of accepted films without a record in the folder `records`, in order."""
    accepted = manifest.loc[manifest["status"] == "accepted", "image_id"]
    annotated = {path.stem for path in Path(records).glob("*.json")} if records else set()
    return sorted(set(accepted) - annotated)


def best_model(runs: Mapping[str, str | Path]) -> str | None:
    """The network with the best validation Dice, the first of equals; None if there is none.

    Args:
        runs: the `run.json` of each trained network, in the order of the configuration.
    """
    dice = {model: read_json(path)["best_validation_dice"] for model, path in runs.items()}
    return max(dice, key=dice.__getitem__, default=None)


def _parts(
    tables: Sequence[pd.DataFrame | None], foreground: Sequence[str]
) -> tuple[float | None, float | None, float | None]:
    """Disagreement on outlines and on counts, and low confidence, of the networks on one film."""
    if not tables:
        return None, None, None
    masks = [merged(table, foreground) for table in tables]
    counts = [_counts(table) for table in tables]
    unsure = [1 - (0.0 if table is None else float(table["score"].mean())) for table in tables]
    pairs = list(combinations(range(len(tables)), 2))
    return (
        _mean(1 - dice(masks[a], masks[b]) for a, b in pairs),
        _mean(_count_difference(counts[a], counts[b]) for a, b in pairs),
        _mean(unsure),
    )


def _mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return sum(values) / len(values) if values else None


def merged(table: pd.DataFrame | None, foreground: Sequence[str]) -> Any:
    """The union of the foreground as COCO RLE; None if it is empty. Never decoded: it is fast."""
    if table is None:
        return None
    codes = [
        runs.of_string(row.rle_counts, row.rle_height, row.rle_width)
        for row in table[table["class_name"].isin(foreground)].itertuples()
    ]
    return coco_mask.merge(codes) if codes else None


def dice(a: Any, b: Any) -> float:
    """Dice of two masks in COCO RLE; 1 if both are empty."""
    if a is None or b is None:
        return float(a is b)
    common = coco_mask.area(coco_mask.merge([a, b], intersect=True))
    total = coco_mask.area(a) + coco_mask.area(b)
    return float(2 * common / total) if total else 1.0


def _counts(table: pd.DataFrame | None) -> Counter:
    if table is None:
        return Counter()
    return Counter(zip(table["class_name"], table["level"].fillna(""), strict=True))


def _count_difference(a: Counter, b: Counter) -> float:
    either = (a | b).total()
    return 1 - (a & b).total() / either if either else 0.0


def _reason(row: Mapping[str, Any]) -> str:
    """In words: the part that counts most, and what the patient's other films change."""
    if row["models"] == 0:
        text = "no trained network yet"
    else:
        said = {
            "outline_disagreement": "the networks' outlines differ (mean Dice {:.2f})",
            "count_disagreement": "the networks find different structures ({:.2f} in common)",
            "low_confidence": "the networks are unsure (mean score {:.2f})",
        }
        known = {name: row[name] for name in said if not pd.isna(row[name])}
        most = max(known, key=known.__getitem__)
        text = said[most].format(1 - known[most])
    if before := row["patient_films_before"]:
        text += f"; {before} other film{'s' * (before > 1)} of the patient before"
    return text
