"""One set of regions for a film that several annotators drew on, by the configured rule.

- `first`, `last`: the drawing of one annotator, whole.
- `consensus`: structures that most annotators drew, each with the outline of their majority.

Every drawing stays in the film's record under `drawings`, whatever the rule makes of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import cv2
import numpy as np

from ..errors import InputError
from ..prepare.masks import Polygon, rasterise_window
from .agreement import match
from .films import name_some
from .mapping import nearest
from .outlines import outlines
from .qc import Problem

RULES = ("first", "last", "consensus")

# Pixels by which a merged outline may be simplified: below what can be drawn or seen.
_TOLERANCE = 0.2

Drawing = Mapping[str, Any]
Structure = dict[str, Any]


def merge(
    drawings: Sequence[Drawing],
    rule: str,
    priority: Sequence[str],
    classes: Sequence[str],
    rows: int,
    columns: int,
) -> tuple[list[Structure], list[Structure], list[Structure], list[Problem]]:
    """Choose or merge the drawings of a film.

    Annotators in `priority` come first, in its order. For `first` and `last` the others follow in
    the order of the files; for `consensus`, whose result does not depend on that order, by name.

    With `consensus` a structure stays if more than half of the annotators drew it (see
    :func:`lumbarflow.annotate.agreement.match`), or half of them with the one who comes first. Its
    outline is that of the majority, see :func:`majority_outline`; its level is that of more than
    half of those who gave one, otherwise of the first who did. Its structure_id is that of the
    first who drew it; annotator and source name all of them, and it is `drawn` only if all
    of them drew it rather than accept a prediction. Lines are those of the first
    annotator who drew some of that name and level; rejected regions are kept of all.

    Args:
        drawings: annotator, source, structures, lines and rejected (see
            :mod:`lumbarflow.annotate.records`) of each file, in the order of the configuration.
        rule: one of :data:`RULES`.
        priority: annotators, those to believe first.
        classes: the class names of the configuration; merged structures come in its order.
        rows, columns: size of the film in pixels.

    Returns:
        Structures, lines and rejected regions of the record, and what is to be told.
    """
    if len(drawings) == 1:
        (drawing,) = drawings
        return (*_regions(drawing), [])
    place = {annotator: n for n, annotator in reversed(list(enumerate(priority)))}

    def rank(drawing: Drawing) -> int:
        return place.get(drawing["annotator"], len(place))

    if rule == "consensus":
        ranked = sorted(drawings, key=lambda d: (rank(d), d["annotator"], d["source"]))
        return _consensus(ranked, classes, rows, columns)
    ranked = sorted(drawings, key=rank)
    if rule == "last":
        ranked.reverse()
    # A drawing of which nothing is sound would leave the film without annotation.
    chosen = next((drawing for drawing in ranked if drawing["structures"]), ranked[0])
    others = [drawing["annotator"] for drawing in ranked if drawing is not chosen]
    message = (
        f"{len(drawings)} annotators drew on the film: {chosen['annotator']} is used "
        f"(`annotations.annotators.rule` is {rule}), {name_some(others)} only compared"
    )
    return (*_regions(chosen), [Problem(None, "several_annotators", "info", message)])


def check_priority(priority: Iterable[str], annotators: Iterable[str]) -> None:
    """Refuse a name in `annotations.annotators.priority` that is no annotator's.

    Raises:
        InputError: there is one.
    """
    known = sorted(set(annotators))
    for name in priority:
        if name not in known:
            raise InputError(
                f"`annotations.annotators.priority` names {name!r}, but the annotators are "
                f"{name_some(known)}{nearest(name, known)}: correct or remove it."
            )


def majority_outline(polygons: Sequence[Polygon], rows: int, columns: int) -> list[list[float]]:
    """The outline of the area that most of some overlapping outlines cover.

    At each pixel's centre the median of the signed distances to the outlines is computed; the
    merged outline is where it is zero, interpolated between the centres. With an odd number of
    outlines that encloses exactly what most of them cover; with an even number it runs midway
    between the two middle ones, as in shape-based averaging (Rohlfing and Maurer 2007, IEEE
    Transactions on Image Processing 16, 153-161).

    Args:
        polygons: outlines, points [x, y] in pixels.
        rows, columns: size of the film in pixels; what lies outside is cut off.

    Returns:
        Points [x, y] in pixels of the largest part, the first not repeated. The first of
        `polygons` where all are the same, or where no pixel is covered by most of them.
    """
    drawn = [np.asarray(polygon, dtype=np.float64).reshape(-1, 2) for polygon in polygons]
    first = drawn[0].tolist()
    if all(np.array_equal(outline, drawn[0]) for outline in drawn):
        return first
    # The part of the film round the outlines.
    points, size = np.concatenate(drawn), np.array([columns, rows])
    left, top = (np.floor(points.min(axis=0)) - 3).clip(0, size).astype(int)
    right, bottom = (np.ceil(points.max(axis=0)) + 3).clip(0, size).astype(int)
    inside = np.zeros((len(drawn), bottom - top, right - left), dtype=bool)
    for mask, outline in zip(inside, drawn, strict=True):
        row, column, window = rasterise_window(outline, rows, columns)
        height, width = window.shape
        mask[row - top : row - top + height, column - left : column - left + width] = window
    if not inside.any():
        return first
    # The merged edge runs between neighbours of which some outline, but not every, has one inside.
    some, every = inside.any(axis=0).astype(np.uint8), inside.all(axis=0).astype(np.uint8)
    neighbours = np.ones((3, 3), np.uint8)
    near = cv2.dilate(some, neighbours) > cv2.erode(every, neighbours)
    centres = np.argwhere(near)[:, ::-1] + (left + 0.5, top + 0.5)
    depth = [
        np.where(mask[near], 1, -1) * _distance(centres, outline)
        for mask, outline in zip(inside, drawn, strict=True)
    ]
    field = np.where(every, np.inf, -np.inf)
    field[near] = np.median(depth, axis=0)
    parts = outlines(field.clip(-9, 9), 0.0, smoothing=0, tolerance=_TOLERANCE)
    return [[float(x + left), float(y + top)] for x, y in parts[0]] if parts else first


def _regions(drawing: Drawing) -> tuple[list[Structure], list[Structure], list[Structure]]:
    return list(drawing["structures"]), list(drawing["lines"]), list(drawing["rejected"])


def _consensus(
    ranked: Sequence[Drawing], classes: Sequence[str], rows: int, columns: int
) -> tuple[list[Structure], list[Structure], list[Structure], list[Problem]]:
    structures, problems = [], []
    for group in _groups(ranked, rows, columns):
        kept = 2 * len(group) + (0 in group) > len(ranked)
        members = list(group.values())
        if len(group) < len(ranked):
            names = name_some(ranked[n]["annotator"] for n in group)
            message = f"drawn by {len(group)} of {len(ranked)} annotators ({names}): " + (
                "used" if kept else "not used"
            )
            problems.append(
                Problem(members[0]["structure_id"], "not_drawn_by_all", "warning", message)
            )
        if not kept:
            continue
        level, told = _level(ranked, group)
        if told:
            problems.append(Problem(members[0]["structure_id"], "levels_differ", "warning", told))
        structures.append(
            members[0]
            | {
                "level": level,
                "polygon": majority_outline([m["polygon"] for m in members], rows, columns),
                "origin": next((m["origin"] for m in members if m["origin"] != "drawn"), "drawn"),
                "annotator": _names(m["annotator"] for m in members),
                "source": _names(m["source"] for m in members),
            }
        )
    order = {name: n for n, name in enumerate(classes)}
    structures.sort(key=lambda s: (order.get(s["class_name"], len(order)), _centre(s["polygon"])))
    lines, seen = [], set()
    for drawing in ranked:
        new = [line for line in drawing["lines"] if (line["name"], line["level"]) not in seen]
        lines += new
        seen |= {(line["name"], line["level"]) for line in new}
    rejected = [region for drawing in ranked for region in drawing["rejected"]]
    return structures, lines, rejected, problems


def _groups(ranked: Sequence[Drawing], rows: int, columns: int) -> list[dict[int, Structure]]:
    """The structures of all annotators, those that are the same together, by annotator's rank.

    Matches of two annotators are joined from the best to the worst, unless that would put two
    structures of one annotator together.
    """
    pairs = [
        (dice, (a, i), (b, j))
        for a, b in combinations(range(len(ranked)), 2)
        for i, j, dice in match(ranked[a]["structures"], ranked[b]["structures"], rows, columns)
    ]
    group_of = {
        (n, i): {n: i}
        for n, drawing in enumerate(ranked)
        for i in range(len(drawing["structures"]))
    }
    for _, one, other in sorted(pairs, key=lambda pair: (-pair[0], *pair[1:])):
        first, second = group_of[one], group_of[other]
        if first is not second and not first.keys() & second.keys():
            first |= second
            for member in second.items():
                group_of[member] = first
    groups = {id(group): dict(sorted(group.items())) for group in group_of.values()}
    return [{n: ranked[n]["structures"][i] for n, i in group.items()} for group in groups.values()]


def _level(
    ranked: Sequence[Drawing], group: Mapping[int, Structure]
) -> tuple[str | None, str | None]:
    """The level of a structure, and what to tell where annotators gave different ones."""
    given = [structure["level"] for structure in group.values() if structure["level"]]
    if not given:
        return None, None
    counts = Counter(given)
    level, votes = counts.most_common(1)[0]
    if 2 * votes <= len(given):
        level = given[0]
    if len(counts) == 1:
        return level, None
    told = ", ".join(
        f"{structure['level']} ({ranked[n]['annotator']})"
        for n, structure in group.items()
        if structure["level"]
    )
    return level, f"annotators give different levels: {told}; {level} is used"


def _names(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _centre(polygon: Polygon) -> tuple[float, float]:
    """Mean y and x of the points: structures are listed from the head downwards."""
    x, y = np.mean(polygon, axis=0)
    return float(y), float(x)


def _distance(points: np.ndarray, outline: np.ndarray) -> np.ndarray:
    """Distance of points (N x 2) from the nearest point of a closed outline (M x 2)."""
    x, y = np.ascontiguousarray(points.T)
    nearest = np.full(len(points), np.inf)
    edges = np.roll(outline, -1, axis=0) - outline
    for (start_x, start_y), (edge_x, edge_y) in zip(outline, edges, strict=True):
        away_x, away_y = x - start_x, y - start_y
        length = edge_x**2 + edge_y**2
        if length:
            along = ((away_x * edge_x + away_y * edge_y) / length).clip(0, 1)
            away_x -= along * edge_x
            away_y -= along * edge_y
        np.minimum(nearest, away_x**2 + away_y**2, out=nearest)
    return np.sqrt(nearest)
