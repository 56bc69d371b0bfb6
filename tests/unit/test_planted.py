"""The corpus of planted values, its judge and the search of bytes: do they see what is wrong?"""

from __future__ import annotations

import io
import warnings
import zlib
from collections.abc import Callable

import cv2
import numpy as np
import pandas as pd
import pydicom
import pytest
from byte_search import Search, contents, forms
from hypothesis import given, settings
from hypothesis import strategies as st
from judging import Result, elements, hidden, judge, table, text
from planted import (
    BURNED_IN,
    FILE_NAMES,
    TYPES,
    Action,
    Planted,
    Secret,
    corpus,
    unvalidated,
)
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from lumbarflow.acquire.view import choose

OBJECTS = corpus(40)


def read(planted: Planted) -> Dataset:
    with unvalidated():
        dataset = pydicom.dcmread(io.BytesIO(planted.data))
        for _ in dataset.iterall():  # everything is read from its bytes
            pass
    return dataset


SOURCES = {planted.uid: read(planted) for planted in OBJECTS}


# The corpus ------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_objects():
    again, other = corpus(40), corpus(40, seed=5)
    assert [planted.data for planted in again] == [planted.data for planted in OBJECTS]
    assert [planted.actions for planted in again] == [planted.actions for planted in OBJECTS]
    assert not {planted.uid for planted in other} & {planted.uid for planted in again}


def test_the_objects_are_lateral_lumbar_films_that_can_be_decoded():
    for planted in OBJECTS:
        dataset = SOURCES[planted.uid]
        assert choose(dataset).reason is None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = dataset.pixel_array & (2**dataset.BitsStored - 1)
        assert np.abs(values.astype(int) - planted.pixels).max() <= planted.tolerance
    syntaxes = {dataset.file_meta.TransferSyntaxUID for dataset in SOURCES.values()}
    assert len(syntaxes) >= 8


def test_every_secret_stands_in_its_file():
    """In the bytes, the name or the pixels; otherwise the search could not fail."""
    for planted in OBJECTS:
        data = planted.data
        if SOURCES[planted.uid].file_meta.TransferSyntaxUID.is_deflated:
            start = 144 + int.from_bytes(data[140:144], "little")
            data += zlib.decompress(data[start:], -zlib.MAX_WBITS)
        for secret in planted.secrets:
            if secret.place not in (BURNED_IN, FILE_NAMES):
                assert any(form in data for form in secret.encoded or forms(secret)), secret
            elif secret.place == FILE_NAMES:
                assert secret.text in planted.name


# The judge -------------------------------------------------------------------------------------


def nothing(planted: Planted) -> Result:
    return Result(SOURCES[planted.uid], None)


def emptied(planted: Planted) -> Result:
    """Only what no object can be without."""
    source, result = SOURCES[planted.uid], Dataset()
    result.file_meta = pydicom.dataset.FileMetaDataset()
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel",
                    "PixelRepresentation", "PhotometricInterpretation"):  # fmt: skip
        result[keyword] = source[keyword]
    result.PixelData = np.zeros_like(planted.pixels).tobytes()
    return Result(result)


def right(planted: Planted) -> Result:
    """What the answer key asks for, done by its letter."""
    source = SOURCES[planted.uid]
    result = pydicom.Dataset()
    result.file_meta = pydicom.dataset.FileMetaDataset()
    result.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    result.preamble = b"\0" * 128
    for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel",
                    "PixelRepresentation", "PhotometricInterpretation"):  # fmt: skip
        result[keyword] = source[keyword]
    pixels = planted.pixels.copy()
    for word in planted.words:
        rows, columns = np.nonzero(word)
        box = (
            slice(max(rows.min() - 2, 0), rows.max() + 3),
            slice(max(columns.min() - 2, 0), columns.max() + 3),
        )
        pixels[box] = int(np.median(planted.pixels)) + 1
    result.PixelData = pixels.tobytes()
    for action in planted.actions:
        if action.kind == "text retained":
            put(result, action.where, action.expected)
        elif action.kind in ("UID changed", "UID consistent") and not action.optional:
            put(
                result,
                action.where,
                f"2.25.{int.from_bytes(action.expected.encode(), 'big') % 10**30}",
            )
        elif action.kind == "patient ID consistent":
            put(result, action.where, f"pat-{planted.patient}")
        elif action.kind == "date shifted" and not action.optional:
            day = pd.Timestamp(action.expected[:8]) - pd.Timedelta(days=100 + planted.patient)
            put(result, action.where, day.strftime("%Y%m%d"))
        elif action.kind == "text not null" and action.expected:
            put(result, action.where, action.expected)
    for kind, value in (("text not null", "X"), ("tag retained", None)):
        for action in planted.actions:
            if action.kind == kind and not elements(result, action.where):
                sequence = pydicom.datadict.dictionary_VR(action.where[-1]) == "SQ"
                put(result, action.where, [Dataset()] if sequence else value)
    return Result(result)


def put(dataset: Dataset, where: tuple[str | int, ...], value) -> None:
    if where[0] == "file_meta":
        dataset, where = dataset.file_meta, where[1:]
    for name in where[:-1]:
        if name not in dataset:
            setattr(dataset, name, [Dataset()])
        dataset = dataset[name].value[0]
    setattr(dataset, where[-1], value)


RIGHT = {planted.uid: right(planted) for planted in OBJECTS}


def judged(engine: Callable[[Planted], Result]) -> pd.DataFrame:
    return table(judge(OBJECTS, {planted.uid: engine(planted) for planted in OBJECTS}))


def test_what_the_key_asks_for_is_found_to_be_done():
    counts = table(judge(OBJECTS, RIGHT))
    assert (counts["done"] == counts["required"]).all(), counts
    assert (counts["required"] > 0).all()


DOES_NOTHING = {"date shifted", "UID changed", "UID consistent", "patient ID consistent",
                "pixels hidden"}  # fmt: skip
REMOVES_ALL = {"tag retained", "text not null", "text retained", "pixels retained"}


def test_an_engine_that_does_nothing_fails():
    counts = judged(nothing)
    assert (
        counts.loc[list(DOES_NOTHING), "done"] <= counts.loc[list(DOES_NOTHING), "required"] * 0.01
    ).all()
    assert counts.loc["text removed", "done"] < 0.02 * counts.loc["text removed", "required"]


def test_an_engine_that_removes_everything_fails():
    counts = judged(emptied)
    # What describes the pixels is still there.
    for kind in REMOVES_ALL:
        assert counts.loc[kind, "done"] <= 0.1 * counts.loc[kind, "required"], kind


def test_objects_that_are_lost_or_rejected_without_need_fail():
    other = Result(reason="pixels_not_readable")
    for results in ({}, {planted.uid: other for planted in OBJECTS}):
        counts = table(judge(OBJECTS, results))
        assert (counts["done"] == 0).all() and (counts["required"] > 0).all()
    rejected = Result(reason="burned_in_text_uncertain")
    verdicts = judge(OBJECTS, {planted.uid: rejected for planted in OBJECTS})
    assert {verdict.uid for verdict in verdicts} == {p.uid for p in OBJECTS if p.words}
    assert all(v.done and v.action.kind == "pixels hidden" for v in verdicts)


def spoiled(kind: str) -> dict[str, Result]:
    """Right results but for one action of a type."""
    planted, action = next(
        (planted, action)
        for planted in OBJECTS[3:]
        for action in planted.actions
        if action.kind == kind
        and not action.optional
        and (kind != "text removed" or action.expected)
        and (not action.where or action.where[0] != "file_meta")
    )
    result = right(planted)
    dataset = result.dataset
    if kind in ("tag retained", "text not null"):
        del dataset[action.where[-1]]
    elif kind == "text retained":
        put(dataset, action.where, None)
    elif kind == "text removed":
        put(dataset, action.where, f"x{action.expected.upper()}x")
    elif kind == "date shifted":
        put(dataset, action.where, "20010101")
    elif kind == "UID changed":
        put(dataset, action.where, action.expected)
    elif kind == "UID consistent":
        put(dataset, action.where, "2.25.7")
    elif kind == "patient ID consistent":
        put(dataset, action.where, "pat-another")
    else:
        pixels = planted.pixels.copy()
        if kind == "pixels retained":
            pixels[-1, -1] += 9
        dataset.PixelData = pixels.tobytes()
    return RIGHT | {planted.uid: result}


@pytest.mark.parametrize("kind", TYPES)
def test_one_action_that_is_not_done_is_seen(kind):
    counts = table(judge(OBJECTS, spoiled(kind)))
    assert counts.loc[kind, "done"] < counts.loc[kind, "required"]


def test_two_patients_or_uids_that_become_one_are_seen():
    results = {planted.uid: right(planted) for planted in OBJECTS}
    for result in results.values():
        result.dataset.PatientID = "pat-all"
        result.dataset.StudyInstanceUID = "2.25.1"
    counts = table(judge(OBJECTS, results))
    assert counts.loc["patient ID consistent", "done"] == 0
    assert counts.loc["UID consistent", "done"] <= counts.loc["UID consistent", "required"] - len(
        OBJECTS
    )


def test_dates_that_move_to_later_or_by_different_days_are_seen():
    for days in (lambda number: 5, lambda number: -5 - number):
        results = {}
        for number, planted in enumerate(OBJECTS):
            results[planted.uid] = right(planted)
            source = pd.Timestamp(SOURCES[planted.uid].StudyDate)
            moved = source + pd.Timedelta(days=days(number))
            results[planted.uid].dataset.StudyDate = moved.strftime("%Y%m%d")
        verdicts = [v for v in judge(OBJECTS, results) if v.action.kind == "date shifted"]
        assert not any(verdict.done for verdict in verdicts if not verdict.action.optional)


def test_no_word_is_hidden_before_it_is_blanked():
    words = [(planted.pixels, word) for planted in OBJECTS for word in planted.words]
    assert len(words) >= 3
    assert not any(hidden(pixels, word) for pixels, word in words)


def test_a_word_is_hidden_by_areas_of_one_value():
    planted = next(planted for planted in OBJECTS if planted.words)
    word, source = planted.words[0], planted.pixels
    noise = np.random.default_rng(0)
    box = cv2.dilate(word.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    flat, noisy, faint = source.copy(), source.copy(), source.copy()
    flat[box] = 77
    noisy[box] = noise.integers(0, 200, int(box.sum()))
    faint[word] = source[word] // 2 + 40
    letters = source.copy()
    letters[word] = 77  # blanked by the letters' own shape: they can still be read
    assert hidden(flat, word)
    rows = np.flatnonzero(word.any(axis=1))
    flat[: int(rows.mean())] = 99  # two areas meet in the middle
    assert hidden(flat, word)
    for values in (source, noisy, faint, letters, flat[1:]):
        assert not hidden(values, word)


def test_texts_of_values():
    assert text([1, 2.50]) == "1\\2.5" and text(None) == "" and text(b"\xe9") == "é"


# The search of bytes ---------------------------------------------------------------------------

words = st.text(st.characters(categories=("L", "N")), min_size=7, max_size=20)


@settings(max_examples=60, deadline=None)
@given(words, st.binary(max_size=50), st.binary(max_size=50), st.data())
def test_a_secret_is_found_wherever_it_stands(word, before, after, data):
    secret = Secret("here", word)
    other = Secret("elsewhere", "Xyzabcdefgh")
    form = data.draw(st.sampled_from(sorted(forms(secret))))
    found = Search([secret, other]).found(before + form + after)
    assert secret in found or form.isdigit()
    assert other not in found
    assert secret in Search([secret]).found(form)


def test_numbers_are_found_where_they_are_not_part_of_others():
    search = Search([secret := Secret("birth date", "19341107")])
    assert search.found(b"on 19341107.") == {secret} == search.found(b"19341107")
    assert not search.found(b"2.25.319341107") | search.found(b"1934110700")


def test_secrets_that_are_too_short_are_refused():
    with pytest.raises(ValueError, match="too short"):
        Search([Secret("here", "Li")])


def test_files_are_unpacked(tmp_path):
    secret = Secret("here", "Vexabranmark")
    search = Search([secret])
    grey = np.frombuffer((secret.text * 30).encode(), np.uint8).reshape(10, -1)
    cv2.imwrite(
        str(tmp_path / "a.png"), grey, [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
    )
    pd.DataFrame({"x": [secret.text] * 50}).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.json").write_text('["\\u0056exabranmark"]')
    (tmp_path / "a.log").write_text(secret.text)
    deflated = next(
        planted for planted in OBJECTS
        if SOURCES[planted.uid].file_meta.TransferSyntaxUID.is_deflated
    )  # fmt: skip
    (tmp_path / "a.dcm").write_bytes(deflated.data)
    name = next(s for s in deflated.secrets if s.place == "institution")
    for path in tmp_path.iterdir():
        wanted = name if path.suffix == ".dcm" else secret
        found = set().union(*map(Search([secret, name]).found, contents(path)))
        assert found == {wanted}, path
    assert search.found(b"nothing") == set()


def test_the_untouched_corpus_is_full_of_secrets(tmp_path):
    search = Search(secret for planted in OBJECTS for secret in planted.secrets)
    places = set()
    for planted in OBJECTS:
        path = tmp_path / "x.dcm"
        path.write_bytes(planted.data)
        for content in contents(path):
            places |= {secret.place for secret in search.found(content)}
    everywhere = {place for planted in OBJECTS for place in planted.places}
    assert everywhere - places <= {BURNED_IN, FILE_NAMES}


def test_actions_name_attributes_of_the_object():
    """A wrong path would be an action that is always done."""
    for planted in OBJECTS:
        dataset = SOURCES[planted.uid]
        for action in planted.actions:
            if action.kind in ("text removed", "text retained", "date shifted", "UID changed"):
                assert exists(dataset, action), action


def exists(dataset: Dataset, action: Action) -> bool:
    if action.where in ((), ("preamble",)) or elements(dataset, action.where):
        return True
    # In implicit VR nobody knows that a private element is a sequence.
    first = action.where[0]
    return isinstance(first, int) and dataset[first].VR == "UN"
