"""VIA files: every shape and quirk is read, bad files give one sentence, writing is lossless."""

from __future__ import annotations

import json
import math
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumbarflow.annotate.via import CURVE_POINTS, read_via, write_via_project
from lumbarflow.errors import InputError

# Busy machines are slow: no law fails for taking its time.
unhurried = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

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


def read(tmp_path: Path, text: str | bytes):
    path = tmp_path / "project.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_via(path)


def polyline(points, name="polyline"):
    return {
        "name": name,
        "all_points_x": [x for x, _ in points],
        "all_points_y": [y for _, y in points],
    }


@pytest.mark.parametrize("as_dict", [False, True])
def test_shapes(tmp_path, as_dict):
    triangle = [(0, 0), (4, 0), (4, 3)]
    (image,) = read(
        tmp_path,
        via_text(
            polyline(triangle, "polygon"),
            polyline([*triangle, triangle[0]], "polygon"),
            polyline([*triangle, triangle[0]]),
            polyline(triangle),
            {"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4},
            {"name": "point", "cx": 5, "cy": 6},
            regions_as_dict=as_dict,
        ),
    )
    assert [r.shape for r in image.regions] == [
        "polygon",
        "polygon",
        "polygon",
        "polyline",
        "rect",
        "point",
    ]
    assert [r.closed for r in image.regions] == [True, True, True, False, True, False]
    for region in image.regions[:4]:
        assert region.points == [list(p) for p in triangle]
    assert image.regions[4].points == [[1, 2], [4, 2], [4, 6], [1, 6]]
    assert image.regions[5].points == [[5, 6]]
    assert image.regions[0].attributes == {"structure": "cage"}


def test_circle_and_rotated_ellipse_lie_on_their_curves(tmp_path):
    theta = 0.4
    (image,) = read(
        tmp_path,
        via_text(
            {"name": "circle", "cx": 10, "cy": 20, "r": 5},
            {"name": "ellipse", "cx": 10, "cy": 20, "rx": 5, "ry": 2, "theta": theta},
        ),
    )
    circle, ellipse = (region.points for region in image.regions)
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
    ],
)
def test_file_names(tmp_path, name, read_as):
    assert read(tmp_path, via_text(name=name))[0].file_name == read_as


@pytest.mark.parametrize(
    ("size", "read_as"), [(12, 12), ("12", 12), (-1, None), (None, None), ("", None)]
)
def test_sizes(tmp_path, size, read_as):
    assert read(tmp_path, via_text(size=size))[0].size == read_as


def test_byte_order_mark_is_no_obstacle(tmp_path):
    assert len(read(tmp_path, b"\xef\xbb\xbf" + via_text().encode())) == 1


SQUARE = [(0, 0), (9, 0), (9, 9), (0, 9)]


@unhurried
@given(st.floats(0, 1, exclude_max=True))
def test_every_cut_file_gives_a_sentence_that_says_so(fraction):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "project.json"
        structures = [{"class_name": "cage\\u00e9", "level": None, "polygon": SQUARE}]
        write_via_project(path, [("a.png", 10, structures), ("b.png", -1, [])])
        whole = path.read_text().rstrip()
        path.write_text(whole[: int(fraction * len(whole))])
        with pytest.raises(InputError, match=r"project\.json is (not complete JSON|empty).*again"):
            read_via(path)


def test_the_end_of_a_cut_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"ends at line 2, column 3"):
        read(tmp_path, '{\n "a')


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("filename,file_size\na.png,1\n", "is not JSON"),
        ('{"a" 1, "b": 2, "c": 3}', "is not valid JSON at line 1, column 6"),
        (b"\xff\xfe\x00", "is not UTF-8"),
        ("[" * 100_000, "is not"),
        ("[]", "is not a VIA file"),
        ("{}", "is not a VIA file"),
        ('{"images": [], "annotations": []}', "is not a VIA file"),
        ('{"project": {}, "file": {}, "metadata": {}}', "is not a VIA file"),
        ('{"_via_img_metadata": [], "_via_settings": {}}', "is not a VIA file"),
        ('{"_via_img_metadata": {"a1": {"filename": "a"}}}', "without a file name and regions"),
        ('{"a1": {"filename": "a", "regions": 3}}', "no list of regions for a"),
        ('{"a1": {"filename": 7, "regions": []}}', "no file name"),
        (
            '{"a1": {"filename": "a", "regions": []}, "a1": {"filename": "a", "regions": []}}',
            "the entry 'a1' twice",
        ),
        (via_text({"name": "blob"}), "no valid shape in region 1 of a.png"),
        (via_text({"name": "point", "cx": 1}), "no valid shape"),
        (via_text({"name": "point", "cx": 1, "cy": float("nan")}), "no valid shape"),
        (via_text({"name": "point", "cx": 1, "cy": "left"}), "no valid shape"),
        (
            via_text({"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 2]}),
            "no valid shape",
        ),
        (via_text({"name": "polygon", "all_points_x": 1, "all_points_y": 2}), "no valid shape"),
        ('{"a1": {"filename": "a", "regions": ["x"]}}', "no valid shape in region 1"),
    ],
)
def test_bad_files_give_one_sentence(tmp_path, text, sentence):
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert sentence in str(caught.value)
    assert "project.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(InputError, match=r"none\.json is missing"):
        read_via(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_via(tmp_path)


coordinates = st.floats(-100, 5000)
polygons = st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=12).filter(
    lambda polygon: polygon[0] != polygon[-1]
)
structure_lists = st.lists(
    st.fixed_dictionaries(
        {
            "class_name": st.sampled_from(["lumbar_vertebra", "screw"]),
            "level": st.sampled_from([None, "L1", "L4/L5"]),
            "polygon": polygons,
        }
    ),
    max_size=4,
)


@unhurried
@given(st.lists(structure_lists, min_size=1, max_size=3))
def test_what_is_written_is_read_again(films):
    written = [(f"film_{n}.png", 1000 + n, film) for n, film in enumerate(films)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "project.json"
        write_via_project(path, written, classes=["lumbar_vertebra"])
        project, images = json.loads(path.read_text()), read_via(path)
    assert [(i.file_name, i.size) for i in images] == [film[:2] for film in written]
    for image, (_, _, structures) in zip(images, written, strict=True):
        assert [r.points for r in image.regions] == [
            [list(point) for point in s["polygon"]] for s in structures
        ]
        assert [r.attributes for r in image.regions] == [
            {"structure": s["class_name"], "level": s["level"] or ""} for s in structures
        ]
    assert project["_via_image_id_list"] == list(project["_via_img_metadata"])
    options = project["_via_attributes"]["region"]["structure"]["options"]
    used = {s["class_name"] for film in films for s in film}
    assert set(options) == {"lumbar_vertebra"} | used


@needs_data
@pytest.mark.parametrize(
    ("file", "films", "shapes"),
    [
        ("checkbox_dropdown/via_project.json", None, {"rect"}),
        ("endoscopy/endoscopy/train/via_region_data.json", None, {"polygon"}),
        ("endoscopy/endoscopy/val/via_region_data.json", 3, {"polygon"}),
        ("upstream/unit_test_annotation2.json", 3, {"polygon", "rect", "circle", "ellipse"}),
    ],
)
def test_files_found_in_the_wild(file, films, shapes):
    images = read_via(DATA / "via_samples" / file)
    assert films in (None, len(images))
    assert shapes <= {region.shape for image in images for region in image.regions}


@needs_data
def test_a_project_and_its_export_say_the_same():
    folder = DATA / "via_samples" / "project_and_exports"
    project = read_via(folder / "via_project.json")
    assert project == read_via(folder / "via_export_json.json")
    assert sum(len(image.regions) for image in project) == 128


@needs_data
@pytest.mark.parametrize(
    "file", ["via3/via3_project.json", "upstream/unit_test_annotation1.csv", "upstream/LICENSE"]
)
def test_other_forms_are_refused_with_the_forms_that_are_read(file):
    with pytest.raises(InputError, match="VIA 2 projects and the JSON exports"):
        read_via(DATA / "via_samples" / file)
