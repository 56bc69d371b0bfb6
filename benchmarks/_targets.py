"""Figures of a benchmark against its targets."""

from __future__ import annotations

from collections.abc import Mapping


def meets(figure: float | None, target: str) -> bool:
    """Whether a figure is `at least`, `at most` or `above` so much; one that is missing is not."""
    way, limit = target.rsplit(" ", 1)
    if figure is None:
        return False
    if way == "above":
        return figure > float(limit)
    return figure >= float(limit) if way == "at least" else figure <= float(limit)


def meets_all(figures: Mapping[str, float | None], targets: Mapping[str, str]) -> bool:
    """Whether every target is met."""
    return all(meets(figures.get(name), target) for name, target in targets.items())
