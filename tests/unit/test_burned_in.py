"""Text in pixels: found, hidden, told from markers and from bones; what is blanked, exactly."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from burned_in_text import DATA, Planted, drawn, hidden, plant, real, synthetic
from hypothesis import given
from hypothesis import strategies as st

from lumbarflow.acquire.render import render
from lumbarflow.deidentify import burned_in
from lumbarflow.deidentify.burned_in import BurnedIn, TextFinder, blanked

FINDER = TextFinder()
FILM = synthetic(77, 5)


def film_with(place: tuple[float, float], *words: str, height: int = 30, turn: int = 0):
    """A film with words side by side from a place (shares of rows and columns); their masks."""
    picture = FILM.copy()
    row, column = (int(share * n) for share, n in zip(place, picture.shape, strict=True))
    masks = []
    for word in words:
        ink = np.rot90(drawn(word, "DejaVuSans", height), turn // 90)
        window = picture[row : row + ink.shape[0], column : column + ink.shape[1]]
        before = window.copy()
        window[:] = np.rint(before + ink * (255.0 - before))
        mask = np.zeros(picture.shape, bool)
        mask[row : row + ink.shape[0], column : column + ink.shape[1]] = window != before
        masks.append(mask)
        column += ink.shape[1] + round(0.8 * height)
    return picture, masks


def share_hidden(mask: np.ndarray, found: BurnedIn) -> float:
    return float((blanked(mask.astype(np.uint8) + 1, mask.shape, found.blank)[mask] != 2).mean())


# Finding -------------------------------------------------------------------------------------


def test_a_film_without_text_stays_as_it_is():
    assert FINDER.find(FILM) == BurnedIn()


@pytest.mark.parametrize("shape", [(1, 1), (16, 16), (3, 900), (700, 40)])
def test_pictures_that_are_hardly_any_are_searched_too(shape):
    assert FINDER.find(np.full(shape, 90, np.uint8)) == BurnedIn()


@pytest.mark.parametrize("kind", ["name", "identifier", "date", "hospital"])
@pytest.mark.parametrize("height", [12, 40])
def test_what_identifies_is_hidden(kind, height):
    picture = FILM.copy()
    rng = np.random.default_rng(height)
    text = plant(
        picture, rng, kind, height=height, contrast="medium", style="plain", font="DejaVuSans"
    )
    assert isinstance(text, Planted)
    assert hidden(text, picture.shape, FINDER.find(picture)) >= 0.99


@pytest.mark.parametrize("turn", [90, 270])
def test_turned_text_is_hidden(turn):
    picture, (mask,) = film_with((0.4, 0.5), "HORVATH ANNA", turn=turn)
    assert share_hidden(mask, FINDER.find(picture)) >= 0.99


def test_dark_text_and_text_in_the_border_are_hidden():
    picture, (mask,) = film_with((0.004, 0.1), "SCHMIDT 12.03.1961")
    assert share_hidden(mask, FINDER.find(picture)) >= 0.99
    inverted = 255 - picture
    assert share_hidden(mask, FINDER.find(inverted)) >= 0.99


@pytest.mark.parametrize("word", ["LAT", "ERECT", "rechts", "STANDING"])
def test_markers_stay_and_are_listed(word):
    picture, (mask,) = film_with((0.5, 0.7), word, height=36)
    found = FINDER.find(picture)
    assert found.blank == ()
    assert found.markers and not found.uncertain
    top, left, bottom, right = found.markers[0]
    assert mask[top:bottom, left:right].sum() > 0.9 * mask.sum()


def test_a_single_letter_stays():
    picture, _ = film_with((0.5, 0.8), "L", height=50)
    assert FINDER.find(picture).blank == ()


@pytest.mark.parametrize("word", ["L", "LAT", "ERECT"])
def test_initials_beside_a_marker_go_and_the_marker_stays(word):
    # Near the border, where markers lie.
    picture, (marker, initials) = film_with((0.6, 0.08), word, "JS", height=36)
    found = FINDER.find(picture)
    assert share_hidden(initials, found) >= 0.99
    assert share_hidden(marker, found) == 0
    assert not found.uncertain


BOXES = st.tuples(*[st.integers(0, 12)] * 4).map(
    lambda n: (min(n[0], n[2]), min(n[1], n[3]), max(n[0], n[2]) + 1, max(n[1], n[3]) + 1)
)


@given(BOXES, st.lists(BOXES, max_size=3))
def test_what_is_left_of_a_box_is_all_but_the_holes_and_nothing_twice(box, holes):
    def count(boxes):
        canvas = np.zeros((14, 14), int)
        for top, left, bottom, right in boxes:
            canvas[top:bottom, left:right] += 1
        return canvas

    left = burned_in._without(box, holes)
    assert (count(left) == count([box]) * (count(holes) == 0)).all()


def test_a_name_that_is_written_like_a_marker_goes_with_its_line():
    picture, masks = film_with((0.5, 0.3), "LI", "Petrovic", height=36)
    found = FINDER.find(picture)
    assert all(share_hidden(mask, found) >= 0.99 for mask in masks)


def test_several_threads_find_the_same():
    picture, _ = film_with((0.3, 0.3), "KOVACS 1961")
    finder = TextFinder()
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(finder.find, [picture, picture, picture]))
    assert results[0].blank and results.count(results[0]) == 3


def test_nothing_that_was_read_leaves_the_module():
    picture, _ = film_with((0.3, 0.3), "KOVACS")
    assert FINDER.find(picture).blank
    found = burned_in._lines(FINDER._loaded, picture)
    text = "".join(letter for letter, _ in found[0].letters)
    assert text and text not in repr(found) + repr(FINDER) + repr(FINDER.find(picture))


def test_loading_and_finding_need_no_network_and_print_nothing():
    program = (
        "import socket, sys, numpy as np\n"
        "def refuse(*_, **__): raise SystemExit('the network was asked for')\n"
        "socket.socket = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from lumbarflow.deidentify.burned_in import TextFinder\n"
        "TextFinder().find(np.zeros((64, 64), np.uint8))\n"
        "assert 'rapidocr' not in sys.modules\n"
    )
    package = Path(burned_in.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(package)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.skipif(not (DATA / "dicom_samples").is_dir(), reason=f"no sample objects in {DATA}")
def test_the_name_on_a_real_picture_is_hidden():
    picture = render(pydicom.dcmread(DATA / "dicom_samples/us_burned_in_text.dcm"))[:150]
    found = FINDER.find(picture)
    assert len(found.blank) >= 3
    header = blanked(picture, picture.shape, found.blank)[:20]
    # Nothing in the line with name, number and date of birth is brighter than its background.
    assert np.percentile(header, 99.5) < 128 < np.percentile(picture[:20], 97)


@pytest.mark.skipif(not real("develop"), reason=f"no lumbar films in {DATA}")
def test_real_films_with_grids_scratches_and_implants_stay_as_they_are():
    for film in real("develop")[:3]:
        assert FINDER.find(film).blank == ()


# Blanking ------------------------------------------------------------------------------------

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32")
sides = st.integers(1, 40)


@given(st.data(), st.sampled_from(DTYPES), sides, sides, sides, sides)
def test_boxes_are_one_value_and_the_rest_is_untouched(data, dtype, rows, columns, high, wide):
    """Of a picture of high x wide pixels, on stored pixels of other numbers."""
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    values = rng.integers(limits.min, limits.max, (rows, columns), dtype, endpoint=True)
    edges = [
        sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in (high, wide)
    ]
    (top, bottom), (left, right) = edges
    before = values.copy()
    result = blanked(values, (high, wide), [(top, left, bottom, right)])
    assert (values == before).all() and result.dtype == values.dtype
    # A stored pixel that has any part in the box is blanked, and no other.
    y, x = np.arange(rows) * high, np.arange(columns) * wide
    inside = ((y + high > top * rows) & (y < bottom * rows))[:, None] & (
        (x + wide > left * columns) & (x < right * columns)
    )
    inside &= top < bottom and left < right
    assert (result[~inside] == values[~inside]).all()
    assert len(np.unique(result[inside])) <= 1
    if inside.any() and not inside.all():
        assert result[inside][0] in values[~inside]


@given(st.integers(0, 2**32), st.integers(0, 2**32))
def test_what_was_in_the_boxes_changes_nothing(seed, other):
    boxes = [(2, 3, 9, 12), (8, 10, 14, 20)]
    values = np.random.default_rng(seed).integers(0, 4096, (20, 24), np.uint16)
    changed = values.copy()
    for top, left, bottom, right in boxes:
        shape = (bottom - top, right - left)
        changed[top:bottom, left:right] = np.random.default_rng(other).integers(0, 4096, shape)
    assert (blanked(values, (20, 24), boxes) == blanked(changed, (20, 24), boxes)).all()


def test_a_box_on_everything_leaves_nothing():
    values = np.arange(1, 13, dtype=np.uint16).reshape(3, 4)
    assert not blanked(values, (3, 4), [(0, 0, 3, 4)]).any()


def test_the_filler_is_near_to_what_surrounds_the_box():
    values = cv2.GaussianBlur(np.tile(np.arange(200, dtype=np.uint16), (60, 1)), (0, 0), 2)
    result = blanked(values, values.shape, [(20, 90, 30, 110)])
    assert 90 <= result[25, 100] <= 110
