"""Whether instances are right as often as their scores say."""

from __future__ import annotations

import pandas as pd

from .measurements import EDGES, RELIABILITY, reliability

#: The class under which tables have all classes together.
ALL = "all"
#: Columns of :func:`score_reliability` and their types.
SCORE_RELIABILITY = {"model": "string", "class_name": "string", **RELIABILITY}


def score_reliability(detections: pd.DataFrame) -> pd.DataFrame:
    """Share of instances that are right, by their score.

    An instance is right where it overlaps a structure of its class by half or more and no better
    scored one took it (`right_50`).

    Args:
        detections: rows of `metrics/detections`.

    Returns:
        The columns of :data:`SCORE_RELIABILITY`: for each model, all classes together
        (:data:`ALL`) and then each, a row for each range of scores that is not empty.
    """
    parts = []
    for model, of_model in detections.groupby("model", sort=False):
        groups = [(ALL, of_model), *of_model.groupby("class_name")]
        for name, part in groups:
            table = reliability(
                pd.DataFrame(
                    {
                        "value": part["score"],
                        "confidence": part["score"],
                        "right": part["right_50"],
                    }
                ),
                EDGES,
            )
            table.insert(0, "class_name", name)
            table.insert(0, "model", model)
            parts.append(table)
    table = pd.concat(parts) if parts else pd.DataFrame(columns=list(SCORE_RELIABILITY))
    return table.reset_index(drop=True).astype(SCORE_RELIABILITY)
