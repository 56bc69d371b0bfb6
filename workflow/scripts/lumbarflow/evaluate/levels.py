"""How often vertebrae get the right level, and films are shifted as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..annotate.spine import RANK, skipped
from ..measure.anatomy import Body, Vertebra
from ..measure.bodies import iou_matrix
from .metrics import match_instances

#: A reference vertebra is found by the body with which it has this intersection over union.
MIN_IOU = 0.5
#: What :func:`confusion` calls a vertebra that no body matches, and one without a level.
MISSED, UNNAMED = "missed", "unnamed"

#: Columns of :func:`level_table` and their types; a row is a reference vertebra.
LEVELS = {
    "model": "string",
    "image_id": "string",
    "reference_id": "string",  # its structure_id
    "reference_level": "string",
    "matched_id": "string",  # instance_id; null where `matched` is false
    "iou": "float64",  # with that body; the best one where none matches
    "matched": "bool",
    "predicted_level": "string",  # null where not matched or not named
    "probability": "Float64",  # of the predicted level; null without one
    "correct": "boolean",  # whether found with its level; null where the reference has no level
}
#: Columns of :func:`film_table` and their types; a row is a film of a model.
FILMS = {
    "model": "string",
    "image_id": "string",
    "n_reference": "int64",  # vertebrae with a level
    "n_matched": "int64",
    "n_correct": "int64",
    "shift": "Int64",  # see `shifted`
    "shifted_by_one": "bool",
}
#: Columns of :func:`summarise` and their types; a row is a model. Shares are fractions.
SUMMARY = {
    "model": "string",
    "n_films": "int64",
    "n_reference": "int64",
    "n_matched": "int64",
    "n_correct": "int64",
    "share_matched": "float64",  # of the reference vertebrae
    "share_correct": "float64",  # of the matched ones
    "recognition_rate": "float64",  # of the reference ones: found, and with the right level
    "n_shifted_by_one": "int64",
    "share_shifted_by_one": "float64",  # of the films
}
#: Columns of :func:`confusion` and their types.
CONFUSION = {
    "model": "string",
    "reference_level": "string",
    "predicted_level": "string",  # or MISSED or UNNAMED
    "count": "int64",
}
#: Columns of :func:`reliability` and their types; a row is a bin of a model that is not empty.
RELIABILITY = {
    "model": "string",
    "low": "float64",
    "high": "float64",
    "n": "int64",
    "mean_probability": "float64",
    "share_correct": "float64",
}


def level_table(
    model: str, image_id: str, reference: Sequence[Body], vertebrae: Sequence[Vertebra]
) -> pd.DataFrame:
    """Compare the levels on one film with the reference.

    Bodies are matched one to one, whatever their classes and levels, by descending intersection
    over union of their masks.

    Args:
        model: name of the model.
        image_id: pseudonym of the film.
        reference: annotated vertebrae, with their levels.
        vertebrae: the predicted chain.

    Returns:
        The columns of :data:`LEVELS`, in the order of `reference`.
    """
    overlaps = iou_matrix(reference, [vertebra.body for vertebra in vertebrae])
    best = overlaps.max(axis=1, initial=0.0)
    rows = []
    for k, at in enumerate(match_instances(np.where(overlaps >= MIN_IOU, overlaps, 0.0))):
        body, found = reference[k], vertebrae[at] if at >= 0 else None
        level = None if found is None else found.level
        rows.append(
            {
                "model": model,
                "image_id": image_id,
                "reference_id": body.instance_id,
                "reference_level": body.level,
                "matched_id": None if found is None else found.body.instance_id,
                "iou": best[k] if found is None else overlaps[k, at],
                "matched": found is not None,
                "predicted_level": level,
                "probability": None if level is None else found.level_probability,
                "correct": None if body.level is None else level == body.level,
            }
        )
    return pd.DataFrame(rows, columns=list(LEVELS)).astype(LEVELS)


def of_instances(instances: pd.DataFrame) -> pd.DataFrame:
    """The same of `metrics/instances.parquet`, whose matches may overlap less.

    Args:
        instances: model, image_id, level, matched_instance_id, iou, predicted_level and
            level_probability of each reference vertebra.

    Returns:
        The columns of :data:`LEVELS`; `reference_id` is null.
    """
    matched = instances["iou"] >= MIN_IOU
    told = instances["predicted_level"].where(matched)
    return pd.DataFrame(
        {
            "model": instances["model"],
            "image_id": instances["image_id"],
            "reference_id": None,
            "reference_level": instances["level"],
            "matched_id": instances["matched_instance_id"].where(matched),
            "iou": instances["iou"],
            "matched": matched,
            "predicted_level": told,
            "probability": instances["level_probability"].where(told.notna()),
            "correct": (told == instances["level"]).fillna(False).mask(instances["level"].isna()),
        }
    ).astype(LEVELS)


def shifted(film: pd.DataFrame) -> int | None:
    """By how many levels a film's labels are shifted as a whole.

    Args:
        film: rows of :func:`level_table` of one film and model.

    Returns:
        The number of levels, negative towards the head, by which more than half of the matched
        vertebrae are shifted alike (0: they are right); None where there is no such number. L6 and
        T13 count as levels where one of them is the reference or told instead of it, not where they
        lie between: from L5 to S1 is one step, as is from L6 to S1.
    """
    film = film[film["matched"] & film["reference_level"].notna()]
    if film.empty:
        return None
    named = film.dropna(subset="predicted_level")
    steps = Counter(map(level_steps, named["reference_level"], named["predicted_level"]))
    step, count = max(steps.items(), key=lambda item: item[1], default=(None, 0))
    return step if 2 * count > len(film) else None


def film_table(levels: pd.DataFrame) -> pd.DataFrame:
    """Count a table of :func:`level_table`'s rows by model and film.

    Returns:
        The columns of :data:`FILMS`, by model and film in their first order.
    """
    rows = []
    for (model, image_id), film in levels.groupby(["model", "image_id"], sort=False):
        named = film[film["reference_level"].notna()]
        shift = shifted(film)
        rows.append(
            {
                "model": model,
                "image_id": image_id,
                "n_reference": len(named),
                "n_matched": int(named["matched"].sum()),
                "n_correct": int(named["correct"].sum()),
                "shift": shift,
                "shifted_by_one": shift in (-1, 1),
            }
        )
    return pd.DataFrame(rows, columns=list(FILMS)).astype(FILMS)


def summarise(films: pd.DataFrame) -> pd.DataFrame:
    """Sum the rows of :func:`film_table` by model.

    Returns:
        The columns of :data:`SUMMARY`; a share of nothing is NaN.
    """
    groups = films.groupby("model", sort=False)
    table = groups[["n_reference", "n_matched", "n_correct"]].sum()
    table["n_films"] = groups.size()
    table["n_shifted_by_one"] = groups["shifted_by_one"].sum()
    for share, part, whole in (
        ("share_matched", "n_matched", "n_reference"),
        ("share_correct", "n_correct", "n_matched"),
        ("recognition_rate", "n_correct", "n_reference"),
        ("share_shifted_by_one", "n_shifted_by_one", "n_films"),
    ):
        table[share] = table[part] / table[whole].where(table[whole] > 0)
    return table.reset_index()[list(SUMMARY)].astype(SUMMARY)


def confusion(levels: pd.DataFrame) -> pd.DataFrame:
    """How often each level was taken for which.

    Args:
        levels: rows of :func:`level_table`.

    Returns:
        The columns of :data:`CONFUSION`: the pairs that occur, from head to foot.
    """
    levels = levels[levels["reference_level"].notna()]
    told = levels["predicted_level"].fillna(UNNAMED).where(levels["matched"], MISSED)
    pairs = levels[["model", "reference_level"]].assign(predicted_level=told)
    table = pairs.value_counts(sort=False).rename("count").reset_index()
    order = RANK | {UNNAMED: len(RANK), MISSED: len(RANK) + 1}
    models = {model: k for k, model in enumerate(levels["model"].unique())}
    table = table.sort_values(
        ["model", "reference_level", "predicted_level"],
        key=lambda column: column.map(models if column.name == "model" else order),
        ignore_index=True,
    )
    return table[list(CONFUSION)].astype(CONFUSION)


def reliability(levels: pd.DataFrame, bins: int = 10) -> pd.DataFrame:
    """Whether levels are right as often as their probabilities say.

    Args:
        levels: rows of :func:`level_table`; those matched, named and with a reference level count.
        bins: number of bins of equal width between 0 and 1.

    Returns:
        The columns of :data:`RELIABILITY`; the expected calibration error is the mean of the
        distances of the last two, weighted by n (Naeini et al., AAAI 2015).
    """
    named = levels.dropna(subset=["predicted_level", "reference_level"])
    place = np.minimum((named["probability"].astype(float) * bins).astype(int), bins - 1)
    rows = [
        {
            "model": model,
            "low": at / bins,
            "high": (at + 1) / bins,
            "n": len(part),
            "mean_probability": part["probability"].mean(),
            "share_correct": part["correct"].mean(),
        }
        for model, of_model in named.groupby("model", sort=False)
        for at, part in of_model.groupby(place)
    ]
    return pd.DataFrame(rows, columns=list(RELIABILITY)).astype(RELIABILITY)


def level_steps(reference: str, told: str) -> int:
    """Levels from the reference down to the one told."""
    upper, lower = sorted((RANK[reference], RANK[told]))
    if upper == lower:
        return 0
    count = len(skipped(upper, lower)) + 1
    return count if RANK[told] == lower else -count
