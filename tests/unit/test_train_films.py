"""Films on a network's canvas: letterbox, coordinates, errors, and the cache that keeps them."""

from __future__ import annotations

import json
import logging
import os
import pickle
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import tiny_films
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbarflow.errors import InputError
from lumbarflow.files import write_json, write_png
from lumbarflow.prepare.masks import class_planes, rasterise
from lumbarflow.train import canvas as canvases
from lumbarflow.train import films as films_module
from lumbarflow.train.films import (
    TrainingFilms,
    fit,
    full_size,
    grey_levels,
    place,
    place_picture,
    scale_points,
)

CANVAS = 96, 64

sides = st.integers(1, 400)
sizes = st.tuples(sides, sides)
unhurried = settings(max_examples=80, deadline=None)


def load(data, subset, canvas=CANVAS, cache=None):
    """Films of `tiny_films.write`, by default with the cache beside them."""
    prepared, pictures = data
    folders = prepared / "coco", prepared / "masks", pictures
    return films_module.load(*folders, subset, canvas, cache or prepared.parent / "cache", 2)


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@unhurried
@given(sizes, sizes)
def test_fit_keeps_the_aspect_ratio_and_fills_one_side(film, canvas):
    box = fit(film, canvas)
    assert 1 <= box.rows <= canvas[0]
    assert 1 <= box.columns <= canvas[1]
    assert box.rows == canvas[0] or box.columns == canvas[1]
    for side, length in ((box.rows, film[0]), (box.columns, film[1])):
        assert side == 1 or abs(side - length * box.scale) <= 0.5 + 1e-9


@unhurried
@given(sizes, sizes)
def test_place_leaves_nothing_outside_the_letterbox(film, canvas):
    placed = place(np.full(film, 200, np.uint8), canvas, cv2.INTER_AREA)
    box = fit(film, canvas)
    assert placed.shape == canvas
    assert placed.dtype == np.uint8
    assert (placed[: box.rows, : box.columns] == 200).all()
    assert (placed > 0).sum() == box.rows * box.columns


def test_fit_by_hand():
    assert vars(fit((150, 83), (96, 64))) == {"scale": 0.64, "rows": 96, "columns": 53}
    assert vars(fit((30, 60), (96, 64))) == {"scale": 64 / 60, "rows": 32, "columns": 64}
    assert fit((96, 64), (96, 64)).scale == 1


blocks = st.tuples(st.integers(5, 60), st.integers(5, 40), st.integers(20, 80), st.integers(15, 40))


@unhurried
@given(blocks)
def test_a_mask_comes_back_from_the_letterbox(block):
    top, left, height, width = block
    mask = np.zeros(tiny_films.FILM, np.uint8)
    mask[top : top + height, left : left + width] = 1
    box = fit(mask.shape, CANVAS)
    placed = place(mask, CANVAS, cv2.INTER_NEAREST_EXACT)
    inside = placed[: box.rows, : box.columns]
    back = cv2.resize(inside, mask.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    # Half a pixel of the canvas is less than a pixel of the film: no edge is further off.
    assert np.abs(np.subtract(cv2.boundingRect(back)[:2], (left, top))).max() <= 1
    assert np.abs(np.subtract(cv2.boundingRect(back)[2:], (width, height))).max() <= 2
    assert set(np.unique(back)) == {0, 1}


SQUARE = np.array([[-15.0, -15], [15, -15], [15, 15], [-15, 15]])
quadrangles = st.tuples(
    st.lists(st.floats(-4, 4), min_size=8, max_size=8), st.floats(20, 60), st.floats(20, 100)
).map(lambda drawn: SQUARE + np.reshape(drawn[0], (4, 2)) + drawn[1:])


@unhurried
@given(quadrangles)
def test_scaled_points_lie_where_the_scaled_mask_does(polygon):
    size = 300, 166
    scale = fit(size, CANVAS).scale
    mask = rasterise(polygon * 2, *size).astype(np.float32)
    box = fit(size, CANVAS)
    covered = cv2.resize(mask, (box.columns, box.rows), interpolation=cv2.INTER_AREA)
    points = scale_points(polygon * 2, scale)
    # The area by Green's theorem and the centroid of the pixels are free of a pixel rule.
    rows, columns = np.indices(covered.shape)
    x, y = points.T
    cross = x * np.roll(y, -1) - np.roll(x, -1) * y
    area = cross.sum() / 2
    centre_x = ((x + np.roll(x, -1)) * cross).sum() / (6 * area)
    centre_y = ((y + np.roll(y, -1)) * cross).sum() / (6 * area)
    assert area == pytest.approx(covered.sum(), rel=0.05)
    assert centre_x == pytest.approx((columns * covered).sum() / covered.sum(), abs=0.3)
    assert centre_y == pytest.approx((rows * covered).sum() / covered.sum(), abs=0.3)


def test_a_pixel_of_the_film_is_a_pixel_of_a_canvas_of_its_size():
    corners = np.array([[2.0, 5], [3, 5], [3, 6], [2, 6]])
    moved = scale_points(corners, 1.0)
    assert moved.mean(axis=0).tolist() == [2, 5]  # OpenCV's centre of the pixel in column 2, row 5
    # Four binary digits below the pixel; OpenCV draws the outline as well.
    drawn = cv2.fillPoly(np.zeros((9, 9), np.uint8), [np.rint(moved * 16).astype(int)], 1, shift=4)
    assert drawn[5, 2] == 1


@pytest.mark.parametrize("canvas", [(64, 64), (96, 64), (160, 96)])
def test_load(tmp_path, canvas):
    films = load(tiny_films.write(tmp_path), "train", canvas)
    assert len(films) == 3
    assert films.image_ids == ["train0", "train1", "train2"]
    for picture, bits, polygons in zip(films.pictures, films.bits, films.polygons, strict=True):
        assert picture.shape == bits.shape == canvas
        assert picture.dtype == bits.dtype == np.uint8
        planes = class_planes(bits, len(tiny_films.CLASSES))
        assert (planes[0] & planes[2]).any()  # the screw over the vertebra
        drawn = np.zeros_like(planes)
        for polygon in polygons:
            drawn[polygon.class_index] |= rasterise(polygon.points + 0.5, *canvas)
        # Screws are seven pixels of the film wide.
        for mask, plane, least in zip(drawn, planes, (0.9, 0.9, 0.8), strict=True):
            assert iou(mask, plane) > least
        assert picture[planes.any(axis=0)].mean() > picture[~planes.any(axis=0)].mean() + 60


def test_load_of_an_empty_subset_is_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"val\.json holds no film: .*`splits`"):
        load(tiny_films.write(tmp_path, val=0), "val")


@pytest.mark.parametrize("damage", ["missing", "other size", "no image", "16 bits"])
def test_load_of_a_bad_mask_is_a_sentence(tmp_path, damage):
    prepared, pictures = tiny_films.write(tmp_path)
    mask = prepared / "masks" / "train1.png"
    mask.unlink()
    if damage == "other size":
        write_png(mask, np.zeros((10, 10), np.uint8))
    elif damage == "no image":
        mask.write_bytes(b"not an image")
    elif damage == "16 bits":
        write_png(mask, np.zeros(tiny_films.FILM, np.uint16))
    with pytest.raises(InputError, match=r"train1\.png does not fit its film: remove it"):
        load((prepared, pictures), "train")
    assert not list((tmp_path / "cache").iterdir())


def test_load_of_a_film_of_another_size_is_a_sentence(tmp_path):
    prepared, pictures = tiny_films.write(tmp_path)
    write_png(pictures / "train2.png", np.zeros((40, 20), np.uint8))
    with pytest.raises(InputError, match=r"train2\.png is not of the size that .*--forcerun"):
        load((prepared, pictures), "train")


def test_load_of_a_missing_film_is_a_sentence(tmp_path):
    prepared, pictures = tiny_films.write(tmp_path)
    (pictures / "val1.png").unlink()
    with pytest.raises(InputError, match=r"val1\.png is missing"):
        load((prepared, pictures), "val")


@unhurried
@given(st.lists(sizes, min_size=1, max_size=6))
def test_full_size_holds_every_film(tmp_path_factory, films):
    prepared = tmp_path_factory.mktemp("prepared")
    for number, subset in enumerate(("train", "val", "test")):
        images = [{"height": rows, "width": columns} for rows, columns in films[number::3]]
        write_json(prepared / f"{subset}.json", {"images": images})
    canvas = full_size(prepared, ("train", "val", "test"))
    for axis in (0, 1):
        largest = max(film[axis] for film in films)
        assert canvas[axis] % 32 == 0
        assert largest <= canvas[axis] < largest + 32


def test_tiny_films_are_what_prepare_writes(tmp_path):
    prepared, _ = tiny_films.write(tmp_path)
    coco = json.loads((prepared / "coco" / "train.json").read_text())
    assert [category["name"] for category in coco["categories"]] == tiny_films.CLASSES


def test_networks_see_films_of_weak_contrast_stronger():
    rng = np.random.default_rng(4)
    rows, columns = np.mgrid[:300, :160]
    strong = 128 + 70 * np.sin(rows / 17) * np.cos(columns / 23) + rng.normal(0, 6, (300, 160))
    weak = 100 + (strong - 128) / 4
    seen = [place_picture(np.rint(film).astype(np.uint8), (352, 192)) for film in (strong, weak)]
    box = fit((300, 160), (352, 192))
    inside = np.s_[: box.rows, : box.columns]
    spread = [picture[inside].std() for picture in seen]
    assert spread[1] / spread[0] > 1.5 * weak.std() / strong.std()
    for picture in seen:
        assert picture.shape == (352, 192) and picture.dtype == np.uint8
        assert not picture[box.rows :].any() and not picture[:, box.columns :].any()


def same(first, second):
    return all(
        first.image_ids == second.image_ids and np.array_equal(getattr(first, name), other)
        for name, other in (("pictures", second.pictures), ("bits", second.bits))
    )


def folders(cache):
    return sorted(path.name for path in cache.iterdir())


def test_films_are_kept_as_the_network_sees_them(tmp_path):
    prepared, pictures = tiny_films.write(tmp_path)
    films = load((prepared, pictures), "train")
    for name, picture, bits in zip(films.image_ids, films.pictures, films.bits, strict=True):
        read = cv2.imread(str(pictures / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
        assert (picture == place_picture(read, CANVAS)).all()
        mask = cv2.imread(str(prepared / "masks" / f"{name}.png"), cv2.IMREAD_GRAYSCALE)
        assert (bits == place(mask, CANVAS, cv2.INTER_NEAREST_EXACT)).all()
    for array in (films.pictures, films.bits):
        assert isinstance(array, np.memmap)
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0, 0] = 1


def test_no_film_is_decoded_twice(tmp_path, monkeypatch):
    data = tiny_films.write(tmp_path)
    first = load(data, "train")

    def refuse(path):
        raise AssertionError(path)

    monkeypatch.setattr(films_module, "read_grey", refuse)
    assert same(load(data, "train"), first)
    with pytest.raises(AssertionError):
        load(data, "train", (64, 64))


@pytest.mark.parametrize("folder", ["png", "prepared/masks"])
def test_a_changed_film_or_mask_is_taken_anew(tmp_path, folder):
    data = tiny_films.write(tmp_path)
    before = load(data, "train")
    changed = tmp_path / folder / "train1.png"
    write_png(changed, cv2.flip(cv2.imread(str(changed), cv2.IMREAD_GRAYSCALE), 1))
    after = load(data, "train")
    assert not same(before, after)
    assert same(after, load(data, "train", cache=tmp_path / "other"))
    assert (before.pictures[0] == after.pictures[0]).all()


@pytest.mark.parametrize("file", ["train-pictures.npy", "train-bits.npy", "train.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut short", "one byte"])
def test_damaged_films_are_made_again(tmp_path, caplog, file, damage):
    data = tiny_films.write(tmp_path)
    sound = load(data, "train")
    kept = [np.array(sound.pictures), np.array(sound.bits)]
    (path,) = (tmp_path / "cache").glob(f"*/{file}")
    content = bytearray(path.read_bytes())
    path.unlink()  # the films in use stay mapped
    if damage != "missing":
        content[len(content) // 2] ^= 3
        path.write_bytes(content[: {"empty": 0, "cut short": -9}.get(damage)])
    caplog.set_level(logging.INFO, "lumbarflow")
    again = load(data, "train")
    assert (again.pictures == kept[0]).all() and (again.bits == kept[1]).all()
    assert "are damaged: making them again" in caplog.text
    caplog.clear()
    assert same(load(data, "train"), again)
    assert not caplog.records
    assert len(folders(tmp_path / "cache")) == 1


def test_jobs_may_make_the_same_films_at_a_time(tmp_path):
    data = tiny_films.write(tmp_path)
    alone = load(data, "train", cache=tmp_path / "other")
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda _: load(data, "train"), range(12)))
    assert all(same(films, alone) for films in found)
    assert len(folders(tmp_path / "cache")) == 1


def test_films_of_no_use_are_removed_after_days(tmp_path):
    data = tiny_films.write(tmp_path)
    cache = tmp_path / "cache"
    load(data, "train")
    load(data, "train", (64, 64))
    load(data, "val")
    (cache / ".half-made").mkdir()
    (cache / ".9x9-0.part").mkdir()
    before = folders(cache)
    mask = data[0] / "masks" / "train0.png"
    write_png(mask, np.zeros(tiny_films.FILM, np.uint8))
    load(data, "train")
    (new,) = set(folders(cache)) - set(before)  # the old ones may be in use
    assert len(folders(cache)) == len(before) + 1
    long_ago = time.time() - 10 * 86_400
    for folder in cache.iterdir():
        os.utime(folder, (long_ago, long_ago))
    load(data, "train")
    assert (cache / new).stat().st_mtime > time.time() - 3600
    load(data, "train", (64, 64))
    kept = {path.parent.name for path in cache.glob("*/val.json")} | {".half-made"}
    kept |= {new, new.replace("96x64", "64x64")}
    assert set(folders(cache)) == kept


def test_other_processes_get_films_by_their_path(tmp_path):
    films = load(tiny_films.write(tmp_path), "train", (960, 640))
    sent = pickle.dumps(films)
    assert len(sent) < 20_000 < films.pictures.nbytes
    received = pickle.loads(sent)
    assert same(received, films)
    assert isinstance(received.pictures, np.memmap)
    assert not received.bits.flags.writeable
    assert [len(p) for p in received.polygons] == [len(p) for p in films.polygons]


def test_films_that_are_made_ready_are_never_all_in_memory(tmp_path):
    made = np.ones((1000, 500), np.uint8)
    tracemalloc.start()
    pictures, bits = canvases.ready(
        tmp_path,
        "train",
        made.shape,
        None,
        [tmp_path / "a"] * 120,
        lambda film: (made * film, made),
        2,
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert pictures.shape == bits.shape == (60, 1000, 500)
    assert (pictures[:, 0, 0] == np.arange(60)).all()
    assert peak < 12 * made.nbytes < pictures.nbytes


def test_a_disk_that_loses_what_is_written_is_a_sentence(tmp_path, monkeypatch):
    data = tiny_films.write(tmp_path)
    number = iter(range(99))
    monkeypatch.setattr(canvases, "_checksum", lambda data: next(number))
    with pytest.raises(InputError, match="check the disk"):
        load(data, "train")


def test_grey_levels_are_those_of_lit_pixels(tmp_path):
    films = load(tiny_films.write(tmp_path), "train")
    # An equalised black film is as bright as the shutters on one.
    black = place_picture(np.zeros(tiny_films.FILM, np.uint8), CANVAS).max()
    lit = np.array(films.pictures)[np.array(films.pictures) > black].astype(float)
    mean, deviation = grey_levels(films)
    assert mean == pytest.approx(lit.mean(), abs=0.5)
    assert deviation == pytest.approx(lit.std(), abs=0.5)


@pytest.mark.parametrize("level, expected", [(0, (128, 64)), (200, (200, 1))])
def test_grey_levels_of_plain_films(level, expected):
    plain = np.full((2, *CANVAS), level, np.uint8)
    assert grey_levels(TrainingFilms(["a", "b"], plain, plain, [[], []])) == expected
