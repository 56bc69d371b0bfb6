"""COCO JSON: polygons, boxes and run-length masks, with the names of categories.

Format: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014, and its data format for
object detection; VIA 2 writes it too, with the name of the attribute as supercategory.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ...prepare.masks import trace
from ..regions import AnnotatedFilm, Note, Region
from .shapes import MAX_POINTS, Points, ShapeError, joined, pairs, region, via3_shape
from .text import attributes_of, film_name, not_annotations, number, picture_of

_STANDARD = {
    *("id", "image_id", "category_id", "segmentation", "area", "bbox", "iscrowd"),
    *("attributes", "keypoints", "num_keypoints", "score", "segmented"),
}
_MAX_SIDE, _MAX_PIXELS, _MAX_RUNS, _MAX_RINGS = 20_000, 2**26, 200_000, 100
Films = tuple[list[AnnotatedFilm], list[Note]]


def is_coco(data: Any) -> bool:
    """Whether parsed JSON is a COCO data set."""
    return isinstance(data, dict) and "images" in data and "annotations" in data


def read_coco(path: Path, data: dict[str, Any]) -> Films:
    """The films of a COCO data set.

    The name of a category is the attribute `category`, and the attribute that its supercategory
    names. Annotations of one image with the same outline are one region: VIA 2 writes an outline
    once for each of its attributes.
    """
    images, annotations = data["images"], data["annotations"]
    if not isinstance(images, list) or not isinstance(annotations, list):
        raise not_annotations(path, "its lists of images and annotations are damaged")
    names: dict[str, tuple[str, str]] = {}
    categories = data.get("categories")
    for category in categories if isinstance(categories, list) else []:
        category = attributes_of(category)
        name, above = category.get("name"), category.get("supercategory")
        if isinstance(name, str):
            names[_key(category.get("id"))] = (name, above if isinstance(above, str) else "")
    films: dict[str, AnnotatedFilm] = {}
    problems: list[Note] = []
    for n, image in enumerate(images, 1):
        image = attributes_of(image)
        name, key = film_name(image.get("file_name")), _key(image.get("id"))
        if not name or not key or key in films:
            message = f"image {n} of the file has no file name or no id of its own"
            problems.append(Note("damaged_entry", "error", message))
            continue
        films[key] = AnnotatedFilm(
            file_name=name, size=None, regions=[], number=n, picture=picture_of(image["file_name"])
        )
    drawn: dict[tuple[str, str], dict[str, Any]] = {}
    for n, annotation in enumerate(annotations, 1):
        annotation = attributes_of(annotation)
        film = films.get(_key(annotation.get("image_id")))
        if film is None:
            message = f"annotation {n} of the file belongs to no image of the file"
            problems.append(Note("damaged_entry", "error", message))
            continue
        attributes = {
            **{k: v for k, v in annotation.items() if k not in _STANDARD},
            **attributes_of(annotation.get("attributes")),
        }
        category, above = names.get(_key(annotation.get("category_id")), ("", ""))
        if category:
            attributes.setdefault("category", category)
            attributes.setdefault(above or "category", category)
        geometry = [annotation.get("segmentation"), annotation.get("bbox")]
        same = (_key(annotation.get("image_id")), json.dumps(geometry, default=str))
        if same in drawn:
            _merge(drawn[same], attributes)
            continue
        drawn[same] = attributes
        film.regions.append(_region(annotation, attributes))
    return list(films.values()), problems


def _key(value: Any) -> str:
    """An id as text: VIA writes the same one as number and as text."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _merge(attributes: dict[str, Any], others: dict[str, Any]) -> None:
    both = attributes.get("category"), others.get("category")
    if all(isinstance(value, str) for value in both) and both[0] != both[1]:
        attributes["category"] = " ".join(both)
    for name, value in others.items():
        attributes.setdefault(name, value)


def _region(annotation: dict[str, Any], attributes: dict[str, Any]) -> Region:
    segmentation, box = annotation.get("segmentation"), annotation.get("bbox")
    parts = 1

    def polygon() -> tuple[str, Points]:
        nonlocal parts
        if isinstance(segmentation, dict):
            rings = _rings_of_mask(segmentation)
        elif segmentation:
            rings = _rings(segmentation)
        elif isinstance(box, list) and len(box) == 4:
            return via3_shape([2, *box])
        else:
            raise ShapeError("it has neither a segmentation nor a box")
        parts = len(rings)
        if parts > _MAX_RINGS:
            raise ShapeError(f"it has more than {_MAX_RINGS} parts")
        if sum(map(len, rings)) > MAX_POINTS:
            raise ShapeError(f"it has more than {MAX_POINTS} points")
        return "polygon", joined(rings)

    result = region(polygon, attributes)
    if parts > 1 and result.closed:
        message = f"the region's {parts} outlines (parts or holes) were joined to one"
        note = Note("several_parts", "info", message)
        result = Region(result.shape, result.points, attributes, (*result.notes, note))
    return result


def _rings(segmentation: Any) -> list[Points]:
    if not isinstance(segmentation, list):
        raise ShapeError("its segmentation is damaged")
    lists = segmentation if isinstance(segmentation[0], list) else [segmentation]
    rings = []
    for flat in lists:
        if not isinstance(flat, list) or len(flat) % 2 or not flat:
            raise ShapeError("a point lacks its y")
        ring = pairs(flat[::2], flat[1::2])
        rings.append(ring[:-1] if len(ring) > 2 and ring[0] == ring[-1] else ring)
    return rings


def _rings_of_mask(segmentation: dict[str, Any]) -> list[Points]:
    """The outlines, along pixel borders, of a run-length mask."""
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list) or len(size) != 2:
        raise ShapeError("its mask has no size")
    rows, columns = (int(number(value)) for value in size)
    if not (0 < rows <= _MAX_SIDE and 0 < columns <= _MAX_SIDE and rows * columns <= _MAX_PIXELS):
        raise ShapeError("its mask has no sensible size")
    if isinstance(counts, str):
        runs = _decompress(counts)
    elif isinstance(counts, list) and len(counts) <= _MAX_RUNS:
        runs = [int(number(count)) for count in counts]
    else:
        raise ShapeError("its mask is damaged")
    if any(run < 0 for run in runs) or sum(runs) != rows * columns:
        raise ShapeError("its mask does not fit its size")
    # Columns one after the other; only those with something in them become an array.
    ends = np.cumsum(runs)
    starts, stops = ends[:-1:2], ends[1::2]
    starts, stops = starts[: len(stops)][stops > starts[: len(stops)]], stops[stops > starts]
    if not len(starts):
        raise ShapeError("its mask is empty")
    left, right = int(starts[0]) // rows, (int(stops[-1]) - 1) // rows + 1
    change = np.zeros((right - left) * rows + 1, dtype=np.int8)
    np.add.at(change, starts - left * rows, 1)
    np.add.at(change, stops - left * rows, -1)
    mask = (np.cumsum(change[:-1]) > 0).reshape(right - left, rows).T
    steps = sum(int(np.count_nonzero(np.diff(mask, axis=axis))) for axis in (0, 1))
    if steps > 20 * MAX_POINTS:
        raise ShapeError("its mask is torn into too many parts")
    return [[[x + left, y] for x, y in ring] for ring in trace(mask)]


def _decompress(text: str) -> list[int]:
    """Run lengths of COCO's compressed text: five bits a character, from the lowest, each beyond
    the second less the one two before."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 40 or len(runs) > _MAX_RUNS:
            raise ShapeError("its mask is damaged")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    if shift:
        raise ShapeError("its mask is damaged")
    return runs
