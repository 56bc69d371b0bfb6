"""The spread of scores over further trainings: other seeds, and folds of a cross-validation.

Bootstrap intervals tell what other test films would change; these tables tell what another training
would. Seeds differ in initial weights, order and augmentation only and are scored on the same test
films. Folds differ in the films that train and in those that are scored. As folds share most of
their training films, their standard deviation has no unbiased estimate (Bengio and Grandvalet,
Journal of Machine Learning Research 5, 2004): read it as a description.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import pandas as pd

from ..errors import InputError
from ..files import read_grey
from .tables import METRICS, Reference, score_masks

_ROW = ("model", "replicate", "kind", "seed", "fold", "image_id", "patient_id")
COLUMNS = (*_ROW, *METRICS)
_SPREAD = ("mean", "sd", "low", "high", "n_replicates", "n_films")
SUMMARY = ("model", "kind", "metric", *_SPREAD)
DIFFERENCES = ("model_a", "model_b", "kind", "metric", *_SPREAD)


def score_replicates(
    predictions: Mapping[tuple[str, str], str | Path],
    test: pd.DataFrame,
    folds: pd.DataFrame | None,
    masks: Path,
    classes: Sequence[str],
    foreground: Sequence[str],
    seed: int,
    log: logging.Logger,
) -> pd.DataFrame:
    """Score further trainings, each on the films that it has not seen.

    Args:
        predictions: paths of the instances, as in `predictions/networks/*.parquet`, by model and
            name of the training, such as `seed7` or `fold2`.
        test: image_id and patient_id of the test films, on which other seeds are scored.
        folds: image_id, patient_id and fold; None where there are none.
        masks: folder with `{image_id}.png`, the reference bit masks.
        classes: all classes in configuration order.
        foreground: the classes that are merged.
        seed: with which folds are trained.
        log: where progress is told.

    Returns:
        The columns :data:`COLUMNS`, a row a training and film: `kind` is `seed` or `fold`, the
        metrics are fractions as of :func:`~.tables.score_masks`.

    Raises:
        InputError: see :func:`~.tables.score_masks`; a mask is missing, or there is no training.
    """
    if not predictions:
        raise InputError(
            "There are no further trainings to score: list numbers in training.seeds or set "
            "training.folds to 3 or more."
        )
    tables = []
    for (model, replicate), path in predictions.items():
        kind = "fold" if replicate.startswith("fold") else "seed"
        number = int(replicate.removeprefix(kind))
        films = folds[folds["fold"] == number] if kind == "fold" else test
        references = _references(films["image_id"], masks)
        table = score_masks(model, pd.read_parquet(path), references, classes, foreground)[0]
        own = {"seed": seed, "fold": number} if kind == "fold" else {"seed": number}
        tables.append(_named(table, replicate, films, kind=kind, **own))
        score = table["mean_iou"].mean()
        log.info("%s, %s: mean IoU %.3f on %d films", model, replicate, score, len(table))
    return pd.concat(tables, ignore_index=True)


def main_training(per_image: pd.DataFrame, test: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The scores of the main training (`metrics/per_image`) as those of one seed among others.

    Returns:
        As :func:`score_replicates`.
    """
    return _named(per_image, f"seed{seed}", test, kind="seed", seed=seed)


def _named(
    table: pd.DataFrame, replicate: str, films: pd.DataFrame, **values: str | int
) -> pd.DataFrame:
    """A row a film, with all of :data:`COLUMNS`; `fold` is null where `values` has none."""
    table = table.merge(films[["image_id", "patient_id"]], on="image_id", validate="m:1")
    table = table.assign(replicate=replicate, **({"fold": pd.NA} | values))
    return table.astype({"fold": "Int64"})[list(COLUMNS)]


def summarise_replicates(table: pd.DataFrame) -> pd.DataFrame:
    """The spread of every metric over the trainings of each network.

    Args:
        table: see :func:`score_replicates`.

    Returns:
        The columns :data:`SUMMARY`. A training's score is its mean over its films; `mean`, `sd`
        (with n - 1; null with one training), `low` and `high` (the extremes) are over these scores.
        `n_films` are the films scored by all trainings together, each counted once.
    """
    rows = []
    for (model, kind), some in table.groupby(["model", "kind"], sort=False):
        scores = some.groupby("replicate", sort=False)[list(METRICS)].mean()
        films = some["image_id"].nunique()
        rows += [
            {"model": model, "kind": kind, "metric": metric} | _spread(scores[metric], films)
            for metric in METRICS
        ]
    return pd.DataFrame(rows, columns=list(SUMMARY))


def replicate_differences(table: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """The spread of the differences between each two networks over the trainings that both have.

    Args:
        table: see :func:`score_replicates`.
        models: the networks, in the order in which they are paired.

    Returns:
        The columns :data:`DIFFERENCES`, as in :func:`summarise_replicates`, of the score of
        `model_a` less that of `model_b` in trainings of the same name: the same films, and the same
        seed.
    """
    rows = []
    for kind, some in table.groupby("kind", sort=False):
        scores = some.groupby(["model", "replicate"], sort=False)[list(METRICS)].mean()
        films = some.groupby("model")["image_id"].nunique()
        for first, second in combinations(models, 2):
            pair = {"model_a": first, "model_b": second, "kind": kind}
            differences = (scores.loc[first] - scores.loc[second]).dropna()
            rows += [
                pair
                | {"metric": metric}
                | _spread(differences[metric], films[[first, second]].min())
                for metric in METRICS
            ]
    return pd.DataFrame(rows, columns=list(DIFFERENCES))


def _spread(scores: pd.Series, films: int) -> dict[str, float]:
    return {
        "mean": scores.mean(),
        "sd": scores.std(),
        "low": scores.min(),
        "high": scores.max(),
        "n_replicates": len(scores),
        "n_films": int(films),
    }


def _references(image_ids: Iterable[str], masks: Path) -> Iterator[Reference]:
    """One at a time: all films of all folds at full resolution are too many for memory."""
    for image_id in image_ids:
        yield Reference(image_id, read_grey(masks / f"{image_id}.png"), [])
