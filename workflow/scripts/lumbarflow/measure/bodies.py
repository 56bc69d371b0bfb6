"""From the masks of any network to one body a vertebra, ordered along the spine.

Semantic networks give connected parts of a class: neighbours that touch are one of them. Detectors
give the same body twice, in pieces, or two as one. :func:`repair` mends both alike, by what a
vertebra looks like from the side (:data:`_KINDS`) and the course of the spine, and leaves alone
what is right.

Fused bodies are taken apart along the middle line of their mask, which follows the spine's course:
dynamic programming finds the most probable division of its width profile into bodies, each cut
straight across at the tilt at which the mask is narrowest. Discs are straight from the side: a
watershed of the distance transform (Vincent and Soille, IEEE Trans Pattern Anal Mach Intell
1991;13:583) about these cuts moves them little, and bodies come out no better.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import cv2
import numpy as np
import pandas as pd
from scipy import ndimage

from .. import runs
from ..annotate.spine import course
from ..evaluate.metrics import match_instances
from ..prepare.masks import rasterise_window
from .anatomy import Body

VERTEBRAE = ("lumbar_vertebra", "sacral_vertebra")
#: From which intersection over union a body counts as recognised.
RECOGNISED_IOU = 0.5


@dataclass(frozen=True)
class Separation:
    """Thresholds of :func:`repair`. Odds are in units of minus twice the logarithm of likelihood.

    Attributes:
        score: bodies that score less are left out.
        duplicate_iou: from which intersection over union two bodies are one.
        duplicate_cover: from which share of the smaller one inside the larger one they are one.
        split_odds: by how much more likely two bodies must be than one before a mask is cut.
        merge_odds: by how much more likely one body must be than two before pieces are joined.
        solidity: the least share of its convex hull that joined pieces fill; a disc between two
            flat bodies leaves more of it empty.
        speck: what is smaller, relative to a typical lumbar body, is left out.
        isolation: a lone body farther from the others, in typical distances of neighbours, is left
            out.
    """

    score: float = 0.4
    duplicate_iou: float = 0.4
    duplicate_cover: float = 0.7
    split_odds: float = 7.0
    merge_odds: float = 3.0
    solidity: float = 0.88
    speck: float = 0.18
    isolation: float = 3.5


@dataclass(frozen=True)
class _Kind:
    """What bodies look like from the side: within the ranges nothing is odd.

    aspect is height / depth, depth is relative to a typical lumbar body's. A body cut out of a
    fused part has half of the discs with it and is higher. Ranges: outlines of the simulation,
    whose sizes are those of Panjabi et al. (see :mod:`lumbarflow.synthetic.alignment`).
    """

    class_name: str
    aspect: tuple[float, float]
    aspect_spread: tuple[float, float]  # of the logarithm: lower (fractures), higher
    depth: tuple[float, float]


_LUMBAR, _S1, _S2 = _KINDS = (
    _Kind("lumbar_vertebra", (0.74, 1.0), (0.25, 0.15), (0.88, 1.1)),
    _Kind("sacral_vertebra", (0.88, 1.1), (0.12, 0.12), (0.8, 1.0)),
    _Kind("sacral_vertebra", (1.1, 1.4), (0.12, 0.15), (0.55, 0.75)),
)
_DEPTH_SPREAD = 0.15
_AREA = 0.81  # of a typical lumbar body, relative to its squared depth
_PITCH = 1.2  # from centre to centre of neighbours, relative to the depth
_OTHER_CLASS = 6.0  # odds against a body that the network gave the other class
# Odds of a cut as wide as its surroundings, and how they fall for a neck.
_NECK_WEIGHT, _NECK = 14.0, 0.75
_TILTS = np.radians(np.arange(-24, 25, 6))
_STEPS = 20  # of a width profile, per typical depth


# --- Reading and writing ---------------------------------------------------------------------


def decode(rows: pd.DataFrame, classes: Collection[str] = VERTEBRAE) -> list[Body]:
    """The instances of one film in a table of predictions.

    Args:
        rows: `predictions/{model}.parquet` of one film.
        classes: which to take.

    Returns:
        Bodies in the order of the rows; empty masks are left out.
    """
    found = []
    for row in rows[rows["class_name"].isin(list(classes))].itertuples():
        mask = runs.of_string(row.rle_counts, row.rle_height, row.rle_width)
        top, left, window = runs.window(mask)
        if not window.size:
            continue
        found.append(
            Body(
                str(row.instance_id),
                row.class_name,
                float(row.score),
                (left, top),
                window,
                level=None if pd.isna(row.level) else str(row.level),
            )
        )
    return found


def of_record(
    structures: Iterable[Mapping[str, Any]],
    rows: int,
    columns: int,
    classes: Collection[str] = VERTEBRAE,
) -> list[Body]:
    """The bodies that annotators drew.

    Args:
        structures: of a record (see :mod:`lumbarflow.annotate.records`).
        rows, columns: size of the film in pixels.
        classes: which to take.

    Returns:
        Bodies of score 1 with outline and level, in the order of `structures`; outlines without a
        pixel on the film are left out.
    """
    found = []
    for structure in structures:
        if structure["class_name"] not in classes:
            continue
        top, left, mask = rasterise_window(structure["polygon"], rows, columns)
        if mask.any():
            found.append(
                Body(
                    structure["structure_id"],
                    structure["class_name"],
                    1.0,
                    (left, top),
                    mask,
                    np.asarray(structure["polygon"], dtype=np.float64),
                    structure["level"],
                )
            )
    return found


def encode(body: Body, image_id: str, rows: int, columns: int) -> dict[str, object]:
    """A body as a row of a table of predictions (see :mod:`lumbarflow.predict.table`).

    Args:
        body: its window lies on the film.
        image_id: of the film.
        rows, columns: size of the film in pixels.
    """
    x, y, width, height = cv2.boundingRect(body.mask.view(np.uint8))
    window = body.mask[y : y + height, x : x + width]
    x, y = x + body.origin[0], y + body.origin[1]
    run_lengths = runs.of_window(y, x, window, rows, columns)
    return {
        "image_id": image_id,
        "instance_id": body.instance_id,
        "class_name": body.class_name,
        "level": body.level,
        "score": body.score,
        "bbox_x": x,
        "bbox_y": y,
        "bbox_w": width,
        "bbox_h": height,
        "rle_counts": run_lengths["counts"].decode("ascii"),
        "rle_height": rows,
        "rle_width": columns,
    }


def overlap(a: Body, b: Body) -> int:
    """Pixels that two bodies of a film share."""
    (left_a, top_a), (left_b, top_b) = a.origin, b.origin
    left, top = max(left_a, left_b), max(top_a, top_b)
    right = min(left_a + a.mask.shape[1], left_b + b.mask.shape[1])
    bottom = min(top_a + a.mask.shape[0], top_b + b.mask.shape[0])
    if left >= right or top >= bottom:
        return 0
    return np.count_nonzero(
        a.mask[top - top_a : bottom - top_a, left - left_a : right - left_a]
        & b.mask[top - top_b : bottom - top_b, left - left_b : right - left_b]
    )


def iou_matrix(references: Sequence[Body], bodies: Sequence[Body]) -> np.ndarray:
    """Intersection over union of each of R references with each of B bodies (R x B float64)."""
    area_a = [np.count_nonzero(body.mask) for body in references]
    area_b = [np.count_nonzero(body.mask) for body in bodies]
    matrix = np.zeros((len(references), len(bodies)))
    for i, a in enumerate(references):
        for j, b in enumerate(bodies):
            both = overlap(a, b)
            matrix[i, j] = both / max(area_a[i] + area_b[j] - both, 1)
    return matrix


# --- Repair ----------------------------------------------------------------------------------


def repair(
    bodies: Sequence[Body], rows: int, columns: int, settings: Separation | None = None
) -> list[Body]:
    """One body a vertebra, from cranial to caudal.

    Bodies that score too little are left out; fused ones are split; of several that cover each
    other the one stays whose score times plausibility is highest; pieces of one body are joined;
    specks and what lies off the spine's course are left out. What needs none of this comes back as
    the very object that went in. The order of `bodies` has no influence.

    Args:
        bodies: of one film; windows lie on the film.
        rows, columns: size of the film in pixels.
        settings: the defaults where None.

    Returns:
        The bodies. Those with `repair` `split` are named as the fused one with `-a`, `-b` ... from
        cranial to caudal, those with `merged` as the best of their pieces.
    """
    settings = settings or Separation()
    chosen = [_see(body) for body in bodies if body.score >= settings.score and body.mask.any()]
    chosen.sort(key=lambda s: (s.centre[1], s.centre[0], s.area, s.body.score, s.body.instance_id))
    if not chosen:
        return []
    unit = _typical_depth(chosen)
    chosen = [part for seen in chosen for part in _split(seen, chosen, unit, settings)]
    chosen = _without_duplicates(chosen, unit, settings)
    chosen = [seen for seen in chosen if seen.area >= settings.speck * _AREA * unit**2]
    chosen = _joined(chosen, unit, settings)
    return [seen.body for seen in _on_course(chosen, unit, settings)]


@dataclass(frozen=True, eq=False)
class _Seen:
    """A body and its moments: area (px), centre (x, y) and covariance (2 x 2) of its pixels."""

    body: Body
    area: int
    centre: np.ndarray
    covariance: np.ndarray

    def extent(self, direction: np.ndarray) -> float:
        """Length of the rectangle with the same second moment along a unit vector."""
        return float(np.sqrt(12 * max(direction @ self.covariance @ direction, 1 / 12)))

    def principal(self) -> tuple[float, float, np.ndarray]:
        """Length, width and the direction of the length (unit vector, upwards on the film)."""
        values, vectors = np.linalg.eigh(self.covariance)
        axis = vectors[:, 1] if vectors[1, 1] <= 0 else -vectors[:, 1]
        width, length = np.sqrt(12 * np.maximum(values, 1 / 12))
        return float(length), float(width), axis


def _see(body: Body) -> _Seen:
    moments = cv2.moments(body.mask.view(np.uint8), binaryImage=True)
    area = moments["m00"]
    centre = np.array([moments["m10"], moments["m01"]]) / area + 0.5 + body.origin
    mixed = moments["mu11"] / area
    covariance = np.array([[moments["mu20"] / area, mixed], [mixed, moments["mu02"] / area]])
    return _Seen(body, int(area), centre, covariance)


def _typical_depth(seen: Sequence[_Seen]) -> float:
    """The antero-posterior depth of a typical lumbar body of the film, px: half the area of the
    lumbar class (of all, where there is none) lies in masks that tell a lower one."""
    lumbar = [s for s in seen if s.body.class_name == _LUMBAR.class_name] or list(seen)
    depths = []
    for one in lumbar:
        length, width, axis = one.principal()
        # Depth is what fusion leaves as it is.
        fused = length > 1.5 * width and -axis[1] > 0.6
        depths.append(one.area / length if fused else np.sqrt(one.area / _AREA))
    order = np.argsort(depths, kind="stable")
    reached = np.cumsum(np.array([one.area for one in lumbar])[order])
    return float(depths[order[int(np.searchsorted(reached, reached[-1] / 2))]])


def _upwards(one: _Seen, others: Sequence[_Seen], unit: float) -> np.ndarray:
    """The course of the spine at a body, as a unit vector towards the head."""
    away = np.array([other.centre - one.centre for other in others]).reshape(-1, 2)
    reach = np.hypot(*away.T)
    near = (
        (reach > 0.6 * unit)
        & (reach < 3 * _PITCH * unit)
        & (np.abs(away[:, 0]) < 1.5 * np.abs(away[:, 1]))
    )
    above, below = near & (away[:, 1] < 0), near & (away[:, 1] > 0)
    up = np.array([0.0, -1.0])
    ends = [
        away[np.flatnonzero(side)[reach[side].argmin()]] if side.any() else np.zeros(2)
        for side in (above, below)
    ]
    course_here = ends[0] - ends[1]
    length = np.hypot(*course_here)
    return course_here / length if length else up


def _odds(height: np.ndarray, depth: np.ndarray, unit: float, kind: _Kind) -> np.ndarray:
    """How odd bodies of these sizes (px) are for their kind: 0 not at all, then squared spreads."""
    aspect = np.maximum(height, 1e-6) / np.maximum(depth, 1e-6)
    low, high = kind.aspect
    odd = (np.maximum(np.log(low / aspect), 0) / kind.aspect_spread[0]) ** 2
    odd += (np.maximum(np.log(aspect / high), 0) / kind.aspect_spread[1]) ** 2
    relative = np.maximum(depth, 1e-6) / unit
    low, high = kind.depth
    off = np.maximum(np.maximum(np.log(low / relative), np.log(relative / high)), 0)
    return odd + (off / _DEPTH_SPREAD) ** 2


def _oddity(one: _Seen, up: np.ndarray, unit: float) -> float:
    """How odd a body is for the kind that it looks like most."""
    height, depth = one.extent(up), one.extent(np.array([up[1], -up[0]]))
    # Rectangles of the same moments are right for whole bodies, not for hooks and rings.
    filled = min(1.0, one.area / (height * depth))
    return min(
        float(_odds(height, depth * filled, unit, kind))
        + _OTHER_CLASS * (kind.class_name != one.body.class_name)
        for kind in _KINDS
    )


def _split(
    seen: _Seen, all_seen: Sequence[_Seen], unit: float, settings: Separation
) -> list[_Seen]:
    """A body as it is, or its parts from cranial to caudal where it is several in one."""
    body = seen.body
    others = [other for other in all_seen if other is not seen]
    windows = _divided(body.mask, body.class_name, _upwards(seen, others, unit), unit, settings)
    if len(windows) == 1:
        return [seen]
    parts = []
    for number, ((x, y), mask) in enumerate(windows):
        part = replace(
            body,
            instance_id=f"{body.instance_id}-{chr(ord('a') + number)}",
            origin=(body.origin[0] + x, body.origin[1] + y),
            mask=mask,
            outline=None,
            level=None,
            repair="split",
        )
        # Where a smaller mask of the other class covers it, that is what was swallowed.
        different = [
            other.body
            for other in others
            if other.body.class_name != body.class_name and other.area < seen.area
        ]
        if sum(overlap(part, other) for other in different) > np.count_nonzero(mask) / 2:
            part = replace(part, class_name=different[0].class_name)
        parts.append(_see(part))
    return parts


def _divided(
    mask: np.ndarray, class_name: str, up: np.ndarray, unit: float, settings: Separation
) -> list[tuple[tuple[int, int], np.ndarray]]:
    """The bodies in a mask, from cranial to caudal: x and y of each one's window, and its mask.

    Where the mask is one body, it comes back as it is.
    """
    whole = [((0, 0), mask)]
    cut = _best_cut(mask, class_name, up, unit, settings)
    if cut is None:
        return whole
    halves = [_cropped(_largest(half)) for half in _sides(mask, *cut)]
    least = settings.speck * _AREA * unit**2
    if min(np.count_nonzero(half) for _, half in halves) < least:
        return whole
    return [
        ((x + dx, y + dy), part)
        for (x, y), half in halves
        for (dx, dy), part in _divided(half, class_name, up, unit, settings)
    ]


def _cropped(mask: np.ndarray) -> tuple[tuple[int, int], np.ndarray]:
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return (x, y), np.ascontiguousarray(mask[y : y + height, x : x + width])


def _best_cut(
    mask: np.ndarray, class_name: str, up: np.ndarray, unit: float, settings: Separation
) -> tuple[np.ndarray, np.ndarray] | None:
    """Where to cut a mask first.

    Returns:
        A point (x, y in the window) of the cut and the unit vector across it to the caudal side;
        None where the mask is most probably one body.
    """
    one = _see(Body("", class_name, 1.0, (0, 0), mask))
    length, width, axis = one.principal()
    steep = 0.5 if length > 1.6 * width else 0.7
    axis = axis if axis @ up > steep else up
    if one.extent(axis) < 1.2 * unit:
        return None
    # The middle line: a polynomial along the axis, which points to the feet from here on.
    stride = max(1, int(unit / 60))
    y, x = np.nonzero(mask[::stride, ::stride])
    points = (np.stack([x, y], axis=1) + 0.5) * stride - one.centre
    down, aside = -axis, np.array([axis[1], -axis[0]])
    u, v = points @ down / unit, points @ aside / unit
    degree = 1 + (np.ptp(u) > 1.5) + (np.ptp(u) > 3.5)
    line = np.polynomial.Polynomial.fit(u, v, degree).convert()
    slope = line.deriv()
    at = u + (v - line(u)) * slope(u) / (1 + slope(u) ** 2)
    off = (v - line(u)) / np.hypot(1, slope(u))
    grid = np.linspace(at.min(), at.max(), 200)
    lengths = np.hypot(1, slope(grid))
    arc = np.concatenate([[0], np.cumsum((lengths[1:] + lengths[:-1]) / 2 * np.diff(grid))])
    along = np.interp(at, grid, arc)

    # Width profiles across the line at several tilts, in typical depths.
    bins = int(np.ceil(arc[-1] * _STEPS)) + 1
    weight = (stride / unit) ** 2 * _STEPS
    profiles = np.array([_histogram(along - off * np.tan(t), bins) * weight for t in _TILTS])
    straight = profiles[len(_TILTS) // 2]
    smooth = ndimage.gaussian_filter1d(straight, 1.0)
    reach = _STEPS // 2
    above = ndimage.maximum_filter1d(smooth, reach, origin=(reach - 1) // 2)
    below = ndimage.maximum_filter1d(smooth, reach, origin=-(reach // 2))
    beside = np.maximum(np.minimum(above, below), 1e-6)
    necks = ndimage.gaussian_filter1d(profiles, 0.7, axis=1) / beside
    costs = _NECK_WEIGHT * (necks - _NECK) + (_TILTS[:, None] / _TILTS[-1]) ** 2
    tilt = costs.argmin(axis=0)
    cut_cost = settings.split_odds + costs.min(axis=0)

    places = _divisions(np.concatenate([[0], np.cumsum(straight) / _STEPS]), cut_cost, class_name)
    if not places:
        return None
    place = min(places, key=lambda p: float(cut_cost[p]))
    u0 = float(np.interp((place + 0.5) / _STEPS, arc, grid))
    point = one.centre + unit * (u0 * down + line(u0) * aside)
    tangent = down + slope(u0) * aside
    tangent /= np.hypot(*tangent)
    angle = _TILTS[tilt[place]]
    across = np.array([-tangent[1], tangent[0]])
    if across @ aside < 0:
        across = -across
    normal = np.cos(angle) * tangent - np.sin(angle) * across
    return point, normal


def _histogram(values: np.ndarray, bins: int) -> np.ndarray:
    """Counts of values by steps of 1 / _STEPS from 0, each shared by the two nearest steps."""
    place = np.clip(values * _STEPS - 0.5, 0, bins - 1.001)
    low = place.astype(int)
    share = place - low
    counts = np.bincount(low, 1 - share, bins)
    counts += np.bincount(low + 1, share, bins)[:bins]
    return counts


def _divisions(area: np.ndarray, cut_cost: np.ndarray, class_name: str) -> list[int]:
    """The most probable places of cuts along a width profile, by dynamic programming.

    From cranial to caudal there are any number of lumbar bodies, then S1, then S2.

    Args:
        area: above each border of the profile's steps (steps + 1), in squared typical depths.
        cut_cost: odds against a cut at each step.
        class_name: what the network says.
    """
    n = len(area) - 1
    start, stop = np.triu_indices(n + 1, 1)
    height = (stop - start) / _STEPS
    depth = (area[stop] - area[start]) / height
    best = np.full((len(_KINDS), n + 1), np.inf)
    before = np.zeros((len(_KINDS), n + 1, 2), int)  # kind and place of the cut before
    for number, kind in enumerate(_KINDS):
        odds = np.full((n + 1, n + 1), np.inf)
        odds[start, stop] = _odds(height, depth, 1.0, kind)
        if kind.class_name != class_name:
            odds += _OTHER_CLASS
        first = odds[0].copy()
        # A lumbar body may follow a lumbar one, S1 too, and S2 follows S1.
        allowed = {0: (0,), 1: (0,), 2: (1,)}[number]
        for end in range(1, n + 1):
            best[number, end], before[number, end] = first[end], (-1, 0)
            for previous in allowed:
                total = best[previous, 1:end] + cut_cost[1:end] + odds[1:end, end]
                if total.size and total.min() < best[number, end]:
                    at = int(total.argmin()) + 1
                    best[number, end], before[number, end] = total[at - 1], (previous, at)
    kind, place = int(best[:, n].argmin()), n
    places = []
    while before[kind, place, 0] >= 0:
        kind, place = (int(value) for value in before[kind, place])
        places.append(place)
    return places


def _sides(
    mask: np.ndarray, point: np.ndarray, normal: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The cranial and the caudal side of a cut through a mask."""
    y, x = np.ogrid[: mask.shape[0], : mask.shape[1]]
    side = (x + 0.5 - point[0]) * normal[0] + (y + 0.5 - point[1]) * normal[1]
    return mask & (side < 0), mask & (side >= 0)


def _largest(mask: np.ndarray) -> np.ndarray:
    """The largest 8-connected part of a mask."""
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8))
    if count <= 2:
        return mask
    return labels == 1 + int(statistics[1:, cv2.CC_STAT_AREA].argmax())


def _without_duplicates(seen: Sequence[_Seen], unit: float, settings: Separation) -> list[_Seen]:
    """Non-maximum suppression on masks, across classes."""
    quality = []
    for one in seen:
        others = [other for other in seen if other is not one]
        odd = _oddity(one, _upwards(one, others, unit), unit)
        whole = 1.0 if one.body.repair != "split" else 0.9
        quality.append(one.body.score * whole * np.exp(-odd / 8))
    kept: list[_Seen] = []
    for index in np.argsort(-np.array(quality), kind="stable"):
        one = seen[index]
        for other in kept:
            both = overlap(one.body, other.body)
            iou = both / (one.area + other.area - both)
            cover = both / min(one.area, other.area)
            if iou >= settings.duplicate_iou or cover >= settings.duplicate_cover:
                break
        else:
            kept.append(one)
    return [one for one in seen if one in kept]


def _joined(seen: list[_Seen], unit: float, settings: Separation) -> list[_Seen]:
    """Pieces joined, the clearest ones first."""
    while True:
        odd = [_oddity(one, _upwards(one, seen, unit), unit) for one in seen]
        best: tuple[float, int, int, _Seen] | None = None
        for i, j in combinations(range(len(seen)), 2):
            gain = odd[i] + odd[j] - settings.merge_odds
            near = np.hypot(*(seen[i].centre - seen[j].centre)) < unit
            if gain <= (best[0] if best else 0) or not near:
                continue
            union = _union(seen[i], seen[j], settings)
            if union is None:
                continue
            rest = [one for k, one in enumerate(seen) if k not in (i, j)]
            left = _oddity(union, _upwards(union, rest, unit), unit)
            larger = i if seen[i].area >= seen[j].area else j
            gain -= left
            if left > odd[larger]:  # what is a body already wants no pieces
                continue
            if gain > (best[0] if best else 0):
                best = gain, i, j, union
        if best is None:
            return seen
        _, i, j, union = best
        seen = [union if k == i else one for k, one in enumerate(seen) if k != j]


def _union(a: _Seen, b: _Seen, settings: Separation) -> _Seen | None:
    """Two pieces as one body without the gap between them; None where it would be no body."""
    first, second = sorted((a, b), key=lambda one: (-one.area * one.body.score, one.centre[1]))
    corners = np.array([[*one.body.origin, *one.body.mask.shape[::-1]] for one in (a, b)])
    low = corners[:, :2].min(axis=0)
    size = (corners[:, :2] + corners[:, 2:]).max(axis=0) - low
    mask = np.zeros((size[1], size[0]), np.uint8)
    for one in (a, b):
        x, y = one.body.origin - low
        height, width = one.body.mask.shape
        mask[y : y + height, x : x + width] |= one.body.mask.view(np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.convexHull(np.concatenate(outlines))
    inside = np.zeros_like(mask)
    cv2.fillConvexPoly(inside, hull, 1)
    if mask.sum() < settings.solidity * inside.sum():
        return None
    radius = 1
    closed = mask
    while cv2.connectedComponents(closed)[0] > 2 and radius < max(size):
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        padded = cv2.copyMakeBorder(mask, *(radius,) * 4, cv2.BORDER_CONSTANT)
        closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, disc)
        closed = closed[radius:-radius, radius:-radius] & inside | mask
        radius *= 2
    areas = [one.area for one in (first, second)]
    scores = [one.body.score for one in (first, second)]
    body = replace(
        first.body,
        score=float(np.average(scores, weights=areas)),
        origin=(int(low[0]), int(low[1])),
        mask=np.ascontiguousarray(closed).astype(bool),
        outline=None,
        level=None,
        repair="merged",
    )
    return _see(body)


def _on_course(seen: list[_Seen], unit: float, settings: Separation) -> list[_Seen]:
    """The bodies along the spine, from cranial to caudal."""
    if not seen:
        return []
    path, _ = course(np.array([one.centre for one in seen]))
    chain = [seen[index] for index in path]
    # A lone body far from the end of the chain is another bone.
    farthest = settings.isolation * _PITCH * unit
    while len(chain) > 2:
        steps = np.hypot(*np.diff([one.centre for one in chain], axis=0).T)
        if steps[0] > farthest and steps[0] >= steps[-1]:
            chain = chain[1:]
        elif steps[-1] > farthest:
            chain = chain[:-1]
        else:
            break
    return chain


# --- Choice of thresholds --------------------------------------------------------------------

CANDIDATES = tuple(
    Separation(score=score, split_odds=odds)
    for odds in (7.0, 4.0, 11.0)
    for score in (0.4, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
)


def tune(
    films: Iterable[tuple[Sequence[Body], Sequence[Body], int, int]],
    candidates: Sequence[Separation] = CANDIDATES,
) -> Separation:
    """The thresholds that serve a network best on its validation films.

    Best is the highest number of reference bodies recognised (:data:`RECOGNISED_IOU`) less that of
    false bodies; of equals the first candidate. Bodies above the uppermost and below the lowest
    reference body are not false: annotators end somewhere, the spine goes on.

    Args:
        films: as the network gave them, the reference, rows and columns, of each film.
        candidates: what to choose from.
    """
    films = list(films)

    def gain(settings: Separation) -> int:
        total = 0
        for bodies, reference, rows, columns in films:
            found = repair(bodies, rows, columns, settings)
            overlaps = iou_matrix(reference, found)
            matched = match_instances(np.where(overlaps >= RECOGNISED_IOU, overlaps, 0))
            recognised = int((matched >= 0).sum())
            ends = [(body.origin[1], body.origin[1] + body.mask.shape[0]) for body in reference]
            top, bottom = min((e[0] for e in ends), default=0), max((e[1] for e in ends), default=0)
            within = sum(top <= _see(body).centre[1] <= bottom for body in found)
            total += recognised - max(within - recognised, 0)
        return total

    return max(candidates, key=gain)
