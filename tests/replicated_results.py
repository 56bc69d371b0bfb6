"""Made-up tables of replicates in a results folder, for tests of the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lumbarflow.evaluate.replicates import replicate_differences, summarise_replicates
from lumbarflow.evaluate.tables import METRICS
from lumbarflow.files import write_table


def replicates(models: Sequence[str], kinds: Sequence[str] = ("seed", "fold")) -> pd.DataFrame:
    """Three trainings a kind, of scores about 0.9, 0.88, ... in the order of the models.

    Seeds are scored on the same four films, folds on four films each.
    """
    rng = np.random.default_rng(5)
    rows = [
        {
            **{"model": model, "replicate": f"{kind}{number}", "kind": kind},
            "image_id": f"{kind}{number if kind == 'fold' else 0}-{film}",
            **{metric: 0.9 - 0.02 * place + rng.normal(0, 0.002) for metric in METRICS},
        }
        for place, model in enumerate(models)
        for kind in kinds
        for number in (1, 2, 3)
        for film in range(4)
    ]
    return pd.DataFrame(rows)


def write_replicates(results: Path, table: pd.DataFrame, models: Sequence[str]) -> None:
    """Write the table with its summary and differences."""
    write_table(results / "metrics/replicates.parquet", table)
    write_table(results / "metrics/replicate_summary.parquet", summarise_replicates(table))
    differences = replicate_differences(table, models)
    write_table(results / "metrics/replicate_differences.parquet", differences)
