"""The pictures of the report: segmentations drawn over films, and learning curves."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import cv2
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

#: Okabe and Ito, "Color Universal Design" (2008): told apart with every kind of colour vision.
#: Red, green, blue; one for each of the eight classes that a bit mask can hold.
PALETTE = (
    *((86, 180, 233), (230, 159, 0), (0, 158, 115), (240, 228, 66)),
    *((204, 121, 167), (213, 94, 0), (0, 114, 178), (153, 153, 153)),
)
FILL = 0.35
INK, TRAIN, VALIDATION = "#1f2933", "#0072b2", "#d55e00"
#: Of all drawings; salted, so that the same input gives the same bytes.
STYLE = {
    "svg.hashsalt": "lumbarflow",
    "font.family": "sans-serif",
    "font.size": 8.5,
    "axes.edgecolor": "#9aa5b1",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "#52606d",
    "ytick.color": "#52606d",
    "axes.grid": True,
    "grid.color": "#e4e7eb",
    "lines.linewidth": 1.6,
    "lines.markersize": 3,
}
#: Seconds of a training epoch by what they went into, as in `history.jsonl`, and their names.
TIMES = {"data": "data", "forward": "forward", "backward": "backward", "step": "optimiser"}
#: Of the parts of a bar, all of them light enough for dark figures.
_TIME_COLOURS = {
    "data": "#56b4e9",
    "forward": "#f0e442",
    "backward": "#e69f00",
    "optimiser": "#cc79a7",
    "rest of training": "#d9dee4",
    "validation": "#999999",
}
_SERIES = {"train": {"color": TRAIN, "marker": "o"}, "val": {"color": VALIDATION, "marker": "s"}}
_BEST = {"color": "#52606d", "linewidth": 1, "linestyle": (0, (2, 2))}


def class_colours(classes: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """The colour (red, green, blue) of each class, by its place in the configuration."""
    return dict(zip(classes, PALETTE, strict=False))


def overlay(
    film: np.ndarray,
    layers: Sequence[tuple[str, np.ndarray]],
    colours: Mapping[str, tuple[int, int, int]],
) -> np.ndarray:
    """Draw masks over a film, each with an outline and a translucent fill in its class's colour.

    Args:
        film: H x W uint8.
        layers: class name and mask (H x W bool), drawn in this order; one instance a layer keeps
            the outlines of touching instances apart.
        colours: red, green, blue of each class.

    Returns:
        H x W x 3 uint8, in OpenCV's channel order (blue, green, red).
    """
    image = cv2.cvtColor(film, cv2.COLOR_GRAY2BGR)
    for name, mask in layers:
        image[mask] = np.rint((1 - FILL) * image[mask] + FILL * _bgr(colours[name]))
    # Outlines last, so that no fill dims them.
    for name, mask in layers:
        contours, _ = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(image, contours, -1, _bgr(colours[name]).tolist(), 2, cv2.LINE_AA)
    return image


def shrink(image: np.ndarray, width: int) -> np.ndarray:
    """Scale a film (uint8) or mask (bool), H x W, down to `width` columns; never up."""
    if image.shape[1] <= width:
        return image
    size = (width, max(1, round(image.shape[0] * width / image.shape[1])))
    if image.dtype == bool:
        return cv2.resize(image.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > 127
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def jpeg_uri(image: np.ndarray) -> str:
    """An image (H x W or H x W x 3 BGR, uint8) as a `data:` address."""
    _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


def learning_curves(histories: Mapping[str, pd.DataFrame]) -> str:
    """Loss and validation Dice by epoch, and where the time went: a column for each model.

    Args:
        histories: by display name; columns epoch, split (`train` or `val`), loss, dice and
            seconds, and of these seconds :data:`TIMES`; NaN where a value was not recorded.

    Returns:
        An SVG drawing as a `data:` address; the same input gives the same bytes. Its letters have
        one size whatever the number of models: it has to be shown at its own size.
    """
    shares = {name: _time_shares(history) for name, history in histories.items()}
    parts = [part for part in _TIME_COLOURS if any(part in share for share in shares.values())]
    columns = 3 if len(histories) <= 2 else len(_TIME_COLOURS)
    size = (0.4 + 2.2 * max(len(histories), 2), 4.6 + 0.2 * -(-len(parts) // columns))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(
            3, len(histories), squeeze=False, gridspec_kw={"height_ratios": (1, 1, 0.16)}
        )
        for (name, history), (loss, dice, bar) in zip(histories.items(), axes.T, strict=True):
            loss.set_title(name, fontsize=10, fontweight="bold", color=INK, loc="left")
            loss.sharex(dice)
            loss.tick_params(labelbottom=False)
            _curve(loss, history, "loss", "train")
            _curve(loss, history, "loss", "val")
            _curve(dice, history, "dice", "val")
            _best_epoch(loss, dice, history)
            # Losses of different networks are different functions: only Dice has one scale.
            dice.set_ylim(0, 1.02)
            dice.set_xlabel("epoch")
            dice.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5, min_n_ticks=1))
            _time_bar(bar, shares[name], history["seconds"].sum())
        axes[0, 0].set_ylabel("loss")
        axes[1, 0].set_ylabel("validation Dice")
        keys = {
            "training": Line2D([], [], **_SERIES["train"]),
            "validation": Line2D([], [], **_SERIES["val"]),
            "best epoch": Line2D([], [], **_BEST),
        }
        legend = {"frameon": False, "fontsize": 8, "handlelength": 1.6}
        figure.legend(keys.values(), keys, loc="outside upper left", ncols=3, **legend)
        if parts:
            keys = {part: Patch(color=_TIME_COLOURS[part]) for part in parts}
            figure.legend(keys.values(), keys, loc="outside lower left", ncols=columns, **legend)
        return svg_uri(figure)


def duration(seconds: float) -> str:
    """A duration in words: `45 s`, `12 min` or `3 h 05 min`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _curve(axis: Axes, history: pd.DataFrame, column: str, split: str) -> None:
    # Epochs without a value are left out; markers keep single points visible.
    points = history[history["split"] == split].dropna(subset=[column])
    every = 1 + len(points) // 15
    axis.plot(points["epoch"], points[column], markevery=every, **_SERIES[split])


def _best_epoch(loss: Axes, dice: Axes, history: pd.DataFrame) -> None:
    """Mark the epoch whose weights are kept: the first of the highest validation Dice."""
    rows = history[history["split"] == "val"].dropna(subset=["dice"])
    if rows.empty:
        return
    best = rows.loc[rows["dice"].idxmax()]
    for axis in (loss, dice):
        axis.axvline(best["epoch"], zorder=1, **_BEST)
    text = f"best {best['dice']:.3f}\nin epoch {best['epoch']:.0f}"
    height, side = (0.06, "bottom") if best["dice"] > 0.4 else (0.94, "top")  # off the curve
    dice.text(
        0.97, height, text, transform=dice.transAxes, ha="right", va=side, color=INK, fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )  # fmt: skip


def _time_shares(history: pd.DataFrame) -> dict[str, float]:
    """The share of all seconds of each part of :data:`_TIME_COLOURS` that took any."""
    training = history[history["split"] == "train"]
    seconds = {TIMES[column]: training[column].sum() for column in TIMES}
    seconds["rest of training"] = max(0.0, training["seconds"].sum() - sum(seconds.values()))
    seconds["validation"] = history.loc[history["split"] == "val", "seconds"].sum()
    total = sum(seconds.values())
    return {part: value / total for part, value in seconds.items() if value > 0}


def _time_bar(axis: Axes, shares: Mapping[str, float], seconds: float) -> None:
    left = 0.0
    for part, share in shares.items():
        axis.barh(0, share, left=left, color=_TIME_COLOURS[part], edgecolor="white", linewidth=0.8)
        if share >= 0.15:  # narrower parts have no room for a number
            axis.text(
                left + share / 2, 0, f"{100 * share:.0f} %", ha="center", va="center", fontsize=7.5,
                color=INK,
            )  # fmt: skip
        left += share
    axis.set(xlim=(0, 1), xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    if shares:
        axis.set_xlabel(f"time: {duration(seconds)}")


def svg_uri(figure: Figure) -> str:
    """A drawing as a `data:` address, within the context of :data:`STYLE`."""
    # The solver of the layout leaves the last digits to chance, and names are made of them.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axis in figure.axes:
        places = axis.get_position(original=True).bounds
        axis.set_position([round(float(place), 5) for place in places])
    drawing = io.StringIO()
    # No date: the report of an unchanged run is unchanged.
    figure.savefig(drawing, format="svg", metadata={"Date": None})
    encoded = base64.b64encode(drawing.getvalue().encode()).decode("ascii")
    return "data:image/svg+xml;base64," + encoded


def _bgr(rgb: tuple[int, int, int]) -> np.ndarray:
    return np.array(rgb[::-1])
