"""Drawings of the section on classes: scores of every film, and whether scores are right."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .comparison_figures import SERIES
from .figures import INK, STYLE, svg_uri
from .labelling_figures import calibration_axes, calibration_curve

#: With fewer films quartiles say no more than the films themselves.
MIN_FILMS = 5
# Of every drawing: letters have one size, however many networks there are.
_WIDTH = 11.5
_GOLDEN = (5**0.5 - 1) / 2


def film_scores(panels: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """Scores of the test films, a panel a metric and a row a network.

    A dot is a film, the line the median, and the bar the middle half of :data:`MIN_FILMS` films or
    more.

    Args:
        panels: by title of the metric and display name of the network: the scores of the films in
            percent, without NaN. Every panel has the same networks.

    Returns:
        An SVG drawing as a `data:` address; the same input gives the same bytes.
    """
    networks = list(next(iter(panels.values())))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH, 1.0 + 0.42 * len(networks)), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for (title, of_network), axis in zip(panels.items(), axes, strict=True):
            _title(axis, title)
            for place, (name, (colour, _)) in enumerate(zip(networks, cycle(SERIES), strict=False)):
                _films(axis, of_network[name], place, colour)
            # Dots at 100 % are whole, though nothing is beyond.
            axis.set_xlim(right=min(axis.get_xlim()[1], 100))
            axis.xaxis.set_major_locator(MaxNLocator(4))
            axis.set_xlabel("%")
            axis.grid(axis="y", visible=False)
            axis.tick_params(axis="y", length=0)
        axes[0].set_yticks(range(len(networks)), networks)
        axes[0].set_ylim(len(networks) - 0.5, -0.5)
        return svg_uri(figure)


def score_curves(tables: Mapping[str, pd.DataFrame]) -> str:
    """The share of instances that is right by their score, a panel for each network.

    Args:
        tables: by the network's display name, rows of `metrics/score_reliability.parquet`.

    Returns:
        An SVG drawing as a `data:` address; the same input gives the same bytes.
    """
    most = max(table["n"].max() for table in tables.values())
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.3 * max(len(tables), 2), 2.7), layout="constrained")
        axes = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
        for (name, table), axis, style in zip(tables.items(), axes, cycle(SERIES), strict=False):
            _title(axis, name)
            calibration_curve(axis, table, most, *style)
            calibration_axes(axis, "score")
        axes[0].set_ylabel("share right")
        return svg_uri(figure)


def _films(axis: Axes, scores: np.ndarray, place: int, colour: str) -> None:
    if not len(scores):
        return
    if len(scores) >= MIN_FILMS:
        low, high = np.percentile(scores, [25, 75])
        axis.barh(place, high - low, 0.62, low, color=colour, alpha=0.25, linewidth=0)
    # Neighbours in score are put apart, the same way every time.
    aside = np.arange(len(scores)) * _GOLDEN % 1 - 0.5 if len(scores) > 1 else np.zeros(1)
    axis.plot(
        np.sort(scores), place + 0.5 * aside, "o", color=colour, markersize=4,
        markeredgecolor="white", markeredgewidth=0.3, clip_on=False, zorder=3,
    )  # fmt: skip
    if len(scores) > 1:
        axis.plot([np.median(scores)] * 2, [place - 0.36, place + 0.36], color=INK, linewidth=1.8)


def _title(axis: Axes, name: str) -> None:
    axis.set_title(name, fontsize=10, fontweight="bold", color=INK, loc="left")
