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
from lumbarflow.annotate.regions import AnnotatedFilm
from lumbarflow.annotate.watching import reserved_films
from lumbarflow.errors import InputError

# Busy machines are slow: no law fails for taking its time.
unhurried = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

CLASSES = ["lumbar_vertebra", "sacral_vertebra", "cage", "screw", "instrumentation"]
# The films here hold a box or two: no spine, whose checks are tested in test_annotate_qc.py.
SPINE = (
    "duplicate near_duplicate tiny_area huge_area overlap off_course isolated gap no_level "
    "levels_absent level_twice level_order level_missing level_class sacrum_above_lumbar screw_far"
)
SETTINGS = {
    "class_attribute": "structure",
    "level_attribute": "level",
    "ignore": ["s1_endplate"],
    "severity": dict.fromkeys(SPINE.split(), "off"),
}
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
                "origin": "drawn",
            },
            {
                "structure_id": "IMG1-002",
                "class_name": "screw",
                "level": None,
                "polygon": [list(point) for point in BOX],
                "annotator": "anna",
                "source": "anna.json",
                "origin": "drawn",
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


def test_class_names_and_checkboxes(tmp_path):
    record, qc = build(
        tmp_path,
        [region(BOX, "Wirbel "), region(BOX, {"cage": True, "screw": False})],
        class_names={" Wirbel": "lumbar_vertebra"},
    )
    assert [s["class_name"] for s in record["structures"]] == ["lumbar_vertebra", "cage"]
    assert qc.empty


def sentence(*arguments) -> str:
    with pytest.raises(InputError) as caught:
        build_records(*arguments)
    return str(caught.value)


def findings(qc, *checks) -> list[tuple]:
    return [
        (None if pd.isna(f["image_id"]) else f["image_id"], f["check"], f["severity"])
        for f in qc.to_dict("records")
        if f["check"] in checks
    ]


def test_unknown_classes_are_listed_and_their_regions_kept(tmp_path):
    drawn = [region(BOX, "Lumbar vertebrra"), region(BOX), *[region(BOX, "dog")] * 2]
    record, qc = build(tmp_path, drawn)
    assert [s["structure_id"] for s in record["structures"]] == ["IMG1-002"]
    assert [(r["class_name"], r["name"], r["check"]) for r in record["rejected"]] == [
        (None, name, "unknown_class") for name in ("Lumbar vertebrra", "dog", "dog")
    ]
    (whole,) = qc[qc["image_id"].isna()].to_dict("records")
    assert (whole["check"], whole["severity"]) == ("unknown_class", "error")
    for part in (
        "anna.json has classes that are not known: 'dog' 2 times, 'Lumbar vertebrra' 1 times",
        "`annotations.class_names`",
        "`annotations.ignore`",
    ):
        assert part in whole["message"]
    said = qc.loc[qc["structure_id"] == "IMG1-001", "message"].item()
    assert "did you mean 'lumbar_vertebra'?" in said


def test_a_known_class_that_is_not_configured_is_said_so(tmp_path):
    path = via_file(tmp_path, {"a.png": [region(BOX, "Schraube"), region(BOX)]})
    records, qc = build_records([path], image_table(IMG1="a.png"), ["lumbar_vertebra"], SETTINGS)
    assert len(records[0]["structures"]) == 1
    said = qc.loc[qc["structure_id"] == "IMG1-001", "message"].item()
    assert "means screw, which is not in `classes`" in said


def test_class_names_must_lead_to_a_class(tmp_path):
    path = via_file(tmp_path, {"a.png": [region(BOX)]})
    settings = SETTINGS | {"class_names": {"v": "lumbar_vertebre"}}
    said = sentence([path], image_table(IMG1="a.png"), CLASSES, settings)
    assert "`annotations.class_names`" in said
    assert "did you mean 'lumbar_vertebra'?" in said


def renamed(regions, **names):
    return [
        r | {"region_attributes": {names.get(k, k): v for k, v in r["region_attributes"].items()}}
        for r in regions
    ]


def test_other_attribute_names(tmp_path):
    drawn = [region(BOX, "Wirbel", "5. LWK")]
    strange = renamed(drawn, structure="colour", level="where")
    record, qc = build(tmp_path, renamed(drawn, structure="Struktur", level="Höhe"))
    assert [(s["class_name"], s["level"]) for s in record["structures"]] == [
        ("lumbar_vertebra", "L5")
    ]
    assert qc.empty
    record, qc = build(tmp_path, strange)
    (whole,) = qc[qc["check"] == "no_class_attribute"].to_dict("records")
    assert "'colour'" in whole["message"]
    assert "`annotations.class_attribute`" in whole["message"]
    assert [r["check"] for r in record["rejected"]] == ["no_class"]
    record, qc = build(
        tmp_path, strange, class_attribute=["kind", "colour"], level_attribute=["where"]
    )
    assert qc.empty
    assert record["structures"][0]["level"] == "L5"


def test_of_built_in_attributes_the_one_that_means_something_counts(tmp_path):
    drawn = renamed([region(BOX, "cage")], structure="label")
    drawn[0]["region_attributes"]["name"] = "number 7"
    record, _ = build(tmp_path, drawn)
    assert [s["class_name"] for s in record["structures"]] == ["cage"]


def test_class_and_level_in_one_attribute(tmp_path):
    values = ["L5", "screw L4 left", "S1", "s1_endplate", "Cage L4/5", "T12 vertebra"]
    shapes = ["polyline" if "plate" in value else "polygon" for value in values]
    drawn = [region(BOX, v, "", s) for v, s in zip(values, shapes, strict=True)]
    drawn.append(region(BOX, {"lumbar_vertebra": True, "L3": True}, ""))
    record, qc = build(tmp_path, drawn, ignore=[])
    assert [(s["class_name"], s["level"]) for s in record["structures"]] == [
        ("lumbar_vertebra", "L5"),
        ("screw", "L4"),
        ("sacral_vertebra", "S1"),
        ("cage", "L4/L5"),
        ("lumbar_vertebra", "T12"),
        ("lumbar_vertebra", "L3"),
    ]
    assert [(line["name"], line["level"]) for line in record["lines"]] == [("s1_endplate", "S1")]
    assert qc.empty


def test_unknown_and_conflicting_levels(tmp_path):
    drawn = [region(BOX, level="?"), region(BOX, "L4", "L5"), region(BOX, level="letzter")]
    record, qc = build(tmp_path, drawn, level_names={"Letzter": "L5"})
    assert [s["level"] for s in record["structures"]] == [None, "L5", "L5"]
    assert findings(qc, "unknown_level", "level_conflict") == [
        ("IMG1", "unknown_level", "warning"),
        ("IMG1", "level_conflict", "warning"),
    ]


def test_films_of_other_names_are_findings_that_tell_no_name(tmp_path):
    films = {"a.png": [region(BOX)], "Mustermann.png": [region(BOX)]}
    path = via_file(tmp_path, films | {f"x{n}.png": [] for n in range(7)})
    records, qc = build_records([path], image_table(IMG1="a.png"), CLASSES, SETTINGS)
    assert len(records) == 1
    first, second = qc.to_dict("records")
    assert (first["check"], first["severity"]) == ("film_not_found", "error")
    assert "entry 2 (1 bytes) of anna.json, with 1 regions" in first["message"]
    assert (second["check"], second["severity"]) == ("film_not_found", "info")
    assert "7 entries" in second["message"]
    assert "Mustermann" not in str(qc.to_dict())


def test_a_file_of_other_films_only(tmp_path):
    path = via_file(tmp_path, {"Mustermann.png": [region(BOX)]})
    said = sentence([path], image_table(IMG1="a.png"), CLASSES, SETTINGS)
    assert "anna.json has 1 film, which is not among the images" in said
    assert "Mustermann" not in said


def test_files_without_regions(tmp_path):
    empty = via_file(tmp_path, {"a.png": []})
    full = via_file(tmp_path, {"a.png": [region(BOX)]}, "bert.json")
    said = sentence([empty], image_table(IMG1="a.png"), CLASSES, SETTINGS)
    assert "anna.json has no region" in said
    records, qc = build_records([empty, full], image_table(IMG1="a.png"), CLASSES, SETTINGS)
    assert len(records) == 1
    assert findings(qc, "no_region") == [(None, "no_region", "warning")]


def test_a_film_that_several_annotators_drew_on(tmp_path):
    anna = via_file(tmp_path, {"a.png": [region(BOX), region(BOX, "dog")], "b.png": []})
    bert = via_file(tmp_path, {"a.png": [region(BOX, level="L2")]}, "bert.json")
    carl = via_file(tmp_path, {"a.png": [region(BOX)], "b.png": [region(BOX)]}, "carl.json")
    images = image_table(IMG1="a.png", IMG2="b.png")
    records, qc = build_records([anna, bert, carl], images, CLASSES, SETTINGS)
    one, two = records
    assert "drawings" not in two
    assert two["structures"][0]["structure_id"] == "IMG2-001"
    assert [(d["annotator"], d["source"]) for d in one["drawings"]] == [
        ("anna", "anna.json"),
        ("bert", "bert.json"),
        ("carl", "carl.json"),
    ]
    assert [d["structures"][0]["structure_id"] for d in one["drawings"]] == [
        "IMG1-001",
        "IMG1-b001",
        "IMG1-c001",
    ]
    assert one["structures"] == one["drawings"][0]["structures"]
    assert one["rejected"] == one["drawings"][0]["rejected"]
    assert "IMG1-002" in set(qc["structure_id"].dropna())


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    paths = [
        via_file(tmp_path / "one", {"a.png": [region(BOX)]}, "via.json"),
        via_file(tmp_path / "two", {"a.png": [region(BOX)]}, "via.json"),
    ]
    records, _ = build_records(paths, image_table(IMG1="a.png"), CLASSES, SETTINGS)
    assert [(d["annotator"], d["source"]) for d in records[0]["drawings"]] == [
        ("one/via", "one/via.json"),
        ("two/via", "two/via.json"),
    ]


def test_a_film_in_two_entries_of_one_file(tmp_path):
    both = via_file(tmp_path, {"a.png": [region(BOX)], "a": [region(BOX, level="L2")]})
    records, qc = build_records([both], image_table(IMG1="a.png"), CLASSES, SETTINGS)
    assert [s["structure_id"] for s in records[0]["structures"]] == ["IMG1-001", "IMG1-002"]
    assert findings(qc, "film_twice") == [("IMG1", "film_twice", "warning")]


def predicted(level="L1", review="unreviewed"):
    drawn = region(BOX, level=level)
    drawn["region_attributes"] |= {"origin": "predicted by unet", "review": review}
    return drawn


@pytest.mark.parametrize("reviewed", ["yes", "no"])
def test_predictions_count_once_they_are_accepted(tmp_path, reviewed):
    drawn = [predicted("L1"), predicted("L2", "accepted"), region(BOX, level="L3")]
    path = via_file(tmp_path, {"a.png": drawn, "b.png": [predicted()]})
    data = json.loads(path.read_text())
    data["a.png0"]["file_attributes"] = {"reviewed": reviewed}
    path.write_text(json.dumps(data))
    images = image_table(IMG1="a.png", IMG2="b.png")
    (record,), qc = build_records([path], images, CLASSES, SETTINGS)
    kept = [(s["structure_id"], s["level"], s["origin"]) for s in record["structures"]]
    accepted = [
        ("IMG1-001", "L1", "predicted by unet"),
        ("IMG1-002", "L2", "predicted by unet"),
        ("IMG1-003", "L3", "drawn"),
    ]
    assert kept == (accepted if reviewed == "yes" else accepted[1:])
    expected = [("IMG2", "prediction_not_reviewed", "info"), ("IMG2", "no_annotation", "info")]
    if reviewed == "no":
        # Half reviewed: the film would train with L1 as background.
        expected.append(("IMG1", "prediction_half_reviewed", "warning"))
    checks = ("prediction_not_reviewed", "prediction_half_reviewed", "no_annotation")
    assert sorted(findings(qc, *checks)) == sorted(expected)


def test_a_project_that_nobody_reviewed_is_refused(tmp_path):
    path = via_file(tmp_path, {"a.png": [predicted()]})
    with pytest.raises(InputError, match="predicted outlines only, none of them accepted"):
        build_records([path], image_table(IMG1="a.png"), CLASSES, SETTINGS)


def test_severities_of_the_configuration(tmp_path):
    drawn = [region(BOX, level="?"), region(BOX, shape="point"), region(BOX, level="!")]
    _, qc = build(tmp_path, drawn, severity={"unknown_level": "info", "point": "off"})
    assert findings(qc, "unknown_level", "point") == [("IMG1", "unknown_level", "info")] * 2


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


def test_an_ambiguous_film_is_a_finding(tmp_path):
    path = via_file(tmp_path, {"b.png": [region(BOX)], "c.png": [region(BOX)]})
    images = image_table(IMG2="one/b.png", IMG3="two/b.png", IMG4="c.png")
    records, qc = build_records([path], images, CLASSES, SETTINGS)
    assert [record["image_id"] for record in records] == ["IMG4"]
    (finding,) = qc[qc["check"] == "film_ambiguous"].to_dict("records")
    assert finding["severity"] == "error"
    assert "entry 1 (0 bytes) of anna.json" in finding["message"]
    assert "may be any of 2 images (IMG2, IMG3)" in finding["message"]


def with_pictures(folder: Path, **contents: bytes) -> pd.DataFrame:
    images = image_table(**{image_id: f"{image_id}/film.png" for image_id in contents})
    paths = []
    for image_id, content in contents.items():
        (folder / f"{image_id}.png").write_bytes(content)
        paths.append([folder / "missing.png", folder / f"{image_id}.png"])
    return images.assign(pictures=paths)


@pytest.mark.parametrize(
    ("film", "found"),
    [
        (AnnotatedFilm("x.png", 3, []), (["IMG1"], "size")),
        (AnnotatedFilm("x.png", 5, []), (["IMG2", "IMG3"], "size")),
        (AnnotatedFilm("x.png", 7, []), ([], "name")),
        (AnnotatedFilm("x.png", None, []), ([], "name")),
        (AnnotatedFilm("film.png", 3, []), (["IMG1"], "size")),
        (AnnotatedFilm("film.png", 9, []), (["IMG1", "IMG2", "IMG3"], "name")),
        (AnnotatedFilm("IMG2/film.png", 3, []), (["IMG2"], "name")),
        (AnnotatedFilm("x.png", 5, [], picture="seen/y.png"), (["IMG3"], "content")),
        (AnnotatedFilm("x.png", 5, [], picture="C:\\films\\z.png"), (["IMG3"], "content")),
        (AnnotatedFilm("x.png", None, [], picture="data:;base64,YmJiYmI="), (["IMG2"], "content")),
        (AnnotatedFilm("film.png", 5, [], picture="data:,bbbbb"), (["IMG2"], "content")),
        (AnnotatedFilm("x.png", None, [], picture="data:;base64,?"), ([], "name")),
        (AnnotatedFilm("x.png", None, [], picture="\0" + 5000 * "y"), ([], "name")),
    ],
)
def test_films_by_size_and_content(tmp_path, film, found):
    images = with_pictures(tmp_path, IMG1=b"aaa", IMG2=b"bbbbb", IMG3=b"ccccc")
    (tmp_path / "seen").mkdir()
    for name in ("seen/y.png", "z.png"):
        (tmp_path / name).write_bytes(b"ccccc")
    assert FilmIndex(images).match(film, tmp_path) == found


def test_a_film_found_by_its_size_is_told(tmp_path):
    images = with_pictures(tmp_path, IMG1=b"aaa", IMG2=b"")
    path = via_file(
        tmp_path,
        {n: [region(BOX)] if n == "z.png" else [] for n in ["IMG1", "x", "y"]}
        | {"z.png": [region(BOX)]},
    )
    records, qc = build_records([path], images, CLASSES, SETTINGS)
    assert [record["image_id"] for record in records] == ["IMG1"]
    assert findings(qc, "film_by_likeness") == [("IMG1", "film_by_likeness", "info")]


def test_records_are_written_and_read(tmp_path):
    record, _ = build(tmp_path, [region(BOX), region(BOX[:2])])
    folder = tmp_path / "records"
    write_records(folder, [record | {"image_id": "OLD"}, record])
    before = (folder / "IMG1.json").stat()
    write_records(folder, [record, record | {"image_id": "NEW", "rows": 1}])
    after = (folder / "IMG1.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    write_records(folder, [record | {"rows": 61}])
    assert (folder / "IMG1.json").stat().st_ino != before.st_ino
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


def test_a_film_reserved_for_testing(tmp_path):
    for name, mark in (("anna", {"subset": "Test "}), ("bert", {}), ("cleo", {"subset": "train"})):
        path = via_file(tmp_path, {"a.png": [region(BOX)]}, f"{name}.json")
        content = json.loads(path.read_text())
        content["a.png0"]["file_attributes"] = mark
        path.write_text(json.dumps(content))

    def built(*names):
        paths = [tmp_path / f"{name}.json" for name in names]
        return build_records(paths, image_table(IMG1="a.png"), CLASSES, SETTINGS)

    (record,), qc = built("anna")
    assert record["subset"] == "test" and qc.empty
    write_records(tmp_path / "records", [record])
    assert reserved_films(tmp_path / "records") == ["IMG1"]
    (record,), _ = built("bert", "anna")
    assert record["subset"] == "test"  # whoever says so
    (record,), qc = built("cleo")
    assert "subset" not in record
    assert qc["check"].tolist() == ["unknown_subset"] and "'train'" in qc["message"][0]
