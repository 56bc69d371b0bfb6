"""The learning rate over a training, the same for every network."""

from __future__ import annotations

import math

_WARM_UP = 0.08  # share of the steps
_LAST = 0.01  # share of the highest rate


def learning_rate_factor(step: int, steps: int) -> float:
    """Factor (0..1) of the highest rate: linear warm-up, then a cosine down to 1%.

    Args:
        step: optimiser step, from 0.
        steps: number of steps in all.
    """
    warm_up = max(1, round(_WARM_UP * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    share = min(1.0, (step - warm_up) / max(1, steps - warm_up))
    return _LAST + (1 - _LAST) * 0.5 * (1 + math.cos(math.pi * share))
