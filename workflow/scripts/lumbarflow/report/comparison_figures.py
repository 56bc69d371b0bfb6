"""Drawing of the section on differences between networks: scores by stratum."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .figures import INK, STYLE, svg_uri

#: Okabe and Ito's colours that stand out on white; markers differ too, for prints without colour.
SERIES = (
    *(("#0072b2", "o"), ("#d55e00", "s"), ("#009e73", "^"), ("#cc79a7", "D")),
    *(("#e69f00", "v"), ("#56b4e9", "P"), ("#5b5b5b", "X")),
)
# Of every drawing: letters have one size, however many networks there are.
_WIDTH, _HEIGHT = 11.5, 3.2


def strata_plot(panels: Mapping[str, Mapping[str, Any]], label: str) -> str:
    """Means with intervals by stratum, a panel a stratum and a colour and marker a network.

    Args:
        panels: by title; `values` names the strata's values, `networks` holds, by display name, an
            array of values x (mean, lower and upper end of the interval). Every panel has the same
            networks. NaN is left out.
        label: of the vertical axis.

    Returns:
        An SVG drawing as a `data:` address; the same input gives the same bytes.
    """
    networks = list(next(iter(panels.values()))["networks"])
    style = dict(zip(networks, cycle(SERIES), strict=False))
    offsets = dict(zip(networks, _spread(len(networks)), strict=True))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
        axes = figure.subplots(
            1,
            len(panels),
            sharey=True,
            squeeze=False,
            width_ratios=[len(panel["values"]) for panel in panels.values()],
        )[0]
        for (title, panel), axis in zip(panels.items(), axes, strict=True):
            axis.set_title(title, fontsize=10, fontweight="bold", color=INK, loc="left")
            places = np.arange(len(panel["values"]))
            for name, means in panel["networks"].items():
                colour, marker = style[name]
                x = places + offsets[name]
                axis.vlines(x, means[:, 1], means[:, 2], color=colour, linewidth=1.4)
                axis.plot(x, means[:, 0], marker, color=colour, markersize=5)
            axis.set_xticks(places, panel["values"])
            axis.set_xlim(-0.5, len(places) - 0.5)
            axis.grid(axis="x", visible=False)
        axes[0].set_ylabel(label)
        keys = [
            Line2D([], [], color=colour, marker=marker, markersize=5, linewidth=1.4)
            for colour, marker in style.values()
        ]
        figure.legend(
            keys, networks, loc="outside lower center", ncols=len(networks), frameon=False,
            fontsize=8.5,
        )  # fmt: skip
        return svg_uri(figure)


def _spread(count: int) -> np.ndarray:
    """Places of networks beside each other, about 0."""
    step = min(0.13, 0.7 / count)
    return step * (np.arange(count) - (count - 1) / 2)
