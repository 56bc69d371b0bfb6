"""From the shapes of the tools to regions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, pairwise
from typing import Any

from ..regions import Note, Region
from .text import number

CURVE_POINTS = 32
"""Points that stand for a circle or an ellipse."""

MAX_POINTS = 10_000
"""Most points of a region: outlines by hand have some dozens, and checks take their square."""

MAX_COORDINATE = 1e6
"""Largest distance from the film's corner, pixels: farther off is no drawing but damage."""

CLOSING_GAP = 0.02
"""A line whose ends are nearer than this share of its length was meant to be closed."""

Points = list[list[float]]


class ShapeError(ValueError):
    """Why a shape cannot be read: the rest of "the region cannot be read: ..."."""


def region(read: Callable[[], tuple[str, Points]], attributes: dict[str, Any]) -> Region:
    """The region whose shape `read` gives, or a damaged one with a note where it raises."""
    try:
        shape, points = read()
        most = MAX_COORDINATE
        if not all(-most <= x <= most and -most <= y <= most for x, y in points):
            raise ShapeError(f"it has a point more than {MAX_COORDINATE:.0f} pixels off")
    except (ShapeError, KeyError, TypeError, ValueError, OverflowError) as error:
        reason = str(error) if isinstance(error, ShapeError) else "its numbers are damaged"
        message = f"the region cannot be read: {reason}; draw it again"
        return Region("damaged", [], attributes, (Note("damaged_region", "error", message),))
    if shape in ("polygon", "polyline") and len(points) > 2 and points[0] == points[-1]:
        return Region("polygon", points[:-1], attributes)
    if shape == "polyline" and _nearly_closed(points):
        message = "a line whose ends nearly meet was taken for an outline: draw polygons"
        return Region("polygon", points, attributes, (Note("line_closed", "info", message),))
    return Region(shape, points, attributes)


def _nearly_closed(points: Points) -> bool:
    if len(points) < 4:
        return False
    length = sum(math.dist(a, b) for a, b in pairwise(points))
    return math.dist(points[0], points[-1]) <= CLOSING_GAP * length


def via_shape(drawn: Mapping[str, Any]) -> tuple[str, Points]:
    """Shape and points of the shape attributes of VIA 1 and 2."""
    if not isinstance(drawn, Mapping) or "name" not in drawn:
        raise ShapeError("it has no shape")

    def value(key: str, default: float | None = None) -> float:
        return number(drawn[key] if default is None else drawn.get(key, default))

    match drawn["name"]:
        case "polygon" | "polyline" as shape:
            xs, ys = drawn["all_points_x"], drawn["all_points_y"]
            if not isinstance(xs, list) or not isinstance(ys, list):
                raise ShapeError("its points are damaged")
            if len(xs) != len(ys):
                raise ShapeError(f"it has {len(xs)} x but {len(ys)} y")
            return shape, pairs(xs, ys)
        case "rect":
            return "rect", _rect(value("x"), value("y"), value("width"), value("height"))
        case "circle":
            return "circle", _ellipse(value("cx"), value("cy"), value("r"), value("r"))
        case "ellipse":
            # theta, the rotation in radians, came with VIA 2.0.9.
            radii = value("rx"), value("ry")
            return "ellipse", _ellipse(value("cx"), value("cy"), *radii, value("theta", 0.0))
        case "point":
            return "point", [[value("cx"), value("cy")]]
    raise ShapeError("its shape is not known")


def via3_shape(numbers: Any) -> tuple[str, Points]:
    """Shape and points of the spatial coordinates of VIA 3: a shape's number and its values."""
    if not isinstance(numbers, list) or not numbers:
        raise ShapeError("it has no shape")
    if len(numbers) > 2 * MAX_POINTS + 1:
        raise ShapeError(f"it has more than {MAX_POINTS} points")
    kind, *values = (number(value) for value in numbers)
    flat = kind in (5, 6, 7, 8, 9)
    if flat and (len(values) % 2 or not values):
        raise ShapeError("a point lacks its y")
    points = [[x, y] for x, y in zip(values[::2], values[1::2], strict=True)] if flat else []
    match int(kind), len(values):
        case 1, 2:
            return "point", [values]
        case 2, 4:
            return "rect", _rect(*values)
        case 3, 3:
            return "circle", _ellipse(values[0], values[1], values[2], values[2])
        case 4, 4 | 5:
            return "ellipse", _ellipse(*values)
        case ((5 | 6), _):
            return "polyline", points
        case 7, _:
            return "polygon", points
        case 8, _:  # the rectangle around extreme points
            (left, right), (top, bottom) = ((min(v), max(v)) for v in zip(*points, strict=True))
            return "rect", _rect(left, top, right - left, bottom - top)
        case 9, 6:
            return "circle", _circle_through(*points)
    raise ShapeError("its shape is not known")


def pairs(xs: Sequence[Any], ys: Sequence[Any]) -> Points:
    """Points of two lists of equal length."""
    if len(xs) > MAX_POINTS:
        raise ShapeError(f"it has more than {MAX_POINTS} points")
    if not {*map(type, xs), *map(type, ys)} <= {int, float}:
        return [[number(x), number(y)] for x, y in zip(xs, ys, strict=True)]
    points = [[float(x), float(y)] for x, y in zip(xs, ys, strict=True)]
    if not all(map(math.isfinite, chain.from_iterable(points))):
        raise ValueError("not a finite number")
    return points


def joined(rings: Iterable[Points]) -> Points:
    """One polygon of several rings, whose mask is their exclusive or.

    The way to each ring is gone to and fro, so that it cancels out.
    """
    first, *others = rings
    outline = list(first)
    for ring in others:
        here = min(range(len(outline)), key=lambda n: math.dist(outline[n], ring[0]))
        there = min(range(len(ring)), key=lambda n: math.dist(ring[n], outline[here]))
        loop = ring[there:] + ring[: there + 1]
        outline = [*outline[: here + 1], *loop, *outline[here:]]
    return outline


def _rect(x: float, y: float, width: float, height: float) -> Points:
    right, bottom = x + width, y + height
    return [[x, y], [right, y], [right, bottom], [x, bottom]]


def _ellipse(cx: float, cy: float, rx: float, ry: float, theta: float = 0.0) -> Points:
    if rx < 0 or ry < 0:
        raise ShapeError("its radius is negative")
    cos, sin = math.cos(theta), math.sin(theta)
    points = []
    for n in range(CURVE_POINTS):
        angle = 2 * math.pi * n / CURVE_POINTS
        u, v = rx * math.cos(angle), ry * math.sin(angle)
        points.append([cx + u * cos - v * sin, cy + u * sin + v * cos])
    return points


def _circle_through(a: Sequence[float], b: Sequence[float], c: Sequence[float]) -> Points:
    # Perpendicular bisectors, with a as the origin.
    bx, by, cx, cy = b[0] - a[0], b[1] - a[1], c[0] - a[0], c[1] - a[1]
    area = 2 * (bx * cy - by * cx)
    if not area:
        raise ShapeError("its three points lie on one line")
    b2, c2 = bx * bx + by * by, cx * cx + cy * cy
    x, y = (cy * b2 - by * c2) / area, (bx * c2 - cx * b2) / area
    radius = math.hypot(x, y)
    return _ellipse(a[0] + x, a[1] + y, radius, radius)
