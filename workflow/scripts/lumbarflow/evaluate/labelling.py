"""The tables on levels and measurements of all models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from . import levels as levels_of
from .measurements import compare, reliability, summarise, wrong_levels


def score_labels(
    instances: pd.DataFrame,
    measured: Mapping[str, pd.DataFrame],
    references: Mapping[str, pd.DataFrame],
    splits: pd.DataFrame,
    evaluation: Mapping[str, Any],
) -> dict[str, pd.DataFrame]:
    """Score the levels and measurements of every model on the test films.

    Args:
        instances: `metrics/instances.parquet`.
        measured: `measurements/{model}.parquet` by model.
        references: what measurements are held against, by name: those of the `annotation` and,
            of synthetic films, the `truth`.
        splits: `splits.parquet`.
        evaluation: `evaluation` of the configuration.

    Returns:
        The tables measurements, measurement_summary (over all sites, and for lordosis and Cobb
        angles at each) and reliability, each with the columns `model` and `against` before those of
        :mod:`.measurements`; levels (a model and a film),
        level_summary (a model) and level_confusion, with the columns of :mod:`.levels`.
    """
    test = splits[splits["subset"] == "test"]
    patients = dict(zip(test["image_id"], test["patient_id"], strict=True))
    drawn = instances.dropna(subset="level").groupby("image_id")["level"].agg(set).to_dict()
    parts: dict[str, list[pd.DataFrame]] = {
        "measurements": [], "measurement_summary": [], "reliability": []
    }  # fmt: skip
    for model, table in measured.items():
        wrong = wrong_levels(instances[instances["model"] == model])
        for against, reference in references.items():
            known = reference[reference["image_id"].isin(test["image_id"])]
            compared = compare(table, known, levels=drawn, wrong_levels=wrong)
            chosen = {"seed": evaluation["seed"], "n_boot": evaluation["bootstrap_samples"]}
            # Lordoses of L1-S1 and of L1-L5 are different angles.
            angles = compared[compared["name"].isin(["lordosis", "cobb"])]
            summary = pd.concat(
                [
                    summarise(compared, patients, **chosen),
                    summarise(angles, patients, by_site=True, **chosen),
                ],
                ignore_index=True,
            )
            for name, part in zip(parts, (compared, summary, reliability(compared)), strict=True):
                part.insert(0, "against", against)
                part.insert(0, "model", model)
                parts[name].append(part)
    matched = levels_of.of_instances(instances)
    films = levels_of.film_table(matched)
    return {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()} | {
        "levels": films,
        "level_summary": levels_of.summarise(films),
        "level_confusion": levels_of.confusion(matched),
    }
