"""Folds: no patient in two, every film held out once, even sizes; their COCO files and digests."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
import pytest
import tiny_films
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from lumbarflow.errors import InputError
from lumbarflow.prepare.coco import coco_dataset
from lumbarflow.prepare.folds import (
    FEWEST,
    divide,
    fold_digests,
    fold_splits,
    picture_digests,
    replicate_names,
    select_films,
)

unhurried = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def cohort(patients) -> pd.DataFrame:
    """Films from (number of films, whether tested on) of each patient."""
    rows = [
        {
            "image_id": f"img{p:02d}{film}",
            "patient_id": f"pat{p:02d}",
            "subset": "test" if tested else ("val" if p % 4 == 0 else "train"),
        }
        for p, (films, tested) in enumerate(patients)
        for film in range(films)
    ]
    return pd.DataFrame(rows)


patients = st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=3, max_size=16)


@unhurried
@given(patients, st.integers(FEWEST, 6), st.integers(0, 2**32), st.randoms())
def test_laws_of_folds(made, folds, seed, random):
    splits = cohort(made)
    sizes = splits[splits["subset"] != "test"].groupby("patient_id").size()
    if len(sizes) < folds:
        with pytest.raises(InputError, match=rf"training\.folds: {folds} folds .* {len(sizes)}"):
            divide(splits, folds, seed)
        return
    divided = divide(splits, folds, seed)
    assert list(divided.columns) == ["image_id", "patient_id", "fold"]
    assert (
        divided["image_id"].tolist() == splits.loc[splits["subset"] != "test", "image_id"].tolist()
    )
    assert (divided.groupby("patient_id")["fold"].nunique() == 1).all()
    counts = divided["fold"].value_counts()
    assert set(counts.index) == set(range(1, folds + 1))
    assert counts.max() - counts.min() <= sizes.max()
    order = list(range(len(splits)))
    random.shuffle(order)
    pd.testing.assert_frame_equal(divided, divide(splits.iloc[order], folds, seed))

    # Each film is held out in one training, chooses in one other, and trains in the rest.
    subsets = [fold_splits(divided, fold) for fold in range(1, folds + 1)]
    for table in subsets:
        assert (table.groupby("patient_id")["subset"].nunique() == 1).all()
        assert set(table["subset"]) == {"train", "val", "test"}
    for places in zip(*(table["subset"] for table in subsets), strict=True):
        assert sorted(places) == ["test", *["train"] * (folds - 2), "val"]


def test_seeds_divide_otherwise():
    splits = cohort([(1, False)] * 30)
    first, second = (divide(splits, 5, seed)["fold"].tolist() for seed in (1, 2))
    assert first != second


def test_equal_patients_make_equal_folds():
    divided = divide(cohort([(2, False)] * 12 + [(3, True)] * 2), 4, 0)
    assert divided["fold"].value_counts().to_dict() == dict.fromkeys(range(1, 5), 6)


def test_names():
    assert replicate_names({"seed": 1, "seeds": [], "folds": 0}) == []
    assert replicate_names({"seed": 1, "seeds": [7, 0], "folds": 3}) == [
        *("seed7", "seed0", "fold1", "fold2", "fold3")
    ]


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"seed": 4, "seeds": [3, 4], "folds": 0}, r"training\.seeds: 4 is training\.seed"),
        ({"seed": 4, "seeds": [], "folds": 1}, r"training\.folds: expected 0 or at least 3"),
        ({"seed": 4, "seeds": [], "folds": 2}, r"training\.folds: .*found 2"),
    ],
)
def test_what_cannot_be_asked_for_is_a_sentence(training, words):
    with pytest.raises(InputError, match=words):
        replicate_names(training)


# COCO files and digests ------------------------------------------------------------------------


@pytest.fixture
def prepared():
    """Eight films of eight patients in two COCO data sets, and the records of all."""
    rng = np.random.default_rng(3)
    splits = cohort([(1, False)] * 8)
    records = [
        {
            **{"image_id": image_id, "rows": tiny_films.FILM[0], "columns": tiny_films.FILM[1]},
            "structures": tiny_films.structures(rng)[: 1 + number % 4],
        }
        for number, image_id in enumerate(splits["image_id"])
    ]
    datasets = [
        coco_dataset(records, splits[splits["subset"] == name], tiny_films.CLASSES)
        for name in ("train", "val")
    ]
    return splits, records, datasets


def test_selected_films_are_what_the_records_would_have_given(prepared):
    splits, records, datasets = prepared
    chosen = splits.iloc[[0, 1, 4, 6]]
    before = copy.deepcopy(datasets)
    selected = select_films(datasets, chosen["image_id"])
    assert selected == coco_dataset(records, chosen, tiny_films.CLASSES)
    assert datasets == before


def test_selected_films_are_a_coco_data_set(prepared, capsys):
    splits, _, datasets = prepared
    coco = COCO()
    coco.dataset = select_films(datasets, splits["image_id"][2:])
    coco.createIndex()
    capsys.readouterr()
    assert sorted(coco.imgs) == list(range(1, 7))
    assert len(coco.anns) == sum(len(coco.imgToAnns[number]) for number in coco.imgs)


def subsets_of(datasets, divided, fold) -> dict:
    return {
        name: select_films(datasets, chosen["image_id"])
        for name, chosen in fold_splits(divided, fold).groupby("subset")
    }


def test_digests_tell_what_a_change_touches(prepared):
    splits, _, datasets = prepared
    divided = divide(splits, 4, 0)
    pictures = {image_id: image_id for image_id in splits["image_id"]}

    def found():
        return [fold_digests(subsets_of(datasets, divided, fold), pictures) for fold in range(1, 5)]

    before = found()
    assert all(digests["sides"] == list(tiny_films.FILM) for digests in before)
    assert len({digests["training"] for digests in before}) == 4
    film = datasets[0]["images"][0]
    held_out = int(divided.loc[divided["image_id"] == film["image_id"], "fold"].item()) - 1

    # Levels are not seen, outlines are: by every training but that which holds the film out.
    annotation = next(a for a in datasets[0]["annotations"] if a["image_id"] == film["id"])
    annotation["level"] = "L4"
    assert found() == before
    annotation["area"] += 1
    after = found()
    for fold in range(4):
        assert (after[fold]["training"] == before[fold]["training"]) == (fold == held_out)
        assert after[fold]["scored"] == before[fold]["scored"]

    annotation["area"] -= 1
    pictures[film["image_id"]] = "another picture"
    after = found()
    for fold in range(4):
        assert (after[fold]["training"] == before[fold]["training"]) == (fold == held_out)
        assert (after[fold]["scored"] != before[fold]["scored"]) == (fold == held_out)


def test_digests_of_pictures_are_of_their_contents(tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / f"{name}.png").write_bytes(content)
    before = picture_digests(tmp_path, ["a", "c"])
    (tmp_path / "a.png").write_bytes(b"3")
    after = picture_digests(tmp_path, ["a", "c"])
    assert before["a"] != after["a"] and before["c"] == after["c"]
