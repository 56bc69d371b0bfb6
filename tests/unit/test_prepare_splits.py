"""Splits: no patient is divided, the same seed gives the same films, a given split is honoured."""

from __future__ import annotations

import itertools

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumbarflow.errors import InputError
from lumbarflow.prepare.splits import SUBSETS, keep_splits, make_splits

# Busy machines are slow: no law fails for taking its time.
unhurried = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def cohort(films_per_patient) -> pd.DataFrame:
    rows = [
        {"image_id": f"IMG{p:03d}{f:02d}", "patient_id": f"PAT{p:03d}", "file_name": f"{p}_{f}.png"}
        for p, films in enumerate(films_per_patient)
        for f in range(films)
    ]
    return pd.DataFrame(rows)


cohorts = st.lists(st.integers(1, 4), min_size=3, max_size=14).map(cohort)
fractions = st.floats(0.05, 0.5)


@unhurried
@given(cohorts, fractions, fractions, st.integers(0, 2**32), st.randoms())
def test_laws_of_a_random_split(images, test, validation, seed, random):
    splits = make_splits(images, test, validation, seed)
    assert list(splits.columns) == ["image_id", "patient_id", "subset"]
    assert sorted(splits["image_id"]) == sorted(images["image_id"])
    assert (splits.groupby("patient_id")["subset"].nunique() == 1).all()
    assert set(splits["subset"]) == set(SUBSETS)
    order = list(range(len(images)))
    random.shuffle(order)
    again = make_splits(images.iloc[order], test, validation, seed)
    pd.testing.assert_frame_equal(splits, again)


@unhurried
@given(st.lists(st.integers(1, 4), min_size=3, max_size=8), st.integers(1, 12), st.integers(0, 99))
def test_the_test_subset_is_as_near_as_whole_patients_allow(films_per_patient, test, seed):
    images = cohort(films_per_patient)
    if test >= len(images):
        with pytest.raises(InputError, match=r"`splits\.test` asks for"):
            make_splits(images, test, 0.1, seed)
        return
    got = (make_splits(images, test, 0.1, seed)["subset"] == "test").sum()
    # Two patients at least stay for training and validation.
    possible = [
        sum(some)
        for k in range(1, len(films_per_patient) - 1)
        for some in itertools.combinations(films_per_patient, k)
    ]
    assert got in possible
    spare = len(images) - sum(sorted(films_per_patient)[-2:])
    if test <= spare:
        assert abs(got - test) == min(abs(total - test) for total in possible)


def test_the_paper_s_proportions():
    subsets = make_splits(cohort([1] * 830), 100, 0.1, 1)["subset"].value_counts()
    assert subsets.to_dict() == {"train": 657, "test": 100, "val": 73}


def test_a_number_of_films_may_be_written_with_a_decimal_point():
    images = cohort([1] * 12)
    pd.testing.assert_frame_equal(make_splits(images, 4.0, 0.1, 1), make_splits(images, 4, 0.1, 1))


def test_seeds_differ():
    images = cohort([1] * 30)
    first, second = (make_splits(images, 6, 0.2, seed)["subset"].tolist() for seed in (1, 2))
    assert first != second


def test_every_patient_can_be_tested():
    images = cohort([2, 1, 1, 3])
    tested = set()
    for seed in range(40):
        splits = make_splits(images, 3, 0.3, seed)
        tested |= set(splits.loc[splits["subset"] == "test", "patient_id"])
    assert tested == set(images["patient_id"])


@pytest.mark.parametrize(
    ("films", "test", "validation", "said"),
    [
        ([3, 2], 0.2, 0.2, "The subset test would be empty"),
        ([5], 0.2, 0.2, "The subset val would be empty"),
        ([1, 1, 1], 3, 0.2, "`splits.test` asks for 3 of 3"),
        ([1, 1, 1], 0, 0.2, "`splits.test` asks for 0 of 3"),
        ([1, 1, 1], -0.5, 0.2, "`splits.test` asks for -0.5 of 3"),
        ([1, 1, 1], 1, 0, "`splits.validation` is 0"),
        ([1, 1, 1], 1, 1.5, "`splits.validation` is 1.5"),
    ],
)
def test_impossible_sizes(films, test, validation, said):
    with pytest.raises(InputError) as caught:
        make_splits(cohort(films), test, validation, 0)
    assert said in str(caught.value)


IMAGES = cohort([2, 1, 1])
GOOD = {"IMG00000": "test", "IMG00001": "test", "IMG00100": "val", "IMG00200": "train"}


def split_file(tmp_path, lines, header="image_id,subset"):
    path = tmp_path / "my_split.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8-sig")
    return path


def lines_of(split):
    return [f"{image},{subset}" for image, subset in split.items()]


@pytest.mark.parametrize(
    ("header", "lines"),
    [
        ("image_id,subset", lines_of(GOOD)),
        (
            "file_name,subset",
            ["films/0_0.png,test", "0_1.png,test", "1_0.png,val", "2_0.png,train"],
        ),
        ("Subset;image", ["test;0_0.png", " TEST ;IMG00001", "val;1_0.dcm", "train;2_0"]),
    ],
)
def test_a_split_file_is_honoured(tmp_path, header, lines):
    splits = make_splits(IMAGES, 1, 0.1, 0, split_file(tmp_path, lines, header))
    assert dict(zip(splits["image_id"], splits["subset"], strict=True)) == GOOD
    assert list(splits.columns) == ["image_id", "patient_id", "subset"]


def test_a_split_file_may_list_films_without_annotation(tmp_path):
    images = IMAGES.assign(annotated=[True, False, True, True])
    splits = make_splits(images, 1, 0.1, 0, split_file(tmp_path, lines_of(GOOD)))
    assert splits["image_id"].tolist() == ["IMG00000", "IMG00100", "IMG00200"]
    assert len(make_splits(images, 1, 0.1, 0)) == 3


@pytest.mark.parametrize(
    ("lines", "header", "said"),
    [
        (
            lines_of(GOOD | {"Doe^Jane.png": "test"}),
            None,
            "lists 1 film that is not among the images (entry 5)",
        ),
        (
            [f"Doe^Jane{n}.png,test" for n in range(7)],
            None,
            "lists 7 films that are not among the images (entries 1, 2, 3, 4, 5 and 2 more)",
        ),
        (lines_of(GOOD)[1:], None, "does not list 1 annotated film (IMG00000)"),
        (lines_of(GOOD | {"IMG00100": "vall"}), None, "'vall'; did you mean 'val'?"),
        (["Doe^Jane.png,vall"], None, "entry 1 the unknown subset 'vall'"),
        (lines_of(GOOD | {"IMG00100": ""}), None, "unknown subset ''"),
        ([",test"], None, "no film in entry 1"),
        (
            lines_of(GOOD | {"IMG00001": "val"}),
            None,
            "(IMG00000 in test, IMG00001 in val)",
        ),
        ([*lines_of(GOOD), "IMG00100,val"], None, "more than once (IMG00100)"),
        (lines_of(GOOD | {"IMG00100": "train"}), None, "leaves the subset val without"),
        (lines_of(GOOD), "film,part", "is not a CSV file with the columns"),
        ([], "", "is not a CSV file with the columns"),
    ],
)
def test_bad_split_files_give_one_sentence(tmp_path, lines, header, said):
    path = split_file(tmp_path, lines, "image_id,subset" if header is None else header)
    with pytest.raises(InputError) as caught:
        make_splits(IMAGES, 1, 0.1, 0, path)
    assert said in str(caught.value)
    assert "my_split.csv" in str(caught.value)
    assert "PAT" not in str(caught.value)
    assert "Doe" not in str(caught.value)


def test_a_missing_split_file(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv is missing"):
        make_splits(IMAGES, 1, 0.1, 0, tmp_path / "none.csv")


def test_an_unreadable_split_file(tmp_path):
    path = tmp_path / "my_split.csv"
    path.write_bytes(b"\xff\xfe\x00,")
    with pytest.raises(InputError, match=r"my_split\.csv is not a CSV file"):
        make_splits(IMAGES, 1, 0.1, 0, path)


def settings_of(test=0.3, validation=0.2, seed=1, file=None):
    return {"test": test, "validation": validation, "seed": seed, "file": file}


def subsets_of(splits):
    return dict(zip(splits["image_id"], splits["subset"], strict=True))


@unhurried
@given(
    st.lists(st.integers(1, 4), min_size=6, max_size=14).map(cohort),
    st.lists(st.lists(st.booleans(), min_size=56, max_size=56), min_size=1, max_size=5),
    st.integers(0, 99),
)
def test_films_that_come_and_go_move_no_film(tmp_path_factory, images, rounds, seed):
    ledger = tmp_path_factory.mktemp("ledger") / "ledger.json"
    first = images["patient_id"] <= "PAT004"
    known = subsets_of(keep_splits(images[first], settings_of(seed=seed), ledger))
    for shown in rounds:
        annotated = images.assign(annotated=shown[: len(images)])
        try:
            splits = keep_splits(annotated, settings_of(seed=seed), ledger)
        except InputError as error:
            assert "would be empty" in str(error)
            continue
        assert sorted(splits["image_id"]) == sorted(
            annotated.loc[annotated["annotated"], "image_id"]
        )
        now = subsets_of(splits)
        assert all(known[image_id] == now[image_id] for image_id in known.keys() & now.keys())
        known |= now
        of_patient = images.assign(subset=images["image_id"].map(known)).dropna()
        assert (of_patient.groupby("patient_id")["subset"].nunique() == 1).all()


def test_new_patients_keep_the_proportions(tmp_path):
    ledger = tmp_path / "ledger.json"
    images = cohort([1] * 400)
    for count in (40, 90, 200, 400):
        splits = keep_splits(images[:count], settings_of(), ledger)
        got = splits["subset"].value_counts(normalize=True)
        assert got["test"] == pytest.approx(0.3, abs=0.03)
        assert got["val"] == pytest.approx(0.14, abs=0.03)


def test_an_unchanged_division_leaves_the_ledger_alone(tmp_path):
    ledger = tmp_path / "ledger.json"
    keep_splits(cohort([2] * 9), settings_of(), ledger)
    before = ledger.stat()
    keep_splits(cohort([2] * 9), settings_of(), ledger)
    assert ledger.stat() == before


@pytest.mark.parametrize("change", [{"seed": 2}, {"test": 0.6}])
def test_changed_settings_need_permission(tmp_path, change):
    ledger, images = tmp_path / "ledger.json", cohort([1] * 30)
    first = keep_splits(images, settings_of(), ledger)
    before = ledger.read_bytes()
    with pytest.raises(InputError, match=r"would move \d+ annotated films .*allow_moves: true"):
        keep_splits(images, settings_of(**change), ledger)
    assert ledger.read_bytes() == before
    moved = keep_splits(images, settings_of(**change), ledger, allow_moves=True)
    assert subsets_of(moved) != subsets_of(first)
    assert subsets_of(keep_splits(images, settings_of(**change), ledger)) == subsets_of(moved)


def test_a_changed_split_file_needs_permission(tmp_path):
    ledger = tmp_path / "ledger.json"
    path = split_file(tmp_path, lines_of(GOOD))
    keep_splits(IMAGES, settings_of(file=path), ledger)
    swapped = {"test": "train", "train": "test", "val": "val"}
    other = {image: swapped[subset] for image, subset in GOOD.items()}
    split_file(tmp_path, lines_of(other))
    with pytest.raises(InputError, match="would move 3 annotated films"):
        keep_splits(IMAGES, settings_of(file=path), ledger)
    moved = keep_splits(IMAGES, settings_of(file=path), ledger, allow_moves=True)
    assert subsets_of(moved) == other


def test_films_that_turn_out_to_be_one_patient_s(tmp_path):
    ledger, images = tmp_path / "ledger.json", cohort([1] * 12)
    first = subsets_of(keep_splits(images, settings_of(), ledger))
    a, b = (next(i for i, s in first.items() if s == subset) for subset in ("test", "train"))
    together = images.assign(
        patient_id=images["patient_id"].where(~images["image_id"].isin([a, b]), "PAT999")
    )
    with pytest.raises(InputError, match="1 patient would have films in two subsets"):
        keep_splits(together, settings_of(), ledger)
    splits = subsets_of(keep_splits(together, settings_of(), ledger, allow_moves=True))
    assert splits[a] == splits[b]


def test_a_damaged_ledger(tmp_path):
    ledger = tmp_path / "ledger.json"
    for text in ("{", "[]", "{}", '{"division": 1, "films": [1]}'):
        ledger.write_text(text)
        with pytest.raises(InputError, match=r"ledger\.json is damaged"):
            keep_splits(IMAGES, settings_of(), ledger)


@unhurried
@given(
    st.lists(st.integers(1, 4), min_size=4, max_size=10).map(cohort),
    st.sets(st.integers(0, 40), max_size=6),
    fractions,
    st.integers(0, 99),
)
def test_patients_of_reserved_films_are_tested_on(tmp_path_factory, images, marked, test, seed):
    images = images.assign(reserved=images.index.isin(marked))
    patients = set(images.loc[images["reserved"], "patient_id"])
    ledger = tmp_path_factory.mktemp("ledger") / "ledger.json"
    try:
        splits = make_splits(images, test, 0.2, seed)
    except InputError as error:
        assert "reserved" in str(error)
        assert images["patient_id"].nunique() - len(patients) < 2
        return
    of_patient = splits.groupby("patient_id")["subset"].unique()
    assert all(len(subsets) == 1 for subsets in of_patient)
    assert all(of_patient[patient][0] == "test" for patient in patients)
    assert set(splits["subset"]) == set(SUBSETS)
    pd.testing.assert_frame_equal(splits, keep_splits(images, settings_of(test, 0.2, seed), ledger))


def test_a_new_patient_with_a_reserved_film_is_tested_on(tmp_path):
    images = cohort([1] * 12)
    keep_splits(images[:6], settings_of(), tmp_path / "ledger.json")
    grown = images.assign(reserved=images["patient_id"] >= "PAT006")
    splits = keep_splits(grown, settings_of(), tmp_path / "ledger.json")
    assert set(splits.loc[splits["patient_id"] >= "PAT006", "subset"]) == {"test"}


def test_a_film_that_is_reserved_too_late_needs_permission(tmp_path):
    images = cohort([2, 1, 1, 1, 1, 1])
    ledger = tmp_path / "ledger.json"
    splits = keep_splits(images, settings_of(), ledger)
    trained = splits.loc[splits["subset"] == "train", "image_id"].iloc[0]
    marked = images.assign(reserved=images["image_id"] == trained)
    with pytest.raises(InputError, match=r"would move to the subset test .*allow_moves"):
        keep_splits(marked, settings_of(), ledger)
    after = subsets_of(keep_splits(marked, settings_of(), ledger, allow_moves=True))
    patient = images.set_index("image_id")["patient_id"]
    assert {after[i] for i in after if patient[i] == patient[trained]} == {"test"}


def test_a_split_file_must_agree_with_reserved_films(tmp_path):
    marked = IMAGES.assign(reserved=False)
    splits = make_splits(IMAGES, 1, 0.3, 0)
    path = split_file(tmp_path, lines_of(splits.set_index("image_id")["subset"]))
    trained = splits.loc[splits["subset"] == "train", "image_id"].iloc[0]
    marked["reserved"] = marked["image_id"] == trained
    with pytest.raises(InputError, match=f"reserved for testing in another subset .*{trained}"):
        make_splits(marked, 1, 0.3, 0, path)
    tested = splits.loc[splits["subset"] == "test", "image_id"].iloc[0]
    marked["reserved"] = marked["image_id"] == tested
    assert subsets_of(make_splits(marked, 1, 0.3, 0, path)) == subsets_of(splits)
