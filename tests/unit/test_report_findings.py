"""Pictures of findings: the outline in question, in place, on its part of the film."""

from __future__ import annotations

import base64

import cv2
import numpy as np
import pandas as pd
import pytest

from lumbarflow.errors import InputError
from lumbarflow.files import write_json, write_png
from lumbarflow.report.findings import SIDE, draw_finding, finding_pictures, worst_first

COLUMNS = ["image_id", "structure_id", "check", "severity", "message"]
BOX = [[100, 300], [180, 300], [180, 360], [100, 360]]


def table(*rows):
    return pd.DataFrame(rows, columns=COLUMNS).astype("string")


def region(points, *, closed=True, level=None):
    return {"points": np.array(points, float).reshape(-1, 2), "closed": closed, "level": level}


def coloured(image):
    """Where a picture is not grey (H x W bool)."""
    return np.ptp(image.astype(int), axis=2) > 60


def film(rows=800, columns=500):
    return np.full((rows, columns), 90, np.uint8)


@pytest.fixture
def results(tmp_path):
    """Films a and b with a record, c without."""
    for image_id in "abc":
        write_png(tmp_path / f"images/png/{image_id}.png", film())
    for image_id in "ab":
        structure = {"structure_id": f"{image_id}-001", "level": "L3", "polygon": BOX}
        line = {"structure_id": f"{image_id}-002", "points": BOX[:2], "shape": "polyline"}
        point = {"structure_id": f"{image_id}-b003", "points": [[250, 400]], "shape": "point"}
        drawing = {"structures": [], "lines": [], "rejected": [point]}
        record = {"structures": [structure], "lines": [line], "rejected": [], "drawings": [drawing]}
        write_json(tmp_path / f"annotations/records/{image_id}.json", record)
    return tmp_path


def decode(picture):
    data = base64.b64decode(picture["image"].split(",")[1])
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_errors_go_before_warnings_and_checks_take_turns():
    findings = table(
        ("a", "1", "gap", "warning", ""),
        ("b", "1", "gap", "warning", ""),
        ("a", None, "levels_absent", "info", ""),
        ("c", "1", "overlap", "warning", ""),
        ("d", "1", "duplicate", "error", ""),
    )
    order = worst_first(findings)
    assert list(order.columns) == COLUMNS
    assert list(order["image_id"]) == ["d", "a", "c", "b", "a"]
    assert worst_first(table()).empty


def test_one_picture_a_structure_with_all_its_findings(results):
    findings = table(
        ("a", "a-001", "overlap", "warning", "one"),
        ("a", "a-001", "duplicate", "error", "two"),
        ("b", "b-b003", "point", "error", "three"),
        ("a", None, "level_order", "warning", "four"),
        ("c", None, "film_twice", "warning", "no record"),
        ("gone", None, "film_rejected", "warning", "no picture"),
        (None, None, "film_not_found", "error", "no film"),
        ("a", "a-002", "ignored_class", "info", "only told"),
    )
    pictures, count = finding_pictures(results, findings, 9)
    assert count == len(pictures) == 4
    assert [(p["image_id"], p["structure_id"], p["severity"]) for p in pictures] == [
        ("a", "a-001", "error"),
        ("b", "b-b003", "error"),
        ("c", None, "warning"),
        ("a", None, "warning"),
    ]
    assert pictures[0]["notes"] == [("duplicate", "error", "two"), ("overlap", "warning", "one")]
    assert pictures[0]["alt"] == "a-001: duplicate"
    for picture in pictures:
        assert decode(picture).shape == (SIDE, SIDE, 3)
    few, count = finding_pictures(results, findings, 2)
    assert (few, count) == (pictures[:2], 4)


def test_no_findings_no_pictures(results):
    assert finding_pictures(results, table(), 9) == ([], 0)


def test_a_damaged_record_is_one_sentence(results):
    (results / "annotations/records/a.json").write_text("{")
    with pytest.raises(InputError, match=r"a\.json is not JSON"):
        finding_pictures(results, table(("a", "a-001", "gap", "warning", "")), 9)


def test_the_outline_lies_where_it_is_on_the_film():
    shape = (800, 500)
    picture = film(*shape)
    picture[300:360, 100:180] = 230
    image = draw_finding(picture, {"x": region(BOX)}, "x", "error")
    bright = (image.min(axis=2) > 200) & ~coloured(image)
    drawn = np.argwhere(coloured(image))
    inner = np.argwhere(bright)
    assert np.abs(drawn.mean(axis=0) - inner.mean(axis=0)).max() < 2
    assert (drawn.min(axis=0) <= inner.min(axis=0)).all()
    assert (drawn.max(axis=0) >= inner.max(axis=0)).all()
    # Part of the film only, so that the outline is large.
    assert np.ptp(drawn, axis=0).max() > SIDE / 5


def test_colours_tell_severities_and_other_outlines_apart():
    others = {"x": region(BOX), "y": region(np.array(BOX) + 20)}
    error = draw_finding(film(), others, "x", "error")
    warning = draw_finding(film(), others, "x", "warning")
    alone = draw_finding(film(), {"x": region(BOX)}, "x", "error")
    assert (error != warning).any(axis=2).sum() > 100
    blue, red = error[..., 0].astype(int), error[..., 2].astype(int)
    assert (blue - red > 60).sum() > 50
    assert not (alone[..., 0].astype(int) - alone[..., 2] > 60).any()


@pytest.mark.parametrize("points", [[[250, 400]], [[250, 400], [300, 440]]])
def test_points_and_lines_are_seen(points):
    image = draw_finding(film(), {"x": region(points, closed=False)}, "x", "error")
    assert 30 < coloured(image).sum() < 3000


def test_an_outline_beyond_the_border_is_shown_with_its_surroundings():
    image = draw_finding(film(), {"x": region(np.array(BOX) - np.array([140, 0]))}, "x", "warning")
    assert coloured(image).any()
    beyond = ((image == 52).all(axis=2)).mean()
    assert 0.05 < beyond < 0.6


def test_an_outline_far_away_shows_the_whole_film():
    far = draw_finding(film(), {"x": region(np.array(BOX) + 1e7)}, "x", "error")
    assert not coloured(far).any()
    assert (far == 90).all(axis=2).mean() == pytest.approx(500 / 800, abs=0.01)


def test_a_finding_on_the_film_shows_all_outlines_and_levels():
    regions = {"x": region(BOX, level="L3"), "y": region(np.array(BOX) + np.array([0, 90]))}
    image = draw_finding(film(), regions, None, "error")
    assert coloured(image).sum() > 100
    bare = draw_finding(film(), {"x": region(BOX), "y": regions["y"]}, None, "error")
    assert (image != bare).any()
