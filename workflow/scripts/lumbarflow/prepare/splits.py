"""Splits of the annotated films into training, validation and test subsets, by patient.

The paper trains on 90% of its films, validates on the other 10% and tests on 100 further films;
here no patient has films in two subsets.

A film that has once been assigned stays in its subset, whatever films come and go: a ledger in the
results, which Snakemake does not know and so does not delete, keeps the assignment.
"""

from __future__ import annotations

import difflib
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..annotate.films import FilmIndex, name_some
from ..errors import InputError
from ..files import read_json, write_json

SUBSETS = ("train", "val", "test")


def make_splits(
    images: pd.DataFrame,
    test: int | float,
    validation: float,
    seed: int,
    split_file: str | Path | None = None,
) -> pd.DataFrame:
    """Assign every annotated film to a subset.

    Args:
        images: image_id, patient_id and, where known, file_name. A boolean column `annotated` may
            mark the films to split among others that a split file may name; without it all are.
            A boolean column `reserved` may mark films for testing: their patients are tested on.
        test: films to test on, as a number (1 or more) or as a fraction (below 1) of the films.
        validation: films to validate on, as a fraction of those not tested on.
        seed: of the random choice of patients. The result does not depend on the order of rows.
        split_file: a CSV file with the columns `subset` and one of `image_id`, `file_name` and
            `image`; it is honoured as it is, and `test`, `validation` and `seed` are not used.

    Returns:
        image_id, patient_id, subset (`train`, `val` or `test`) of the annotated films, by image_id.
        Sizes come as near to what was asked as whole patients allow (of two as near, the larger),
        with at least one patient in every subset.

    Raises:
        InputError: a size is impossible, there are fewer than three patients or two that are not
            reserved, or the split file is unreadable, incomplete, contradictory, has reserved films
            in another subset or leaves a subset empty.
    """
    if split_file is not None:
        return _from_file(images, Path(split_file))
    films = _annotated(images)
    sizes = films.groupby("patient_id").size().sort_index()
    _check_sizes(test, validation, len(films), len(sizes))
    rng = np.random.default_rng(seed)
    order = [sizes.index[k] for k in rng.permutation(len(sizes))]
    target = test if test >= 1 else test * len(films)
    tested = _reserved_patients(images)
    free = [patient for patient in order if patient not in tested]
    if len(free) < 2:
        raise InputError(
            f"Films of {len(tested)} of {len(order)} patients are reserved for testing, so the "
            "subset train or val would be empty: take the film attribute `subset` away from some, "
            "or annotate films of further patients."
        )
    more = target - int(sizes[list(tested)].sum())
    if not tested or (more > 0 and len(free) > 2):
        tested = tested | _nearest_patients(free, sizes, more, left=2)
    order = [patient for patient in order if patient not in tested]
    target = validation * int(sizes[order].sum())
    validated = _nearest_patients(order, sizes, target, left=1)
    films["subset"] = [
        "test" if patient in tested else "val" if patient in validated else "train"
        for patient in films["patient_id"]
    ]
    return films


def keep_splits(
    images: pd.DataFrame,
    settings: Mapping[str, Any],
    ledger: str | Path,
    allow_moves: bool = False,
) -> pd.DataFrame:
    """Assign every annotated film to a subset, those that were assigned before to the same one.

    While the settings stay the same, a patient's new film joins the patient's other films, also
    those that are no longer annotated, and new patients in random order go each to the subset that
    is farthest below its size. Changed settings, or another split file, divide anew.

    Args:
        images: see :func:`make_splits`.
        settings: `test`, `validation`, `seed` and `file` of the section `splits`.
        ledger: the file (JSON) that keeps the assignment. It is written where something changed.
        allow_moves: whether a new division may move films that the ledger has.

    Returns:
        As :func:`make_splits`.

    Raises:
        InputError: as :func:`make_splits`; films would be moved without permission; a subset would
            be left empty; or the ledger is damaged.
    """
    path = Path(ledger)
    before = _read_ledger(path)
    division = {"file": True}
    if settings["file"] is None:
        division = _sizes(settings)
    films = _annotated(images)
    kept = films["image_id"].map({image_id: subset for image_id, _, subset in before["films"]})
    if before["division"] == division and settings["file"] is None:
        splits = _grown(
            films, kept, before["films"], division, allow_moves, _reserved_patients(images)
        )
    else:
        splits = make_splits(images, split_file=settings["file"], **_sizes(settings))
    moved = splits.loc[kept.notna() & (kept != splits["subset"]), "image_id"].tolist()
    if moved and not allow_moves:
        to_test = set(splits.loc[splits["patient_id"].isin(_reserved_patients(images)), "image_id"])
        if to_test.issuperset(moved):
            films = "1 film" if len(moved) == 1 else f"{len(moved)} films"
            raise InputError(
                f"{films} that networks may have seen would move to the subset test "
                f"({name_some(moved)}), for their patients have films that are now reserved: "
                "take the film attribute `subset` away, or set `splits.allow_moves: true` if "
                "that is meant."
            )
        count = "1 annotated film" if len(moved) == 1 else f"{len(moved)} annotated films"
        raise InputError(
            f"The changed `splits` would move {count} to another subset ({name_some(moved)}), and "
            "networks could be tested on what they have seen: take the change back, or set "
            "`splits.allow_moves: true` if a new division is meant."
        )
    # Films that are gone keep their places for the day they come back, unless their patient moved.
    now = set(splits["image_id"])
    places = dict(zip(splits["patient_id"].astype(str), splits["subset"], strict=True))
    gone = [
        [image_id, patient_id, subset]
        for image_id, patient_id, subset in before["films"]
        if image_id not in now and places.get(patient_id, subset) == subset
    ]
    rows = splits[["image_id", "patient_id", "subset"]].astype(str).values.tolist()
    after = {"division": division, "films": sorted(gone + rows)}
    if after != before:
        write_json(path, after)
    return splits


def _sizes(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: settings[key] for key in ("test", "validation", "seed")}


def _read_ledger(path: Path) -> dict[str, Any]:
    """`division`, and `films` as rows of image_id, patient_id and subset."""
    if not path.exists():
        return {"division": None, "films": []}
    try:
        ledger = read_json(path)
        return {"division": ledger["division"], "films": [list(row) for row in ledger["films"]]}
    except (ValueError, TypeError, KeyError):
        raise InputError(
            f"{path} is damaged: restore it from a backup, or delete it to divide the films anew."
        ) from None


def _grown(
    films: pd.DataFrame,
    kept: pd.Series,
    before: Sequence[Sequence[str]],
    division: Mapping[str, Any],
    allow_moves: bool,
    reserved: set[str],
) -> pd.DataFrame:
    """Annotated films in the subsets that they and their patients have, new patients added."""
    of_patient: dict[str, set[str]] = defaultdict(set)
    for _, patient_id, subset in before:
        of_patient[patient_id].add(subset)
    now = films.assign(subset=kept)
    for patient_id, subset in now.dropna().loc[:, ["patient_id", "subset"]].values:
        of_patient[patient_id].add(subset)
    divided = [patient for patient in set(now["patient_id"]) if len(of_patient[patient]) > 1]
    if divided:
        # Films that counted as different patients' turn out to be of one.
        if allow_moves:
            marked = films.assign(reserved=films["patient_id"].isin(reserved))
            return make_splits(marked, **division)
        count = "1 patient" if len(divided) == 1 else f"{len(divided)} patients"
        raise InputError(
            f"{count} would have films in two subsets, for films now count as those of other "
            "patients than before: take that change back (of `folder.patient_pattern`, for "
            "example), or set `splits.allow_moves: true` to divide the films anew."
        )
    patients = now["patient_id"].map(lambda patient: next(iter(of_patient[patient]), None))
    patients = patients.mask(now["patient_id"].isin(reserved), "test")
    sizes = films.groupby("patient_id").size().sort_index()
    new = sorted(set(now.loc[patients.isna(), "patient_id"]))
    wanted = _wanted(division, len(films))
    filled = {subset: int((patients == subset).sum()) for subset in SUBSETS}
    rng = np.random.default_rng(division["seed"])
    assigned = {}
    for k in rng.permutation(len(new)):
        # An empty subset first: without it nothing can be trained or tested.
        subset = max(SUBSETS, key=lambda name: (not filled[name], wanted[name] - filled[name]))
        assigned[new[k]] = subset
        filled[subset] += int(sizes[new[k]])
    for subset in SUBSETS:
        if not filled[subset]:
            raise InputError(
                f"The subset {subset} would be empty, for none of its films is annotated any more: "
                "annotate films of further patients, or set `splits.allow_moves: true` together "
                "with another `splits.seed` to divide the films anew."
            )
    return films.assign(subset=patients.fillna(films["patient_id"].map(assigned)))


def _wanted(division: Mapping[str, Any], n_films: int) -> dict[str, float]:
    """The films that each subset should have."""
    test = division["test"] if division["test"] >= 1 else division["test"] * n_films
    rest = max(0, n_films - test)
    validation = division["validation"] * rest
    return {"train": rest - validation, "val": validation, "test": test}


def _annotated(images: pd.DataFrame) -> pd.DataFrame:
    films = images[images["annotated"].astype(bool)] if "annotated" in images else images
    films = films[["image_id", "patient_id"]].sort_values("image_id", ignore_index=True)
    if films["image_id"].duplicated().any() or films["patient_id"].isna().any():
        raise ValueError("every film needs an image_id of its own and a patient_id")
    return films


def _reserved_patients(images: pd.DataFrame) -> set[str]:
    """Patients with an annotated film that is reserved for testing."""
    if "reserved" not in images:
        return set()
    films = images[images["annotated"].astype(bool)] if "annotated" in images else images
    return set(films.loc[films["reserved"].astype(bool), "patient_id"])


def _check_sizes(test: int | float, validation: float, n_films: int, n_patients: int) -> None:
    if n_patients < len(SUBSETS):
        patients = "1 patient" if n_patients == 1 else f"{n_patients} patients"
        raise InputError(
            f"The subset {SUBSETS[n_patients]} would be empty, for the annotated films come from "
            f"{patients} only and a patient belongs to one subset: annotate films of three "
            "patients or more."
        )
    if not 0 < test < n_films:
        raise InputError(
            f"`splits.test` asks for {test} of {n_films} annotated films: set it between 1 and "
            f"{n_films - 1}, or to a fraction such as 0.12, or annotate more films."
        )
    if not 0 < validation < 1:
        raise InputError(
            f"`splits.validation` is {validation}: set it to a fraction between 0 and 1."
        )


def _nearest_patients(order: Sequence[str], sizes: pd.Series, target: float, left: int) -> set[str]:
    """Patients whose films number as near to `target` as can be: one at least, `left` spared.

    `order` (shuffled) decides among equally good choices: the first patients come first.
    """
    chosen = _subset_sum(order, sizes, target)
    if len(order) - len(chosen) < left:
        # Only a target near all films comes here: spare the patients with the fewest films.
        spared = set(sorted(order, key=lambda patient: sizes[patient])[:left])
        chosen = _subset_sum([p for p in order if p not in spared], sizes, target)
    return chosen


def _subset_sum(order: Sequence[str], sizes: pd.Series, target: float) -> set[str]:
    # reachable[k] has bit s set if some of the first k patients have s films together.
    reachable = [1]
    for patient in order:
        reachable.append(reachable[-1] | reachable[-1] << int(sizes[patient]))
    totals = [s for s in range(1, reachable[-1].bit_length()) if reachable[-1] >> s & 1]
    total = min(totals, key=lambda s: (abs(s - target), -s))
    chosen = set()
    for k in range(len(order), 0, -1):
        if not reachable[k - 1] >> total & 1:
            chosen.add(order[k - 1])
            total -= int(sizes[order[k - 1]])
    return chosen


def _from_file(images: pd.DataFrame, path: Path) -> pd.DataFrame:
    listed = _read_split_file(path)
    index = FilmIndex(images)
    found = [index.find(name) for name in listed["image"]]
    # Names that match no image may hold a patient's, so messages give the numbers of the entries.
    unknown = [str(number) for number, ids in enumerate(found, 1) if not ids]
    if unknown:
        films = "1 film that is" if len(unknown) == 1 else f"{len(unknown)} films that are"
        entries = "entry" if len(unknown) == 1 else "entries"
        raise InputError(
            f"{path} lists {films} not among the images ({entries} {name_some(unknown)}): remove "
            "or correct what is wrong."
        )
    for number, ids in enumerate(found, 1):
        if len(ids) > 1:
            raise InputError(
                f"{path} has in entry {number} a name that may be any of {len(ids)} images "
                f"({name_some(ids)}): use the column `image_id`."
            )
    listed["image_id"] = [ids[0] for ids in found]
    twice = sorted(set(listed.loc[listed["image_id"].duplicated(), "image_id"]))
    if twice:
        raise InputError(
            f"{path} lists {len(twice)} film{'' if len(twice) == 1 else 's'} more than once "
            f"({name_some(twice)}): keep one line for each film."
        )
    splits = _annotated(images)
    splits["subset"] = splits["image_id"].map(listed.set_index("image_id")["subset"])
    missing = splits.loc[splits["subset"].isna(), "image_id"].tolist()
    if missing:
        films = "1 annotated film" if len(missing) == 1 else f"{len(missing)} annotated films"
        raise InputError(
            f"{path} does not list {films} ({name_some(missing)}): add a line for each."
        )
    elsewhere = splits[
        splits["patient_id"].isin(_reserved_patients(images)) & (splits["subset"] != "test")
    ]
    if len(elsewhere):
        films = "1 film" if len(elsewhere) == 1 else f"{len(elsewhere)} films"
        raise InputError(
            f"{path} has {films} of patients reserved for testing in another subset "
            f"({name_some(elsewhere['image_id'])}): give them the subset test, or take the film "
            "attribute `subset` away."
        )
    per_patient = splits.groupby("patient_id")["subset"].transform("nunique")
    divided = splits[per_patient > 1]
    if len(divided):
        first = divided[divided["patient_id"] == divided["patient_id"].iloc[0]]
        films = [f"{i} in {s}" for i, s in zip(first["image_id"], first["subset"], strict=True)]
        raise InputError(
            f"{path} divides the films of a patient among subsets ({name_some(films)}): give all "
            "films of a patient the same subset."
        )
    for subset in SUBSETS:
        if subset not in set(splits["subset"]):
            raise InputError(
                f"{path} leaves the subset {subset} without an annotated film: assign some to it."
            )
    return splits


def _read_split_file(path: Path) -> pd.DataFrame:
    """The lines of a split file as columns image (as the user calls it) and subset."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        # Spreadsheets write semicolons or tabs in many countries.
        separator = max(",;\t", key=text.partition("\n")[0].count)
        table = pd.read_csv(io.StringIO(text), sep=separator, dtype=str)
    except FileNotFoundError:
        raise InputError(f"{path} is missing: correct `splits.file`.") from None
    except (OSError, ValueError):  # of pandas and of the encoding too
        table = pd.DataFrame()
    table.columns = [str(column).strip().lower() for column in table.columns]
    names = [column for column in ("image_id", "file_name", "image") if column in table]
    if not names or "subset" not in table:
        raise InputError(
            f"{path} is not a CSV file with the columns `image_id` (or `file_name`) and `subset`: "
            "give it this header line."
        )
    lines = pd.DataFrame({"image": table[names[0]], "subset": table["subset"]}).fillna("")
    lines = lines.apply(lambda column: column.str.strip())
    lines["subset"] = lines["subset"].str.lower()
    for number, (image, subset) in enumerate(lines.itertuples(index=False), 1):
        if not image:
            raise InputError(f"{path} has no film in entry {number}: complete or remove it.")
        if subset not in SUBSETS:
            near = difflib.get_close_matches(subset, SUBSETS, n=1, cutoff=0.3)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"{path} gives entry {number} the unknown subset {subset!r}{hint}: use train, val "
                "or test."
            )
    return lines
