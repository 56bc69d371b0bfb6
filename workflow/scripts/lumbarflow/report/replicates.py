"""The section of the report that tells how far scores spread over seeds and folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..evaluate.tables import TABLE1_ROWS
from .figures import INK, STYLE, TRAIN, svg_uri
from .reading import read_table

#: Kinds of replicates, in the order of the page.
TITLES = {"seed": "Seeds", "fold": "Folds"}
#: What the drawing and the differences are of.
METRIC = "mean_iou"
_ROWS = TABLE1_ROWS | {"dice": "Dice Average"}


def replicates_section(
    results: Path, models: Sequence[str], titles: Mapping[str, str], training: Mapping[str, Any]
) -> dict[str, Any] | None:
    """What the template shows of the replicates.

    Args:
        results: the results folder; read are the tables of `metrics` on replicates.
        models: to show, in the order of the columns.
        titles: display name of each model.
        training: `training` of the configuration: tables that an earlier one asked for stay in the
            results folder and are not shown.

    Returns:
        None where the configuration asks for none. Otherwise drawing: address of the drawing of
        :func:`dots`; kinds: for seeds and folds {"kind", "title", "trainings", "films", "rows",
        "pairs"}, rows being {"metric", "cells": [{"value", "range"}]}, a cell a model, and pairs
        {"first", "second", "value", "range", "alike"}, the differences of the mean IoU in
        percentage points; alike is whether all of them have one sign.

    Raises:
        InputError: a table is missing.
    """
    if not (training.get("seeds") or training.get("folds")):
        return None
    table, summary, differences = (
        read_table(results / f"metrics/{name}.parquet")
        for name in ("replicates", "replicate_summary", "replicate_differences")
    )
    kinds = [kind for kind in TITLES if (table["kind"] == kind).any()]
    scores = table.groupby(["kind", "model", "replicate"])[METRIC].mean()
    spread = summary.set_index(["kind", "metric", "model"]).sort_index()
    return {
        "drawing": dots(
            {
                TITLES[kind]: {titles[model]: 100 * scores[kind, model] for model in models}
                for kind in kinds
            }
        ),
        "kinds": [
            {
                "kind": kind,
                "title": TITLES[kind],
                "trainings": int(spread.loc[kind, "n_replicates"].max()),
                "films": int(spread.loc[kind, "n_films"].max()),
                "rows": [
                    {
                        "metric": title,
                        "cells": [_cell(spread.loc[kind, metric, model]) for model in models],
                    }
                    for metric, title in _ROWS.items()
                ],
                "pairs": _pairs(differences[differences["kind"] == kind], models, titles),
            }
            for kind in kinds
        ],
    }


def dots(scores: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """The score of every training as a circle, their mean as a line; a panel for each kind.

    Args:
        scores: by kind, and in it by the network's display name, the mean IoU of each training in
            percent. Every kind has the same networks.

    Returns:
        An SVG drawing as a `data:` address; the same input gives the same bytes.
    """
    networks = list(next(iter(scores.values())))
    with matplotlib.rc_context(STYLE):
        # As wide for one panel as for two, so that letters have the same size on the page.
        figure = Figure(figsize=(10, 0.8 + 0.32 * len(networks)), layout="constrained")
        axes = figure.subplots(1, len(scores), sharex=True, sharey=True, squeeze=False)[0]
        for axis, (kind, of_network) in zip(axes, scores.items(), strict=True):
            for place, name in enumerate(networks):
                values = np.asarray(of_network[name])
                axis.plot(
                    values, np.full(len(values), place), "o", color=TRAIN, mfc="none", markersize=6
                )
                axis.plot([values.mean()] * 2, [place - 0.3, place + 0.3], color=INK)
            axis.set_title(kind, fontsize=10, fontweight="bold", color=INK, loc="left")
            axis.set_xlabel("mean IoU, %")
            axis.set_yticks(range(len(networks)), networks)
            axis.set_ylim(len(networks) - 0.4, -0.6)
        return svg_uri(figure)


def _cell(row: pd.Series) -> dict[str, str]:
    mean, sd, low, high = (100 * row[name] for name in ("mean", "sd", "low", "high"))
    return {"value": f"{mean:.2f} ± {sd:.2f}", "range": f"{low:.2f}–{high:.2f}"}


def _pairs(
    differences: pd.DataFrame, models: Sequence[str], titles: Mapping[str, str]
) -> list[dict[str, Any]]:
    """A row for each two of the networks, the one with the higher mean first."""
    wanted = differences["model_a"].isin(models) & differences["model_b"].isin(models)
    rows = []
    for row in differences[wanted & (differences["metric"] == METRIC)].itertuples():
        sign = 1 if row.mean >= 0 else -1
        names = titles[row.model_a], titles[row.model_b]
        low, high = sorted((100 * sign * row.low, 100 * sign * row.high))
        rows.append(
            {
                "first": names[sign < 0],
                "second": names[sign > 0],
                "value": f"{100 * abs(row.mean):.2f} ± {100 * row.sd:.2f}",
                "range": f"{_signed(low)} to {_signed(high)}",
                "alike": low > 0,
            }
        )
    return rows


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
