"""The course of the spine through the bodies drawn on a film, and the order of their levels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

#: Levels from cranial to caudal, by rank. Most people have no T13 and no L6.
LEVELS = (
    *(f"C{n}" for n in range(1, 8)),
    *(f"T{n}" for n in range(1, 14)),
    *(f"L{n}" for n in range(1, 7)),
    *(f"S{n}" for n in range(1, 6)),
)
RANK = {level: rank for rank, level in enumerate(LEVELS)}
_VARIANTS = ("T13", "L6")

#: Sharper bends of the line through the centres are no spine's: at L5 and S1, where it bends most,
#: 20 to 45 degrees are common.
SHARPEST_BEND = 75.0


def course(centres: np.ndarray) -> tuple[list[int], list[int]]:
    """Follow the spine through the centres of its bodies, whatever its tilt and curve.

    The course is the path through the most bodies, of equal ones the shortest, in the shortest tree
    that joins all centres: neighbours of a spine are nearer to each other than to any third body.
    Bodies on side branches, and those without which a bend of more than :data:`SHARPEST_BEND`
    degrees goes away, are off it.

    Args:
        centres: N x 2, in any unit.

    Returns:
        Indices along the spine, the end higher on the film first, and indices off it.
    """
    count = len(centres)
    if count < 2:
        return list(range(count)), []
    distance = np.hypot(*(centres[:, None] - centres[None]).transpose(2, 0, 1))
    tree = _shortest_tree(distance)
    # A step counts one, or a little less the longer it is. The farthest from anywhere is one end
    # of the longest path, the farthest from it the other.
    steps = 1 - 0.01 * distance / max(float(distance.max()), 1e-9)
    first = _farthest(tree, steps, 0)[-1]
    path = _farthest(tree, steps, first)
    while len(path) > 3:
        bend = _bends(centres[path])
        if bend.max() <= SHARPEST_BEND:
            break
        rest = [path[:k] + path[k + 1 :] for k in range(len(path))]
        best = min(rest, key=lambda left: float((_bends(centres[left]) ** 2).sum()))
        if _bends(centres[best]).max() >= bend.max():
            break
        path = best
    if centres[path[0]][1] > centres[path[-1]][1]:
        path = path[::-1]
    return path, [index for index in range(count) if index not in path]


def _shortest_tree(distance: np.ndarray) -> list[list[int]]:
    """Neighbours of each node in the minimum spanning tree (Prim's algorithm)."""
    tree: list[list[int]] = [[] for _ in distance]
    reach, parent = distance[0].copy(), np.zeros(len(distance), int)
    outside = np.arange(len(distance)) > 0
    while outside.any():
        node = int(np.argmin(np.where(outside, reach, np.inf)))
        tree[node].append(int(parent[node]))
        tree[parent[node]].append(node)
        outside[node] = False
        nearer = outside & (distance[node] < reach)
        reach[nearer], parent[nearer] = distance[node][nearer], node
    return tree


def _farthest(tree: Sequence[Sequence[int]], steps: np.ndarray, start: int) -> list[int]:
    """The path in the tree from `start` to the node that is farthest along it."""
    longest, best = -1.0, [start]
    stack = [(start, -1, 0.0, [start])]
    while stack:
        node, came_from, length, path = stack.pop()
        if length > longest:
            longest, best = length, path
        for neighbour in tree[node]:
            if neighbour != came_from:
                step = float(steps[node, neighbour])
                stack.append((neighbour, node, length + step, [*path, neighbour]))
    return best


def _bends(points: np.ndarray) -> np.ndarray:
    """By how many degrees a line through N points turns at each but its ends (N - 2)."""
    x, y = np.diff(points, axis=0).T
    turn = np.degrees(np.diff(np.arctan2(y, x)))
    return np.abs((turn + 180) % 360 - 180)


def longest_rise(values: Sequence[int]) -> list[int]:
    """Positions of a longest strictly rising subsequence.

    Of several, the one whose values rise most like its positions: of 1, 3, 3, 4 the second 3 is
    taken, as it leaves room for a 2.
    """
    if all(a < b for a, b in pairwise(values)):
        return list(range(len(values)))
    best: list[tuple[int, int]] = []  # length and, negative, how far from one a position
    before: list[int] = []
    for here, value in enumerate(values):
        score, came_from = (1, 0), -1
        for there in range(here):
            if values[there] < value:
                length, strain = best[there]
                step = abs(value - values[there] - (here - there))
                score, came_from = max((score, came_from), ((length + 1, strain - step), there))
        best.append(score)
        before.append(came_from)
    rise: list[int] = []
    position = max(range(len(best)), key=best.__getitem__) if best else -1
    while position >= 0:
        rise.append(position)
        position = before[position]
    return rise[::-1]


def skipped(upper: int, lower: int) -> list[str]:
    """Levels between two ranks, without T13 and L6, which most people do not have."""
    return [level for level in LEVELS[upper + 1 : lower] if level not in _VARIANTS]
