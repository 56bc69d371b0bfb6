"""What annotators would draw on the films of the embedded archive.

The known outlines are clicked as people do: the farthest corners first, then points where the
outline bends, each missed by one or two pixels of a full-size film, and every annotator draws a
little inside or outside the edges by habit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..deidentify.pseudonyms import Pseudonyms
from .exporting import Film
from .mapping import SUBSET
from .shapes import intersects_itself
from .spine import LEVELS, RANK

VERTICES = {"lumbar_vertebra": (10, 24), "sacral_vertebra": (9, 20), "instrumentation": (10, 28)}
"""Fewest and most vertices of an outline, by class; :data:`IMPLANT_VERTICES` of the others."""

IMPLANT_VERTICES = (8, 20)

HAND_MM = 0.17
"""Standard deviation of a click along each axis: with pixels of 0.16 mm, 1.3 pixels."""

_EDGE_MM = 0.2  # standard deviation of an annotator's mean distance from the edge
_PLACE_MM = 0.1  # of the error that all clicks of one outline share
_SPREAD = 0.02  # of a straight edge's length: counts as much as a bend so far off
_MISSED = 0.01  # share of structures that the second annotator overlooks
_MISNAMED = 0.02  # share of films whose levels the second annotator calls by their neighbours


def draw(
    truth: Mapping[str, Any],
    manifest: pd.DataFrame,
    pseudonyms: Pseudonyms,
    pictures: Path,
    seed: int,
    annotator: int = 0,
) -> list[Film]:
    """What one annotator draws on every accepted film, for a VIA project.

    Films that the truth reserves for testing have the file attribute `subset`. An annotator draws
    the same on a film whatever other films there are.

    Args:
        truth: `truth.json` of the synthetic cohort, keyed by the archive's own UIDs; polygons in
            the coordinates of :mod:`lumbarflow.annotate`.
        manifest: `images/manifest.parquet`.
        pseudonyms: the keyed mapping, as at retrieval.
        pictures: folder with `{image_id}.png`.
        seed: of the cohort.
        annotator: 0, or 1 for the second, who is less careful: now and then a structure is
            overlooked, or the levels of a film are all one too high.
    """
    accepted = set(manifest.loc[manifest["status"] == "accepted", "image_id"])
    edge_mm = float(np.random.default_rng([seed, annotator]).normal(0, _EDGE_MM))
    films = []
    for image in truth["images"]:
        uid = image["sop_instance_uid"]
        image_id = pseudonyms.image(uid)
        if image_id not in accepted:
            continue
        number = int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8], "big")
        rng = np.random.default_rng([seed, annotator, number])
        name = f"{image_id}.png"
        reserved = image.get("reserved")
        films.append(
            Film(
                name,
                (pictures / name).stat().st_size,
                list(_regions(image, rng, edge_mm, careful=annotator == 0)),
                {SUBSET: reserved} if reserved else {},
            )
        )
    return sorted(films, key=lambda film: film.file_name)


def _regions(
    image: Mapping[str, Any], rng: np.random.Generator, edge_mm: float, careful: bool
) -> Iterator[dict[str, Any]]:
    shape = image["rows"], image["columns"]
    misnamed = not careful and rng.random() < _MISNAMED
    for structure in image["structures"]:
        level = structure["level"]
        # Drawn in any case: what is overlooked changes nothing in the others.
        polygon = click(
            rng,
            np.asarray(structure["polygon"], float),
            shape,
            image["pixel_spacing_mm"],
            VERTICES.get(structure["class_name"], IMPLANT_VERTICES),
            edge_mm,
        )
        overlooked = rng.random() < _MISSED and not careful
        if structure["class_name"] is None or overlooked:
            continue
        if misnamed and structure["class_name"] == "lumbar_vertebra":
            level = LEVELS[RANK[level] - (2 if level == "L1" else 1)]  # T13 is rare
        yield {"class_name": structure["class_name"], "level": level, "polygon": polygon}


def click(
    rng: np.random.Generator,
    outline: np.ndarray,
    shape: tuple[int, int],
    pixel_spacing_mm: float,
    vertices: tuple[int, int],
    edge_mm: float = 0.0,
) -> list[list[float]]:
    """An outline as a person clicks it.

    Args:
        rng: the only source of chance.
        outline: N x 2, pixels, as dense as one likes.
        shape: rows and columns of the film, which clicks do not leave.
        pixel_spacing_mm: at the detector.
        vertices: fewest and most vertices.
        edge_mm: how far outside the edge all clicks lie in the mean.

    Returns:
        Points [x, y] in tenths of a pixel, or finer where pixels are large, in the outline's order.
    """
    dense = _dense(outline)
    clicked = corners_and_bends(dense, int(rng.integers(vertices[0], vertices[1] + 1)))
    chosen = dense[clicked]
    around = np.roll(chosen, -1, axis=0) - np.roll(chosen, 1, axis=0)
    normal = np.column_stack([around[:, 1], -around[:, 0]])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    following = np.roll(chosen, -1, axis=0)
    turns = (chosen[:, 0] * following[:, 1] - chosen[:, 1] * following[:, 0]).sum()
    error = rng.normal(0, HAND_MM, chosen.shape) + rng.normal(0, _PLACE_MM, 2)
    error = (error + np.sign(turns) * normal * edge_mm) / pixel_spacing_mm
    limit = np.array(shape[::-1], float)
    digits = 1 if pixel_spacing_mm < 0.5 else 2
    for steadiness in (1.0, 0.5, 0.25, 0.0):  # thin things are clicked with more care
        points = np.round(np.clip(chosen + steadiness * error, 0, limit), digits)
        if not intersects_itself(points):
            break
    return points.tolist()


def corners_and_bends(outline: np.ndarray, count: int) -> np.ndarray:
    """Indices of `count` points of a closed outline (N x 2) that tell its shape, in its order.

    Beginning with the two farthest from each other, the point is added that lies farthest from the
    polygon so far, as Douglas and Peucker do (Cartographica 10, 1973); long straight edges get a
    point as well, the sooner the longer they are.
    """
    centre = outline.mean(axis=0)
    first = int(np.argmax(((outline - centre) ** 2).sum(axis=1)))
    second = int(np.argmax(((outline - outline[first]) ** 2).sum(axis=1)))
    size = len(outline)
    kept = sorted({first, second})
    # Of each stretch between two kept points: how much it wants a point, and where.
    wishes = {
        first: _wish(outline, first, second),
        second: _wish(outline, second, first),
    }
    while len(kept) < min(count, size):
        start = max(wishes, key=lambda key: wishes[key][0])
        if wishes[start][0] <= 0:
            break
        added = wishes[start][1] % size
        stop = kept[(kept.index(start) + 1) % len(kept)]
        kept = sorted([*kept, added])
        wishes[start] = _wish(outline, start, added)
        wishes[added] = _wish(outline, added, stop)
    return np.array(kept)


def _wish(outline: np.ndarray, start: int, stop: int) -> tuple[float, int]:
    """How far the outline strays between two points, from there round to here, and where most."""
    size = len(outline)
    length = (stop - start) % size or size
    if length < 2:
        return 0.0, start
    between = outline[np.arange(start, start + length + 1) % size]
    chord = between[-1] - between[0]
    across = np.linalg.norm(chord)
    steps = between[1:-1] - between[0]
    if across > 0:
        off = np.abs(steps[:, 0] * chord[1] - steps[:, 1] * chord[0]) / across
    else:
        off = np.linalg.norm(steps, axis=1)
    # Towards the middle of a stretch, so that straight edges are divided evenly.
    share = np.arange(1, length) / length
    score = off + _SPREAD * across * 4 * share * (1 - share)
    best = int(np.argmax(score))
    return float(score[best]), start + 1 + best


def _dense(outline: np.ndarray, pieces: int = 240) -> np.ndarray:
    """The same outline with further points on its longer edges (M x 2)."""
    steps = np.roll(outline, -1, axis=0) - outline
    lengths = np.linalg.norm(steps, axis=1)
    counts = np.maximum(np.ceil(lengths / max(lengths.sum() / pieces, 1e-9)), 1).astype(int)
    start = np.repeat(np.arange(len(outline)), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    share = (np.arange(len(start)) - first) / counts[start]
    return outline[start] + share[:, None] * steps[start]
