"""The section of the report on differences between networks, by stratum, and on their errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..evaluate.failures import KINDS
from ..evaluate.statistics import ALPHA, FAMILIES
from ..evaluate.strata import STRATA
from .comparison_figures import strata_plot
from .reading import read_table

#: The metric of the tables and drawings that show one alone.
METRIC = "mean_iou"
#: Titles of the scores, in the order of the page.
SCORES = {
    METRIC: "Mean IoU",
    "dice": "Dice",
    "pixel_accuracy": "Pixel accuracy",
    "mean_accuracy": "Mean accuracy",
    "frequency_weighted_iou": "Frequency weighted IoU",
    "recognition_rate": "Vertebrae recognised",
}
#: Titles of strata and of their values.
STRATUM_TITLES = {
    "implants": "Implants",
    "degeneration": "Degeneration",
    "fracture": "Fracture",
    "overlap": "Overlapping bodies",
}
KIND_TITLES = {
    "missed": "Missed",
    "extra": "Extra",
    "fused": "Fused",
    "split": "Split",
    "level_shifted": "Level shifted",
    "leaking_outline": "Leaking outline",
    "implant_as_bone": "Implant as bone",
}
#: Films listed; all of them are in metrics/film_ranking.parquet.
MAX_FILMS = 10
#: With fewer patients no signed rank test can reach 5 %.
MIN_PATIENTS = 6


def comparison_section(
    results: Path, models: Sequence[str], titles: Mapping[str, str]
) -> dict[str, Any]:
    """What the template shows of the differences between networks.

    Args:
        results: the results folder; read are the tables comparisons, strata, errors and
            film_ranking of `metrics`.
        models: to show, in the order of the columns.
        titles: display name of each model.

    Returns:
        notes: sentences on what is missing; metric: title of the score that pairs and strata are
        shown of; pairs: {"name", "significant"} and the texts of :func:`_texts` of every two
        networks; families: the same of semantic against instance networks, a row a score; details:
        {"metric", "rows"} with the pairs of the other scores; strata: {"title", "dependence",
        "rows"} of each stratum with several values, rows being {"value", "films", "patients",
        "detectable"} with the texts; observation: a sentence on what the paper observed, or None;
        drawing: address of the drawing of the strata, or None; errors: see :func:`_error_rows`;
        kinds: titles of its columns; films: see :func:`_film_rows`; n_films: how many there are.

    Raises:
        InputError: a table is missing.
    """
    tables = {
        name: read_table(results / f"metrics/{name}.parquet")
        for name in ("comparisons", "strata", "errors", "film_ranking")
    }
    shown = [*models, *FAMILIES]
    compared = tables["comparisons"]
    compared = compared[compared["a"].isin(shown) & compared["b"].isin(shown)]
    means = tables["strata"]
    means = means[means["model"].isin(models) & (means["metric"] == METRIC)]
    family = compared[(compared["kind"] == "family") & (compared["metric"] == METRIC)]
    pairs = {
        metric: [
            {"name": f"{titles[row['a']]} − {titles[row['b']]}"} | _texts(row)
            for row in _rows(compared, "pair", metric)
        ]
        for metric in SCORES
    }
    return {
        "notes": _notes(models, compared, means),
        "metric": SCORES[METRIC],
        "pairs": pairs[METRIC],
        "details": [
            {"metric": title, "rows": pairs[metric]}
            for metric, title in SCORES.items()
            if metric != METRIC and pairs[metric]
        ],
        "families": [
            {"name": title} | _texts(row)
            for metric, title in SCORES.items()
            for row in _rows(compared, "family", metric)
        ],
        "strata": [
            {
                "title": STRATUM_TITLES[stratum],
                "dependence": _p(part["interaction_p_holm"].iloc[0]),
                "rows": [
                    {
                        "value": row["value"],
                        "films": row["n_films"],
                        "patients": row["n_patients"],
                        "detectable": _points(row["detectable"], signed=False),
                    }
                    | _texts(row)
                    for row in part.to_dict("records")
                ],
            }
            for stratum in STRATA
            if len(part := family[family["stratum"] == stratum]) > 1
        ],
        "observation": _observation(family),
        "drawing": _drawing(means, models, titles),
        "kinds": [KIND_TITLES[kind] for kind in KINDS],
        "errors": _error_rows(tables["errors"], models, titles),
        "films": _film_rows(
            tables["film_ranking"].head(MAX_FILMS), tables["errors"], models, titles
        ),
        "n_films": len(tables["film_ranking"]),
    }


def _rows(compared: pd.DataFrame, kind: str, metric: str) -> list[dict[str, Any]]:
    """The comparisons of a kind on all films."""
    chosen = (compared["kind"] == kind) & (compared["metric"] == metric)
    return compared[chosen & (compared["stratum"] == "all")].to_dict("records")


def _texts(row: Mapping[str, Any]) -> dict[str, Any]:
    """A comparison in texts: both means in percent, the difference in percentage points."""
    low, high = (_points(row[end]) for end in ("ci_low", "ci_high"))
    return {
        "mean_a": f"{100 * row['mean_a']:.2f}",
        "mean_b": f"{100 * row['mean_b']:.2f}",
        "difference": _points(row["difference"]),
        "interval": "" if "–" in (low, high) else f"{low} to {high}",
        "effect": f"{row['rank_biserial']:+.2f}".replace("-", "−"),
        "p": _p(row["p"]),
        "p_holm": _p(row["p_holm"]),
        "significant": row["p_holm"] < ALPHA,
    }


def _notes(models: Sequence[str], compared: pd.DataFrame, means: pd.DataFrame) -> list[str]:
    if len(models) < 2:
        return ["There is one network only: it has nothing to be compared with."]
    notes = []
    whole = means[means["stratum"] == "all"]
    films, patients = int(whole["n_films"].max()), int(whole["n_patients"].max())
    if patients < MIN_PATIENTS:
        notes.append(
            f"There {'is' if films == 1 else 'are'} {_count(films, 'test film')} of "
            f"{_count(patients, 'patient')}: with fewer than {MIN_PATIENTS} patients no "
            "difference, however large, can be told from chance by these tests."
        )
    if not (compared["kind"] == "family").any():
        notes.append(
            "The networks are not of both families, semantic and instance: these are not compared."
        )
    small = means[means["n_patients"] < MIN_PATIENTS].drop_duplicates(["stratum", "value"])
    if patients >= MIN_PATIENTS and len(small):
        listed = ", ".join(
            f"{STRATUM_TITLES[row['stratum']].lower()} {row['value']} ({row['n_patients']})"
            for row in small.to_dict("records")
        )
        notes.append(
            f"Strata of fewer than {MIN_PATIENTS} patients, in which no difference can be told "
            f"from chance: {listed}."
        )
    for stratum, values in STRATA.items():
        part = means[means["stratum"] == stratum]
        found = [value for value in values if (part["value"] == value).any()]
        title = STRATUM_TITLES[stratum]
        if not found:
            notes.append(f"{title}: not known of any test film, for want of measurements.")
        elif len(found) == 1:
            notes.append(f"{title}: all test films are alike ({found[0]}).")
    return notes


def _observation(family: pd.DataFrame) -> str | None:
    """The paper's observation on degeneration beside what was found here."""
    rows = family[family["stratum"] == "degeneration"]
    if len(rows) < 2:
        return None
    found = ", ".join(
        f"{row['value']} {_points(row['difference'])}" for row in rows.to_dict("records")
    )
    p = rows["interaction_p"].iloc[0]
    if np.isnan(p):
        verdict = "There are too few patients to test whether it depends on the degree."
    elif p < ALPHA:
        verdict = f"The difference depends on the degree ({_is(p)})."
    else:
        verdict = (
            f"That it depends on the degree is not shown ({_is(p)}); the smallest difference that "
            "each stratum could have shown is in the table."
        )
    return (
        "The paper observed that instance networks do better where degeneration is severe, and "
        "semantic ones where it is mild. Here semantic less instance networks, by degeneration, in "
        f"percentage points of the mean IoU: {found}. {verdict}"
    )


def _drawing(means: pd.DataFrame, models: Sequence[str], titles: Mapping[str, str]) -> str | None:
    panels = {}
    for stratum, values in STRATA.items():
        part = means[means["stratum"] == stratum]
        found = [value for value in values if (part["value"] == value).any()]
        if len(found) < 2:
            continue
        by = part.set_index(["model", "value"])
        panels[STRATUM_TITLES[stratum]] = {
            "values": [
                f"{value}\n{_count(int(part.loc[part['value'] == value, 'n_films'].max()), 'film')}"
                for value in found
            ],
            "networks": {
                titles[model]: 100
                * by.reindex([(model, value) for value in found])[
                    ["mean", "ci_low", "ci_high"]
                ].to_numpy(float)
                for model in models
            },
        }
    return strata_plot(panels, f"{SCORES[METRIC]}, %") if panels else None


def _error_rows(
    errors: pd.DataFrame, models: Sequence[str], titles: Mapping[str, str]
) -> list[dict[str, Any]]:
    """A row a network: {"name", "cells": [{"count", "films", "before"}]}, a cell a kind.

    count is of the labelled bodies, films those that have it, before of the network's own masks;
    "" where that has no meaning.
    """
    rows = []
    for model in models:
        cells = []
        for kind in KINDS:
            found = errors[(errors["model"] == model) & (errors["kind"] == kind)]
            after = found[found["stage"] == "labelled"]
            before = "" if kind == "level_shifted" else str(len(found) - len(after))
            cells.append(
                {"count": len(after), "films": after["image_id"].nunique(), "before": before}
            )
        rows.append({"name": titles[model], "cells": cells})
    return rows


def _film_rows(
    ranking: pd.DataFrame,
    errors: pd.DataFrame,
    models: Sequence[str],
    titles: Mapping[str, str],
) -> list[dict[str, Any]]:
    """The films of `ranking`: {"image_id", "error", "disagreement", "best", "worst", "kinds"}.

    error and disagreement in percent, the latter with its rank; kinds counts errors in words.
    """
    errors = errors[(errors["stage"] == "labelled") & errors["model"].isin(list(models))]
    rows = []
    for row in ranking.to_dict("records"):
        counts = errors.loc[errors["image_id"] == row["image_id"], "kind"].value_counts()
        kinds = [kind for kind in KINDS if kind in counts]
        differ = row["disagreement"]
        rows.append(
            {
                "image_id": row["image_id"],
                "error": f"{100 * row['error']:.1f}",
                "disagreement": "–" if np.isnan(differ) else f"{100 * differ:.1f}",
                "rank": "" if np.isnan(differ) else f"{row['disagreement_rank']}.",
                "best": titles.get(row["best_model"], row["best_model"]),
                "worst": titles.get(row["worst_model"], row["worst_model"]),
                "kinds": ", ".join(f"{counts[kind]} {KIND_TITLES[kind].lower()}" for kind in kinds),
            }
        )
    return rows


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _points(value: float, signed: bool = True) -> str:
    """A fraction in percentage points."""
    if np.isnan(value):
        return "–"
    return f"{100 * value:{'+' if signed else ''}.2f}".replace("-", "−")


def _p(value: float) -> str:
    if np.isnan(value):
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _is(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
