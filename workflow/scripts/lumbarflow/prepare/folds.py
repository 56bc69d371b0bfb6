"""Further trainings beside the main one: other seeds, and folds of a cross-validation.

A single training does not tell how far a network's scores would differ with another seed or with
other films. Further seeds train on the same films and are scored on the same test films. Folds
divide the films outside the test subset by patient: each fold is held out and scored once, the next
fold chooses the best epoch, and the others train, so that no film that chose weights is scored
with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..annotate.watching import digest, pictures_digest
from ..errors import InputError
from .coco import training_digest

FEWEST = 3
"""Folds: one is held out, one chooses, one trains."""


def replicate_names(training: Mapping[str, Any]) -> list[str]:
    """The further trainings that `training` in the configuration asks for: `seed7`, `fold2`, ...

    Raises:
        InputError: there are fewer than three folds, or the main training's seed comes again.
    """
    seeds, folds = training["seeds"], training["folds"]
    if training["seed"] in seeds:
        raise InputError(
            f"training.seeds: {training['seed']} is training.seed, with which every network is "
            "trained anyway; list other numbers."
        )
    if 0 < folds < FEWEST:
        raise InputError(
            f"training.folds: expected 0 or at least {FEWEST}, found {folds} (one fold is held "
            "out, one chooses the best epoch, the others train)."
        )
    return [f"seed{seed}" for seed in seeds] + [f"fold{fold}" for fold in range(1, folds + 1)]


def divide(splits: pd.DataFrame, folds: int, seed: int) -> pd.DataFrame:
    """Divide the films outside the test subset into folds of nearly equal size, by patient.

    Patients come in random order, those with the most films first, and go each to the fold that
    has the fewest films, so that two folds differ by no more films than one patient has.

    Args:
        splits: image_id, patient_id and subset of the annotated films.
        folds: how many, 3 or more.
        seed: of the order. The result does not depend on the order of rows.

    Returns:
        image_id, patient_id and fold (1, 2, ...), by image_id.

    Raises:
        InputError: there are fewer patients than folds.
    """
    films = splits.loc[splits["subset"] != "test", ["image_id", "patient_id"]]
    films = films.sort_values("image_id", ignore_index=True)
    sizes = films.groupby("patient_id").size().sort_index()
    if len(sizes) < folds:
        raise InputError(
            f"training.folds: {folds} folds need as many patients, but the films outside the test "
            f"subset come from {len(sizes)}; set it to {len(sizes)} or less, or annotate films of "
            "further patients."
        )
    order = np.random.default_rng(seed).permutation(len(sizes))
    order = sorted(order, key=lambda k: -sizes.iloc[k])  # stable: equal sizes stay shuffled
    filled = [0] * folds
    fold_of = {}
    for k in order:
        smallest = filled.index(min(filled))
        fold_of[sizes.index[k]] = smallest + 1
        filled[smallest] += int(sizes.iloc[k])
    return films.assign(fold=films["patient_id"].map(fold_of).astype("int64"))


def fold_splits(divided: pd.DataFrame, held_out: int) -> pd.DataFrame:
    """The subsets of the training that holds a fold out.

    Args:
        divided: what :func:`divide` returned.
        held_out: the fold that is scored, from 1.

    Returns:
        image_id, patient_id and subset: `test` of the fold held out, `val` of the next one (after
        the last the first), `train` of the others.
    """
    chooses = held_out % int(divided["fold"].max()) + 1
    subset = divided["fold"].map({held_out: "test", chooses: "val"}).fillna("train")
    return divided[["image_id", "patient_id"]].assign(subset=subset)


def select_films(datasets: Sequence[Mapping[str, Any]], image_ids: Sequence[str]) -> dict[str, Any]:
    """The COCO data set of some films, from those of the subsets that they are in.

    Args:
        datasets: COCO data sets (see :mod:`lumbarflow.prepare.coco`) of the same classes.
        image_ids: the films, in the order that they get; each is in one of the data sets.

    Returns:
        The data set, its images and annotations numbered from 1 as a data set of its own.
    """
    found: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
    for dataset in datasets:
        of_number = {image["id"]: (image, []) for image in dataset["images"]}
        for annotation in dataset["annotations"]:
            of_number[annotation["image_id"]][1].append(annotation)
        found |= {image["image_id"]: (image, own) for image, own in of_number.values()}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, image_id in enumerate(image_ids, 1):
        image, own = found[image_id]
        images.append(image | {"id": number})
        for annotation in own:
            annotations.append(annotation | {"id": len(annotations) + 1, "image_id": number})
    return dict(datasets[0]) | {"images": images, "annotations": annotations}


def fold_digests(
    subsets: Mapping[str, Mapping[str, Any]], pictures: Mapping[str, str]
) -> dict[str, Any]:
    """What the training and prediction of a fold depend on, so that they run again only for that.

    Args:
        subsets: the COCO data sets of its train, val and test subset.
        pictures: digest of each film's picture, by image_id.

    Returns:
        `training`, a digest of the pictures and annotations that train and choose; `sides`, rows
        and columns that hold every film, on which a training at full resolution depends; and
        `scored`, a digest of the pictures that are predicted.
    """
    images = [image for dataset in subsets.values() for image in dataset["images"]]

    def seen(subset: str) -> list[str]:
        return [pictures[image["image_id"]] for image in subsets[subset]["images"]]

    return {
        "training": digest(
            [[seen(name), training_digest(subsets[name])] for name in ("train", "val")]
        ),
        "sides": [max(image[side] for image in images) for side in ("height", "width")],
        "scored": digest(seen("test")),
    }


def picture_digests(folder: Path, image_ids: Sequence[str]) -> dict[str, str]:
    """A digest of each film's picture, `{image_id}.png` in `folder`."""
    return {image_id: pictures_digest(folder, [image_id]) for image_id in image_ids}
