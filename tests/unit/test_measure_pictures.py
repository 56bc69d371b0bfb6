"""Overlays, the steps of the geometry, and studies side by side: what is drawn, and what is not."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lumbarflow.measure.anatomy import (
    CORNERS,
    Body,
    Endplate,
    Implant,
    LabelledSpine,
    Measurement,
    Osteophyte,
    Shape,
    Vertebra,
)
from lumbarflow.measure.drawing import ALARM, COLOURS
from lumbarflow.measure.pictures import (
    Study,
    changes_figure,
    geometry_steps,
    geometry_steps_svg,
    overlay,
)
from lumbarflow.measure.sheet import BLACK, WHITE, Sheet, text_width, wrap
from lumbarflow.prepare.masks import rasterise_window

# Busy machines are slow: no law fails for taking its time.
unhurried = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])

ROWS, COLUMNS = 1600, 900
LEVELS = ("T12", "L1", "L2", "L3", "L4", "L5", "S1")


def vertebra(level, centre, tilt, forwards, width=150.0, height=120.0):
    """A body whose front end lies `tilt` degrees lower."""
    turn = np.radians(tilt)
    front = np.array([forwards * np.cos(turn), np.sin(turn)])
    up = np.array([forwards * np.sin(turn), -np.cos(turn)])
    signs = np.array([(-1, 1), (1, 1), (1, -1), (-1, -1)])
    corners = centre + signs[:, :1] * front * width / 2 + signs[:, 1:] * up * height / 2
    share = np.linspace(0, 1, 40, endpoint=False)[:, None]
    contour = np.vstack(
        [a + share * (b - a) for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)]
    )
    top, left, mask = rasterise_window(corners.tolist(), ROWS, COLUMNS)
    name = "sacral_vertebra" if level.startswith("S") else "lumbar_vertebra"
    plates = [
        Endplate(corners[a], corners[b], corners[[a, b]].mean(axis=0), 0.4, 0.95)
        for a, b in ((0, 1), (3, 2))
    ]
    shape = Shape(contour, *plates, (), 0.9, False)
    return Vertebra(Body(f"i-{level}", name, 0.95, (left, top), mask), level, 0.97, shape)


def make_spine(anterior="right", **changed):
    forwards = 1 if anterior == "right" else -1
    vertebrae = tuple(
        vertebra(level, (450 + forwards * 8 * k, 200 + 190 * k), 9 * k - 20, forwards)
        for k, level in enumerate(LEVELS)
    )
    spine = LabelledSpine(ROWS, COLUMNS, vertebrae, anterior, 0.99, True)
    return replace(spine, **changed)


def exchange(spine, name, **changed):
    found = tuple(replace(v, **changed) if v.level == name else v for v in spine.vertebrae)
    return replace(spine, vertebrae=found)


def measured(name, site, value, unit="deg", status="measured", reason=""):
    return Measurement(name, site, value, unit, 0.9, status, reason)


@pytest.fixture(scope="module")
def film():
    noise = np.random.default_rng(200_000).normal(0, 1, (ROWS, COLUMNS))
    smooth = cv2.GaussianBlur(noise, (0, 0), 12)
    return np.clip(110 + 30 * smooth / smooth.std(), 0, 220).astype(np.uint8)


def on_film(picture):
    return picture[:ROWS, :COLUMNS]


def count(picture, colour):
    return int((picture == np.array(colour)).all(axis=2).sum())


# The overlay ------------------------------------------------------------------------------------


@pytest.mark.parametrize("anterior", ["left", "right"])
def test_the_film_is_untouched_away_from_the_spine(film, anterior):
    before = film.copy()
    values = [measured("lordosis", "L1-S1", 54.0), measured("segmental_angle", "L4/L5", 9.0)]
    picture = overlay(film, make_spine(anterior), values, title="a film", spacing_mm=0.2)
    assert picture.dtype == np.uint8 and picture.shape[0] == ROWS and picture.shape[1] > COLUMNS
    assert (film == before).all()
    assert (on_film(picture)[:90] == film[:90, :, None]).all()
    behind = np.s_[:, :200] if anterior == "right" else np.s_[:, -200:]
    assert (on_film(picture)[behind] == film[behind][..., None]).all()


def test_every_outline_has_the_colour_of_its_class(film):
    outline = np.array([(200, 700), (330, 740), (330, 760), (200, 720)], float)
    screw = Implant("s", "screw", 0.9, outline)
    picture = on_film(overlay(film, make_spine(implants=(screw,)), []))
    for v in make_spine().vertebrae:
        # Walls, as endplates are drawn over.
        wall = v.shape.corners[1:3].mean(axis=0)
        x, y = np.floor(wall).astype(int)
        near = picture[y - 1 : y + 2, x - 1 : x + 2]
        assert count(near, COLOURS[v.body.class_name])
    assert count(picture, COLOURS["screw"]) > 100
    assert not count(on_film(overlay(film, make_spine(), [])), COLOURS["screw"])


def test_a_class_without_a_colour_is_drawn_and_named(film):
    outline = np.array([(200, 700), (330, 740), (330, 760)], float)
    odd = Implant("s", "odd_thing", 0.9, outline)
    with_it = overlay(film, make_spine(implants=(odd,)), [])
    assert (on_film(with_it) != on_film(overlay(film, make_spine(), []))).any()


def test_doubtful_bodies_are_dashed(film):
    colour = COLOURS["lumbar_vertebra"]
    sure = count(on_film(overlay(film, make_spine(), [])), colour)
    shape = make_spine().vertebrae[3].shape
    for change in (
        {"level": None},
        {"level_probability": 0.5},
        {"shape": replace(shape, quality=0.2)},
        {"shape": replace(shape, cut=True)},
    ):
        doubtful = on_film(overlay(film, exchange(make_spine(), "L3", **change), []))
        assert count(doubtful, colour) < sure - 50, change


def test_an_endplate_without_support_is_dashed(film):
    shape = make_spine().vertebrae[3].shape
    poor = replace(shape, superior=replace(shape.superior, support=0.2))
    line = [
        count(on_film(overlay(film, spine, [])), WHITE)
        for spine in (make_spine(), exchange(make_spine(), "L3", shape=poor))
    ]
    assert line[1] < line[0] - 50


def test_what_has_no_value_is_not_drawn(film):
    nothing = [
        measured(name, site, None, unit, "not_measurable", "S1 is not seen")
        for name, site, unit in (
            ("lordosis", "L1-S1", "deg"),
            ("segmental_angle", "L4/L5", "deg"),
            ("slip", "L4/L5", "mm"),
        )
    ]
    plain, told = overlay(film, make_spine(), []), overlay(film, make_spine(), nothing)
    assert (on_film(plain) == on_film(told)).all()
    for name, site in (("lordosis", "L1-S1"), ("segmental_angle", "L4/L5")):
        drawn = overlay(film, make_spine(), [measured(name, site, 12.0)])
        assert (on_film(plain) != on_film(drawn)).any()


@pytest.mark.parametrize(
    "values, drawn",
    [
        ([("slip", 3.0, "mm")], True),
        ([("slip", -3.4, "mm")], True),
        ([("slip", 2.9, "mm"), ("slip_percent", 30.0, "%")], False),
        ([("slip", 60.0, "px"), ("slip_percent", 9.0, "%"), ("slip_grade", 1.0, "1")], True),
        ([("slip", 60.0, "px"), ("slip_percent", 7.0, "%")], False),
        ([("slip", 60.0, "px")], False),
    ],
)
def test_slips_are_drawn_from_three_millimetres_on(film, values, drawn):
    found = [measured(name, "L4/L5", value, unit) for name, value, unit in values]
    picture = on_film(overlay(film, make_spine(), found))
    assert (count(picture, ALARM) > 0) == drawn


def test_osteophytes_are_marked_at_their_tips(film):
    spine = make_spine()
    shape = spine.vertebrae[2].shape
    tip = shape.corners[1] + (40, 0)
    spurred = replace(shape, osteophytes=(Osteophyte(CORNERS[1], tip, 40.0, 300.0),))
    picture = on_film(overlay(film, exchange(spine, "L2", shape=spurred), []))
    x, y = np.floor(tip).astype(int)
    assert count(picture[y - 3 : y + 4, x - 3 : x + 4], ALARM) > 10


@pytest.mark.parametrize("rows", [120, 700, 1499])
def test_films_of_few_rows_are_enlarged_by_a_whole_number(rows):
    picture = np.full((rows, rows // 2), 90, np.uint8)
    spine = LabelledSpine(rows, rows // 2, (), "left", 0.5, False, ("sacrum_not_seen",))
    drawn = overlay(picture, spine, [])
    assert drawn.shape[0] % rows == 0 and 1500 <= drawn.shape[0] < 1500 + rows
    assert (drawn[:, : drawn.shape[0] // 2 - drawn.shape[0] // rows] == 90).all()


def test_much_to_say_makes_the_margin_smaller_then_longer_but_cuts_nothing(film):
    few = [measured("lordosis", "L1-S1", 50.0)]
    many = [
        measured("screw_endplate_angle", f"L{k} screw {n}", 3.0, status="uncertain", reason="far")
        for k in range(1, 6)
        for n in range(1, 30)
    ]
    short, long = overlay(film, make_spine(), few), overlay(film, make_spine(), many)
    assert short.shape[0] == ROWS < long.shape[0]
    assert long.shape[1] < short.shape[1]
    for picture in (short, long):
        margin = picture[:, COLUMNS:]
        assert (margin < 128).any()
        # Nothing reaches to its edges.
        edges = (margin[:, :8], margin[:, -8:], margin[:8], margin[-8:])
        assert all((edge == 255).all() for edge in edges)
        assert (picture[ROWS:, :COLUMNS] == 255).all()


def test_reasons_and_flags_lengthen_the_margin(film):
    def inked(spine, values):
        ink = (overlay(film, spine, values)[:, COLUMNS:] < 128).any(axis=(1, 2))
        return int(np.flatnonzero(ink).max())

    plain = [measured("lordosis", "L1-S1", 50.0)]
    least = inked(make_spine(), plain)
    assert inked(make_spine(flags=("possible_l6",)), plain) > least
    reason = [measured("lordosis", "L1-S1", 50.0, status="uncertain", reason="L1 is cut")]
    assert inked(make_spine(), reason) > least


def test_the_same_picture_every_time(film):
    values = [measured("lordosis", "L1-S1", 54.0), measured("slip", "L4/L5", 6.0, "mm")]
    one, other = (overlay(film, make_spine(), values, title="t") for _ in range(2))
    assert (one == other).all()


def test_a_picture_of_another_film_is_refused(film):
    for draw in (
        lambda: overlay(film[1:], make_spine(), []),
        lambda: geometry_steps(film[1:], make_spine(), 0),
        lambda: changes_figure([Study("a", film[1:], make_spine(), [])], changes_of([])),
    ):
        with pytest.raises(ValueError, match="1600 x 900"):
            draw()


@settings(unhurried, max_examples=6)
@given(st.integers(0, 2**32), st.sampled_from(["left", "right"]))
def test_whatever_lies_anywhere_can_be_drawn(seed, anterior):
    rng = np.random.default_rng(seed)
    rows, columns = rng.integers(60, 400, 2)
    vertebrae = []
    for level in rng.choice([*LEVELS, "L6", "S2", ""], rng.integers(0, 6), replace=False):
        # Beyond the edges too, as small as a point, and turned anyhow.
        corners = rng.uniform(-30, 1.1 * columns, 2) + rng.normal(0, rng.choice([0.0, 40]), (4, 2))
        plates = [
            Endplate(corners[a], corners[b], corners.mean(axis=0), 1.0, rng.random())
            for a, b in ((0, 1), (3, 2))
        ]
        spur = Osteophyte(str(rng.choice(CORNERS)), corners[0] + 5, 5.0, 9.0)
        shape = Shape(corners, *plates, (spur,), rng.random(), bool(rng.integers(2)))
        mask = rng.random((8, 9)) < rng.choice([0.0, 0.5])
        body = Body("b", "lumbar_vertebra", rng.random(), (3, 4), mask)
        vertebrae.append(
            Vertebra(body, str(level) or None, rng.random(), shape if rng.random() < 0.7 else None)
        )
    spine = LabelledSpine(int(rows), int(columns), tuple(vertebrae), anterior, 0.7, False)
    values = [
        measured("lordosis", "L1-S1", float(rng.normal(0, 40))),
        *(measured("segmental_angle", f"{a}/{b}", 5.0) for a, b in pairwise(LEVELS)),
        *(measured("slip", f"{a}/{b}", -5.0, "mm") for a, b in pairwise(LEVELS)),
    ]
    picture = np.zeros((rows, columns), np.uint8)
    assert overlay(picture, spine, values).ndim == 3
    if vertebrae:
        assert geometry_steps(picture, spine, 0, values).ndim == 3
    studies = [Study("a", picture, spine, values), Study("b", picture, spine, values, 0.2)]
    assert changes_figure(studies, changes_of([])).ndim == 3


# The steps of the geometry ----------------------------------------------------------------------


def panels(picture):
    """How many panels of 600 x 600 pixels hold the film."""
    dark = (picture[..., 0] < 250).astype(np.uint8)
    _, _, statistics, _ = cv2.connectedComponentsWithStats(dark)
    return int((statistics[1:, cv2.CC_STAT_AREA] > 300_000).sum())


def test_six_steps_and_two_of_a_body_without_a_shape(film):
    assert panels(geometry_steps(film, make_spine(), 3)) == 6
    assert panels(geometry_steps(film, exchange(make_spine(), "L3", shape=None), 3)) == 2


def words_of(svg):
    return [element.text for element in ET.fromstring(svg).iter() if element.tag.endswith("}text")]


def test_the_steps_say_what_was_measured(film):
    spine = make_spine()
    shape = spine.vertebrae[3].shape
    spur = Osteophyte(CORNERS[1], shape.corners[1] + (30, 0), 30.0, 300.0)
    spine = exchange(spine, "L3", shape=replace(shape, osteophytes=(spur,)))
    bare = words_of(geometry_steps_svg(film, spine, 3))
    # The drawn body is 120 pixels high everywhere.
    assert bare.count("120 px") == 3 and "30 px" in bare
    assert {"PS", "AS", "AI", "PI"} <= set(bare)
    values = [
        measured("body_height_anterior", "L3", 24.0, "mm"),
        measured("body_height_posterior", "L3", 25.04, "mm", "uncertain", "cut"),
        measured("body_height_posterior", "L4", 99.0, "mm"),
        measured("osteophyte_length", "L3 anterior_superior", 6.0, "mm"),
    ]
    told = words_of(geometry_steps_svg(film, spine, 3, values))
    assert {"24.0 mm", "25.0 mm?", "120 px", "6.0 mm"} <= set(told)
    assert not {"99.0 mm", "30 px"} & set(told)


def test_words_of_the_steps_stay_on_the_page(film):
    root = ET.fromstring(geometry_steps_svg(film, make_spine(), 6))
    for sheet in (e for e in root.iter() if e.tag.endswith("}svg")):
        width, height = float(sheet.get("width")), float(sheet.get("height"))
        for text in (e for e in sheet if e.tag.endswith("}text")):
            size = float(text.get("font-size"))
            x, y = float(text.get("x")), float(text.get("y"))
            wide = text_width(text.text, size, int(text.get("font-weight")))
            start = x - wide * {"start": 0, "middle": 0.5, "end": 1}[text.get("text-anchor")]
            assert start >= 0 and start + wide <= width, text.text
            assert 0.7 * size <= y <= height, text.text


# Over time --------------------------------------------------------------------------------------


def changes_of(rows):
    columns = ["name", "site", "consecutive", "first_to_last", "change", "unit"]
    columns += ["smallest_detectable_change", "status"]
    return pd.DataFrame(rows, columns=columns)


def row(site, status, change=7.0):
    return ("segmental_angle", site, True, True, change, "deg", 5.0, status)


def test_a_line_for_each_measurement_that_changed(film):
    values = [measured("segmental_angle", site, 9.0) for site in ("L3/L4", "L4/L5", "L5/S1")]
    studies = [Study(f"day {k}", film, make_spine(), values, 0.2) for k in (0, 90)]

    def rows(*changes):
        return changes_figure(studies, changes_of(list(changes))).shape[0]

    none = rows(row("L3/L4", "within_error"), row("L4/L5", "not_comparable", np.nan))
    one = rows(row("L3/L4", "within_error"), row("L4/L5", "changed"))
    two = rows(row("L3/L4", "changed"), row("L4/L5", "changed"))
    # The first brings the headings of the columns with it.
    assert two - one == pytest.approx((one - none) / 2, abs=1) and two > one


def test_films_are_shown_at_one_scale(film):
    """A film of twice as many pixels, each half as wide, looks the same beside the first."""
    double = cv2.resize(film, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)

    def scaled(v):
        shape = v.shape
        plates = [
            replace(p, posterior=2 * p.posterior, anterior=2 * p.anterior, middle=2 * p.middle)
            for p in (shape.superior, shape.inferior)
        ]
        shape = replace(shape, contour=2 * shape.contour, superior=plates[0], inferior=plates[1])
        return replace(v, shape=shape)

    spine = make_spine()
    large = replace(
        spine,
        rows=2 * ROWS,
        columns=2 * COLUMNS,
        vertebrae=tuple(scaled(v) for v in spine.vertebrae),
    )
    for spacings in ((0.2, 0.1), (0.2, None)):
        studies = [
            Study("a", film, spine, [], spacings[0]),
            Study("a", double, large, [], spacings[1]),
        ]
        figure = changes_figure(studies, changes_of([])).astype(int)
        half = (figure.shape[1] - 30) // 2
        left, right = figure[:, 30:half], figure[:, half + 30 : 2 * half]
        assert np.abs(left - right).mean() < 3
        # It would not be by chance.
        assert np.abs(left - right[:, ::-1]).mean() > 10


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_studies_stand_side_by_side(film, number):
    studies = [Study(f"day {k}", film, make_spine("left"), [], 0.2) for k in range(number)]
    figure = changes_figure(studies, changes_of([]), "a patient")
    ink = (figure < 250).any(axis=2)
    gaps = np.diff(ink[200:1200].any(axis=0).astype(int))
    assert (gaps == 1).sum() == number
    assert figure.shape[1] <= 3000


def test_a_figure_of_no_study_is_refused():
    with pytest.raises(ValueError, match="needs studies"):
        changes_figure([], changes_of([]))


# Sheets -----------------------------------------------------------------------------------------


def test_a_line_covers_the_pixels_that_it_runs_through():
    sheet = Sheet(20, 20)
    sheet.line([(2.5, 10.5), (17.5, 10.5)], BLACK, 1)
    dark = sheet.pixels()[..., 0] < 40
    assert dark[10, 3:17].all() and not np.delete(dark, 10, axis=0).any()


@given(st.floats(1, 30), st.floats(0.5, 8))
@unhurried
def test_dashes_and_gaps_are_equally_long(length, dash):
    sheet, whole = Sheet(9, 400), Sheet(9, 400)
    sheet.line([(5, 4.5), (5 + 10 * length, 4.5)], BLACK, 1, dash=dash)
    whole.line([(5, 4.5), (5 + 10 * length, 4.5)], BLACK, 1)
    ink, full = (float((255 - s.pixels()[..., 0].astype(int)).sum()) for s in (sheet, whole))
    # Ends of a pixel's width are drawn on, and the last gap may be missing.
    assert ink <= full + 1 and ink >= 0.5 * full - 255 * dash


def test_sheets_on_a_sheet_are_cut_at_their_edges():
    inner = Sheet(10, 10, BLACK)
    inner.line([(-50, 5), (50, 5)], (255, 0, 0), 3)
    inner.text("wide words", (0, 5), 12, (0, 255, 0))
    inner.area(np.array([(-5, -5), (30, -5), (30, 2)]), (0, 0, 255), 0.5)
    inner.picture(np.full((40, 40), 77, np.uint8), (8, 8))
    outer = Sheet(40, 40)
    outer.sheet(inner, (15, 20))
    pixels = outer.pixels()
    pixels[20:30, 15:25] = 255
    assert (pixels == 255).all()


@given(st.text("ab c−°≥", max_size=40), st.integers(20, 300))
@unhurried
def test_lines_are_broken_between_words(words, width):
    lines = wrap(words, 20, width)
    assert " ".join(lines).split() == words.split()
    assert all(text_width(line, 20) <= width or " " not in line for line in lines)


def test_drawings_are_well_formed_and_the_same_every_time():
    sheet = Sheet(30, 40)
    sheet.text("a < b & c", (2, 10), 8, italic=True, halo=WHITE)
    sheet.line([(0, 0), (5, 5), (9, 0)], BLACK, 1, closed=True, dash=2, halo=WHITE)
    sheet.picture(np.zeros((3, 3, 3), np.uint8), (1, 1))
    assert words_of(sheet.svg()) == ["a < b & c"]
    assert sheet.svg() == sheet.svg()


def test_letters_stand_where_they_should():
    for align, low, high in (("left", 50, 100), ("centre", 25, 75), ("right", 0, 50)):
        sheet = Sheet(40, 100)
        sheet.text("HHH", (50, 20), 20, align=align)
        y, x = np.nonzero(sheet.pixels()[..., 0] < 128)
        assert low <= x.min() and x.max() < high
        assert abs((y.min() + y.max() + 1) / 2 - 20) <= 1.5
        assert y.max() + 1 - y.min() == pytest.approx(0.7 * 20, abs=1.5)
