"""The strength of the augmentation, one factor on all its limits."""

from __future__ import annotations

from collections.abc import Mapping

_UNCHANGED = {"flip_probability"}  # a half mirrors most already


def strengthened(
    limits: Mapping[str, float], factor: float, maxima: Mapping[str, float | None]
) -> dict[str, float]:
    """Return `limits` times `factor`, each at most its maximum.

    Args:
        limits: `training.augmentation` of the configuration.
        factor: at least 0; 1 leaves all as it is.
        maxima: the highest value that each limit may have, None or nothing where it has none.
    """
    result = {}
    for name, limit in limits.items():
        if name in _UNCHANGED or isinstance(limit, bool) or not isinstance(limit, int | float):
            result[name] = limit
            continue
        highest = maxima.get(name)
        changed = limit * factor
        result[name] = changed if highest is None else min(changed, highest)
    return result
