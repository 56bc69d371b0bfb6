"""The section of the report on classes, their boundaries and the networks' scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..evaluate.film import FOREGROUND
from ..evaluate.scores import ALL
from ..evaluate.tables import METRICS as PIXEL_METRICS
from .classes_figures import MIN_FILMS, film_scores, score_curves
from .comparison import SCORES
from .reading import read_table


class _Metric(NamedTuple):
    """How a metric of `metrics/class_summary` is shown.

    Attributes:
        title: may hold `{unit}` and `{tolerance}`.
        of: what `n` counts, told where it differs between networks; "" where it need not be told.
        better: of two values; None where neither is.
        percent: whether it is a fraction, shown in percent; otherwise with two decimals, or one
            where the unit is a pixel.
        same: whether networks can be ranked only where all have a value of as many things, for
            those that a network fails on have none.
    """

    title: str
    of: str = ""
    better: Callable[..., float] | None = max
    percent: bool = True
    same: bool = False


#: The columns of the tables, in their order.
METRICS = {
    "iou": _Metric("IoU", "film"),
    "dice": _Metric("Dice", "film"),
    "surface_dice": _Metric("Surface Dice at {tolerance}", "film"),
    "hausdorff_95": _Metric("Hausdorff 95%, {unit}", "film", min, percent=False, same=True),
    "ap": _Metric("AP"),
    "ap_50": _Metric("AP at\N{NO-BREAK SPACE}0.5"),
    "panoptic_quality": _Metric("Panoptic quality"),
    "recognition_rate": _Metric("Recognition rate", "vertebra"),
    "waviness": _Metric("Waviness", "vertebra", None, percent=False),
    "reference_waviness": _Metric("Waviness, annotated", "", None, percent=False),
    "calibration_error": _Metric("Calibration error", "", min),
}
#: Scores of the drawing of all films, in its order, and their titles.
FILM_METRICS = {name: title for name, title in SCORES.items() if name in PIXEL_METRICS}
_TITLES = {FOREGROUND: "Merged mask of the vertebrae", ALL: "All classes"}
_PLURALS = {"film": "films", "vertebra": "vertebrae"}


def classes_section(
    results: Path,
    models: Sequence[str],
    titles: Mapping[str, str],
    colours: Mapping[str, str],
) -> dict[str, Any]:
    """What the template shows of classes, boundaries and scores.

    Args:
        results: the results folder; read are the splits and the tables class_summary, counts,
            boundaries, per_image and score_reliability of `metrics`.
        models: to show, in the order of the rows.
        titles: display name of each model.
        colours: CSS colour of each class, in configuration order.

    Returns:
        notes: sentences on what is missing; classes: {"title", "colour", "note"} with the table of
        :func:`_class_table`, the merged mask first, then each class that is annotated or predicted,
        then all together; films: {"drawing", "alt", "least", "columns", "rows"} of the
        distributions, least being the films that a bar takes and rows {"name", "cells": [{"median",
        "quartiles", "range"}]}; scores: {"drawing", "alt",
        "columns", "rows"} of the calibration, rows being {"range", "cells": [{"right", "interval",
        "of"}]}, a column a network, or None where no network predicted anything.

    Raises:
        InputError: a table is missing.
    """
    tables = {
        name: _of(read_table(results / f"metrics/{name}.parquet"), models)
        for name in ("class_summary", "counts", "boundaries", "per_image", "score_reliability")
    }
    splits = read_table(results / "splits.parquet")
    test = tables["per_image"]["image_id"].unique()
    patients = splits.loc[splits["image_id"].isin(test), "patient_id"].nunique()
    # Of a single patient, too, see `_cells`.
    summary = tables["class_summary"]
    if patients < 2:
        summary = summary.assign(ci_low=np.nan, ci_high=np.nan)
    tolerances = tables["boundaries"].groupby("unit")["tolerance"].first().to_dict()
    drawn = tables["counts"][tables["counts"]["reference_instances"] > 0]
    films_with = drawn.groupby("class_name")["image_id"].nunique().to_dict()
    found = [name for name in (FOREGROUND, *colours, ALL) if (summary["class_name"] == name).any()]
    scores = tables["score_reliability"]
    return {
        "notes": _notes(tables, models, titles, list(colours), films_with, patients),
        "classes": [
            {
                "title": class_title(name),
                "colour": colours.get(name),
                "note": _note(films_with.get(name, 0), len(test))
                if name != ALL
                else "Means over the classes; the calibration error is of all instances",
            }
            | _class_table(summary[summary["class_name"] == name], models, titles, tolerances)
            for name in found
        ],
        "films": _films(tables["per_image"], models, titles),
        "scores": _scores(scores[scores["class_name"] == ALL], summary, models, titles),
    }


def class_title(name: str) -> str:
    """`lumbar_vertebra` as `Lumbar vertebra`; what tables have besides classes in words."""
    words = _TITLES.get(name, name.replace("_", " "))
    return words[:1].upper() + words[1:]


def _of(table: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    return table[table["model"].isin(models)]


# Classes ----------------------------------------------------------------------------------------


def _note(number: int, films: int) -> str:
    if not number:
        return "Annotated on no test film"
    return f"Annotated on {number} of {films} test films" if films > 1 else "Annotated on the film"


def _class_table(
    summary: pd.DataFrame,
    models: Sequence[str],
    titles: Mapping[str, str],
    tolerances: Mapping[str, float],
) -> dict[str, Any]:
    """The table of one class.

    Args:
        summary: rows of `metrics/class_summary` of the class.
        models, titles: as of :func:`classes_section`.
        tolerances: of surface Dice, by unit.

    Returns:
        columns: titles of the metrics that any network has; rows: {"name", "cells": [{"value",
        "interval", "of", "best"}]}, a row a network; of tells what is behind a value where this
        differs between networks.
    """
    known = {(row["metric"], row["unit"], row["model"]): row for row in summary.to_dict("records")}
    columns, cells = [], []
    for metric, shown in METRICS.items():
        for unit in sorted({key[1] for key in known if key[0] == metric}):
            tolerance = (
                f"{tolerances[unit]:g}\N{NO-BREAK SPACE}{unit}" if unit in tolerances else ""
            )
            columns.append(shown.title.format(unit=unit, tolerance=tolerance))
            cells.append(_cells([known.get((metric, unit, model)) for model in models], shown))
    return {
        "columns": columns,
        "rows": [
            {"name": titles[model], "cells": [column[place] for column in cells]}
            for place, model in enumerate(models)
        ],
    }


def _cells(rows: Sequence[Mapping[str, Any] | None], shown: _Metric) -> list[dict[str, Any]]:
    """A metric of every network; None is one that has no such figure."""
    known = [row for row in rows if row is not None]
    counts = {row["n"] for row in known}
    scale = 100 if shown.percent else 1
    decimals = 2 if not shown.percent and all(row["unit"] != "px" for row in known) else 1
    values = [round(scale * row["value"], decimals) for row in known]
    ranked = len(known) > 1 and shown.better is not None
    if shown.same:
        ranked = ranked and len(known) == len(rows) and len(counts) == 1
    best = shown.better(values) if ranked else None
    cells = []
    for row in rows:
        if row is None:
            cells.append({"value": "–", "interval": "", "of": "", "best": False})
            continue
        low, high = scale * row["ci_low"], scale * row["ci_high"]
        # All resamples of a single film are alike: an interval would feign certainty.
        known = not np.isnan([low, high]).any() and not (shown.of == "film" and row["n"] == 1)
        interval = f"{low:.{decimals}f}–{high:.{decimals}f}" if known else ""
        value = round(scale * row["value"], decimals)
        cells.append(
            {
                "value": f"{value:.{decimals}f}",
                "interval": interval,
                "of": _count(row["n"], shown.of) if shown.of and len(counts) > 1 else "",
                "best": value == best,
            }
        )
    return cells


# Drawings ---------------------------------------------------------------------------------------


def _films(
    per_image: pd.DataFrame, models: Sequence[str], titles: Mapping[str, str]
) -> dict[str, Any]:
    """The distributions over the films, see :func:`classes_section`."""
    of_model = dict(iter(per_image.groupby("model")))
    scores = {
        title: {
            titles[model]: 100 * of_model[model][metric].dropna().to_numpy(float)
            for model in models
        }
        for metric, title in FILM_METRICS.items()
    }
    rows = [
        {
            "name": titles[model],
            "cells": [_distribution(of_network[titles[model]]) for of_network in scores.values()],
        }
        for model in models
    ]
    medians = ", ".join(f"{row['name']} {row['cells'][0]['median']}" for row in rows)
    return {
        "drawing": film_scores(scores),
        "alt": f"Scores of every test film by network. Median mean IoU in percent: {medians}.",
        "least": MIN_FILMS,
        "columns": list(scores),
        "rows": rows,
    }


def _distribution(scores: np.ndarray) -> dict[str, str]:
    if not len(scores):
        return {"median": "–", "quartiles": "", "range": ""}
    least, low, middle, high, most = np.percentile(scores, [0, 25, 50, 75, 100])
    return {
        "median": f"{middle:.1f}",
        "quartiles": f"{low:.1f}–{high:.1f}",
        "range": f"{least:.1f}–{most:.1f}",
    }


def _scores(
    reliability: pd.DataFrame,
    summary: pd.DataFrame,
    models: Sequence[str],
    titles: Mapping[str, str],
) -> dict[str, Any] | None:
    """The calibration of the scores over all classes, see :func:`classes_section`."""
    of_model = dict(iter(reliability.groupby("model")))
    shown = [model for model in models if model in of_model]
    if not shown:
        return None
    chosen = (summary["class_name"] == ALL) & (summary["metric"] == "calibration_error")
    errors = summary[chosen].set_index("model")["value"]
    told = ", ".join(f"{titles[name]} {100 * errors[name]:.1f}" for name in shown if name in errors)
    bins = {
        (row["bin_low"], row["bin_high"], row["model"]): row
        for row in reliability.to_dict("records")
    }
    ranges = sorted({key[:2] for key in bins})
    return {
        "drawing": score_curves({titles[model]: of_model[model] for model in shown}),
        "alt": "Share of right instances by their score, a panel for each network. "
        f"Calibration error in percent: {told}.",
        "columns": [titles[model] for model in shown],
        "rows": [
            {
                "range": f"{low:.2f} to {high:.2f}",
                "cells": [_share(bins.get((low, high, model))) for model in shown],
            }
            for low, high in ranges
        ],
    }


def _share(row: Mapping[str, Any] | None) -> dict[str, str]:
    if row is None:
        return {"right": "–", "interval": "", "of": ""}
    return {
        "right": f"{100 * row['right']:.1f}",
        "interval": f"{100 * row['ci_low']:.1f}–{100 * row['ci_high']:.1f}",
        "of": _count(row["n"], "instance"),
    }


# What is missing --------------------------------------------------------------------------------


def _notes(
    tables: Mapping[str, pd.DataFrame],
    models: Sequence[str],
    titles: Mapping[str, str],
    classes: Sequence[str],
    films_with: Mapping[str, int],
    patients: int,
) -> list[str]:
    """Sentences on what the cohort or the networks lack."""
    summary, boundaries, counts = (
        tables[name] for name in ("class_summary", "boundaries", "counts")
    )
    films = tables["per_image"]["image_id"].nunique()
    notes = []
    if len(models) == 1:
        notes.append("There is one network only: its figures have nothing to be compared with.")
    if films == 1:
        notes.append(
            "There is one test film only: the figures describe it and say nothing about others, "
            "and there are no intervals."
        )
    elif patients == 1:
        notes.append("The test films are of one patient: there are no intervals.")
    predicted = counts[counts["predicted_instances"] > 0].groupby("class_name")["model"].unique()
    absent = [name for name in classes if name not in films_with]
    empty = [name for name in absent if name not in predicted]
    if empty:
        notes.append(f"Neither annotated nor predicted on the test films: {_listed(empty)}.")
    false = [name for name in absent if name in predicted]
    if false:
        notes.append(
            f"Annotated on no test film, though predicted: {_listed(false)}. All of that is false, "
            "and there is no average precision."
        )
    for name in (name for name in classes if name in films_with):
        without = [titles[model] for model in models if model not in predicted.get(name, ())]
        if without:
            networks = "any network" if len(without) == len(models) else " or ".join(without)
            notes.append(
                f"{class_title(name)}: not predicted by {networks} on the test films: boundaries "
                "have no distance there."
            )
    in_pixels = boundaries.loc[boundaries["unit"] == "px", "image_id"].nunique()
    if in_pixels == films:
        which = "this film is not" if films == 1 else "no test film is"
        notes.append(
            f"The pixel spacing of {which} known: distances are in pixels and have no common scale."
        )
    elif in_pixels:
        notes.append(
            f"The pixel spacing of {_count(in_pixels, 'test film')} is not known: boundaries on "
            f"{'it' if in_pixels == 1 else 'them'} are measured in pixels, apart from the others."
        )
    for metric, sentence in {
        "recognition_rate": "The annotators named no level on the test films: there is no "
        "recognition rate.",
        "waviness": "No vertebra was found by any network: there is no waviness.",
    }.items():
        if not (summary["metric"] == metric).any():
            notes.append(sentence)
    return notes


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in names)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun if number == 1 else _PLURALS.get(noun, noun + 's')}"
