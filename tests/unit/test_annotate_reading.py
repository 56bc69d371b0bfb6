"""Annotation files: every form, shape and quirk is read, bad files give one sentence."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from via3 import via3_project

from lumbarflow.annotate.reading import read
from lumbarflow.annotate.reading.shapes import CURVE_POINTS, MAX_POINTS
from lumbarflow.errors import InputError
from lumbarflow.prepare.masks import rasterise

# Busy machines are slow: no law fails for taking its time.
unhurried = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

DATA = Path(os.environ.get("LUMBARFLOW_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
needs_data = pytest.mark.skipif(
    not (DATA / "via_samples").is_dir(), reason=f"real VIA files are not at {DATA}"
)


def via_text(*shapes: dict, regions_as_dict: bool = False, name: str = "a.png", size=10) -> str:
    regions = [{"shape_attributes": s, "region_attributes": {"structure": "cage"}} for s in shapes]
    if regions_as_dict:
        regions = {str(n): region for n, region in enumerate(regions)}
    entry = {"filename": name, "size": size, "regions": regions, "file_attributes": {}}
    return json.dumps({f"{name}{size}": entry})


def read_text(folder: Path, text: str | bytes):
    path = folder / "annotations.any"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read(path)


def films(folder: Path, text: str | bytes):
    return read_text(folder, text).films


def polyline(points, name="polyline"):
    return {
        "name": name,
        "all_points_x": [x for x, _ in points],
        "all_points_y": [y for _, y in points],
    }


TRIANGLE = [(0, 0), (4, 0), (4, 3)]


@pytest.mark.parametrize("as_dict", [False, True])
def test_shapes(tmp_path, as_dict):
    (film,) = films(
        tmp_path,
        via_text(
            polyline(TRIANGLE, "polygon"),
            polyline([*TRIANGLE, TRIANGLE[0]], "polygon"),
            polyline([*TRIANGLE, TRIANGLE[0]]),
            polyline(TRIANGLE),
            {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4},
            {"name": "point", "cx": 5, "cy": "6"},
            regions_as_dict=as_dict,
        ),
    )
    shapes = [region.shape for region in film.regions]
    assert shapes == ["polygon", "polygon", "polygon", "polyline", "rect", "point"]
    assert [r.closed for r in film.regions] == [True, True, True, False, True, False]
    for region in film.regions[:4]:
        assert region.points == [list(p) for p in TRIANGLE]
    assert film.regions[4].points == [[1, 2], [4, 2], [4, 6], [1, 6]]
    assert film.regions[5].points == [[5, 6]]
    assert film.regions[0].attributes == {"structure": "cage"}
    assert not any(region.notes for region in film.regions)


def test_a_line_whose_ends_nearly_meet_is_an_outline_and_says_so(tmp_path):
    square = [(0, 0), (100, 0), (100, 100), (0, 100), (0, 3)]
    (film,) = films(tmp_path, via_text(polyline(square), polyline(square[:4])))
    closed, line = film.regions
    assert (closed.shape, [note.check for note in closed.notes]) == ("polygon", ["line_closed"])
    assert closed.points == [list(point) for point in square]
    assert (line.shape, line.notes) == ("polyline", ())


def test_circle_and_rotated_ellipse_lie_on_their_curves(tmp_path):
    theta = 0.4
    (film,) = films(
        tmp_path,
        via_text(
            {"name": "circle", "cx": 10, "cy": 20, "r": 5},
            {"name": "ellipse", "cx": 10, "cy": 20, "rx": 5, "ry": 2, "theta": theta},
        ),
    )
    circle, ellipse = (region.points for region in film.regions)
    assert len(circle) == len(ellipse) == CURVE_POINTS
    assert all(math.hypot(x - 10, y - 20) == pytest.approx(5) for x, y in circle)
    for x, y in ellipse:
        u = (x - 10) * math.cos(theta) + (y - 20) * math.sin(theta)
        v = -(x - 10) * math.sin(theta) + (y - 20) * math.cos(theta)
        assert (u / 5) ** 2 + (v / 2) ** 2 == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "read_as"),
    [
        ("film.png", "film.png"),
        ("sub/film.png", "sub/film.png"),
        ("file:///C:\\films\\film%201.png", "film 1.png"),
        ("file:///home/films/film.png", "film.png"),
        ("https://host/films/film.png?size=2#top", "film.png"),
    ],
)
def test_file_names(tmp_path, name, read_as):
    assert films(tmp_path, via_text(name=name))[0].file_name == read_as


@pytest.mark.parametrize(
    ("size", "read_as"), [(12, 12), ("12", 12), (-1, None), (None, None), ("", None)]
)
def test_sizes(tmp_path, size, read_as):
    assert films(tmp_path, via_text(size=size))[0].size == read_as


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(tmp_path, encoding):
    assert films(tmp_path, via_text(name="é.png").encode(encoding))[0].file_name == "é.png"


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ({"name": "blob"}, "its shape is not known"),
        ({}, "it has no shape"),
        ("x", "it has no shape"),
        ({"name": "point", "cx": 1}, "its numbers are damaged"),
        ({"name": "point", "cx": 1, "cy": float("nan")}, "its numbers are damaged"),
        ({"name": "point", "cx": 1, "cy": "left"}, "its numbers are damaged"),
        ({"name": "point", "cx": 1, "cy": 10**400}, "its numbers are damaged"),
        ({"name": "point", "cx": 1, "cy": 1e7}, "more than 1000000 pixels off"),
        ({"name": "circle", "cx": 1, "cy": 1, "r": -1}, "its radius is negative"),
        ({"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1]}, "3 x but 1 y"),
        ({"name": "polygon", "all_points_x": 1, "all_points_y": 2}, "its points are damaged"),
        (polyline([(0, 0)] * (MAX_POINTS + 1)), f"more than {MAX_POINTS} points"),
    ],
)
def test_a_damaged_region_keeps_its_place_and_attributes(tmp_path, shape, reason):
    (film,) = films(tmp_path, via_text(shape, polyline(TRIANGLE, "polygon")))
    damaged, sound = film.regions
    assert (damaged.shape, damaged.points) == ("damaged", [])
    assert damaged.attributes == {"structure": "cage"}
    ((check, severity, message),) = damaged.notes
    assert (check, severity) == ("damaged_region", "error")
    assert reason in message
    assert sound.shape == "polygon"


def test_damaged_entries_are_told_by_their_number_only(tmp_path):
    entries = json.loads(via_text(name="Mustermann.png"))
    entries |= {"Mueller1": {"filename": "Mueller.png"}, "Mayer": 3}
    entries["Schmidt2"] = {"filename": "Schmidt.png", "regions": 3}
    file = read_text(tmp_path, json.dumps(entries))
    assert [film.number for film in file.films] == [1]
    assert [note.check for note in file.problems] == ["damaged_entry"] * 3
    said = " ".join(note.message for note in file.problems)
    assert all(f"entry {n} " in said for n in (2, 3, 4))
    assert not any(name in said for name in ("Mueller", "Mayer", "Schmidt"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("a b c", "is not an annotation file"),
        ("filename,region_shape_attributes\na.png,1\n", "lacks the columns file_size"),
        ("# CSV_HEADER = metadata_id\n", "lacks some columns"),
        ('{"a" 1, "b": 2, "c": 3}', "is not valid JSON at line 1, column 6"),
        ('{"a": ' + "1" * 5000 + "}", "a number that is too long"),
        (b"\xff\xfe\x00", "is not UTF-8"),
        (b"\x89PNG\r\n\x1a\n", "give the file that the annotation tool exported"),
        ("filename;Wirbelk\u00f6rper\n".encode("cp1252"), "save it as CSV UTF-8"),
        ("[" * 100_000, "is not"),
        ("[]", "is not an annotation file"),
        ("{}", "is not an annotation file"),
        ('{"a1": {"filename": "a", "size": 1}}', "is not an annotation file"),
        ('{"images": {}, "annotations": []}', "is not an annotation file"),
        ('{"view": 1, "file": {}, "metadata": {}}', "is not an annotation file"),
        ('{"_via_img_metadata": 3, "_via_settings": {}}', "is not an annotation file"),
        (
            '{"b": {}, "Mayer": {"filename": "a", "regions": []}, "Mayer": {}}',
            "a key twice in one of its objects (number 3 of 3",
        ),
    ],
)
def test_bad_files_give_one_sentence(tmp_path, text, sentence):
    with pytest.raises(InputError) as caught:
        read_text(tmp_path, text)
    assert sentence in str(caught.value)
    assert "annotations.any" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "Mayer" not in str(caught.value)


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(InputError, match=r"none\.json is missing"):
        read(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path)


@unhurried
@given(fraction=st.floats(0, 1, exclude_max=True))
def test_every_cut_json_file_gives_a_sentence_that_says_so(tmp_path, fraction):
    whole = via_text(polyline(TRIANGLE, "polygon"), name="caf\u00e9\\.png")
    with pytest.raises(InputError, match=r"\.any is (not complete JSON|empty).*again"):
        read_text(tmp_path, whole[: int(fraction * len(whole))])


def test_the_end_of_a_cut_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"ends at line 2, column 3"):
        read_text(tmp_path, '{\n "a')


HEADER = (
    "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,"
    "region_attributes"
)
RECT = '"{""name"":""rect"",""x"":1,""y"":2,""width"":3,""height"":4}"'


@pytest.mark.parametrize(
    ("header", "row"),
    [
        (HEADER, f'a.png,10,"{{}}",1,0,{RECT},"{{""structure"":""cage""}}"'),
        ("#" + HEADER, f'a.png,10,"{{}}",1,0,{RECT},"{{""structure"":""cage""}}"'),
        (
            HEADER.replace(",", ";"),
            f'a.png;10;"{{}}";1;0;{RECT};"{{""structure"":""cage""}}"',
        ),
    ],
)
def test_csv_equals_json(tmp_path, header, row):
    shape = {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}
    assert films(tmp_path, f"{header}\n{row}\n") == films(tmp_path, via_text(shape))


def test_csv_rows_without_region_damage_and_commas_in_names(tmp_path):
    rows = [
        HEADER,
        'a.png,10,"{}",0,0,"{}","{}"',
        f'b, c.png,11,"{{""quality"":""good""}}",2,0,{RECT},"{{}}"',
        'b, c.png,11,"{}",2,1,"{""name"":","{}"',
        "d.png,12",
    ]
    file = read_text(tmp_path, "\r\n".join(rows))
    assert [(f.file_name, f.size, len(f.regions)) for f in file.films] == [
        ("a.png", 10, 0),
        ("b, c.png", 11, 2),
    ]
    assert [region.shape for region in file.films[1].regions] == ["rect", "damaged"]
    assert file.films[1].attributes == {"quality": "good"}
    assert [note.message for note in file.problems] == ["row 4 of the file has 2 of 7 cells"]


def drawn3(shape, vid="1", z=(), **values):
    av = {key[1:]: value for key, value in values.items()}
    return {"vid": vid, "flg": 0, "z": list(z), "xy": list(shape), "av": av}


def test_via3_shapes_and_attributes(tmp_path):
    project = via3_project(
        a=drawn3([1, 5, 6]),
        b=drawn3([2, 1, 2, 3, 4], _1="1", _2="L5"),
        c=drawn3([3, 10, 20, 5]),
        d=drawn3([4, 10, 20, 5, 2]),
        e=drawn3([5, 0, 0, 4, 3]),
        f=drawn3([6, 0, 0, 4, 0, 4, 3], vid=1),
        g=drawn3([7, 0, 0, 4, 0, 4, 3], _3="0,1"),
        h=drawn3([8, 1, 3, 2, 2, 4, 5, 3, 6]),
        i=drawn3([9, 5, 0, 0, 5, -5, 0]),
        j=drawn3([], vid="2", _3="0"),
        k=drawn3([10, 1]),
        l=drawn3([7, 1]),
        m=drawn3([1, 1, 1], vid="3"),
        n=drawn3([1, 1, 1], vid="9"),
        o=drawn3([1, 1, 1], z=[1.5]),
    )
    file = read_text(tmp_path, json.dumps(project))
    assert file.form == "VIA 3 project"
    first, second = file.films
    assert [region.shape for region in first.regions] == [
        *("point", "rect", "circle", "ellipse", "polyline", "polyline", "polygon", "rect"),
        *("circle", "damaged", "damaged"),
    ]
    assert first.regions[1].attributes == {"structure": "screw", "level": "L5"}
    assert first.regions[6].attributes == {"seen": {"yes": True, "no": True}}
    assert first.regions[6].points == [list(point) for point in TRIANGLE]
    assert first.regions[7].points == [[1, 2], [4, 2], [4, 6], [1, 6]]
    assert all(math.hypot(x, y) == pytest.approx(5) for x, y in first.regions[8].points)
    assert (second.regions, second.attributes) == ([], {"seen": {"yes": True}})
    assert (first.picture, second.picture) == ("films/a.png", "data:,b")
    assert [note.check for note in file.problems] == ["damaged_entry"] * 3


def test_via3_csv_equals_its_project(tmp_path):
    project = via3_project(a=drawn3([2, 1, 2, 3, 4], _1="0", _2="L5"), b=drawn3([7, *range(8)]))
    del project["file"]["2"]
    lines = [
        "# Exported using VGG Image Annotator",
        '# SHAPE_ID = {"POINT":1}',
        f"# ATTRIBUTE = {json.dumps(project['attribute'])}",
        "# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,"
        "metadata",
        '"1_a","[""a.png""]",0,"[]","[2,1,2,3,4]","{""1"":""0"",""2"":""L5""}"',
        '"1_b","[""a.png""]",0,"[]","[7,0,1,2,3,4,5,6,7]","{}"',
        '"1_c","[""a.png""]",0',
    ]
    file = read_text(tmp_path, "\n".join(lines))
    (film,) = films(tmp_path, json.dumps(project))
    assert [(f.file_name, f.regions) for f in file.films] == [(film.file_name, film.regions)]
    assert [note.message for note in file.problems] == ["row 3 of the file cannot be read"]


def coco(*annotations, **more) -> str:
    images = [{"id": 1, "file_name": "a.png", "width": 40, "height": 60}]
    categories = [
        {"id": 1, "name": "cage", "supercategory": "structure"},
        {"id": 2, "name": "L5", "supercategory": "level"},
    ]
    listed = [
        {"id": n, "image_id": 1, "category_id": 1} | annotation
        for n, annotation in enumerate(annotations)
    ]
    data = {"images": images, "annotations": listed, "categories": categories}
    return json.dumps(data | more)


def test_coco_polygons_boxes_and_attributes(tmp_path):
    flat = [0, 0, 4, 0, 4, 3]
    text = coco(
        {"segmentation": [flat], "level": "L5", "area": 6},
        {"segmentation": [*flat, 0, 0], "image_id": "1"},
        {"segmentation": [], "bbox": [1, 2, 3, 4], "attributes": {"structure": "screw"}},
        {"segmentation": [flat], "category_id": 2},
        {"bbox": [1, 2, 3]},
        {"segmentation": [[1, 2, 3]]},
        {"segmentation": [flat], "image_id": 7},
    )
    file = read_text(tmp_path, text)
    (film,) = file.films
    outline, closed, box, *damaged = film.regions
    assert outline.points == closed.points == [list(point) for point in TRIANGLE]
    # One outline listed under two categories is one region.
    assert outline.attributes == {"structure": "cage", "category": "cage L5", "level": "L5"}
    assert (box.shape, box.attributes["structure"]) == ("rect", "screw")
    assert [region.shape for region in damaged] == ["damaged", "damaged"]
    assert [note.message for note in file.problems] == [
        "annotation 7 of the file belongs to no image of the file"
    ]


masks = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).random((9, 7)) < 0.5)


@unhurried
@given(mask=masks, compressed=st.booleans())
def test_coco_masks_give_outlines_with_the_same_mask(tmp_path, mask, compressed):
    rows, columns = mask.shape
    if compressed:
        encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode()
    else:
        flat = mask.T.ravel()
        changes = np.flatnonzero(np.diff(np.concatenate([[False], flat]))).tolist()
        encoded = np.diff([0, *changes, flat.size]).tolist()
    segmentation = {"size": [rows, columns], "counts": encoded}
    (film,) = films(tmp_path, coco({"segmentation": segmentation, "iscrowd": 1}))
    (region,) = film.regions
    assert np.array_equal(rasterise(region.points, rows, columns), mask)


@pytest.mark.parametrize(
    "segmentation",
    [
        {"size": [9, 7], "counts": [63]},
        {"size": [9, 7], "counts": [3, 61]},
        {"size": [9, 7], "counts": [70, -7]},
        {"size": [9, 7], "counts": "~~~"},
        {"size": [9, 7], "counts": "\u00e9"},
        {"size": [10**6, 10**6], "counts": [0, 10**12]},
        {"size": 9, "counts": [1]},
        {"counts": "0"},
        7,
    ],
)
def test_damaged_coco_masks(tmp_path, segmentation):
    (film,) = films(tmp_path, coco({"segmentation": segmentation}))
    assert [region.shape for region in film.regions] == ["damaged"]


def test_pictures_are_kept_for_finding_films(tmp_path):
    entry = {"filename": "x.png", "size": 3, "regions": [], "base64_img_data": "YWJj"}
    assert films(tmp_path, json.dumps({"x": entry}))[0].picture == "data:;base64,YWJj"
    del entry["base64_img_data"]
    core = {"core": {"default_filepath": "films/"}}
    project = {"_via_settings": core, "_via_img_metadata": {"x": entry}}
    assert films(tmp_path, json.dumps(project))[0].picture == "films/x.png"


SHAPES = {
    "checkbox_dropdown/via_project.json": ("VIA export, JSON", 7, {"rect": 10}),
    "endoscopy/endoscopy/train/via_region_data.json": ("VIA export, JSON", 12, {"polygon": 37}),
    "endoscopy/endoscopy/val/via_region_data.json": ("VIA export, JSON", 3, {"polygon": 5}),
    "project_and_exports/via_project.json": ("VIA 2 project", 121, {"rect": 128}),
    "project_and_exports/via_export_json.json": ("VIA export, JSON", 121, {"rect": 128}),
    "project_and_exports/via_export_csv.csv": ("VIA export, CSV", 121, {"rect": 128}),
    "upstream/unit_test_annotation1.csv": (
        "VIA export, CSV",
        3,
        {"ellipse": 3, "rect": 2, "point": 5, "circle": 1, "polygon": 1},
    ),
    "upstream/unit_test_annotation2.json": (
        "VIA export, JSON",
        3,
        {"ellipse": 3, "rect": 2, "point": 5, "circle": 1, "polygon": 1},
    ),
    "via3/via3_project.json": ("VIA 3 project", 1, {"circle": 2, "rect": 1}),
}


@needs_data
def test_every_file_found_in_the_wild():
    folder = DATA / "via_samples"
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {*SHAPES, "upstream/LICENSE"}
    for name, (form, n_films, shapes) in SHAPES.items():
        file = read(folder / name)
        counted = Counter(region.shape for film in file.films for region in film.regions)
        assert (file.form, len(file.films), counted) == (form, n_films, shapes), name
        assert file.problems == []
        assert not any(region.notes for film in file.films for region in film.regions)
    with pytest.raises(InputError, match="is not an annotation file"):
        read(folder / "upstream" / "LICENSE")


@needs_data
def test_the_same_regions_in_several_forms_are_equal():
    folder = DATA / "via_samples"
    project, exported, table = (
        read(folder / "project_and_exports" / name).films
        for name in ("via_project.json", "via_export_json.json", "via_export_csv.csv")
    )
    assert project == exported == table
    old_table, old = (
        read(folder / "upstream" / f"unit_test_annotation{name}").films
        for name in ("1.csv", "2.json")
    )
    assert old_table == old
