"""Judges what became of planted objects: was every action of the answer key done?

It knows the objects, the key and the results, and nothing of how they were made.
"""

from __future__ import annotations

import datetime
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd
from planted import TYPES, Action, Planted
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
_HIDDEN = 0.99  # share of the pixels of a word


@dataclass(frozen=True)
class Result:
    """What became of an object: a new one with its picture, or the reason for its rejection."""

    dataset: Dataset | None = None
    picture: np.ndarray | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Verdict:
    """Whether an action was done; `uid` is the object's original SOP Instance UID."""

    uid: str
    action: Action
    done: bool


def judge(objects: Iterable[Planted], results: Mapping[str, Result]) -> list[Verdict]:
    """Judge all actions of the objects; `results` by original SOP Instance UID.

    Rejection for text in the pixels hides it, and nothing else is asked of such an object; how many
    without text are rejected so is for the caller to limit. Of an object that is missing, or was
    rejected for another reason, no action is done.
    """
    objects = list(objects)
    uids, patients, days = _Mapping(), _Mapping(), _Mapping()
    for planted, action, values in _present(objects, results):
        if action.kind == "UID consistent":
            uids.add(action.expected, values)
        elif action.kind == "patient ID consistent":
            patients.add(str(planted.patient), values)
        elif action.kind == "date shifted":
            days.add(str(planted.patient), [_offset(action.expected, value) for value in values])
    verdicts = []
    for planted in objects:
        result = results.get(planted.uid, Result())
        for action in planted.actions:
            if result.dataset is None:
                done = (result.reason or "").startswith("burned_in")
                if done and action.kind != "pixels hidden":
                    continue
            elif action.kind == "UID consistent":
                values = _texts(result.dataset, action.where)
                done = _consistent(uids, action.expected, values, action.expected, action.optional)
            elif action.kind == "patient ID consistent":
                values = _texts(result.dataset, action.where)
                done = _consistent(patients, str(planted.patient), values, action.expected)
            elif action.kind == "date shifted":
                values = _texts(result.dataset, action.where)
                offsets = days.forward[str(planted.patient)]
                done = _shifted(values, offsets) if values else action.optional
            else:
                done = _JUDGES[action.kind](planted, action, result)
            verdicts.append(Verdict(planted.uid, action, bool(done)))
    return verdicts


def table(verdicts: Iterable[Verdict]) -> pd.DataFrame:
    """How many actions of each type were required and done."""
    rows = pd.DataFrame(
        [(verdict.action.kind, verdict.done) for verdict in verdicts], columns=["type", "done"]
    )
    counts = rows.groupby("type")["done"].agg(required="size", done="sum")
    return counts.reindex(TYPES, fill_value=0)


def hidden(values: np.ndarray, word: np.ndarray) -> bool:
    """Whether a word, of which `word` is the mask, cannot be seen any more.

    Nearly all of its pixels, and those around them, must be among four neighbours of the same
    value: of four, not of nine, as the edges of two blanked areas may cross the word. Letters are
    smooth at their edges and films have noise, so no word that is left is like that.
    """
    if values.shape != word.shape:
        return False
    around = cv2.dilate(word.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    rows, columns = (slice(0, -1), slice(1, None)), (slice(0, -1), slice(1, None))
    corners = [values[row, column] for row in rows for column in columns]
    same = np.logical_and.reduce([corner == corners[0] for corner in corners[1:]])
    flat = np.zeros(values.shape, bool)
    for row in rows:
        for column in columns:
            flat[row, column] |= same
    return float(np.mean(flat[around])) >= _HIDDEN


def elements(dataset: Dataset, where: tuple[str | int, ...]) -> list[DataElement]:
    """The elements at a path, in all items of its sequences."""
    if where[:1] == ("file_meta",):
        return elements(dataset.file_meta, where[1:])
    *sequences, last = where
    holders = [dataset]
    for name in sequences:
        found = [holder[name] for holder in holders if name in holder]
        holders = [item for element in found if element.VR == "SQ" for item in element.value]
    return [holder[last] for holder in holders if last in holder]


def text(value: Any) -> str:
    """An element's value as text: numbers as numbers, bytes as Latin-1."""
    if isinstance(value, MultiValue | list | tuple):
        return "\\".join(map(text, value))
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if value is None:
        return ""
    try:
        return f"{float(value):g}" if re.fullmatch(r"-?\d+\.\d+", str(value)) else str(value)
    except ValueError:
        return str(value)


def _texts(dataset: Dataset, where: tuple[str | int, ...]) -> list[str]:
    """The values at a path that are not empty, as texts."""
    return [value for element in elements(dataset, where) if (value := text(element.value))]


def _present(
    objects: list[Planted], results: Mapping[str, Result]
) -> Iterator[tuple[Planted, Action, list[str]]]:
    for planted in objects:
        dataset = results.get(planted.uid, Result()).dataset
        if dataset is not None:
            for action in planted.actions:
                if action.kind in ("UID consistent", "patient ID consistent", "date shifted"):
                    yield planted, action, _texts(dataset, action.where)


class _Mapping:
    """What each original value has become, and what each new one comes from."""

    def __init__(self) -> None:
        self.forward: dict[str, set] = defaultdict(set)
        self.back: dict[Any, set[str]] = defaultdict(set)

    def add(self, original: str, values: Iterable[Any]) -> None:
        for value in values:
            self.forward[original].add(value)
            self.back[value].add(original)


def _consistent(
    mapping: _Mapping, key: str, values: list[str], original: str, optional: bool = False
) -> bool:
    """Whether the original has become one other value, which nothing else has become."""
    if not values:
        return optional
    return all(
        mapping.forward[key] == {value} and mapping.back[value] == {key} and value != original
        for value in values
    )


def _offset(before: str, after: str) -> int | None:
    """Days from one date to another; None where that is none."""
    try:
        first, second = (
            datetime.datetime.strptime(value[:8], "%Y%m%d") for value in (before, after)
        )
    except ValueError:
        return None
    return (second - first).days


def _shifted(values: list[str], offsets: set[int | None]) -> bool:
    """Whether all dates of the patient have been moved by the same days, to earlier ones."""
    return len(offsets) == 1 and None not in offsets and all(offset < 0 for offset in offsets)


def _tag_retained(planted: Planted, action: Action, result: Result) -> bool:
    return bool(elements(result.dataset, action.where))


def _text_not_null(planted: Planted, action: Action, result: Result) -> bool:
    found = elements(result.dataset, action.where)
    values = [len(e.value) > 0 if e.VR == "SQ" else text(e.value) != "" for e in found]
    expected = action.expected is None or [text(e.value) for e in found] == [action.expected]
    return bool(values) and all(values) and expected


def _text_retained(planted: Planted, action: Action, result: Result) -> bool:
    return text(action.expected) in _texts(result.dataset, action.where)


def _text_removed(planted: Planted, action: Action, result: Result) -> bool:
    if action.where == ("preamble",):
        return action.expected.encode() not in (getattr(result.dataset, "preamble", None) or b"")
    if action.where == ():
        alone = re.compile(rf"(?<!\d){re.escape(action.expected)}(?!\d)")
        return not any(alone.search(value) for value in _all_texts(result.dataset))
    values = _texts(result.dataset, action.where)
    if action.expected is None:
        return not values
    return not any(action.expected.casefold() in value.casefold() for value in values)


def _all_texts(dataset: Dataset) -> Iterator[str]:
    for element in dataset.iterall():
        if element.VR not in ("SQ", "OW", "OB", "UN"):
            yield text(element.value)


def _uid_changed(planted: Planted, action: Action, result: Result) -> bool:
    values = _texts(result.dataset, action.where)
    if not values:
        return action.optional
    return all(
        value != action.expected and len(value) <= 64 and _UID.fullmatch(value) for value in values
    )


def _pixels_hidden(planted: Planted, action: Action, result: Result) -> bool:
    word, picture = planted.words[action.expected], result.picture
    in_picture = picture is None or hidden(picture, word)
    return in_picture and hidden(_pixels(result.dataset), word)


def _pixels_retained(planted: Planted, action: Action, result: Result) -> bool:
    values = _pixels(result.dataset)
    if values.shape != planted.pixels.shape:
        return False
    asked = np.ones(values.shape[0], bool)  # all rows that are not near text
    for word in planted.words:
        rows = np.flatnonzero(word.any(axis=1))
        near = len(values) // 4
        asked[max(rows[0] - near, 0) : rows[-1] + near] = False
    off = np.abs(values.astype(np.int64) - planted.pixels)
    return bool((off[asked] <= planted.tolerance).all())


def _pixels(dataset: Dataset) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of bytes after the pixels
        return dataset.pixel_array


_JUDGES = {
    "tag retained": _tag_retained,
    "text not null": _text_not_null,
    "text retained": _text_retained,
    "text removed": _text_removed,
    "UID changed": _uid_changed,
    "pixels hidden": _pixels_hidden,
    "pixels retained": _pixels_retained,
}
