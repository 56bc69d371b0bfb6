"""The films of a subset, fitted to the network's size and kept in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..errors import InputError
from ..files import read_grey, read_json

_CLIP, _TILES = 3.0, (8, 8)  # of the histogram equalisation


@dataclass(frozen=True)
class Letterbox:
    """How a film lies in a network's canvas: scaled by `scale`, at the top left, padded with 0."""

    scale: float
    rows: int  # of the canvas that the film covers
    columns: int


@dataclass(frozen=True)
class Polygon:
    """One annotated object on the canvas: class index and points (N x 2, x and y in pixels).

    Pixel centres are at whole numbers, as OpenCV has it.
    """

    class_index: int
    points: np.ndarray


@dataclass(frozen=True)
class TrainingFilms:
    """Films on the canvas: pictures and bit masks (rows x columns, uint8), and polygons."""

    image_ids: list[str]
    pictures: list[np.ndarray]
    bits: list[np.ndarray]
    polygons: list[list[Polygon]]

    def __len__(self) -> int:
        return len(self.image_ids)


def fit(film_size: tuple[int, int], canvas: tuple[int, int]) -> Letterbox:
    """The largest scale at which a film fits the canvas with its aspect ratio kept.

    Args:
        film_size: rows and columns of the film.
        canvas: rows and columns of the canvas.
    """
    scale = min(canvas[0] / film_size[0], canvas[1] / film_size[1])
    rows = min(canvas[0], max(1, round(film_size[0] * scale)))
    columns = min(canvas[1], max(1, round(film_size[1] * scale)))
    return Letterbox(scale, rows, columns)


def place(image: np.ndarray, canvas: tuple[int, int], interpolation: int) -> np.ndarray:
    """Scale `image` (rows x columns, uint8) into a canvas of zeros; see :func:`fit`."""
    box = fit(image.shape, canvas)
    result = np.zeros(canvas, image.dtype)
    result[: box.rows, : box.columns] = cv2.resize(
        image, (box.columns, box.rows), interpolation=interpolation
    )
    return result


def place_picture(picture: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
    """A film as every network sees it, in training and after (rows x columns, uint8).

    Consoles differ in contrast far more than vertebrae do: contrast-limited adaptive histogram
    equalisation (Zuiderveld, Graphics Gems IV, 1994) brings films nearer to each other.
    """
    result = np.zeros(canvas, np.uint8)
    box = fit(picture.shape, canvas)
    small = cv2.resize(picture, (box.columns, box.rows), interpolation=cv2.INTER_AREA)
    result[: box.rows, : box.columns] = cv2.createCLAHE(_CLIP, _TILES).apply(small)
    return result


def full_size(coco: Path, subsets: Iterable[str]) -> tuple[int, int]:
    """The smallest canvas, in multiples of 32, that holds every film without scaling."""
    images = [image for subset in subsets for image in read_json(coco / f"{subset}.json")["images"]]
    return tuple(
        -(-max(image[side] for image in images) // 32) * 32 for side in ("height", "width")
    )


def load(
    coco: Path, masks: Path, pictures: Path, subset: str, canvas: tuple[int, int], cache=None
) -> TrainingFilms:
    """Read the films of a subset onto the canvas.

    Args:
        prepared: the folder with `coco/{subset}.json` and `masks/{image_id}.png`.
        pictures: the folder with `{image_id}.png`.
        subset: train or val.
        canvas: rows and columns.

    Raises:
        InputError: the subset is empty, or a film or mask is missing or unreadable.
    """
    folder, coco = coco, read_json(coco / f"{subset}.json")
    if not coco["images"]:
        raise InputError(
            f"{folder}/{subset}.json holds no film: annotate some of its films or change "
            "`splits` in the configuration."
        )
    polygons: dict[int, list[tuple[int, np.ndarray]]] = {
        image["id"]: [] for image in coco["images"]
    }
    for annotation in coco["annotations"]:
        for ring in annotation["segmentation"]:
            points = np.asarray(ring, np.float64).reshape(-1, 2)
            polygons[annotation["image_id"]].append((annotation["category_id"] - 1, points))
    films = TrainingFilms([], [], [], [])
    for image in coco["images"]:
        image_id = Path(image["file_name"]).stem
        picture = read_grey(pictures / f"{image_id}.png")
        mask = cv2.imread(str(masks / f"{image_id}.png"), cv2.IMREAD_UNCHANGED)
        if mask is None or mask.shape != picture.shape:
            raise InputError(
                f"{masks}/{image_id}.png does not fit its film: remove it and run again."
            )
        scale = fit(picture.shape, canvas).scale
        films.image_ids.append(image_id)
        films.pictures.append(place_picture(picture, canvas))
        films.bits.append(place(mask, canvas, cv2.INTER_NEAREST_EXACT))
        films.polygons.append(
            [Polygon(index, scale_points(points, scale)) for index, points in polygons[image["id"]]]
        )
    return films


def grey_levels(films):
    pixels = np.concatenate([p[p > 0] for p in films.pictures])
    return float(pixels.mean()), float(pixels.std()) or 1.0


def scale_points(points: np.ndarray, scale: float) -> np.ndarray:
    """Points (N x 2) of the film on the canvas, in OpenCV's coordinates.

    Annotations have pixel corners at whole numbers (see :mod:`lumbarflow.prepare.masks`), OpenCV
    has pixel centres there.
    """
    return points * scale - 0.5
