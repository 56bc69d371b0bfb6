"""Ten synthetic films beside ten real ones, as a picture and in numbers.

    .venv/bin/python tools/compare_films.py films.png

The real films are those in `lumbar_films` of LUMBARFLOW_DATA; synthetic ones are cut as they are,
and all are brought to the same height. The picture holds real films: it is not for passing on.
Printed are, of both sets (median over the films, 10th and 90th percentile):

- grey levels: percentiles of the lit field, 0 to 255;
- noise: the power spectral density of patches without structure, by spatial frequency, in squared
  grey levels times squared pixels;
- sharpness: the width of the upper endplates' edges from 10 to 90 % of their contrast, and that
  contrast in grey levels.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

from lumbarflow.annotate.agreement import corners  # noqa: E402
from lumbarflow.annotate.reading import read  # noqa: E402
from lumbarflow.files import read_grey  # noqa: E402
from lumbarflow.synthetic.film import sample  # noqa: E402

ROWS = 1100  # about the height of the real films
LEVELS = ("T12", "L1", "L2", "L3", "L4", "L5")
BANDS = ((0.05, 0.1), (0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (0.4, 0.5))  # cycles a pixel
PATCH = 48
HALF = 14  # pixels to both sides of an endplate

Film = tuple[np.ndarray, dict[str, np.ndarray]]  # picture, outlines by level


def real_films(count: int) -> list[Film]:
    """Every so many-th real film, or the end of the program where they are absent."""
    data = Path(os.environ.get("LUMBARFLOW_DATA", ROOT.parent / "shared" / "data"))
    project = data / "lumbar_films" / "via_project.json"
    if not project.is_file():
        sys.exit(f"The real films are absent: {project} is missing; set LUMBARFLOW_DATA.")
    films = []
    for entry in read(project).films:
        picture = read_grey(project.parent / "films" / entry.file_name)
        scale = ROWS / picture.shape[0]
        outlines = {
            region.attributes["level"]: np.array(region.points) * scale
            for region in entry.regions
            if region.closed and region.attributes["level"] in LEVELS
        }
        size = (round(picture.shape[1] * scale), ROWS)
        films.append((cv2.resize(picture, size, interpolation=cv2.INTER_AREA), outlines))
    step = len(films) / count
    return [films[int(i * step)] for i in range(count)]


def synthetic_films(count: int, seed: int) -> list[Film]:
    """Films of strangers, one in five with implants, cut about T12 to L5 as the real ones are."""
    films = []
    for index in range(count):
        picture, structures, known = sample(seed, index, 0.42, operated=0.2)
        outlines = {s["level"]: np.array(s["polygon"]) for s in structures
                    if s["level"] in LEVELS and s["class_name"] == "lumbar_vertebra"}  # fmt: skip
        if known["anterior"] == "left":
            picture = picture[:, ::-1].copy()
            outlines = {k: (picture.shape[1] - 1, 0) + v * (-1, 1) for k, v in outlines.items()}
        points = np.vstack(list(outlines.values()))
        low, high = points.min(axis=0), points.max(axis=0)
        scale = ROWS / ((high[1] - low[1]) / 0.65)
        shift = np.array([ROWS * 0.67 * 0.55, ROWS * 0.075]) - scale * np.array(
            [outlines["L3"][:, 0].mean(), low[1]]
        )
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        moved = cv2.warpAffine(picture, matrix, (round(ROWS * 0.67), ROWS), flags=cv2.INTER_AREA)
        films.append((moved, {k: v * scale + shift for k, v in outlines.items()}))
    return films


def figures(film: Film) -> dict[str, float]:
    """Grey levels, noise and sharpness of one film."""
    picture, outlines = film
    values = picture.astype(np.float32)
    lit = values[values > 8]
    found = {f"grey {p}%": float(np.percentile(lit, p)) for p in (5, 25, 50, 75, 95)}

    spectra, flatness = [], []
    window = np.hanning(PATCH)[:, None] * np.hanning(PATCH)
    for row in range(0, picture.shape[0] - PATCH, PATCH):
        for column in range(0, picture.shape[1] - PATCH, PATCH):
            patch = values[row : row + PATCH, column : column + PATCH]
            if patch.min() < 20 or patch.max() > 245:
                continue
            y, x = np.mgrid[:PATCH, :PATCH] - (PATCH - 1) / 2
            basis = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], -1).reshape(-1, 6)
            fit, *_ = np.linalg.lstsq(basis, patch.ravel(), rcond=None)
            rest = patch - (basis @ fit).reshape(patch.shape)
            spectra.append(np.abs(np.fft.fft2(rest * window)) ** 2 / (window**2).sum())
            flatness.append(rest.std())
    # The fifth of the patches that hold the least: noise, hardly any anatomy.
    quiet = np.argsort(flatness)[: max(1, len(flatness) // 5)]
    power = np.mean([spectra[i] for i in quiet], axis=0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(PATCH), np.fft.fftfreq(PATCH)))
    for low, high in BANDS:
        ring = (frequency >= low) & (frequency < high)
        found[f"noise power {low}-{high}"] = float(power[ring].mean())

    widths, contrasts = [], []
    for level in LEVELS[1:]:
        four = corners(outlines[level]) if level in outlines else None
        if four is None:
            continue
        upper = four[np.argsort(four[:, 1])[:2]]
        edge = _profile(values, upper)
        if edge is not None:
            widths.append(edge[0])
            contrasts.append(edge[1])
    if widths:
        found["edge width px"] = float(np.median(widths))
        found["edge contrast"] = float(np.median(contrasts))
    return found


def _profile(values: np.ndarray, plate: np.ndarray) -> tuple[float, float] | None:
    """10-90 % width (pixels) and contrast of the sharpest edge across an upper endplate."""
    along = plate[1] - plate[0]
    normal = np.array([-along[1], along[0]]) / np.linalg.norm(along)
    normal *= np.sign(normal[1])  # into the body
    across = np.arange(-HALF, HALF + 1, 0.5)
    profiles = []
    for share in np.linspace(0.3, 0.7, 9):
        points = plate[0] + share * along + across[:, None] * normal
        line = cv2.remap(values, points[:, 0].astype(np.float32)[:, None],
                         points[:, 1].astype(np.float32)[:, None], cv2.INTER_LINEAR)  # fmt: skip
        profiles.append(line.ravel())
    found = []
    for line in profiles:
        # Up from the darkest place before the endplate to the brightest within 4 mm of it.
        top = int(np.argmax(line[HALF : 3 * HALF])) + HALF
        bottom = int(np.argmin(line[max(top - 24, 0) : top + 1])) + max(top - 24, 0)
        rise = line[top] - line[bottom]
        if rise < 4 or top - bottom < 2:
            continue
        part = (line[bottom : top + 1] - line[bottom]) / rise
        start, stop = np.argmax(part >= 0.1), np.argmax(part >= 0.9)
        found.append((0.5 * (stop - start), float(rise)))
    return tuple(np.median(found, axis=0)) if len(found) >= 3 else None


def main() -> None:
    """Draw and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path, help="PNG to write; do not pass it on")
    parser.add_argument("--seed", type=int, default=12)
    parser.add_argument("--count", type=int, default=10)
    options = parser.parse_args()
    sets = {"real": real_films(options.count),
            "synthetic": synthetic_films(options.count, options.seed)}  # fmt: skip
    rows = []
    for films in sets.values():
        tiles = [np.zeros((550, 400), np.uint8) for _ in films]
        for tile, (picture, _) in zip(tiles, films, strict=True):
            small = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
            tile[:, : min(400, small.shape[1])] = small[:550, :400]
        half = -(-len(tiles) // 2)
        tiles += [np.zeros_like(tiles[0])] * (2 * half - len(tiles))
        rows += [np.hstack(tiles[:half]), np.hstack(tiles[half:])]
    cv2.imwrite(str(options.picture), np.vstack(rows))
    result = {}
    for name, films in sets.items():
        measured = [figures(film) for film in films]
        keys = list(dict.fromkeys(k for one in measured for k in one))
        result[name] = {
            key: [round(float(v), 2) for v in np.percentile(
                [one[key] for one in measured if key in one], (50, 10, 90))]
            for key in keys
        }  # fmt: skip
    width = max(map(len, result["real"]))
    print(f"{'':{width}}  {'real':>26}  {'synthetic':>26}")
    for key in result["real"]:
        print(f"{key:{width}}  " + "  ".join(f"{result[n][key]!s:>26}" for n in result))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
