"""The section of the report that tells how far annotators of the same films agree."""

from __future__ import annotations

from typing import Any

import pandas as pd

#: Structures listed with different levels; the counts above them are always complete.
MAX_LEVELS = 50


def agreement_section(table: pd.DataFrame) -> dict[str, Any] | None:
    """What the template shows of `annotations/agreement.parquet`.

    Args:
        table: see :data:`lumbarflow.annotate.agreement.AGREEMENT`.

    Returns:
        None without a film that several annotators drew on. Otherwise films: their number; rows: a
        dictionary for each pair of annotators and class with annotator_a, annotator_b, class_name,
        films, matched, missing, extra, level_disagreements (numbers), and medians with quartiles of
        dice (percent), corners_px and corners_mm as text ("" where there are none); levels:
        (image_id, annotator_a, level_a, annotator_b, level_b) of at most :data:`MAX_LEVELS`
        structures with different levels; n_levels: how many there are.
    """
    if table.empty:
        return None
    rows = []
    by = ["annotator_a", "annotator_b", "class_name"]
    for key, part in table.groupby(by, sort=True):
        status = part["status"].value_counts()
        rows.append(
            dict(zip(by, key, strict=True))
            | {name: int(status.get(name, 0)) for name in ("matched", "missing", "extra")}
            | {
                "class_name": key[2].replace("_", " "),
                "films": part["image_id"].nunique(),
                "level_disagreements": _disagreements(part),
                "dice": _median(100 * part["dice"]),
                "corners_px": _median(part["corner_distance_px"]),
                "corners_mm": _median(part["corner_distance_mm"]),
            }
        )
    differing = table[~table["level_agrees"].fillna(True)]
    columns = ["image_id", "annotator_a", "level_a", "annotator_b", "level_b"]
    listed = differing[columns].sort_values(columns).head(MAX_LEVELS)
    return {
        "films": table["image_id"].nunique(),
        "rows": rows,
        "levels": list(listed.itertuples(index=False, name=None)),
        "n_levels": len(differing),
    }


def _disagreements(part: pd.DataFrame) -> int:
    return int((~part["level_agrees"].fillna(True)).sum())


def _median(values: pd.Series) -> str:
    """Median and quartiles, for example `92.1 (90.4–95.0)`."""
    known = values.dropna().astype(float)
    if known.empty:
        return ""
    low, middle, high = known.quantile([0.25, 0.5, 0.75])
    return f"{middle:.1f} ({low:.1f}–{high:.1f})"
