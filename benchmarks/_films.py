"""Films that benchmarks train and test networks on: real ones, and ones of the simulation.

Real films lie in the folder `lumbar_films` of LUMBARFLOW_DATA. Synthetic ones are made once and
kept in the user's cache folder. Coordinates are those of annotations: pixel corners are at whole
numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from lumbarflow.annotate.reading import read  # noqa: E402
from lumbarflow.files import atomic_path, read_grey  # noqa: E402
from lumbarflow.synthetic import film as simulation  # noqa: E402

LEVELS = ("T12", "L1", "L2", "L3", "L4", "L5")
"""What annotators outlined on the real films."""

TEST_FILMS = 8
"""Real films that are tested on; the others are trained on."""

SCALE = 0.2
"""Size of whole synthetic films, relative to a full radiograph."""

OPERATED = 0.5
"""Share of annotated synthetic films that show implants."""

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Labelled:
    """A film and the bodies outlined on it.

    picture is rows x columns (uint8, bone bright); outlines are points (N x 2) in pixels, by level.
    """

    name: str
    picture: np.ndarray
    outlines: dict[str, np.ndarray]


@dataclass(frozen=True)
class Annotated:
    """A film and its structures (`class_name`, `level`, `polygon`), as annotators outline them."""

    name: str
    picture: np.ndarray
    structures: list[dict[str, Any]]


# --- Real films ------------------------------------------------------------------------------


def real_films() -> list[Labelled]:
    """The real films, or the end of the program with a sentence where they are absent."""
    data = Path(os.environ.get("LUMBARFLOW_DATA", ROOT.parent / "shared" / "data"))
    project = data / "lumbar_films" / "via_project.json"
    if not project.is_file():
        sys.exit(
            f"The real films are absent: {project} is missing; set LUMBARFLOW_DATA to the folder "
            "that holds lumbar_films."
        )
    films = []
    for entry in read(project).films:
        outlines = {
            region.attributes["level"]: np.array(region.points)
            for region in entry.regions
            if region.closed and region.attributes["level"] in LEVELS
        }
        picture = read_grey(project.parent / "films" / entry.file_name)
        films.append(Labelled(entry.file_name, picture, outlines))
    return films


# --- Synthetic films -------------------------------------------------------------------------


def kept_folder(seed: int) -> Path:
    """Where synthetic films and networks of this version of the simulation are kept."""
    digest = hashlib.sha256(f"{seed} {SCALE}".encode())
    for path in sorted(Path(simulation.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lumbarflow"
    folder = cache / "synthetic_to_real" / digest.hexdigest()[:16]
    if folder.parent.is_dir():
        for other in folder.parent.iterdir():  # films of another version of the simulation
            if other != folder:
                shutil.rmtree(other)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def synthetic_films(folder: Path, count: int, seed: int) -> list[Labelled]:
    """Whole films with all bodies and S1, as boxes; those of an earlier run are read."""
    return _made(partial(_synthetic_film, folder, seed), count)


def annotated_films(folder: Path, count: int, seed: int, scale: float) -> list[Annotated]:
    """Collimated films of strangers, `scale` of a full one; those of an earlier run are read."""
    return _made(partial(_annotated_film, folder / f"annotated-{scale:g}", seed, scale), count)


def _made(make: Callable[[int], Kept], count: int) -> list[Kept]:
    started = time.perf_counter()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        films = list(pool.map(make, range(count), chunksize=4))
    print(f"{count} synthetic films: {time.perf_counter() - started:.0f} s", flush=True)
    return films


def _synthetic_film(folder: Path, seed: int, index: int) -> Labelled:
    path = folder / f"{index:05d}.npz"
    if not path.is_file():
        cv2.setNumThreads(1)
        picture, structures, known = simulation.sample(seed, index, SCALE)
        sacrum = {s["level"]: s["polygon"] for s in structures if s["level"] == "S1"}
        _keep(path, picture, known["bodies"] | sacrum)
    picture, outlines = _kept(path)
    boxes = {level: corner_box(np.array(points)) for level, points in outlines.items()}
    return Labelled(f"{index}", picture, boxes)


def _annotated_film(folder: Path, seed: int, scale: float, index: int) -> Annotated:
    path = folder / f"{index:05d}.npz"
    if not path.is_file():
        cv2.setNumThreads(1)
        rng = np.random.default_rng([seed, index])
        shape, spacing = simulation.choose_format(rng, scale)
        film = simulation.simulate_film(rng, shape, spacing, rng.random() < OPERATED)
        _keep(path, np.rint(film.pixels * 255).astype(np.uint8), film.structures)
    picture, structures = _kept(path)
    return Annotated(f"film{index:05d}", picture, structures)


def _keep(path: Path, picture: np.ndarray, outlines: Any) -> None:
    with atomic_path(path) as temporary:
        np.savez(temporary, picture=picture, outlines=json.dumps(outlines))


def _kept(path: Path) -> tuple[np.ndarray, Any]:
    with np.load(path) as kept:
        return kept["picture"], json.loads(str(kept["outlines"]))


def corner_box(outline: np.ndarray) -> np.ndarray:
    """The four corners (4 x 2) of a body's outline, which is how the real films are annotated."""
    middle = outline.mean(axis=0)
    around = outline - middle
    _, axes = np.linalg.eigh(around.T @ around)
    along = around @ axes
    along /= np.abs(along).max(axis=0)
    signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    return outline[np.argmax(along @ signs.T, axis=0)]


# --- Cut as real films are -------------------------------------------------------------------


def cut(
    film: Labelled, size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """A random window about the spine of a film, turned and mirrored at random.

    Args:
        film: with T12 to L5, or most of them.
        size: rows and columns of the window.
        rng: the only source of chance.

    Returns:
        The window (rows x columns, uint8), where it shows the film (the same, bool), and the
        outlines on it, those outside included.
    """
    matrix = _window(film, size, rng)
    # Pixel centres are at whole numbers in OpenCV, and half a pixel further in outlines.
    shifted = matrix.copy()
    shifted[:, 2] += matrix[:, :2].sum(axis=1) / 2 - 0.5
    moved = cv2.warpAffine(film.picture, shifted, size[::-1], flags=cv2.INTER_LINEAR)
    lit = cv2.warpAffine(np.ones_like(film.picture), shifted, size[::-1])
    outlines = {
        level: points @ matrix[:, :2].T + matrix[:, 2] for level, points in film.outlines.items()
    }
    return moved, lit > 0, outlines


def _window(film: Labelled, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """An affine map (2 x 3) of the film onto the network's canvas, as real films are cut."""
    points = np.concatenate([film.outlines[level] for level in LEVELS if level in film.outlines])
    angle = np.radians(np.clip(rng.normal(0, 6), -15, 15))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if rng.random() < 0.5:
        turn = turn * (-1, 1)
    turned = points @ turn.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    scale = rng.uniform(0.57, 0.78) * size[0] / (high[1] - low[1])
    stretch = np.array([np.exp(rng.normal(0, 0.05)), 1])
    place_x, place_y = rng.uniform(0.33, 0.67), rng.uniform(-0.02, 0.17)
    shift = np.array([place_x * size[1], place_y * size[0]])
    anchor = np.array([(low[0] + high[0]) / 2, low[1]])
    per_pixel = scale * stretch
    return np.column_stack([turn * per_pixel[:, None], shift - anchor * per_pixel])


def smooth(picture: np.ndarray, sigma: float) -> np.ndarray:
    """A wide Gaussian blur (sigma in pixels, 5 or more), computed on a reduced copy."""
    factor = sigma / 2.5
    small = [max(2, round(side / factor)) for side in picture.shape[::-1]]
    reduced = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(reduced, (0, 0), 2.5)
    return cv2.resize(blurred, picture.shape[::-1], interpolation=cv2.INTER_LINEAR)


def change_greys(picture: np.ndarray, lit: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture with other grey levels, sharpness and noise, and what lies over real films on it.

    Args:
        picture: rows x columns, float32 of 0 to 1.
        lit: where it shows the film (the same, bool).
        rng: the only source of chance.
    """
    rows, columns = picture.shape
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    picture = picture ** np.exp(rng.normal(0, 0.35))
    # Consoles weigh details against large areas: sometimes bodies come out darker than discs.
    broad = smooth(picture, rows * rng.uniform(0.02, 0.08))
    details = np.exp(rng.normal(-0.2, 0.5)) * (-1 if rng.random() < 0.03 else 1)
    picture = broad * np.exp(rng.normal(0, 0.2)) + details * (picture - broad)
    for _ in range(rng.integers(0, 4)):  # gas, folds, an arm
        cx, cy = rng.uniform(0, columns), rng.uniform(0, rows)
        rx, ry = rows * rng.uniform(0.02, 0.2, 2)
        sharp = rng.uniform(0.5, 4)
        radius = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2
        picture += rng.normal(0, 0.08) / (1 + np.exp(np.clip(sharp * (radius - 1) * 2, -30, 30)))
    slope = rng.normal(0, 0.12, 2)
    picture += slope[0] * (x / columns - 0.5) + slope[1] * (y / rows - 0.5)
    if rng.random() < 0.85:  # others are overexposed in parts
        picture += min(rng.normal(0, 0.08), 0.95 - np.percentile(picture[::8, ::8], 98))
    if rng.random() < 0.5:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.3, 1.3))
    noise = rng.standard_normal(picture.shape, dtype=np.float32)
    if rng.random() < 0.5:
        noise = cv2.GaussianBlur(noise, (0, 0), rng.uniform(0.4, 1.0)) * 2
    picture += noise * rng.uniform(0, 0.03)
    if rng.random() < 0.7:
        picture += _grid(picture.shape, rng)
    picture[~lit] = 0
    shut = np.where(rng.random(4) < 0.12, rng.uniform(0.01, 0.12, 4), 0)  # by shutters
    upper, lower, left, right = shut * (rows, rows, columns, columns)
    picture[(y < upper) | (y >= rows - lower) | (x < left) | (x >= columns - right)] = 0
    return np.clip(picture, 0, 1).astype(np.float32)


def _grid(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Thin bright lines, as of the measuring grid before a detector (rows x columns, float32)."""
    spacing, tilt = shape[0] * rng.uniform(0.06, 0.16), rng.normal(0, 0.01)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    lines = np.zeros(shape, np.float32)
    for across, on in ((x + tilt * y, 0.9), (y - tilt * x, 0.9)):
        if rng.random() < on:
            distance = np.abs((across + rng.uniform(0, spacing)) % spacing - spacing / 2)
            lines = np.maximum(lines, np.clip(rng.uniform(0.6, 1.1) - distance, 0, 1))
    return lines * rng.uniform(0.03, 0.25)


# --- Divisions and intervals -----------------------------------------------------------------


def division(films: Sequence[Labelled], number: int, seed: int) -> list[Labelled]:
    """The films that division `number` tests on; over divisions all come up about equally often."""
    a_round = len(films) // TEST_FILMS
    order = np.random.default_rng([seed, number // a_round]).permutation(len(films))
    first = number % a_round * TEST_FILMS
    return [films[index] for index in order[first : first + TEST_FILMS]]


def bootstrap(values: Sequence[float], seed: int, samples: int = 10_000) -> tuple[float, ...]:
    """Mean of one value a film, and the 2.5 and 97.5 % points of it over resampled films."""
    values = np.asarray(values, float)
    picks = np.random.default_rng(seed).integers(0, len(values), (samples, len(values)))
    low, high = np.percentile(values[picks].mean(axis=1), [2.5, 97.5])
    return float(values.mean()), float(low), float(high)
