"""Reading what the earlier stages wrote; what is missing is told in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import InputError


def read_table(path: Path, **options: Any) -> pd.DataFrame:
    """A table of the results folder; `options` are those of :func:`pandas.read_parquet`.

    Raises:
        InputError: it is missing.
    """
    try:
        return pd.read_parquet(path, **options)
    except FileNotFoundError:
        raise missing(path) from None


def missing(path: Path) -> InputError:
    """The error that tells of a file that is not there."""
    return InputError(f"{path} is missing: run the workflow again to make it.")
