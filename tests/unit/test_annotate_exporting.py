"""VIA projects: as VIA opens them, and as they come back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from via2 import open_project

from lumbarflow import rle
from lumbarflow.annotate.exporting import (
    FILE_ATTRIBUTES,
    MOST_POINTS,
    drawn_regions,
    predicted_regions,
    project_films,
    write_via_project,
)
from lumbarflow.annotate.ranking import rank
from lumbarflow.annotate.reading import read
from lumbarflow.errors import InputError
from lumbarflow.files import write_png
from lumbarflow.predict.table import COLUMNS
from lumbarflow.prepare.masks import rasterise

CLASSES = ["lumbar_vertebra", "sacral_vertebra", "screw"]
SQUARE = [[10.25, 10.5], [40.0, 11.75], [39.5, 41.0], [9.0, 40.125]]
ROWS, COLUMNS_OF_FILM = 90, 70


def instance(image_id: str, number: int, polygon: list, class_name="lumbar_vertebra", score=0.9):
    mask = rasterise(polygon, ROWS, COLUMNS_OF_FILM)
    rows, columns = np.nonzero(mask)
    return {
        "image_id": image_id,
        "instance_id": f"{image_id}-p{number:03d}",
        "class_name": class_name,
        "level": None,
        "score": score,
        "bbox_x": columns.min(),
        "bbox_y": rows.min(),
        "bbox_w": np.ptp(columns) + 1,
        "bbox_h": np.ptp(rows) + 1,
        "rle_counts": rle.encode(mask),
        "rle_height": ROWS,
        "rle_width": COLUMNS_OF_FILM,
    }


def table(*rows: dict) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def record(image_id: str) -> dict:
    def region(number, **values):
        return {"structure_id": f"{image_id}-{number:03d}", "level": None, **values}

    return {
        "image_id": image_id,
        "rows": ROWS,
        "columns": COLUMNS_OF_FILM,
        "structures": [
            region(1, class_name="lumbar_vertebra", polygon=SQUARE, origin="drawn")
            | {"level": "L3"},
            region(3, class_name="screw", polygon=SQUARE, origin="predicted by unet"),
        ],
        "lines": [region(2, name="s1_endplate", shape="polyline", points=SQUARE[:2])],
        "rejected": [
            region(4, class_name=None, shape="point", points=[[3.5, 4.0]], check="point"),
            region(5, class_name="screw", shape="rect", points=SQUARE, check="no_pixel"),
        ],
    }


@pytest.fixture
def results(tmp_path) -> Path:
    """A results folder with four films; three await annotation."""
    for number in range(4):
        picture = np.full((ROWS, COLUMNS_OF_FILM), 10 * number + 3, np.uint8)
        write_png(tmp_path / f"images/png/img-{number}.png", picture)
    return tmp_path


def write_for_review(path, films):
    """The VIA project of the films, as the workflow writes it."""
    write_via_project(
        path,
        films,
        classes=CLASSES,
        default_filepath="../images/png/",
        file_attributes=FILE_ATTRIBUTES,
        review=True,
    )


def write_all(results: Path) -> Path:
    """The project as the target writes it."""
    manifest = pd.DataFrame(
        {"image_id": [f"img-{n}" for n in range(4)], "patient_id": ["a", "b", "b", "c"]}
    )
    shifted = [[x + 12, y + 5] for x, y in SQUARE]
    predictions = {
        "unet": table(instance("img-0", 0, SQUARE), instance("img-1", 0, SQUARE)),
        "pspnet": table(instance("img-0", 0, SQUARE), instance("img-1", 0, shifted)),
    }
    ranking = rank(manifest, ["img-3"], predictions, CLASSES[:2])
    films = project_films(
        results / "images/png", ranking, predictions["unet"], "unet", [record("img-3")]
    )
    path = results / "annotations/via_project.json"
    write_for_review(path, films)
    return path


def test_an_independent_reader_opens_it_and_every_picture_resolves(results):
    project = write_all(results)
    films, definitions = open_project(project, page=project.with_name("via.html"))
    ids = json.loads(project.read_text())["_via_image_id_list"]
    assert len(films) == 4
    for film, image_id in zip(films, ids, strict=True):
        assert film.picture.is_file()
        assert image_id == f"{film.picture.name}{film.picture.stat().st_size}"
    assert list(definitions["region"]["structure"]["options"])[:3] == CLASSES
    assert definitions["region"]["level"]["type"] == "dropdown"
    assert definitions["region"]["review"]["type"] == "radio"
    assert set(definitions["file"]["reviewed"]["options"]) == {"yes", "no"}


def test_films_come_by_rank_and_annotated_ones_last(results):
    films, _ = open_project(write_all(results), page=results / "annotations/via.html")
    # Nothing was found on img-2, the networks differ on img-1, and agree on img-0.
    names = [film.picture.stem for film in films]
    assert names == ["img-2", "img-1", "img-0", "img-3"]
    assert [film.attributes["order"] for film in films] == ["1", "2", "3", ""]
    assert all(0 <= float(film.attributes["score"]) <= 1 for film in films[:3])
    assert all(film.attributes["reason"] for film in films)
    assert all(film.attributes["reviewed"] == "" for film in films)


def test_predictions_are_marked_and_drawings_are_kept(results):
    films, _ = open_project(write_all(results), page=results / "annotations/via.html")
    by_name = {film.picture.stem: film for film in films}
    ((shape, attributes),) = by_name["img-0"].regions
    assert attributes == {
        "structure": "lumbar_vertebra",
        "level": "",
        "origin": "predicted by unet",
        "review": "unreviewed",
    }
    assert shape["name"] == "polygon" and 4 <= len(shape["all_points_x"]) <= MOST_POINTS
    drawn = by_name["img-3"].regions
    assert [shape["name"] for shape, _ in drawn] == [
        "polygon",
        "polyline",
        "polygon",
        "point",
        "polygon",
    ]
    assert drawn[0][1] == {
        "structure": "lumbar_vertebra",
        "level": "L3",
        "origin": "",
        "review": "",
    }
    assert drawn[1][1]["structure"] == "s1_endplate"
    assert drawn[2][1]["origin"] == "predicted by unet" and drawn[2][1]["review"] == "accepted"
    assert [[x, y] for x, y in zip(*list(drawn[0][0].values())[1:], strict=True)] == SQUARE


def test_a_project_at_the_very_start_holds_every_film_without_regions(results):
    manifest = pd.DataFrame({"image_id": ["img-0", "img-1"], "patient_id": ["a", "a"]})
    ranking = rank(manifest, [], {}, CLASSES)
    films = project_films(results / "images/png", ranking, None, None, [])
    path = results / "annotations/via_project.json"
    write_for_review(path, films)
    shown, _ = open_project(path, page=path)
    assert [film.regions for film in shown] == [[], []]
    assert shown[0].attributes["score"] == ""
    assert shown[0].attributes["reason"] == "no trained network yet"


def test_a_missing_picture_is_told(tmp_path):
    ranking = rank(pd.DataFrame({"image_id": ["img-0"], "patient_id": ["a"]}), [], {}, CLASSES)
    with pytest.raises(InputError, match=r"img-0\.png is missing"):
        project_films(tmp_path, ranking, None, None, [])


NUMBERS = st.floats(0, 3000, allow_nan=False)
TEXTS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)
REGIONS = st.builds(
    lambda polygon, class_name, level, origin: {
        "polygon": polygon,
        "class_name": class_name,
        "level": level,
        "origin": origin,
        "review": "unreviewed" if origin else "",
    },
    st.lists(st.lists(NUMBERS, min_size=2, max_size=2), min_size=3, max_size=12),
    st.sampled_from(CLASSES) | TEXTS,
    st.none() | st.sampled_from(["L1", "S1"]) | TEXTS,
    st.sampled_from(["", "predicted by unet"]),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(REGIONS, max_size=4), min_size=1, max_size=3))
def test_written_and_read_again_regions_are_the_same(tmp_path_factory, films):
    path = tmp_path_factory.mktemp("via") / "project.json"
    write_via_project(
        path,
        [(f"film{n}.png", 5 + n, regions, {}) for n, regions in enumerate(films)],
        classes=CLASSES,
        review=True,
    )
    shown, _ = open_project(path, page=path)
    assert len(shown) == len(films)
    taken = read(path).films
    assert [film.file_name for film in taken] == [f"film{n}.png" for n in range(len(films))]
    for film, mine, regions in zip(shown, taken, films, strict=True):
        assert len(film.regions) == len(regions)
        for (shape, attributes), region, ours in zip(
            film.regions, regions, mine.regions, strict=True
        ):
            points = list(zip(shape["all_points_x"], shape["all_points_y"], strict=True))
            np.testing.assert_array_equal(points, region["polygon"])
            polygon = region["polygon"]
            assert ours.shape == "polygon"
            assert ours.points == (polygon[:-1] if polygon[0] == polygon[-1] else polygon)
            assert ours.attributes == {
                "structure": region["class_name"],
                "level": region["level"] or "",
                "origin": region["origin"],
                "review": region["review"],
            }
            assert attributes == ours.attributes


@settings(deadline=None, max_examples=40)
@given(st.floats(12, 30), st.floats(12, 40), st.floats(-8, 8), st.floats(0, 1))
def test_a_predicted_outline_covers_its_mask_but_for_its_border(width, height, lean, offset):
    body = [
        [20 + offset, 20 + offset],
        [20 + width, 20 + lean],
        [20 + width + lean, 20 + height],
        [20 + lean, 20 + height + offset],
    ]
    (region,) = predicted_regions(table(instance("img-0", 0, body)), "unet")
    mask = rasterise(body, ROWS, COLUMNS_OF_FILM)
    again = rasterise(region["polygon"], ROWS, COLUMNS_OF_FILM)
    border = 2 * (width + height)
    assert (mask != again).sum() <= border  # a pixel along the border, on average
    assert len(region["polygon"]) <= MOST_POINTS


def test_predicted_regions_come_from_the_top_and_crumbs_are_left_out():
    low = [[x, y + 40] for x, y in SQUARE]
    crumb = [[60, 2], [62, 2], [62, 4], [60, 4]]
    found = predicted_regions(
        table(instance("i", 0, low), instance("i", 1, SQUARE), instance("i", 2, crumb)), "unet"
    )
    assert len(found) == 2
    assert found[0]["polygon"][0][1] < found[1]["polygon"][0][1]


def test_drawn_regions_hold_all_of_a_record_in_its_order():
    regions = drawn_regions(record("img-3"))
    assert [region["structure_id"][-1] for region in regions] == list("12345")


def test_films_and_options_keep_their_order(tmp_path):
    path = tmp_path / "project.json"
    write_via_project(path, [("b.png", 1, []), ("a.png", 2, [])], classes=["screw", "cage", "body"])
    content = json.loads(path.read_text())
    assert list(content["_via_img_metadata"]) == ["b.png1", "a.png2"]
    options = content["_via_attributes"]["region"]["structure"]["options"]
    assert list(options) == ["screw", "cage", "body"]


def test_of_several_names_of_an_attribute_the_first_is_written(tmp_path):
    path = tmp_path / "project.json"
    regions = [{"class_name": "screw", "level": None, "polygon": SQUARE}]
    write_via_project(
        path,
        [("a.png", 1, regions)],
        class_attribute=["Struktur", "structure"],
        level_attribute=["Hoehe"],
    )
    ((film,), _) = open_project(path, page=path)
    assert film.regions[0][1] == {"Struktur": "screw", "Hoehe": ""}
