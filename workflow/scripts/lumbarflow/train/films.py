"""The films of a subset, fitted to the network's size and kept ready; see :mod:`.canvas`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..errors import InputError
from ..files import read_grey, read_json
from . import canvas as canvases

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
    """Films on the canvas: pictures and bit masks (films x rows x columns, uint8), and polygons.

    Pictures and masks lie in files that all processes of the machine map into their memory, for
    reading only. Another process gets them by their path: a pickled copy is small.
    """

    image_ids: list[str]
    pictures: np.ndarray
    bits: np.ndarray
    polygons: list[list[Polygon]]

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getstate__(self) -> dict[str, Any]:
        return {
            name: Path(value.filename) if isinstance(value, np.memmap) else value
            for name, value in vars(self).items()
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            opened = np.load(value, mmap_mode="r") if isinstance(value, Path) else value
            object.__setattr__(self, name, opened)  # the class is frozen


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
    result[: box.rows, : box.columns] = _equalisation().apply(small)
    return result


def _equalisation() -> cv2.CLAHE:
    return cv2.createCLAHE(_CLIP, _TILES)


def full_size(coco: Path, subsets: Iterable[str]) -> tuple[int, int]:
    """The smallest canvas, in multiples of 32, that holds every film without scaling.

    Args:
        coco: the folder with `{subset}.json`.
        subsets: their names.
    """
    images = [image for subset in subsets for image in read_json(coco / f"{subset}.json")["images"]]
    return tuple(
        -(-max(image[side] for image in images) // 32) * 32 for side in ("height", "width")
    )


def load(
    coco: Path,
    masks: Path,
    pictures: Path,
    subset: str,
    canvas: tuple[int, int],
    cache: Path,
    threads: int | None = None,
) -> TrainingFilms:
    """The films of a subset on the canvas, from `cache` or, where they are not there, made there.

    Args:
        coco: the folder with `{subset}.json`.
        masks: the folder with `{image_id}.png`, bit masks of the films' size.
        pictures: the folder with `{image_id}.png`, the films.
        subset: train, val or test.
        canvas: rows and columns.
        cache: the folder that keeps films ready, for all networks; see :mod:`.canvas`. It may be
            removed whenever no training runs.
        threads: threads that make films ready; without, as many as there are CPUs.

    Raises:
        InputError: the subset is empty, or a film or mask is missing, unreadable or of a wrong
            size.
    """
    dataset = read_json(coco / f"{subset}.json")
    if not dataset["images"]:
        raise InputError(
            f"{coco}/{subset}.json holds no film: annotate some of its films or change "
            "`splits` in the configuration."
        )
    image_ids = [Path(image["file_name"]).stem for image in dataset["images"]]
    sizes = [(image["height"], image["width"]) for image in dataset["images"]]

    def prepare(film: int) -> tuple[np.ndarray, np.ndarray]:
        name = f"{image_ids[film]}.png"
        picture = read_grey(pictures / name)
        if picture.shape != sizes[film]:
            raise InputError(
                f"{pictures}/{name} is not of the size that {coco}/{subset}.json says: run the "
                "workflow again from the rule prepare on (--forcerun prepare)."
            )
        mask = cv2.imread(str(masks / name), cv2.IMREAD_UNCHANGED)
        if mask is None or mask.shape != picture.shape or mask.dtype != np.uint8:
            raise InputError(f"{masks}/{name} does not fit its film: remove it and run again.")
        return place_picture(picture, canvas), place(mask, canvas, cv2.INTER_NEAREST_EXACT)

    paths = [folder / f"{image_id}.png" for image_id in image_ids for folder in (pictures, masks)]
    shown, bits = canvases.ready(
        cache, subset, canvas, [sizes, _CLIP, _TILES], paths, prepare, threads
    )
    position = {image["id"]: film for film, image in enumerate(dataset["images"])}
    polygons: list[list[Polygon]] = [[] for _ in image_ids]
    for annotation in dataset["annotations"]:
        film = position[annotation["image_id"]]
        scale = fit(sizes[film], canvas).scale
        for ring in annotation["segmentation"]:
            points = scale_points(np.asarray(ring, np.float64).reshape(-1, 2), scale)
            polygons[film].append(Polygon(annotation["category_id"] - 1, points))
    return TrainingFilms(image_ids, shown, bits, polygons)


def grey_levels(films: TrainingFilms) -> tuple[float, float]:
    """Mean and standard deviation of the lit pixels of all pictures, 0..255.

    Padding and what shutters have left black are no part of a patient. Films without a lit pixel
    give the middle of the range and a quarter of it.
    """
    counts = np.zeros(256)
    for picture in films.pictures:
        counts += cv2.calcHist([np.asarray(picture)], [0], None, [256], [0, 256]).ravel()
    # The equalisation lifts even a black tile a little.
    black = _equalisation().apply(np.zeros(films.pictures.shape[1:], np.uint8))
    counts[: int(black.max()) + 1] = 0
    total = counts.sum()
    if not total:
        return 128.0, 64.0
    levels = np.arange(256)
    mean = float(counts @ levels / total)
    # Films of one single level: dividing by less than a level would only enlarge noise.
    return mean, max(1.0, float(np.sqrt(counts @ (levels - mean) ** 2 / total)))


def scale_points(points: np.ndarray, scale: float) -> np.ndarray:
    """Points (N x 2) of the film on the canvas, in OpenCV's coordinates.

    Annotations have pixel corners at whole numbers (see :mod:`lumbarflow.prepare.masks`), OpenCV
    has pixel centres there.
    """
    return points * scale - 0.5
