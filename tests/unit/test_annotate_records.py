"""Records: films are matched, nothing drawn is lost, mistakes give findings or one sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumbarflow.annotate.films import FilmIndex
from lumbarflow.annotate.qc import encloses_area, intersects_itself
from lumbarflow.annotate.records import build_records, read_record, read_records, write_records
from lumbarflow.errors import InputError

# Busy machines are slow: no law fails for taking its time.
unhurried = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

CLASSES = ["lumbar_vertebra", "sacral_vertebra", "cage", "screw", "instrumentation"]
SETTINGS = {"class_attribute": "structure", "level_attribute": "level", "ignore": ["s1_endplate"]}
BOX = [(10, 10), (30, 10), (30, 25), (10, 25)]
DATA = Path(os.environ.get("LUMBARFLOW_DATA", Path(__file__).parents[2].parent / "shared" / "data"))


def region(points, structure="lumbar_vertebra", level="L1", shape="polygon"):
    if shape == "point":
        drawn = {"name": "point", "cx": points[0][0], "cy": points[0][1]}
    else:
        drawn = {
            "name": shape,
            "all_points_x": [x for x, _ in points],
            "all_points_y": [y for _, y in points],
        }
    attributes = {} if structure is None else {"structure": structure, "level": level}
    return {"shape_attributes": drawn, "region_attributes": attributes}


def via_file(folder: Path, films: dict[str, list], name="anna.json") -> Path:
    entries = {
        f"{film}{n}": {"filename": film, "size": n, "regions": regions, "file_attributes": {}}
        for n, (film, regions) in enumerate(films.items())
    }
    path = folder / name
    path.write_text(json.dumps(entries))
    return path


def image_table(**files) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"image_id": i, "status": "accepted", "rows": 60, "columns": 40, "file_name": f}
            for i, f in files.items()
        ]
    )


def build(folder, regions, **settings):
    path = via_file(folder, {"a.png": regions})
    records, qc = build_records([path], image_table(IMG1="a.png"), CLASSES, SETTINGS | settings)
    return records[0], qc


def test_a_sound_structure(tmp_path):
    record, qc = build(tmp_path, [region(BOX), region(BOX, "screw", " \n")])
    assert record == {
        "image_id": "IMG1",
        "rows": 60,
        "columns": 40,
        "structures": [
            {
                "structure_id": "IMG1-001",
                "class_name": "lumbar_vertebra",
                "level": "L1",
                "polygon": [list(point) for point in BOX],
                "annotator": "anna",
                "source": "anna.json",
            },
            {
                "structure_id": "IMG1-002",
                "class_name": "screw",
                "level": None,
                "polygon": [list(point) for point in BOX],
                "annotator": "anna",
                "source": "anna.json",
            },
        ],
        "lines": [],
        "rejected": [],
    }
    assert list(qc.columns) == ["image_id", "structure_id", "check", "severity", "message"]
    assert len(qc) == 0


BOW_TIE = [(10, 10), (30, 30), (30, 10), (10, 30)]


@pytest.mark.parametrize(
    ("drawn", "check", "severity"),
    [
        (region([(1, 1), (5, 5)]), "degenerate", "error"),
        (region([(1, 1), (5, 5), (1, 1), (5, 5)]), "degenerate", "error"),
        (region([(1, 1), (5, 5), (9, 9)]), "degenerate", "error"),
        (region([(1, 1), (1.1, 1), (1.1, 1.1)]), "no_pixel", "error"),
        (region([(x + 500, y) for x, y in BOX]), "no_pixel", "error"),
        (region(BOX, shape="polyline"), "open_line", "error"),
        (region(BOX, shape="point"), "point", "error"),
        (region(BOX, None), "no_class", "error"),
        (region(BOX, "\n"), "no_class", "error"),
        (region(BOX, {"cage": True, "screw": True}), "several_classes", "error"),
        (region(BOW_TIE), "self_intersection", "warning"),
        (region([(x - 15, y) for x, y in BOX]), "outside_image", "warning"),
        (region(BOX[:2], "s1_endplate", "S1", "polyline"), "ignored_class", "info"),
    ],
)
def test_findings(tmp_path, drawn, check, severity):
    record, qc = build(tmp_path, [drawn, region(BOX)])
    (finding,) = qc.to_dict("records")
    assert (finding["check"], finding["severity"]) == (check, severity)
    assert (finding["image_id"], finding["structure_id"]) == ("IMG1", "IMG1-001")
    home = {"error": "rejected", "warning": "structures", "info": "lines"}[severity]
    assert "IMG1-001" in [kept["structure_id"] for kept in record[home]]
    kept = sum(len(record[key]) for key in ("structures", "rejected", "lines"))
    assert kept == 2


def test_an_ignored_line_keeps_its_name_level_and_points(tmp_path):
    record, _ = build(tmp_path, [region(BOX[:2], "s1_endplate", "S1", "polyline")])
    (line,) = record["lines"]
    assert (line["name"], line["level"], line["shape"]) == ("s1_endplate", "S1", "polyline")
    assert line["points"] == [list(point) for point in BOX[:2]]


def test_class_names_checkboxes_and_annotator(tmp_path):
    record, qc = build(
        tmp_path,
        [region(BOX, "Wirbel "), region(BOX, {"cage": True, "screw": False})],
        class_names={" Wirbel": "lumbar_vertebra"},
        annotator="reader 1",
    )
    assert [s["class_name"] for s in record["structures"]] == ["lumbar_vertebra", "cage"]
    assert {s["annotator"] for s in record["structures"]} == {"reader 1"}
    assert qc.empty


def sentence(*arguments) -> str:
    with pytest.raises(InputError) as caught:
        build_records(*arguments)
    return str(caught.value)


def test_unknown_class_names_the_nearest_and_the_keys(tmp_path):
    path = via_file(tmp_path, {"a.png": [region(BOX, "Lumbar vertebra")]})
    said = sentence([path], image_table(IMG1="a.png"), CLASSES, SETTINGS)
    for part in (
        "anna.json",
        "'Lumbar vertebra'",
        "did you mean 'lumbar_vertebra'?",
        "sacral_vertebra, cage",
        "`classes`",
        "`annotations.class_names`",
        "`annotations.ignore`",
    ):
        assert part in said


def test_class_names_must_lead_to_a_class(tmp_path):
    path = via_file(tmp_path, {"a.png": [region(BOX)]})
    settings = SETTINGS | {"class_names": {"v": "lumbar_vertebre"}}
    said = sentence([path], image_table(IMG1="a.png"), CLASSES, settings)
    assert "`annotations.class_names`" in said
    assert "did you mean 'lumbar_vertebra'?" in said


def test_another_class_attribute_is_named(tmp_path):
    path = via_file(tmp_path, {"a.png": [region(BOX)]})
    said = sentence(
        [path], image_table(IMG1="a.png"), CLASSES, SETTINGS | {"class_attribute": "label"}
    )
    assert "'label'" in said
    assert "'structure'" in said
    assert "`annotations.class_attribute`" in said


def test_unknown_films_are_listed_up_to_five(tmp_path):
    path = via_file(tmp_path, {"a.png": [region(BOX)]} | {f"x{n}.png": [] for n in range(7)})
    said = sentence([path], image_table(IMG1="a.png"), CLASSES, SETTINGS)
    assert "anna.json names 7 films" in said
    assert "x0.png, x1.png, x2.png, x3.png, x4.png and 2 more" in said
    assert "x5.png" not in said


def test_a_file_without_regions(tmp_path):
    path = via_file(tmp_path, {"a.png": []})
    said = sentence([path], image_table(IMG1="a.png"), CLASSES, SETTINGS)
    assert "anna.json has no region" in said


def test_a_film_annotated_twice(tmp_path):
    anna = via_file(tmp_path, {"a.png": [region(BOX)], "b.png": []})
    bert = via_file(tmp_path, {"a.png": [region(BOX)]}, "bert.json")
    carl = via_file(tmp_path, {"a.png": [], "b.png": [region(BOX)]}, "carl.json")
    both = via_file(tmp_path, {"a.png": [region(BOX)], "a": [region(BOX)]}, "both.json")
    images = image_table(IMG1="a.png", IMG2="b.png")
    said = sentence([anna, bert], images, CLASSES, SETTINGS)
    assert "bert.json" in said
    assert "anna.json" in said
    assert "both.json" in sentence([both], images, CLASSES, SETTINGS)
    # Annotators who share the work each list all films.
    records, qc = build_records([carl, anna], images, CLASSES, SETTINGS)
    assert [r["structures"][0]["annotator"] for r in records] == ["anna", "carl"]
    assert qc.empty


def test_rejected_and_unannotated_films(tmp_path):
    path = via_file(tmp_path, {"a.png": [region(BOX)], "b.png": [region(BOX)]})
    images = image_table(IMG1="a.png", IMG2="b.png", IMG3="c.png", IMG4="d.png")
    images["rows"] = images["rows"].astype(float)
    images.loc[[1, 3], ["status", "rows"]] = ["rejected", None]
    records, qc = build_records([path], images, CLASSES, SETTINGS)
    assert [record["image_id"] for record in records] == ["IMG1"]
    assert list(zip(qc["image_id"], qc["check"], qc["severity"], strict=True)) == [
        ("IMG2", "film_rejected", "warning"),
        ("IMG3", "no_annotation", "info"),
    ]
    assert qc["structure_id"].isna().all()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.png", ["IMG1"]),
        ("IMG1.png", ["IMG1"]),
        ("IMG1", ["IMG1"]),
        ("C:\\films\\a.png", ["IMG1"]),
        ("/films/a.dcm", ["IMG1"]),
        ("one/b.png", ["IMG2"]),
        ("b.png", ["IMG2", "IMG3"]),
        ("elsewhere/b.tif", ["IMG2", "IMG3"]),
        ("1.2.840.7", ["IMG4"]),
        ("1.2.840", []),
        ("c.png", []),
    ],
)
def test_film_names(name, found):
    images = image_table(IMG1="a.png", IMG2="one/b.png", IMG3="two/b.png", IMG4="1.2.840.7.png")
    assert FilmIndex(images).find(name) == found


def test_an_ambiguous_film_gives_a_sentence(tmp_path):
    path = via_file(tmp_path, {"b.png": [region(BOX)]})
    said = sentence([path], image_table(IMG2="one/b.png", IMG3="two/b.png"), CLASSES, SETTINGS)
    assert "may be any of 2 images (IMG2, IMG3)" in said


def test_records_are_written_and_read(tmp_path):
    record, _ = build(tmp_path, [region(BOX), region(BOX[:2])])
    folder = tmp_path / "records"
    write_records(folder, [record | {"image_id": "OLD"}])
    write_records(folder, [record])
    assert read_records(folder) == [record]
    assert read_record(folder / "IMG1.json") == record
    (folder / "IMG1.json").write_text("{")
    with pytest.raises(InputError, match=r"IMG1\.json is damaged"):
        read_record(folder / "IMG1.json")
    with pytest.raises(InputError, match=r"IMG2\.json is missing"):
        read_record(folder / "IMG2.json")


points = st.tuples(st.integers(-50, 50), st.integers(-50, 50))


@unhurried
@given(points, points, st.lists(st.integers(-9, 9), max_size=8))
def test_points_on_a_line_enclose_nothing(origin, step, multiples):
    line = [(origin[0] + k * step[0], origin[1] + k * step[1]) for k in multiples]
    assert not encloses_area(line)


@unhurried
@given(st.lists(points, min_size=3, max_size=3, unique=True))
def test_triangles_never_intersect_themselves_and_enclose_their_area(triangle):
    (ax, ay), (bx, by), (cx, cy) = triangle
    doubled_area = abs((bx - ax) * (cy - ay) - (by - ay) * (cx - ax))
    assert encloses_area(triangle) == (doubled_area > 0)
    assert not intersects_itself(triangle)


def test_self_intersection():
    assert intersects_itself(BOW_TIE)
    assert encloses_area(BOW_TIE)
    assert not intersects_itself(BOX)
    assert not intersects_itself([(0, 0), (4, 0), (4, 4), (2, 1), (0, 4)])


@pytest.mark.skipif(
    not (DATA / "lumbar_films").is_dir(), reason=f"the real lumbar films are not at {DATA}"
)
def test_the_real_lumbar_films():
    folder = DATA / "lumbar_films"
    films = sorted((folder / "films").glob("*.png"))
    images = image_table(**{f"IMG{n:02d}": film.name for n, film in enumerate(films)})
    shapes = [cv2.imread(str(film), cv2.IMREAD_GRAYSCALE).shape for film in films]
    images["rows"], images["columns"] = zip(*shapes, strict=True)
    records, qc = build_records([folder / "via_project.json"], images, CLASSES, SETTINGS)
    assert len(records) == len(films) == 26
    for record in records:
        levels = [s["level"] for s in record["structures"]]
        assert sorted(levels) == ["L1", "L2", "L3", "L4", "L5", "T12"]
        assert [(line["name"], line["level"]) for line in record["lines"]] == [
            ("s1_endplate", "S1")
        ]
    assert not (qc["severity"] == "error").any()
