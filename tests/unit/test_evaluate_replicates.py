"""Scores of replicates: each on its own films, and their spread as written out by hand."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import pytest

from lumbarflow.errors import InputError
from lumbarflow.evaluate.replicates import (
    COLUMNS,
    main_training,
    replicate_differences,
    score_replicates,
    summarise_replicates,
)
from lumbarflow.evaluate.tables import METRICS, Reference, score_masks
from lumbarflow.files import write_png, write_table
from lumbarflow.rle import encode

CLASSES = ["lumbar_vertebra", "screw"]
SHAPE = (40, 30)
LOG = logging.getLogger("test")
TEST = pd.DataFrame({"image_id": ["t1", "t2"], "patient_id": ["p8", "p9"], "subset": "test"})
FOLDS = pd.DataFrame(
    {
        "image_id": ["a", "b", "c", "d"],
        "patient_id": ["p1", "p1", "p2", "p3"],
        "fold": [1, 1, 2, 3],
    }
)


def body(shift: int = 0) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[10 + shift : 22 + shift, 5:21] = True
    return mask


def predictions(shifts: dict[str, int]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            (image_id, f"{image_id}-0", "lumbar_vertebra", encode(body(shift)), *SHAPE)
            for image_id, shift in shifts.items()
        ],
        columns=[
            *("image_id", "instance_id", "class_name", "rle_counts", "rle_height", "rle_width")
        ],
    )


@pytest.fixture
def folder(tmp_path):
    for image_id in [*TEST["image_id"], *FOLDS["image_id"]]:
        write_png(tmp_path / f"masks/{image_id}.png", body().astype(np.uint8))
    return tmp_path


def scored(folder, tables: dict[tuple[str, str], dict[str, int]]) -> pd.DataFrame:
    paths = {}
    for (model, replicate), shifts in tables.items():
        paths[model, replicate] = folder / f"{model}-{replicate}.parquet"
        write_table(paths[model, replicate], predictions(shifts))
    return score_replicates(paths, TEST, FOLDS, folder / "masks", CLASSES, CLASSES[:1], 1, LOG)


def test_every_replicate_is_scored_on_its_own_films(folder):
    table = scored(
        folder,
        {
            ("unet", "seed7"): {"t1": 0, "t2": 3, "a": 0},
            ("unet", "fold1"): {"a": 1, "b": 2},
            ("unet", "fold2"): {},
        },
    )
    assert tuple(table.columns) == COLUMNS
    assert table["image_id"].tolist() == ["t1", "t2", "a", "b", "c"]
    assert table["patient_id"].tolist() == ["p8", "p9", "p1", "p1", "p2"]
    assert table["replicate"].tolist() == ["seed7"] * 2 + ["fold1"] * 2 + ["fold2"]
    assert table["kind"].tolist() == ["seed"] * 2 + ["fold"] * 3
    assert table["seed"].tolist() == [7, 7, 1, 1, 1]
    assert table["fold"].isna().tolist() == [True, True, False, False, False]
    assert table["fold"].dropna().tolist() == [1, 1, 2]
    assert table["dice"].tolist() == pytest.approx([1, 9 / 12, 11 / 12, 10 / 12, 0])


def test_the_scores_are_those_of_the_main_evaluation(folder):
    shifts = {"t1": 2, "t2": 5}
    references = [Reference(image_id, body().astype(np.uint8), []) for image_id in shifts]
    per_image, _ = score_masks("unet", predictions(shifts), references, CLASSES, CLASSES[:1])
    main = main_training(per_image, TEST, 1)
    other = scored(folder, {("unet", "seed7"): shifts})
    assert main["replicate"].tolist() == ["seed1"] * 2 and main["seed"].tolist() == [1, 1]
    unnamed = ["replicate", "seed"]
    pd.testing.assert_frame_equal(main.drop(columns=unnamed), other.drop(columns=unnamed))


def test_a_missing_mask_is_a_sentence(folder):
    (folder / "masks/c.png").unlink()
    with pytest.raises(InputError, match=r"masks/c\.png is missing"):
        scored(folder, {("unet", "fold2"): {"c": 0}})


def test_nothing_to_score_is_a_sentence(folder):
    with pytest.raises(InputError, match=r"training\.seeds or set training\.folds"):
        scored(folder, {})


def made(values: dict[tuple[str, str, str], list[float]]) -> pd.DataFrame:
    """A table from the scores of the films of (model, kind, replicate)."""
    rows = [
        {"model": model, "kind": kind, "replicate": name, "image_id": f"{kind}{film}"}
        | dict.fromkeys(METRICS, value)
        for (model, kind, name), scores in values.items()
        for film, value in enumerate(scores)
    ]
    return pd.DataFrame(rows)


TABLE = made(
    {
        ("unet", "seed", "seed1"): [0.8, 0.6],
        ("unet", "seed", "seed2"): [0.9, 0.9],
        ("unet", "seed", "seed3"): [0.7, 0.9],
        ("yolact", "seed", "seed1"): [0.6, 0.6],
        ("yolact", "seed", "seed2"): [0.7, 0.7],
        ("yolact", "seed", "seed3"): [0.9, 0.9],
        ("unet", "fold", "fold1"): [0.5],
    }
)


def test_the_spread_is_over_trainings():
    summary = summarise_replicates(TABLE).set_index(["model", "kind", "metric"])
    assert len(summary) == 3 * len(METRICS)
    for metric in METRICS:
        row = summary.loc["unet", "seed", metric]
        assert row["mean"] == pytest.approx(0.8)
        assert row["sd"] == pytest.approx(0.1)
        assert (row["low"], row["high"]) == pytest.approx((0.7, 0.9))
        assert (row["n_replicates"], row["n_films"]) == (3, 2)
    alone = summary.loc["unet", "fold", "dice"]
    assert alone["mean"] == alone["low"] == alone["high"] == 0.5
    assert np.isnan(alone["sd"]) and alone["n_replicates"] == 1


def test_differences_are_within_a_training():
    differences = replicate_differences(TABLE[TABLE["kind"] == "seed"], ["unet", "yolact"])
    assert len(differences) == len(METRICS)
    row = differences.set_index("metric").loc["mean_iou"]
    # 0.7 - 0.6, 0.9 - 0.7 and 0.8 - 0.9.
    assert row["mean"] == pytest.approx(0.2 / 3)
    assert row["sd"] == pytest.approx(np.std([0.1, 0.2, -0.1], ddof=1))
    assert (row["low"], row["high"]) == pytest.approx((-0.1, 0.2))
    assert (row["model_a"], row["model_b"], row["n_replicates"]) == ("unet", "yolact", 3)
    swapped = replicate_differences(TABLE[TABLE["kind"] == "seed"], ["yolact", "unet"])
    assert swapped["mean"].tolist() == pytest.approx((-differences["mean"]).tolist())


def test_one_network_has_no_differences():
    table = TABLE[TABLE["model"] == "unet"]
    assert replicate_differences(table, ["unet"]).empty
