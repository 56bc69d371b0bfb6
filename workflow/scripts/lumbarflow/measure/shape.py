"""The shape of a vertebral body: contour, corners, endplates, osteophytes (the paper's Figure 8).

The contour is divided at its four corners into two endplates and two walls. To each side a straight
line with a bow is fitted, robustly: endplates are hollow within their rims, walls have a waist.
What lies off the bowed line counts little (iteratively reweighted least squares with Tukey's
weights; Holland and Welsch, Commun Stat A 1977;6:813), so that spurs, notches, rounded corners and
bulges of a mask tilt nothing. Where the straight lines of two sides meet is a corner: that of the
rim without osteophytes, as morphometry wants it (Hurxthal, Am J Roentgenol 1968;103:635). What
sticks out beyond the walls at a corner, and is thick enough to survive an opening, is an
osteophyte.
"""

from __future__ import annotations

import cv2
import numpy as np

from ..annotate.agreement import corners as quadrilateral
from .anatomy import CORNERS, Body, Endplate, Osteophyte, Shape

#: The fewest square pixels of a body in which a shape is looked for.
SMALLEST_AREA = 60.0

_POINTS = 360  # of a contour
_ROUNDS = 4  # of dividing the contour and fitting its sides
_STEPS = 2  # of reweighting within a round
_TUKEY = 6.0  # standard deviations at which a point counts nothing
_NOISE = 0.008  # least standard deviation of a contour, relative to half a side
_RIM = 0.88  # within this part of its half-length an endplate is hollow

# In the order of CORNERS: where corners lie in front and above; sides go from each to the next.
_FRONT = np.array([-1.0, 1.0, 1.0, -1.0])
_ABOVE = np.array([1.0, 1.0, -1.0, -1.0])
_SUPERIOR, _ANTERIOR, _INFERIOR, _POSTERIOR = range(4)
_NEXT, _LAST = np.array([1, 2, 3, 0]), np.array([3, 0, 1, 2])
_IS_WALL = np.array([[False], [True], [False], [True]])

# What is known beforehand of shift, slope, bow and lopsided bow of the sides, and its standard
# deviation. Front walls of lumbar bodies bend in by 1 to 2 mm, about 0.09 of half the depth; back
# walls less, as the pedicles stand there. Endplates are nearly symmetrical; walls wholly.
_PRIOR = np.array([[0, 0, 0, 0], [0, 0, 0.09, 0], [0, 0, 0, 0], [0, 0, 0.045, 0]])
_SPREAD = np.array(
    [[1e3, 1e3, 1e3, 0.03], [1e3, 1e3, 0.04, 1e-6], [1e3, 1e3, 1e3, 0.03], [1e3, 1e3, 0.04, 1e-6]]
)
# Up to where points of a side are looked at, and those that are trusted at first.
_REACH = np.where(_IS_WALL, 0.92, 0.94)
_TRUSTED = np.where(_IS_WALL, 0.6, 0.8)
# So much sooner does a point count nothing that lies outside: spurs grow in front.
_SPUR = np.where(np.arange(4)[:, None] == _ANTERIOR, 2.0, 1.0)
_SAMPLES = 80  # points of a side
_BINS = np.linspace(-0.94, 0.94, 25)
_CLOSE = 5 * _NOISE  # so near to the fitted line the contour follows it
_SHARPEST = 0.3  # sine of the smallest angle of a body's corner
# Cells to half the depth, in which osteophytes are found: about 0.3 mm each; the least length of
# one, relative to the depth, about 1.5 mm: that much contours err.
_CELLS = 56
_SHORTEST = 0.045
_THIN = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
_SLIVER = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (4, 4))


def chain_directions(centres: np.ndarray, anterior: str) -> tuple[np.ndarray, np.ndarray]:
    """Which way is up and which to the front at each body of a chain.

    Args:
        centres: N x 2, px, from cranial to caudal.
        anterior: `left` or `right`, where the patient faces on the film.

    Returns:
        Two arrays N x 2 of unit vectors on the film: along the spine to the head, and across it to
        the patient's front.
    """
    centres = np.asarray(centres, float).reshape(-1, 2)
    if len(centres) < 2:
        upwards = np.tile((0.0, -1.0), (len(centres), 1))
    else:
        steps = centres[:-1] - centres[1:]
        # The course turns at a steady rate: at an end it has turned on by half a step.
        before, after = np.vstack([steps[:1], steps]), np.vstack([steps, steps[-1:]])
        upwards = _unit(before) + _unit(after)
        if len(steps) > 1:
            upwards[0] = 1.5 * _unit(steps[0]) - 0.5 * _unit(steps[1])
            upwards[-1] = 1.5 * _unit(steps[-1]) - 0.5 * _unit(steps[-2])
        upwards = _unit(upwards)
    side = 1.0 if anterior == "right" else -1.0
    return upwards, side * np.column_stack([-upwards[:, 1], upwards[:, 0]])


def contour_of(body: Body) -> np.ndarray | None:
    """The contour of a body, to fractions of a pixel.

    Of a mask, the border of its largest part, holes filled; stairs of pixels are smoothed over
    about two pixels, or a hundredth of the size of a large body. An outline as drawn is left as it
    is, but for points added on its edges.

    Returns:
        N x 2 float64 in px, about equally dense, in order round the body; None where the body is
        smaller than :data:`SMALLEST_AREA` or has no area.
    """
    if body.outline is not None:
        outline = np.asarray(body.outline, float).reshape(-1, 2)
        if len(outline) < 3 or abs(area(outline)) < SMALLEST_AREA:
            return None
        return _dense(outline, _POINTS)
    padded = np.pad(np.asarray(body.mask, np.uint8), 1)
    found, _ = cv2.findContours(padded, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not found:
        return None
    border = max(found, key=cv2.contourArea)[:, 0].astype(float)
    if abs(area(border)) < SMALLEST_AREA:
        return None
    length = float(np.hypot(*(np.roll(border, -1, axis=0) - border).T).sum())
    points = _dense(border, max(int(length), 40), equal=True)
    sigma = float(np.clip(0.008 * np.sqrt(abs(area(border))), 0.8, 2.5)) * len(points) / length
    points = _smoothed(points, sigma)
    # The border runs through the centres of the outermost pixels, which lie half a pixel inside
    # along the axis that the edge crosses more steeply.
    ahead = _unit(np.roll(points, -1, axis=0) - np.roll(points, 1, axis=0))
    outwards = np.sign(area(points)) * np.column_stack([ahead[:, 1], -ahead[:, 0]])
    points += 0.5 * np.abs(outwards).max(axis=1, keepdims=True) * outwards
    return _dense(points, _POINTS, equal=True) + np.array(body.origin, float) - 0.5


def fit_shape(
    body: Body, cranial: np.ndarray, anterior: np.ndarray, rows: int, columns: int
) -> Shape | None:
    """Contour, endplates and osteophytes of a body.

    Args:
        body: its outline or mask.
        cranial, anterior: unit vectors on the film (2), to the head along the spine and across it
            to the patient's front, see :func:`chain_directions`; bodies may be tilted against them
            by 30 degrees.
        rows, columns: of the film.

    Returns:
        The shape; None where the contour has not the four sides of a body.
    """
    contour = contour_of(body)
    if contour is None:
        return None
    centre = centroid(contour)
    axes = np.column_stack([anterior, cranial])  # film = centre + local @ axes.T
    local = (contour - centre) @ axes
    if area(local) > 0:  # clockwise, seen with the front to the right and the head above
        local, contour = local[::-1], contour[::-1]
    corners = _first_corners(local)
    if corners is None:
        return None
    sides = None
    for _ in range(_ROUNDS):
        sides = _Sides(local, corners, sides)
        moved = _meeting(*sides.lines)
        if moved is None:
            return None
        corners = moved
    if not _is_body(corners, local):
        return None
    sides = _Sides(local, corners, sides)
    residual, support, middle = sides.summary()

    def on_film(points: np.ndarray) -> np.ndarray:
        return centre + points @ axes.T

    placed = on_film(corners)
    plates = {}
    for number, (back, front) in ((_SUPERIOR, (0, 1)), (_INFERIOR, (3, 2))):
        plates[number] = Endplate(
            posterior=placed[back],
            anterior=placed[front],
            middle=on_film(middle[number]),
            residual_px=float(residual[number]),
            support=float(support[number]),
        )
    low, high = contour.min(axis=0), contour.max(axis=0)
    cut = bool((low < 1.0).any() or (high > np.array([columns, rows]) - 1.0).any())
    rest, corner, cell, shared = _subtracted(local, sides)
    spurs = [
        Osteophyte(name, on_film(tip), length, size)
        for name, tip, length, size in _osteophytes(local, sides, rest, corner, cell)
    ]
    return Shape(
        contour=contour,
        superior=plates[_SUPERIOR],
        inferior=plates[_INFERIOR],
        osteophytes=tuple(spurs),
        quality=_quality(sides, support, shared),
        cut=cut,
    )


class _Sides:
    """The four sides of a body: the contour from each corner to the next, and bowed lines fitted.

    Fits begin with least absolute deviations, or with those of the round before. Lengths along a
    side (`x`, -1 to 1 between its corners) and across (`y`, positive outwards) are in halves of the
    distance of its corners. A fit has a shift, a slope, a bow and, of endplates, a lopsided bow:
    with age and in fractures they are not hollow in the very middle.
    """

    def __init__(self, local: np.ndarray, corners: np.ndarray, before: _Sides | None):
        self.start = corners
        chord = corners[_NEXT] - corners
        self.half = np.maximum(np.hypot(*chord.T) / 2, 1e-9)
        self.along = chord / (2 * self.half[:, None])
        self.out = np.column_stack([-self.along[:, 1], self.along[:, 0]])
        away = local[_arcs(local, corners)] - self.start[:, None]
        self.x = (away @ self.along[..., None])[..., 0] / self.half[:, None] - 1
        self.y = (away @ self.out[..., None])[..., 0] / self.half[:, None]
        depth = self.half[_SUPERIOR] + self.half[_INFERIOR]
        waist = (depth / 2 / self.half)[:, None]
        prior = _PRIOR * np.where(_IS_WALL, waist, 1.0)
        spread = _SPREAD * np.where(_IS_WALL, waist, 1.0)
        self._design = _design(self.x)
        near = np.abs(self.x) <= _REACH
        if before is None:
            trusted = (np.abs(self.x) <= _TRUSTED).astype(float)
            self.noise, weights = np.full(4, 2 * _NOISE), trusted
            for _ in range(_STEPS):  # towards the least absolute deviations
                self.fit = _fit(self._design, self.y, weights, self.noise, prior, spread)
                weights = trusted * _NOISE / (np.abs(self._off()) + _NOISE)
            self._estimate(weights)
        else:  # the corners now lie on the straight lines
            self.fit, self.noise = before.fit * (0, 0, 1, 1), before.noise
        for _ in range(_STEPS):
            off = self._off()
            off = np.where(off > 0, _SPUR * off, off)
            weights = near * np.clip(1 - (off / (_TUKEY * self.noise[:, None])) ** 2, 0, 1) ** 2
            self.fit = _fit(self._design, self.y, weights, self.noise, prior, spread)
            self._estimate(weights)
        self._weights = weights

    def _estimate(self, weights: np.ndarray) -> None:
        """The standard deviation of the contour about the bowed lines."""
        mean = (weights * np.abs(self._off())).sum(1) / np.maximum(weights.sum(1), 1e-9)
        self.noise = np.maximum(1.5 * mean, _NOISE)

    def _off(self) -> np.ndarray:
        """How far the contour lies outside the bowed lines."""
        return self.y - (self._design @ self.fit[..., None])[..., 0]

    @property
    def lines(self) -> tuple[np.ndarray, np.ndarray]:
        """A point on the straight line of each side, and its direction (4 x 2 each)."""
        point = self.start + self.half[:, None] * (self.along + self.fit[:, :1] * self.out)
        return point, self.along + self.fit[:, 1:2] * self.out

    def outline(self) -> np.ndarray:
        """The body within its fitted sides, M x 2."""
        x = np.tile(np.linspace(-1, 1, 24, endpoint=False), (4, 1))
        y = (_design(x) @ self.fit[..., None])[..., 0]
        steps = x[..., None] * self.along[:, None] + y[..., None] * self.out[:, None]
        return (
            self.start[:, None] + self.half[:, None, None] * (self.along[:, None] + steps)
        ).reshape(-1, 2)

    def summary(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each side: residual (px), support (0 to 1) and the contour's middle (4 x 2)."""
        off = self._off()
        total = np.maximum(self._weights.sum(1), 1e-9)
        residual = np.sqrt((self._weights * off**2).sum(1) / total) * self.half
        support, middle = np.zeros(4), np.zeros((4, 2))
        for k, (x, y) in enumerate(zip(self.x, self.y, strict=True)):
            # Every part of the length counts alike, however the contour winds there.
            seen, _ = np.histogram(x, _BINS)
            close, _ = np.histogram(x[np.abs(off[k]) < _CLOSE], _BINS)
            support[k] = np.mean(close / np.maximum(seen, 1))
            near = np.abs(x) < 0.1
            rise = np.median(y[near]) if near.any() else self.fit[k, 0] - self.fit[k, 2]
            middle[k] = self.start[k] + self.half[k] * (self.along[k] + rise * self.out[k])
        return residual, support, middle


def _design(x: np.ndarray) -> np.ndarray:
    """What sides are made of, 4 x M x 4: shift, slope, bow and lopsided bow."""
    plate = np.clip(1 - (x / _RIM) ** 2, 0, None)
    wall = np.cos(np.pi / 2 * np.clip(x, -1, 1)) ** 1.6
    bow = np.where(_IS_WALL, wall, plate)
    return np.stack([np.ones_like(x), x, -bow, -x * bow], axis=-1)


def _fit(
    design: np.ndarray,
    y: np.ndarray,
    weights: np.ndarray,
    noise: np.ndarray,
    prior: np.ndarray,
    spread: np.ndarray,
) -> np.ndarray:
    """Weighted least squares with what is known beforehand: coefficients of the sides, 4 x 4."""
    scaled = (design * weights[..., None]).transpose(0, 2, 1)
    # Neighbouring points err alike: a side has only so many that do not.
    ridge = (noise[:, None] / spread) ** 2 * (_SAMPLES / 20) + 1e-9
    left = scaled @ design + ridge[:, :, None] * np.eye(4)
    right = (scaled @ y[..., None])[..., 0] + ridge * prior
    return np.linalg.solve(left, right[..., None])[..., 0]


def _arcs(local: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Indices of points of the clockwise contour from each corner to the next, 4 x _SAMPLES.

    To a corner belongs the point that lies farthest along the bisector of its angle.
    """
    before, after = _unit(corners - corners[_LAST]), _unit(corners - corners[_NEXT])
    away = local - corners[:, None]
    farthest = (away @ _unit(before + after)[..., None])[..., 0] - np.hypot(*away.T).T / 4
    first = farthest.argmax(axis=1)
    length = (first[_NEXT] - first) % len(local)
    steps = np.rint(length[:, None] * np.linspace(0, 1, _SAMPLES)).astype(int)
    return (first[:, None] + steps) % len(local)


def _first_corners(local: np.ndarray) -> np.ndarray | None:
    """Corners of the largest quadrilateral in the contour, in the order of CORNERS."""
    four = quadrilateral(local)
    if four is None:
        return None
    middle = four.mean(axis=0)
    away = four - middle
    four = four[np.argsort(-np.arctan2(away[:, 1], away[:, 0]))]
    expected = np.column_stack([_FRONT, _ABOVE * 0.8])
    turns = [np.roll(four, shift, axis=0) for shift in range(4)]
    return max(turns, key=lambda turn: float(((turn - middle) * expected).sum()))


def _meeting(points: np.ndarray, directions: np.ndarray) -> np.ndarray | None:
    """Where the lines of neighbouring sides meet, in the order of CORNERS."""
    q, v = points, _unit(directions)
    p, u = q[_LAST], v[_LAST]
    cross = u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]
    if (np.abs(cross) < _SHARPEST).any():
        return None
    between = q - p
    share = (between[:, 0] * v[:, 1] - between[:, 1] * v[:, 0]) / cross
    return p + share[:, None] * u


def _is_body(corners: np.ndarray, local: np.ndarray) -> bool:
    """Whether corners are those of a convex quadrilateral about as large as the contour."""
    edges = corners[_NEXT] - corners
    after = edges[_NEXT]
    turns = edges[:, 0] * after[:, 1] - edges[:, 1] * after[:, 0]
    ratio = abs(area(corners)) / max(abs(area(local)), 1e-9)
    return bool((turns < 0).all() and 0.5 < ratio < 2.0)


def _subtracted(local: np.ndarray, sides: _Sides) -> tuple[np.ndarray, np.ndarray, float, float]:
    """The contour less the body within its fitted sides, opened.

    Returns:
        A mask in which half the depth of the body is :data:`_CELLS` cells; the x, y of its upper
        left cell's corner and the length of a cell, both in the units of `local`; and how much of
        both areas together the two share (0 to 1).
    """
    cell = float(sides.half[_SUPERIOR] + sides.half[_INFERIOR]) / 2 / _CELLS
    low = np.minimum(local.min(axis=0), sides.start.min(axis=0)) - 4 * cell
    high = np.maximum(local.max(axis=0), sides.start.max(axis=0)) + 4 * cell
    shape = np.ceil((high - low) / cell).astype(int)[::-1]
    masks = np.zeros((2, *np.minimum(shape, 12 * _CELLS)), np.uint8)
    for mask, outline in zip(masks, (local, sides.outline()), strict=True):
        # OpenCV counts from the centre of the first cell, in sixteenths with shift 4.
        points = np.rint(((outline - low) / cell - 0.5) * 16).astype(np.int32)
        cv2.fillPoly(mask, [points], 1, shift=4)
    seen, plain = masks
    shared = np.count_nonzero(seen & plain) / max(np.count_nonzero(seen | plain), 1)
    rest = seen & ~cv2.dilate(plain, _THIN)
    return cv2.morphologyEx(rest, cv2.MORPH_OPEN, _SLIVER), low, cell, shared


def _osteophytes(
    local: np.ndarray, sides: _Sides, rest: np.ndarray, low: np.ndarray, cell: float
) -> list[tuple[str, np.ndarray, float, float]]:
    """Corner, tip, length and area of each spur that subtraction leaves."""
    count, labels, statistics, centres = cv2.connectedComponentsWithStats(rest, connectivity=8)
    corners = sides.start
    reach = 0.45 * min(sides.half[_SUPERIOR], sides.half[_INFERIOR])
    sizes = np.zeros(4)
    for number in range(1, count):
        away = np.hypot(*(low + (centres[number] + 0.5) * cell - corners).T)
        # A spur grows from the corner; what lies in the middle of a side is none.
        rows, columns = np.nonzero(labels == number)
        cells = low + (np.column_stack([columns, rows]) + 0.5) * cell
        nearest = int(away.argmin())
        if np.hypot(*(cells - corners[nearest]).T).min() < reach:
            sizes[nearest] += statistics[number, cv2.CC_STAT_AREA] * cell**2
    depth = sides.half[_SUPERIOR] + sides.half[_INFERIOR]
    found = []
    for number in np.flatnonzero(sizes):
        wall = _ANTERIOR if _FRONT[number] > 0 else _POSTERIOR
        beyond = (local - corners[number]) @ sides.out[wall]
        along = np.abs((local - corners[number]) @ sides.along[wall])
        beyond[along > 0.8 * sides.half[wall]] = -np.inf
        tip = int(beyond.argmax())
        if beyond[tip] > _SHORTEST * depth:
            found.append((CORNERS[number], local[tip], float(beyond[tip]), float(sizes[number])))
    return found


def _quality(sides: _Sides, support: np.ndarray, shared: float) -> float:
    """How far a contour looks like one body: it fills its sides, follows them, and is not slim."""
    height = (sides.half[_ANTERIOR] + sides.half[_POSTERIOR]) / (
        sides.half[_SUPERIOR] + sides.half[_INFERIOR]
    )
    # Whole bodies are 0.65 to 1 times as high as deep, collapsed ones a third of that.
    proportion = min(height / 0.3, 1.0, max(2.5 - height, 0.0))
    filled = np.clip((shared - 0.6) / 0.32, 0.0, 1.0)
    followed = np.clip(support.mean() / 0.95, 0.0, 1.0)
    return float(np.clip(proportion, 0, 1) * filled * followed)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def area(points: np.ndarray) -> float:
    """Signed area of a closed polygon (N x 2): positive where it runs from the x to the y axis."""
    x, y = (points - points[0]).T
    return float((x[:-1] * y[1:] - y[:-1] * x[1:]).sum() / 2)


def centroid(points: np.ndarray) -> np.ndarray:
    """Centre (2) of the area of a closed polygon (N x 2)."""
    away = points - points[0]
    here, after = away[:-1], away[1:]
    cross = here[:, 0] * after[:, 1] - here[:, 1] * after[:, 0]
    return points[0] + cross @ (here + after) / (3 * cross.sum())


def _dense(points: np.ndarray, count: int, equal: bool = False) -> np.ndarray:
    """About `count` points along a closed polygon; its own among them unless all are `equal`."""
    closed = np.vstack([points, points[:1]])
    lengths = np.hypot(*np.diff(closed, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(lengths)])
    if equal:
        places = np.arange(count) * (along[-1] / count)
    else:
        pieces = np.maximum(np.ceil(lengths * (count / along[-1])), 0).astype(int)
        start = np.repeat(np.arange(len(points)), pieces)
        nth = np.arange(len(start)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        places = along[start] + nth / pieces[start] * lengths[start]
    return np.column_stack([np.interp(places, along, closed[:, k]) for k in (0, 1)])


def _smoothed(points: np.ndarray, sigma: float) -> np.ndarray:
    """A closed curve of equally dense points after a Gaussian filter along it."""
    spectrum = np.fft.rfft(points, axis=0)
    frequency = 2 * np.pi * np.arange(len(spectrum)) / len(points)
    gain = np.exp(-((sigma * frequency) ** 2) / 2)
    return np.fft.irfft(spectrum * gain[:, None], len(points), axis=0)
