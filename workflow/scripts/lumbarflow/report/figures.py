"""The pictures of the report: segmentations drawn over films, and learning curves."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence

import cv2
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
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
    """Loss and validation Dice by epoch, a column of panels for each model.

    Args:
        histories: by display name; columns epoch, split (`train` or `val`), loss and dice, with
            NaN where a value was not recorded.

    Returns:
        An SVG drawing as a `data:` address; the same input gives the same bytes.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(2.3 * max(len(histories), 2), 3.9), layout="constrained")
        axes = figure.subplots(2, len(histories), sharex="col", squeeze=False)
        for (name, history), (loss, dice) in zip(histories.items(), axes.T, strict=True):
            loss.set_title(name, fontsize=10, fontweight="bold", color=INK, loc="left")
            # Epochs without a value are left out; markers keep single points visible.
            for axis, column, split, colour in (
                (loss, "loss", "train", TRAIN),
                (loss, "loss", "val", VALIDATION),
                (dice, "dice", "val", VALIDATION),
            ):
                points = history[history["split"] == split].dropna(subset=[column])
                if len(points):
                    axis.plot(points["epoch"], points[column], color=colour, marker="o")
            # Losses of different networks are different functions: only Dice has one scale.
            dice.set_ylim(0, 1.02)
            dice.set_xlabel("epoch")
            dice.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes[0, 0].set_ylabel("loss")
        axes[1, 0].set_ylabel("validation Dice")
        axes[0, 0].legend(
            [Line2D([], [], color=TRAIN), Line2D([], [], color=VALIDATION)],
            ["training", "validation"],
            frameon=False,
            fontsize=8,
        )
        return svg_uri(figure)


def svg_uri(figure: Figure) -> str:
    """A drawing as a `data:` address, within the context of :data:`STYLE`."""
    drawing = io.StringIO()
    # No date: the report of an unchanged run is unchanged.
    figure.savefig(drawing, format="svg", metadata={"Date": None})
    encoded = base64.b64encode(drawing.getvalue().encode()).decode("ascii")
    return "data:image/svg+xml;base64," + encoded


def _bgr(rgb: tuple[int, int, int]) -> np.ndarray:
    return np.array(rgb[::-1])
