"""Drawings of the section on levels and measurements: agreement, confidence, confusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .figures import INK, STYLE, TRAIN, VALIDATION, svg_uri

#: Okabe and Ito's blue and vermillion; markers differ too, for prints without colour.
SERIES = {"annotation": (TRAIN, "o"), "truth": (VALIDATION, "s")}
_GREY = "#7b8794"
_SHADES = LinearSegmentedColormap.from_list("blue", ["#ffffff", "#cfe3f1", TRAIN])
_PANELS = 3  # confusion matrices side by side


def bland_altman(points: Mapping[str, Mapping[str, pd.DataFrame]], unit: str = "°") -> str:
    """Differences against means (Bland and Altman, Lancet 1986;327:307), a panel for each network.

    Lines are the bias and the limits of agreement, bias -/+ 1.96 standard deviations of the
    differences; limits need three films.

    Args:
        points: by reference (`annotation`, `truth`), a row of panels each, and in it by the
            network's display name: value, reference and status of each film. Every reference has
            the same networks.
        unit: of the values, as it is written behind a number.

    Returns:
        An SVG drawing as a `data:` address; the same input gives the same bytes.
    """
    networks = list(next(iter(points.values())))
    tables = [table for of_network in points.values() for table in of_network.values()]
    ends = [abs(end) for table in tables for end in _ends(table["value"] - table["reference"])]
    reach = 1.2 * max([1.0, *ends])
    with matplotlib.rc_context(STYLE):
        size = (2.3 * max(len(networks), 2), 2.3 * len(points) + 0.5)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(len(points), len(networks), sharex=True, sharey=True, squeeze=False)
        for (reference, of_network), row in zip(points.items(), axes, strict=True):
            colour, marker = SERIES[reference]
            for name, axis in zip(networks, row, strict=True):
                _agreement(axis, of_network[name], colour, marker)
                axis.set_ylim(-reach, reach)
            row[0].set_ylabel(f"network − {reference}, {unit}")
        for name, axis in zip(networks, axes[0], strict=True):
            _title(axis, name)
        for axis in axes[-1]:
            axis.set_xlabel(f"mean of both, {unit}")
        if any((table["status"] == "uncertain").any() for table in tables):
            keys = {"measured": _key(INK, "o"), "uncertain": _key(INK, "o", hollow=True)}
            _legend(figure, keys)
        return svg_uri(figure)


def reliability_curves(tables: Mapping[str, Mapping[str, pd.DataFrame]]) -> str:
    """The share of values that is right by their confidence, a panel for each network.

    Points on the diagonal keep their word; the area of a point grows with its number of values.

    Args:
        tables: by the network's display name, and in it by reference (`annotation`, `truth`), rows
            of `metrics/reliability.parquet`.

    Returns:
        An SVG drawing as a `data:` address; the same input gives the same bytes.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.3 * max(len(tables), 2), 2.9), layout="constrained")
        axes = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
        most = max(
            (table["n"].max() for of_network in tables.values() for table in of_network.values()),
            default=1,
        )
        for (name, of_network), axis in zip(tables.items(), axes, strict=True):
            _title(axis, name)
            for reference, table in of_network.items():
                calibration_curve(axis, table, most, *SERIES[reference])
            calibration_axes(axis, "confidence")
        axes[0].set_ylabel("share within the tolerance")
        shown = [name for name in SERIES if any(name in of for of in tables.values())]
        _legend(figure, {f"against the {name}": _key(*SERIES[name]) for name in shown})
        return svg_uri(figure)


def calibration_curve(axis: Axes, table: pd.DataFrame, most: int, colour: str, marker: str) -> None:
    """Draw the share that is right by confidence, with its intervals.

    Args:
        axis: to draw on.
        table: confidence, right, ci_low, ci_high and n, a row a bin.
        most: the largest n of all bins that are compared; areas grow with n.
        colour, marker: of the points.
    """
    table = table.sort_values("confidence")
    axis.plot(table["confidence"], table["right"], color=colour, linewidth=1.2)
    axis.vlines(table["confidence"], table["ci_low"], table["ci_high"], color=colour)
    area = 12 + 60 * np.sqrt(table["n"] / most)
    axis.scatter(
        table["confidence"], table["right"], area, colour, marker=marker, zorder=3,
        edgecolors="white", linewidths=0.8,
    )  # fmt: skip


def calibration_axes(axis: Axes, label: str) -> None:
    """Square axes from 0 to 1 with the diagonal, on which confidences keep their word."""
    axis.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel=label, aspect="equal")
    axis.set_xticks([0, 0.5, 1])
    axis.set_yticks([0, 0.5, 1])


def confusion_matrices(
    counts: Mapping[str, np.ndarray], rows: Sequence[str], columns: Sequence[str]
) -> str:
    """Counts of vertebrae by their level and the level that a network gave, a matrix a network.

    Args:
        counts: by the network's display name; len(rows) x len(columns), whole numbers.
        rows: names of the reference levels.
        columns: names of what was given.

    Returns:
        An SVG drawing as a `data:` address. Shades are shares of a row; the same input gives the
        same bytes.
    """
    across = min(len(counts), _PANELS)
    down = -(-len(counts) // across)
    cell = 0.3 if len(columns) < 12 else 0.26
    size = (across * (cell * len(columns) + 0.7), down * (cell * len(rows) + 1.5))
    with matplotlib.rc_context(STYLE | {"axes.grid": False, "font.size": 7.5}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(down, across, squeeze=False).ravel()
        for axis in axes[len(counts) :]:
            axis.set_axis_off()
        for (name, matrix), axis in zip(counts.items(), axes, strict=False):
            _title(axis, name)
            shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
            axis.imshow(shares, cmap=_SHADES, vmin=0, vmax=1, aspect="equal")
            for (row, column), count in np.ndenumerate(matrix):
                if count:
                    colour = "white" if shares[row, column] > 0.6 else INK
                    right = rows[row] == columns[column]
                    axis.text(
                        column, row, f"{count}", color=colour, ha="center", va="center",
                        fontsize=7, fontweight="normal" if right else "bold",
                    )  # fmt: skip
            axis.set_xticks(range(len(columns)), columns, rotation=90)
            axis.set_yticks(range(len(rows)), rows)
            axis.tick_params(length=0)
            axis.spines[["left", "bottom"]].set_visible(False)
            axis.set_xticks(np.arange(len(columns) - 1) + 0.5, minor=True)
            axis.set_yticks(np.arange(len(rows) - 1) + 0.5, minor=True)
            axis.grid(which="minor", color="#e4e7eb", linewidth=0.6)
            axis.tick_params(which="minor", length=0)
        for axis in axes[: len(counts) : across]:
            axis.set_ylabel("level drawn")
        for axis in axes[max(0, len(counts) - across) : len(counts)]:
            axis.set_xlabel("level given")
        return svg_uri(figure)


def _agreement(axis: Axes, table: pd.DataFrame, colour: str, marker: str) -> None:
    middle = (table["value"] + table["reference"]) / 2
    difference = table["value"] - table["reference"]
    sure = table["status"] == "measured"
    axis.scatter(middle[sure], difference[sure], 14, colour, marker=marker, linewidths=0, alpha=0.8)
    axis.scatter(
        middle[~sure],
        difference[~sure],
        14,
        "none",
        marker=marker,
        edgecolors=colour,
        linewidths=0.9,
    )
    axis.axhline(0, color=_GREY, linewidth=0.8)
    if len(table) < 3:
        return
    *_, low, high = _ends(difference)
    axis.axhline(float(difference.mean()), color=INK, linewidth=1)
    for level in (low, high):
        axis.axhline(level, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    for level, above in ((high, True), (low, False)):
        axis.annotate(
            f"{level:+.1f}".replace("-", "−"), (1, level), (0, 2 if above else -2),
            xycoords=("axes fraction", "data"), textcoords="offset points", fontsize=7.5,
            ha="right", va="bottom" if above else "top", color=INK,
        )  # fmt: skip


def _ends(difference: pd.Series) -> list[float]:
    """The least and the greatest difference, and the limits of agreement of three or more."""
    if difference.empty:
        return []
    ends = [float(difference.min()), float(difference.max())]
    if len(difference) < 3:
        return ends
    bias, spread = float(difference.mean()), 1.96 * float(difference.std())
    return [*ends, bias - spread, bias + spread]


def _title(axis: Axes, name: str) -> None:
    axis.set_title(name, fontsize=10, fontweight="bold", color=INK, loc="left")


def _key(colour: str, marker: str, hollow: bool = False) -> Line2D:
    fill = "none" if hollow else colour
    return Line2D(
        [], [], color=colour, marker=marker, linestyle="", markersize=4, markerfacecolor=fill
    )


def _legend(figure: Figure, keys: Mapping[str, Line2D]) -> None:
    figure.legend(
        list(keys.values()), list(keys), loc="outside lower right", ncols=len(keys),
        frameon=False, fontsize=8, handletextpad=0.1,
    )  # fmt: skip
