"""The tables on differences between networks: how sure, on which films, and by which errors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..annotate.records import read_record
from .failures import disagreements, find_errors, rank_films
from .statistics import compare_networks, film_scores, strata_means
from .strata import film_strata


def compare_all(
    tables: Mapping[str, pd.DataFrame],
    predictions: Mapping[str, Mapping[str, pd.DataFrame]],
    records: Path,
    families: Mapping[str, str | None],
    evaluation: Mapping[str, Any],
) -> dict[str, pd.DataFrame]:
    """Compare the networks on the test films.

    Args:
        tables: `per_image` and `instances` of the metrics, the `measurements` of the annotation,
            `splits`, and `replicates` of the metrics where there are any.
        predictions: of each model the tables `network` and `labelled`, see
            :data:`~.failures.STAGES`.
        records: folder with `{image_id}.json`.
        families: for each model, in the order in which they are compared, `semantic`, `instance` or
            None.
        evaluation: `evaluation` of the configuration.

    Returns:
        The tables comparisons and strata (see :mod:`.statistics`), errors and film_ranking (see
        :mod:`.failures`).
    """
    splits = tables["splits"]
    test = splits[splits["subset"] == "test"]
    films = {
        image_id: read_record(records / f"{image_id}.json") for image_id in sorted(test["image_id"])
    }
    patients = dict(zip(test["image_id"], test["patient_id"], strict=True))
    foreground = evaluation["foreground"]
    strata = film_strata(films, tables["measurements"], patients, foreground)
    scores = film_scores(tables["per_image"], tables["instances"], tables.get("replicates"))
    errors = find_errors(films, predictions, foreground)
    masks = {model: of_stages["network"] for model, of_stages in predictions.items()}
    differ = disagreements(masks, films, foreground)
    chosen = {"seed": evaluation["seed"], "n_boot": evaluation["bootstrap_samples"]}
    return {
        "comparisons": compare_networks(scores, strata, families, **chosen),
        "strata": strata_means(scores, strata, **chosen),
        "errors": errors,
        "film_ranking": rank_films(tables["per_image"], errors, differ, strata, families),
    }
