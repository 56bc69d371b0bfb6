"""Whatever bytes an annotation file holds, reading it gives a result or one sentence.

100,000 mutations of one sound file of each form: half of their bytes, half of their structure.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import random
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from via3 import via3_project

from lumbarflow.annotate.reading import read
from lumbarflow.annotate.reading.shapes import MAX_COORDINATE, MAX_POINTS
from lumbarflow.annotate.records import build_records
from lumbarflow.errors import InputError

BATCH = 100
BATCHES = 500
batches = settings(
    max_examples=BATCHES,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
CLASSES = ["lumbar_vertebra", "sacral_vertebra", "cage", "screw", "instrumentation"]
IMAGES = pd.DataFrame(
    {
        "image_id": ["IMG1", "IMG2", "IMG3"],
        "status": ["accepted", "accepted", "rejected"],
        "rows": [60, 60, 60],
        "columns": [40, 40, 40],
        "file_name": ["a.png", "b.png", "c.png"],
        "pictures": [[], [], []],
    }
)

# One sound file of each form.

BOX = [[3, 3], [30, 3], [30, 25], [3, 25]]
SHAPES = [
    {"name": "polygon", "all_points_x": [3, 30, 30, 3], "all_points_y": [3, 3, 25, 25]},
    {"name": "polyline", "all_points_x": [3, 30, 31], "all_points_y": [3, 3, 25.5]},
    {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4},
    {"name": "circle", "cx": 10, "cy": 11, "r": 5},
    {"name": "ellipse", "cx": 10, "cy": 11, "rx": 5, "ry": 4, "theta": 0.5},
    {"name": "point", "cx": 10, "cy": 11},
]
ATTRIBUTES = [
    {"structure": "lumbar_vertebra", "level": "L5"},
    {"structure": "s1_endplate", "level": "S1"},
    {"structure": {"cage": True, "screw": False}},
    {"structure": "Schraube LWK 4", "origin": "predicted by unet", "review": "accepted"},
    {"structure": "dog\n", "level": "?"},
    {},
]
REGIONS = [
    {"shape_attributes": shape, "region_attributes": attributes}
    for shape, attributes in zip(SHAPES, ATTRIBUTES, strict=True)
]
VIA1 = {
    f"{name}{size}": {
        "fileref": "",
        "filename": name,
        "size": size,
        "base64_img_data": "",
        "regions": {str(n): region for n, region in enumerate(REGIONS)},
        "file_attributes": {"reviewed": "yes"},
    }
    for name, size in (("a.png", 10), ("c.png", "-1"))
}
VIA2 = {
    "_via_settings": {"core": {"default_filepath": "films/", "filepath": {}}},
    "_via_img_metadata": {
        "a.png10": {"filename": "a.png", "size": 10, "regions": REGIONS, "file_attributes": {}},
        "z.png9": {"filename": "file:///z.png", "size": 9, "regions": [], "file_attributes": {}},
    },
    "_via_attributes": {"region": {"structure": {"type": "text"}}, "file": {}},
    "_via_image_id_list": ["a.png10", "z.png9"],
}
VIA3 = via3_project(
    **{
        str(n): {"vid": str(1 + n % 2), "flg": 0, "z": [], "xy": xy, "av": {"1": "0", "3": "0,1"}}
        for n, xy in enumerate(
            [
                *([1, 5, 6], [2, 1, 2, 3, 4], [3, 9, 9, 5], [4, 9, 9, 5, 2], [5, 0, 0, 4, 3]),
                *([6, 0, 0, 4, 0, 4, 3], [7, 0, 0, 4, 0, 4, 3], [8, 1, 3, 2, 2, 4, 5, 3, 6]),
                *([9, 5, 0, 0, 5, -5, 0], []),
            ]
        )
    }
)
COCO = {
    "images": [
        {"id": 1, "file_name": "a.png", "width": 40, "height": 60},
        {"id": "2", "file_name": "b.png", "width": 40, "height": 60},
    ],
    "categories": [{"id": 1, "name": "cage", "supercategory": "structure"}],
    "annotations": [
        {"id": n, "image_id": 1 + n % 2, "category_id": 1, "bbox": [1, 2, 3, 4]}
        | {"segmentation": segmentation, "iscrowd": 0, "attributes": {"level": "L5"}}
        for n, segmentation in enumerate(
            [
                [[3, 3, 30, 3, 30, 25, 3, 25], [1, 1, 2, 1, 2, 2]],
                [3, 3, 30, 3, 30, 25],
                {"size": [9, 7], "counts": [10, 5, 4, 5, 39]},
                {"size": [9, 7], "counts": ":54O0W1"},
                [],
            ]
        )
    ],
}
VIA_TABLE = [
    "#filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,"
    "region_attributes".replace(" ", "")
]
VIA_ROWS: list[list[Any]] = [
    VIA_TABLE[0].split(","),
    *(
        ["a.png", 10, {}, len(SHAPES), n, shape, attributes]
        for n, (shape, attributes) in enumerate(zip(SHAPES, ATTRIBUTES, strict=True))
    ),
    ["b, c.png", 11, {"quality": "good"}, 0, 0, {}, {}],
]
VIA3_COMMENTS = [
    "# Exported using VGG Image Annotator",
    f"# ATTRIBUTE = {json.dumps(VIA3['attribute'])}",
    "# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata",
]
VIA3_ROWS: list[list[Any]] = [
    [f"1_{n}", [str(entry["vid"]).replace("1", "a.png")], 0, [], entry["xy"], entry["av"]]
    for n, entry in enumerate(VIA3["metadata"].values())
]


def json_text(value: Any) -> str:
    return json.dumps(value)


def table_text(rows: Any, comments: tuple[str, ...] = ()) -> str:
    file = io.StringIO()
    writer = csv.writer(file)
    for row in rows if isinstance(rows, list) else [rows]:
        cells = row if isinstance(row, list) else [row]
        writer.writerow(
            [json.dumps(cell) if isinstance(cell, dict | list) else cell for cell in cells]
        )
    return "\n".join([*comments, file.getvalue()])


def via3_table_text(rows: Any) -> str:
    return table_text(rows, tuple(VIA3_COMMENTS))


FORMS: dict[str, tuple[Any, Callable[[Any], str]]] = {
    "VIA 1 JSON": (VIA1, json_text),
    "VIA 2 project": (VIA2, json_text),
    "VIA 3 project": (VIA3, json_text),
    "COCO": (COCO, json_text),
    "VIA CSV": (VIA_ROWS, table_text),
    "VIA 3 CSV": (VIA3_ROWS, via3_table_text),
}
SEEDS = [write(value).encode() for value, write in FORMS.values()]


def check(path: Path, data: bytes, *, records: bool = False) -> str:
    """What reading `data` comes to: `read` or `refused`. Anything else fails."""
    path.write_bytes(data)
    try:
        file = read(path)
        for film in file.films:
            assert film.file_name or film.picture
            for region in film.regions:
                assert len(region.points) <= 2 * MAX_POINTS
                for point in region.points:
                    x, y = point
                    assert math.isfinite(x + y)
                    assert max(abs(x), abs(y)) <= MAX_COORDINATE
                assert (
                    region.points
                    or any(note.severity == "error" for note in region.notes)
                    or (region.shape in ("polygon", "polyline"))
                )
        if records:
            built, findings = build_records([path], IMAGES, CLASSES, {})
            json.dumps(built, allow_nan=False, ensure_ascii=False).encode("utf-8")
            "".join(findings["message"]).encode("utf-8")
    except InputError as error:
        assert str(error).endswith(".")
        assert "\n" not in str(error)
        return "refused"
    return "read"


@pytest.mark.parametrize("form", FORMS)
def test_the_sound_files_are_read(tmp_path, form):
    value, write = FORMS[form]
    assert check(tmp_path / "file", write(value).encode(), records=True) == "read"


TOKENS = [
    *(b"{", b"}", b"[", b"]", b'"', b'""', b"\\", b",", b":", b";", b"\t", b"\n", b"\r", b"#"),
    *(b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-1", b"\\ud800", b"\xff", b"\0"),
    *(b'"name"', b'"regions"', b"filename", b"CSV_HEADER = ", b"9" * 400, b"\xe2\x80\xa8"),
    *(b"[" * 300, b'{"a":' * 300, b"data:;base64,", b"file:///", b"%00", b"\xef\xbb\xbf"),
]


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        here = rng.randrange(len(data) + 1)
        there = min(len(data), here + rng.choice((1, 1, 2, 8, 50, 400)))
        match rng.randrange(7):
            case 0:
                data = data[:here]
            case 1:
                data = data[:here] + data[there:]
            case 2:
                data = data[:here] + rng.choice(TOKENS) + data[here:]
            case 3:
                data = data[:here] + rng.choice(TOKENS) + data[there:]
            case 4:
                data = data[:there] + data[here:]
            case 5:
                data = data[:here] + rng.randbytes(min(8, there - here)) + data[there:]
            case 6:
                other = rng.choice(SEEDS)
                data = data[:here] + other[rng.randrange(len(other)) :][:3000]
    return data


ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 7, 9, 0.5, 1e6, 1e308, -1e308, float("nan"), float("inf")),
    *(10**30, 10**400, "", " ", "\n", "0", "-1", "1e3", "NaN", "x" * 3000, "\ud800", "\0", "é"),
    *("a.png", "b.png", "C:\\a.png", "file://", "data:,", "L5", "5. LWK", "polygon", "rect"),
    *([], {}, [[]], [None], [{}], {"": ""}, [1, 2], [[1, 2, 3, 4]], list(range(50)), {"a": [1]}),
    *({"name": "point"}, {"size": [3, 3], "counts": "1"}, {"size": [10**9, 1], "counts": [10**9]}),
]
for _ in range(2):
    ODD.append([ODD[-1]] * 5)
deep: Any = "bottom"
for _ in range(200):
    deep = [deep]
ODD.append(deep)


def mutate_structure(value: Any, rng: random.Random) -> Any:
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        containers, found = [value], []
        while containers:
            container = containers.pop()
            if isinstance(container, dict | list) and container:
                found.append(container)
                inner = container.values() if isinstance(container, dict) else container
                containers += inner
        if not found:
            return value
        container = rng.choice(found[:500])
        keys = list(container) if isinstance(container, dict) else range(len(container))
        key = rng.choice(keys)
        match rng.randrange(6):
            case 0 | 1:
                container[key] = copy.deepcopy(rng.choice(ODD))
            case 2:
                del container[key]
            case 3 if isinstance(container, dict):
                name = rng.choice([*keys, rng.choice(string.ascii_letters), "", "é\ud800"])
                container[name] = container.pop(key)
            case 4 if isinstance(container, list):
                container[:] = [*container, *copy.deepcopy(container)][:2000]
            case _:
                container[key] = copy.deepcopy(rng.choice(rng.choice([found, ODD])[:500]))
    return value


@batches
@given(seed=st.integers(0, 2**32))
def test_mutated_bytes(tmp_path_factory, seed):
    path, rng = tmp_path_factory.getbasetemp() / "bytes", random.Random(seed)
    for n in range(BATCH):
        check(path, mutate_bytes(SEEDS[n % len(SEEDS)], rng), records=n % 10 == 0)


@batches
@given(seed=st.integers(0, 2**32))
def test_mutated_structure(tmp_path_factory, seed):
    path, rng = tmp_path_factory.getbasetemp() / "structure", random.Random(seed)
    forms = list(FORMS.values())
    for n in range(BATCH):
        value, write = forms[n % len(forms)]
        text = write(mutate_structure(value, rng))
        check(path, text.encode("utf-8", "surrogatepass"), records=n % 10 == 0)


@settings(batches, max_examples=500)
@given(data=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_any_bytes(tmp_path_factory, data):
    check(tmp_path_factory.getbasetemp() / "any", data)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param({"a": {"filename": "a.png", "regions": REGIONS * 5000}}, id="regions"),
        pytest.param(
            {f"{n}": {"filename": f"{n}.png", "regions": []} for n in range(50_000)}, id="films"
        ),
        pytest.param(
            {"a": {"filename": "a.png", "regions": [REGIONS[0] | {"x": [[0] * 3] * 300_000}]}},
            id="lists",
        ),
        pytest.param(
            COCO
            | {
                "annotations": [
                    {"image_id": 1, "segmentation": {"size": [8000, 8000], "counts": [1] * 190_000}}
                ]
                * 3
            },
            id="runs",
        ),
        pytest.param(
            COCO
            | {
                "annotations": [
                    {"image_id": 1, "segmentation": [[1, 1, 9, 1, 9, n % 50] for n in range(3000)]},
                    {"image_id": 1, "segmentation": [list(range(200_000))]},
                    {
                        "image_id": 1,
                        "segmentation": {"size": [8192, 8192], "counts": [8192] * 8192},
                    },
                ]
            },
            id="rings",
        ),
    ],
)
def test_large_files_come_to_an_end(tmp_path, value):
    check(tmp_path / "large", json.dumps(value).encode())
