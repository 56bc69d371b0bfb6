"""Which vertebra is which: the most probable chain of levels down to the sacrum.

A film's bodies, ordered along the spine's course, are observations of a hidden Markov chain
(Rabiner, Proc IEEE 1989;77:257) whose states are levels from T8 to S3. A step may pass over levels
(missed bodies), bodies may be passed over (extra ones), and a state may hold two levels at once
(merged ones). Whether the patient has a sixth lumbar or a thirteenth thoracic vertebra or a
sacralised L5, how large the patient is on the film, and how lordotic, is unknown: all are
summed over, by the forward-backward algorithm for each combination.

What speaks for a level: the class (evidence only: networks call S1 lumbar now and then), the score,
a body's height and depth relative to the others', its wedge and taper, how it is tilted, and the
distance and angle to the next body. What is typical is :data:`..synthetic.alignment.TYPICAL`, with
its sources: sizes by Panjabi et al. (Spine 1991;16:888, 1992;17:299) and Zhou et al. (Eur Spine J
2000;9:242), alignment by Vialle et al. (J Bone Joint Surg Am 2005;87:260). The spread about it is
wide and has heavy tails (Student's t), since slips, collapsed discs and fractures are common.

What can be known:

- Levels are counted from the sacrum. Where it is not seen, only the bodies' sizes, wedges and
  tilts tell the level; probabilities fall, and a level less probable than a third is not given.
- Without ribs and iliac crests, a sixth lumbar vertebra differs from a film that starts one body
  higher only by the bodies' proportions: the lowest two bodies and discs share the wedge of L5. It
  is labelled L6 where that is the most probable reading, and `possible_l6` says that another
  reading is a vertebra more, or fewer, as long as it is.
- A thirteenth thoracic vertebra is nearly the twin of T12. Bodies below it have the same level
  either way; `possible_t13` is told where it is likely enough, which a lateral film rarely shows.
- A sacralised L5 keeps its place in the chain. A narrow disc below it may as well be worn:
  `possible_transitional` tells of the suspicion, no more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import pairwise

import cv2
import numpy as np

from ..annotate.spine import RANK, course, skipped
from ..synthetic.alignment import LORDOSIS, SACRAL_SLOPE, TYPICAL
from .anatomy import Body, Shape

#: What a reader of the labels should know.
FLAGS = {
    "sacrum_not_seen": "S1 is not among the bodies with certainty: levels are guesses by shape",
    "possible_l6": "there may be a sixth lumbar vertebra: levels above it may be one off",
    "possible_t13": "there may be a thirteenth thoracic vertebra",
    "possible_transitional": "L5 may have grown to the sacrum, or the disc below it is worn",
    "gap_in_chain": "a level between two others has no body: missed, or taken out",
    "extra_body": "a body has no level: it is none of the chain, or no level is probable",
    "merged_bodies": "a body seems to hold two vertebrae",
    "uncertain_levels": "the level of at least one body is less probable than 0.8",
}
VARIANTS = ("", "L6", "T13", "sacralised L5")

_CHAIN = (
    *("T8", "T9", "T10", "T11", "T12", "T13"),
    *("L1", "L2", "L3", "L4", "L5", "L6"),
    *("S1", "S2", "S3"),
)
_AT = {level: k for k, level in enumerate(_CHAIN)}
#: Levels that are told; what lies beyond them stays unnamed.
LEVELS = _CHAIN[_AT["T10"] : _AT["S3"]]

# Height and depth of sacral segments (mm), about those of the synthetic spines.
_SACRAL = {"S1": (29.5, 30.5), "S2": (25.5, 21.0), "S3": (21.5, 15.0)}
_SACRAL_WEDGE, _SACRAL_GAP = -6.0, 1.0
_SACRAL_TAPER, _TAPER = -0.3, 0.02  # log of lower over upper depth
# A body's second moments, of which sizes are taken here, leave out what its corners span.
_FILLED = 0.94
_HOLLOW = 0.8  # by which the gaps between bodies are wider for it, mm

# Standard deviations (scale of a t distribution with 4 degrees of freedom).
_SD_HEIGHT, _SD_DEPTH, _SD_SACRAL_SIZE = 0.055, 0.05, 0.16  # log
_SD_WEDGE, _SD_SACRAL_WEDGE, _SD_TAPER, _SD_SACRAL_TAPER = 2.0, 6.0, 0.08, 0.15
_SD_GAP, _SD_ANGLE, _SD_TILT = 2.2, 3.0, 12.0  # mm, degrees, degrees

_WORN, _NARROWEST = 0.25, 1.0  # share of discs that have lost height, and what is left at least, mm
_OVERLAP = 4.0  # by which masks of neighbours overlap at most, mm; beyond it they hardly do

# Densities of what a body shows that is none.
_ANY_SIZE, _ANY_GAP, _ANY_ANGLE, _ANY_TAPER = 0.4, 1 / 60, 1 / 60, 0.8
_UNSEEN = 0.6  # of the greatest density, where a value is not known

_SCALES = np.arange(-4, 5) * 0.035  # log, about the first guess
_SHARES = np.array([0.5, 0.75, 1.0, 1.25, 1.5])  # lordosis relative to the typical one
_MOST_MISSED, _MOST_EXTRA = 2, 2  # in one step
_LEAST = 1 / 3  # probability with which a level is told
_SURE = 0.8
_SUSPECT = 0.15  # probability from which a variant is flagged
_DEFAULT_FILMS = 10  # that the default prior counts for
_SPREADS = (1.0, 1.4, 2.0, 2.8)
_FLOOR = 0.005  # of a probability: one film must not decide
_RARE = 0.002  # of first and last levels that the prior does not name


@dataclass(frozen=True)
class Prior:
    """What is expected of a film before its bodies are looked at.

    Attributes:
        top, bottom: probability of the first and the last level among the bodies. Annotators
            start at T11 or T12, so networks do.
        variants: probability of each of :data:`VARIANTS` (Konin and Walz, AJNR 2010;31:1778:
            transitional vertebrae alone 4 to 30 %).
        missed: probability that a level between others has no body.
        extra: probability that a body is none of the chain.
        merged: probability that a body holds two levels.
        wrong_class: probability of the other class, for L5 and S1; away from their border a
            quarter of it.
        spread: how many times farther sizes, angles and gaps scatter than on exact outlines.
    """

    top: Mapping[str, float] = field(
        default_factory=lambda: {"T10": 0.01, "T11": 0.3, "T12": 0.57, "L1": 0.08, "L2": 0.02}
    )
    bottom: Mapping[str, float] = field(
        default_factory=lambda: {"S2": 0.88, "S1": 0.08, "L5": 0.02, "S3": 0.01}
    )
    variants: Mapping[str, float] = field(
        default_factory=lambda: {"": 0.9, "L6": 0.03, "T13": 0.02, "sacralised L5": 0.05}
    )
    missed: float = 0.02
    extra: float = 0.02
    merged: float = 0.01
    wrong_class: float = 0.04
    spread: float = 1.0


@dataclass(frozen=True)
class Labels:
    """The levels of a film's bodies; the first three are parallel to the bodies.

    Attributes:
        levels: one of :data:`LEVELS`, rising; None for what has no place in the chain, what holds
            two vertebrae (but S1 with S2, which is S1), and where no level is probable enough.
        probabilities: of `levels`; of having no place in the chain where the level is None.
        alternatives: probability of each level that is not below 0.01.
        sacrum_seen: whether S1 is among the bodies with a probability of 0.8 or more.
        flags: some of :data:`FLAGS`, in their order.
        variants: probability of each of :data:`VARIANTS`.
    """

    levels: tuple[str | None, ...]
    probabilities: tuple[float, ...]
    alternatives: tuple[dict[str, float], ...]
    sacrum_seen: bool
    flags: tuple[str, ...]
    variants: dict[str, float]


@dataclass(frozen=True)
class Known:
    """A film on which the levels are known, for :func:`learn`; all parallel, cranial to caudal.

    Attributes:
        bodies, shapes: as of :func:`label`.
        levels: the true ones; None for what is no vertebra.
        anterior: where the patient faces.
    """

    bodies: Sequence[Body]
    shapes: Sequence[Shape | None]
    levels: Sequence[str | None]
    anterior: str


def learn(films: Sequence[Known]) -> Prior:
    """What to expect of a network's bodies, from its validation films.

    Frequencies are means of those on the films and those of the default prior, which counts like
    :data:`_DEFAULT_FILMS` films. The spread is that of :data:`_SPREADS` with which the true levels
    have the highest likelihood.
    """
    usual = Prior()
    chains = [[level for level in film.levels if level is not None] for film in films]
    chains = [chain for chain in chains if chain]
    weight = len(chains) + _DEFAULT_FILMS

    def shares(seen: Sequence[str], default: Mapping[str, float]) -> dict[str, float]:
        counts = Counter(seen)
        return {
            level: (counts[level] + _DEFAULT_FILMS * default.get(level, _RARE)) / weight
            for level in _CHAIN
            if level in counts or level in default
        }

    def rate(events: float, chances: float, default: float) -> float:
        per_film = 8 * _DEFAULT_FILMS  # bodies
        return (events + default * per_film) / (chances + per_film)

    steps = [len(skipped(RANK[a], RANK[b])) for chain in chains for a, b in pairwise(chain)]
    classes = [
        (body.class_name == "sacral_vertebra") != level.startswith("S")
        for film in films
        for body, level in zip(film.bodies, film.levels, strict=True)
        if level in ("L5", "L6", "S1")
    ]
    count = sum(len(film.levels) for film in films)
    none = sum(level is None for film in films for level in film.levels)
    prior = replace(
        usual,
        top=shares([chain[0] for chain in chains], usual.top),
        bottom=shares([chain[-1] for chain in chains], usual.bottom),
        missed=rate(sum(steps), len(steps), usual.missed),
        extra=rate(none, count, usual.extra),
        wrong_class=rate(sum(classes), len(classes), usual.wrong_class),
    )

    def likelihood(spread: float) -> float:
        total = 0.0
        for film in films:
            found = label(film.bodies, film.shapes, film.anterior, replace(prior, spread=spread))
            for level, chances in zip(film.levels, found.alternatives, strict=True):
                if level is not None:
                    total += math.log(max(chances.get(level, 0.0), _FLOOR))
        return total

    return replace(prior, spread=max(_SPREADS, key=likelihood)) if chains else usual


def label(
    bodies: Sequence[Body],
    shapes: Sequence[Shape | None],
    anterior: str,
    prior: Prior | None = None,
) -> Labels:
    """Give each body its level.

    The levels told are those rising ones whose probabilities have the largest sum; each has the
    probability that the body is of that level, whatever the others are.

    Args:
        bodies: in any order; of any of the two classes of vertebrae.
        shapes: of each body; None where it has none: then only its size and place count.
        anterior: where the patient faces on the film: `left` or `right`.
        prior: what is expected; the default is that of films of the lumbar spine.
    """
    prior = prior or Prior()
    seen = {k: seen for k, body in enumerate(bodies) if (seen := _see(body)) is not None}
    levels: list[str | None] = [None] * len(bodies)
    probabilities = [1.0] * len(bodies)
    alternatives: list[dict[str, float]] = [{} for _ in bodies]
    if not seen:
        variants = {name: prior.variants.get(name, 0.0) for name in VARIANTS}
        flags = _flags(levels, probabilities, variants, sacrum_seen=False, merged=False)
        return Labels(
            tuple(levels), tuple(probabilities), tuple(alternatives), False, flags, variants
        )
    keys = list(seen)
    order = [keys[place] for place in _along(np.array([centre for centre, _ in seen.values()]))]
    facing = 1.0 if anterior == "right" else -1.0
    looks = _looks(
        [bodies[k] for k in order], [seen[k] for k in order], [shapes[k] for k in order], facing
    )
    posterior, weights = _posterior(looks, prior)
    variants = dict(zip(VARIANTS, weights.tolist(), strict=True))
    single, double = posterior[:, : len(_CHAIN)].copy(), posterior[:, len(_CHAIN) :]
    # Of S1 and S2 in one, S1's upper endplate is what counts.
    both = _states().index((_AT["S1"], _AT["S2"])) - len(_CHAIN)
    single[:, _AT["S1"]] += double[:, both]
    for k, chances, told in zip(order, single, _most_expected(single), strict=True):
        of_levels = {level: float(chances[_AT[level]]) for level in LEVELS}
        alternatives[k] = {level: chance for level, chance in of_levels.items() if chance >= 0.01}
        if told is None:
            probabilities[k] = float(np.clip(1.0 - sum(of_levels.values()), 0.0, 1.0))
        else:
            levels[k] = _CHAIN[told]
            probabilities[k] = of_levels[_CHAIN[told]]
    sacrum_seen = "S1" in levels and single[:, _AT["S1"]].sum() >= _SURE
    merged = np.delete(double, both, axis=1).sum(axis=1).max() >= 0.5
    flags = _flags(
        [levels[k] for k in order], [probabilities[k] for k in order], variants, sacrum_seen, merged
    )
    return Labels(
        tuple(levels), tuple(probabilities), tuple(alternatives), sacrum_seen, flags, variants
    )


def _flags(
    levels: Sequence[str | None],
    probabilities: Sequence[float],
    variants: Mapping[str, float],
    sacrum_seen: bool,
    merged: bool,
) -> tuple[str, ...]:
    """What there is to say of a chain from cranial to caudal."""
    named = [level for level in levels if level is not None]
    raised = {
        "sacrum_not_seen": not sacrum_seen,
        "gap_in_chain": any(skipped(RANK[a], RANK[b]) for a, b in pairwise(named)),
        "extra_body": None in levels,
        "merged_bodies": merged,
        "uncertain_levels": any(
            level is not None and chance < _SURE
            for level, chance in zip(levels, probabilities, strict=True)
        ),
        "possible_l6": variants["L6"] >= _SUSPECT,
        "possible_t13": variants["T13"] >= _SUSPECT,
        "possible_transitional": variants["sacralised L5"] >= _SUSPECT,
    }
    return tuple(flag for flag in FLAGS if raised[flag])


_Seen = tuple[np.ndarray, np.ndarray]


def _see(body: Body) -> _Seen | None:
    """Centre (2) and covariance (2 x 2) of a body's area, px; None where it has none."""
    if body.outline is not None:
        points = np.asarray(body.outline, np.float64)
        origin = points.mean(axis=0)
        moments = cv2.moments((points - origin).astype(np.float32)[:, None])
    else:
        origin = np.asarray(body.origin, np.float64) + 0.5
        moments = cv2.moments(body.mask.view(np.uint8), True)
    area = moments["m00"]
    if area <= 0:
        return None
    centre = origin + np.array([moments["m10"], moments["m01"]]) / area
    xx, xy, yy = (moments[name] / area for name in ("mu20", "mu11", "mu02"))
    return centre, np.array([[xx, xy], [xy, yy]])


def _along(centres: np.ndarray) -> list[int]:
    """Indices of N centres along the course of the spine; those off it where they are nearest."""
    path, off = course(centres)
    place = {index: float(k) for k, index in enumerate(path)}
    for index in off:
        line = centres[path]
        steps = np.diff(line, axis=0)
        share = ((centres[index] - line[:-1]) * steps).sum(axis=1) / (steps**2).sum(axis=1)
        share = np.clip(share, 0, 1)
        away = np.linalg.norm(line[:-1] + share[:, None] * steps - centres[index], axis=1)
        nearest = int(away.argmin())
        place[index] = nearest + float(share[nearest])
    return sorted(place, key=lambda index: (place[index], index))


@dataclass(frozen=True)
class _Looks:
    """What N bodies show, ordered from cranial to caudal; NaN where it is not known.

    Lengths are in pixels, angles in degrees, positive where the front lies lower, or as lordosis.
    """

    height: np.ndarray
    depth: np.ndarray
    wedge: np.ndarray
    taper: np.ndarray
    upper: np.ndarray  # tilts of the endplates
    lower: np.ndarray
    gap: np.ndarray  # N x N
    sacral: np.ndarray  # bool
    score: np.ndarray
    scale: float  # a first guess of the film's pixels a mm, log


def _looks(
    bodies: Sequence[Body],
    seen: Sequence[_Seen],
    shapes: Sequence[Shape | None],
    facing: float,
) -> _Looks:
    count = len(bodies)
    centres = np.array([centre for centre, _ in seen])
    height, depth = np.empty(count), np.empty(count)
    wedge, taper, upper, lower = np.full((4, count), np.nan)
    for k, ((_, spread), shape) in enumerate(zip(seen, shapes, strict=True)):
        if shape is not None:
            above = shape.superior.anterior - shape.superior.posterior
            below = shape.inferior.anterior - shape.inferior.posterior
            upper[k], lower[k] = (
                np.degrees(np.arctan2(plate[1], plate[0] * facing)) for plate in (above, below)
            )
            wedge[k] = lower[k] - upper[k]
            taper[k] = np.log(max(np.hypot(*below), 1e-9) / max(np.hypot(*above), 1e-9))
            forward = above + below
        else:
            step = centres[min(k + 1, count - 1)] - centres[max(k - 1, 0)]
            # A body on its own: the film's rows run from front to back.
            forward = np.array([step[1], -step[0]]) if count > 1 else np.array([1.0, 0.0])
        forward = forward / max(np.hypot(*forward), 1e-9)
        up = np.array([forward[1], -forward[0]])
        # A rectangle of side a has the variance a^2 / 12 along it.
        height[k], depth[k] = (
            max(np.sqrt(12 * axis @ spread @ axis), 1e-3) for axis in (up, forward)
        )
        if shape is not None and shape.cut:
            height[k] = np.nan
    away = np.linalg.norm(centres[:, None] - centres[None], axis=2)
    # Of a body that is cut, the height that goes with its depth.
    size = np.where(np.isnan(height), 0.83 * depth, height)
    typical = np.median([np.log(t.height * t.depth) / 2 for t in TYPICAL.values()])
    # The sacrum's segments are smaller, and among the bodies.
    scale = np.median(np.log(size * depth) / 2) - typical - np.log(_FILLED) - 0.03
    return _Looks(
        height,
        depth,
        _turn(wedge),
        taper,
        upper,
        lower,
        away - (size[:, None] + size[None]) / 2,
        np.array([body.class_name == "sacral_vertebra" for body in bodies]),
        np.array([body.score for body in bodies], float),
        float(scale),
    )


def _turn(degrees: np.ndarray) -> np.ndarray:
    """Angles between -180 and 180."""
    return (degrees + 180) % 360 - 180


@cache
def _states() -> list[tuple[int, int]]:
    """First and last level of each state: single ones, then neighbours of any variant in one."""
    count = len(_CHAIN)
    doubles = {(k, k + 1) for k in range(count - 1)}
    doubles |= {(_AT["T12"], _AT["L1"]), (_AT["L5"], _AT["S1"])}
    return [(k, k) for k in range(count)] + sorted(doubles)


@dataclass(frozen=True)
class _Model:
    """What is typical, by state (S) or pair of states (P) and variant (V); mm and degrees.

    Angles are those of a spine without lordosis plus, first in the first axis, what the typical
    lordosis adds.
    """

    exists: np.ndarray  # S x V
    height: np.ndarray  # S x V
    depth: np.ndarray  # S x V
    wedge: np.ndarray  # 2 x S x V
    tilt: np.ndarray  # 2 x S x V, of the upper endplate from that of S1
    sacral: np.ndarray  # S: the share that is sacral
    near_sacrum: np.ndarray  # S: whether it touches the border of the sacrum
    double: np.ndarray  # S: whether it is of two levels
    source: np.ndarray  # P
    target: np.ndarray  # P, rising
    by_source: np.ndarray  # P: the order of the pairs by `source`
    allowed: np.ndarray  # P x V
    missed: np.ndarray  # P x V
    gap: np.ndarray  # P x V
    angle: np.ndarray  # 2 x P x V


@cache
def _model() -> _Model:
    states = _states()
    first, last = np.array(states).T
    double = first != last
    pairs = [
        (i, j)
        for j in range(len(states))
        for i in range(len(states))
        if 0 < first[j] - last[i] <= _MOST_MISSED + 2 and not (double[i] and double[j])
    ]
    source, target = np.array(pairs).T
    parts: dict[str, list[np.ndarray]] = {}
    for variant in VARIANTS:
        levels, present = _typical(variant)
        top, bottom, depth = levels["top"], levels["bottom"], levels["depth"]
        tilt_top, tilt_bottom = levels["tilt_top"], levels["tilt_bottom"]
        number = np.cumsum(present)
        exists = present[first] & present[last] & (number[last] - number[first] == double)
        missed = number[first[target]] - number[last[source]] - 1
        of_variant = {
            "exists": exists,
            "height": np.maximum(bottom[last] - top[first], 1.0),
            "depth": (depth[first] + depth[last]) / 2,
            "wedge": tilt_bottom[:, last] - tilt_top[:, first],
            "tilt": tilt_top[:, first] - tilt_top[:, _AT["S1"], None],
            "missed": np.maximum(missed, 0),
            "allowed": exists[source] & exists[target] & (missed <= _MOST_MISSED),
            "gap": top[first[target]] - bottom[last[source]],
            "angle": tilt_top[:, first[target]] - tilt_bottom[:, last[source]],
        }
        for name, values in of_variant.items():
            parts.setdefault(name, []).append(values)
    of_sacrum = np.arange(len(_CHAIN)) >= _AT["S1"]
    border = np.isin(np.arange(len(_CHAIN)), [_AT[level] for level in ("L5", "L6", "S1")])
    return _Model(
        sacral=(of_sacrum[first].astype(float) + of_sacrum[last]) / 2,
        near_sacrum=border[first] | border[last],
        double=double,
        source=source,
        target=target,
        by_source=np.argsort(source, kind="stable"),
        **{name: np.stack(values, axis=-1) for name, values in parts.items()},
    )


def _typical(variant: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Places (mm) and tilts (degrees, two parts) of all levels' endplates, and which there are."""
    present = np.array([level not in ("L6", "T13") or level == variant for level in _CHAIN])
    names = ("top", "bottom", "depth")
    found = {name: np.zeros(len(_CHAIN)) for name in names}
    found |= {name: np.zeros((2, len(_CHAIN))) for name in ("tilt_top", "tilt_bottom")}
    place, tilt = 0.0, np.zeros(2)
    for k, level in enumerate(_CHAIN):
        if level in _SACRAL:
            height, depth = _SACRAL[level]
            wedge, disc_wedge, disc = _SACRAL_WEDGE, 0.0, _SACRAL_GAP
        else:
            typical = TYPICAL[{"L6": "L5", "T13": "T12"}.get(level, level)]
            height, depth, disc = typical.height, typical.depth, typical.disc_height
            wedge, disc_wedge = typical.wedge, typical.disc_wedge
            if variant == "L6" and level in ("L5", "L6"):
                # Two segments share the wedges of one.
                wedge, disc_wedge = wedge / 2, disc_wedge / 2
            if variant == "sacralised L5" and level == "L5":
                disc *= 0.45
        lordotic = np.array([1.0, 0.0]) if level.startswith("L") else np.array([0.0, 1.0])
        found["top"][k], found["depth"][k], found["tilt_top"][:, k] = place, depth, tilt
        if present[k]:
            place = place + height
            tilt = tilt + wedge * lordotic
        found["bottom"][k], found["tilt_bottom"][:, k] = place, tilt
        if present[k]:
            place = place + disc + _HOLLOW
            tilt = tilt + disc_wedge * lordotic
    return found, present


def _t(away: np.ndarray, spread: np.ndarray | float) -> np.ndarray:
    """Density of Student's t with 4 degrees of freedom, scaled; typical where `away` is NaN."""
    b = 1 + (away / spread) ** 2 / 4
    density = 0.375 / (b * b * np.sqrt(b)) / spread
    return np.where(np.isnan(density), _UNSEEN * 0.375 / spread, density)


def _posterior(looks: _Looks, prior: Prior) -> tuple[np.ndarray, np.ndarray]:
    """Probability of each state for each of N bodies (N x S), and of each variant."""
    model, states = _model(), _states()
    count = len(looks.depth)
    extra = _extra(looks, prior)
    top, bottom = (
        np.array([table.get(_CHAIN[state[side]], _RARE) for state in states])[:, None, None, None]
        for side, table in enumerate((prior.top, prior.bottom))
    )
    # Of each state, variant, size and lordosis (S x V x C x K).
    emission = [_emission(looks, k, prior) for k in range(count)]
    shape = emission[0].shape
    forward, backward = np.zeros((2, count, *shape))
    steps = {}
    for i in range(count):
        forward[i] = top * extra**i
        for j in range(max(i - _MOST_EXTRA - 1, 0), i):
            steps[j, i] = _step(looks, j, i, prior) * extra ** (i - j - 1)
            moved = forward[j][model.source] * steps[j, i]
            _add(forward[i], moved, model.target)
        forward[i] *= emission[i]
    for j in reversed(range(count)):
        backward[j] = bottom * extra ** (count - j - 1)
        for i in range(j + 1, min(j + _MOST_EXTRA + 2, count)):
            moved = (backward[i] * emission[i])[model.target] * steps[j, i]
            _add(backward[j], moved[model.by_source], model.source[model.by_source])
    share = np.exp(-0.5 * ((_SHARES - _typical_share()) / 0.3) ** 2)
    variants = np.array([prior.variants.get(name, 0.0) for name in VARIANTS])
    weights = variants[:, None, None] * share / share.sum() / len(_SCALES)
    weights = np.broadcast_to(weights, shape[1:])
    ends = extra ** np.arange(count - 1, -1, -1.0)
    evidence = (np.tensordot(ends, forward, 1) * bottom).sum(axis=0) * weights
    # Beside all chains, that no body is a vertebra.
    none = extra**count * variants
    total = evidence.sum() + none.sum()
    posterior = np.tensordot(forward * backward, weights, 3) / total
    return posterior, (evidence.sum(axis=(1, 2)) + none) / total


def _add(sums: np.ndarray, values: np.ndarray, where: np.ndarray) -> None:
    """Add each value to the sum that `where`, which rises, tells."""
    starts = np.flatnonzero(np.diff(where, prepend=-1))
    sums[where[starts]] += np.add.reduceat(values, starts, axis=0)


def _typical_share() -> float:
    """Lordosis of the volunteers relative to what the table of typical levels adds up to."""
    tilt = _model().tilt[0, _AT["L1"], 0]
    return LORDOSIS[0] / -float(tilt)


def _emission(looks: _Looks, k: int, prior: Prior) -> np.ndarray:
    """Density of what body k shows, for each state, variant, size and lordosis (S x V x C x K)."""
    model = _model()
    sacral = model.sacral > 0
    sizes = looks.scale + np.log(_FILLED) + _SCALES
    by_size = 1.0
    for seen, typical, spread in (
        (looks.height[k], model.height, _SD_HEIGHT),
        (looks.depth[k], model.depth, _SD_DEPTH),
    ):
        spreads = prior.spread * np.where(sacral, _SD_SACRAL_SIZE, spread)[:, None, None]
        by_size = by_size * _t(np.log(seen) - np.log(typical)[..., None] - sizes, spreads)
    wedge = model.wedge[0][..., None] * _SHARES + model.wedge[1][..., None]
    spreads = prior.spread * np.where(sacral, _SD_SACRAL_WEDGE, _SD_WEDGE)[:, None, None]
    by_angle = _t(looks.wedge[k] - wedge, spreads)
    # Patients lean and films are turned: all bodies together tell one tilt.
    slope = SACRAL_SLOPE[0] + 0.7 * LORDOSIS[0] * (_SHARES / _typical_share() - 1)
    tilt = slope + model.tilt[0][..., None] * _SHARES + model.tilt[1][..., None]
    by_angle = by_angle * _t(_turn(looks.upper[k] - tilt), _SD_TILT) ** (1 / len(looks.depth))
    wrong = prior.wrong_class * np.where(model.near_sacrum, 1.0, 0.25)
    as_sacral = np.choose((2 * model.sacral).astype(int), (wrong, 0.5, 1 - wrong))
    by_state = (
        (as_sacral if looks.sacral[k] else 1 - as_sacral)
        * _t(
            looks.taper[k] - np.where(sacral, _SACRAL_TAPER, _TAPER),
            prior.spread * np.where(sacral, _SD_SACRAL_TAPER, _SD_TAPER),
        )
        * np.where(model.double, prior.merged, 1 - prior.merged)
        * (0.1 + 2.7 * looks.score[k] ** 2)
        * (1 - prior.extra)
    )
    by_state = by_state[:, None] * model.exists
    return by_size[..., None] * (by_angle * by_state[..., None])[:, :, None]


def _extra(looks: _Looks, prior: Prior) -> float:
    """Density of what a body shows if it is none of the chain: anything."""
    return (
        prior.extra
        * (_ANY_SIZE**2 * _ANY_GAP * _ANY_ANGLE**2 * _ANY_TAPER * 0.5)
        * _ANY_ANGLE ** (1 / len(looks.depth))
    )


def _step(looks: _Looks, j: int, i: int, prior: Prior) -> np.ndarray:
    """Density of the way from body j to body i (P x V x C x K)."""
    model = _model()
    wider = prior.spread * np.sqrt(1.0 + model.missed)[..., None]
    sizes = np.exp(looks.scale + _SCALES)
    gap = looks.gap[j, i] / sizes
    typical = model.gap[..., None]
    by_gap = _t(gap - typical, _SD_GAP * wider)
    # A worn disc is as likely to be of any height below the typical one.
    worn = (gap > _NARROWEST) & (gap < typical) & (model.missed == 0)[..., None]
    by_gap = (1 - _WORN) * by_gap + _WORN * worn / np.maximum(typical - _NARROWEST, 1.0)
    # Bodies do not run into one another.
    by_gap = by_gap * np.exp(np.minimum(gap + _OVERLAP, 0.0))
    angle = model.angle[0][..., None] * _SHARES + model.angle[1][..., None]
    by_angle = _t(_turn(looks.upper[i] - looks.lower[j]) - angle, _SD_ANGLE * wider)
    passed = np.where(
        model.allowed, (1 - prior.missed) * prior.missed ** model.missed.astype(float), 0.0
    )
    return by_gap[..., None] * (by_angle * passed[..., None])[:, :, None]


def _most_expected(chances: np.ndarray) -> list[int | None]:
    """The rising levels with the largest sum of probabilities; None where none is probable.

    Args:
        chances: N x levels.
    """
    count, levels = chances.shape
    worth = np.where(chances >= _LEAST, chances, 0.0)
    best = np.zeros((count + 1, levels + 1))  # of the bodies from k on, with levels from l on
    for k in reversed(range(count)):
        for level in reversed(range(levels)):
            best[k, level] = max(
                best[k + 1, level], best[k, level + 1], worth[k, level] + best[k + 1, level + 1]
            )
    told: list[int | None] = []
    level = 0
    for k in range(count):
        taken = None
        if best[k, level] > best[k + 1, level]:
            taken = next(
                at
                for at in range(level, levels)
                if worth[k, at] > 0 and worth[k, at] + best[k + 1, at + 1] >= best[k, level]
            )
            level = taken + 1
        known = taken is not None and _CHAIN[taken] in LEVELS
        told.append(taken if known else None)
    return told
