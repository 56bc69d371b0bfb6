"""The benchmark of trainings: its films, its stock configurations, and how it spends its time."""

from __future__ import annotations

import sys
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import _films
import _stock
import _training
from _targets import meets, meets_all
from _training import Cohort, Trained, train_within, windows, write_cohort

CLASSES = ["lumbar_vertebra", "sacral_vertebra", "screw"]


def box(x, y, width=30.0, height=20.0):
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]


def structure(class_name, polygon):
    return {"class_name": class_name, "level": None, "polygon": polygon}


def labelled():
    """A film of bodies below each other, from T11 to S1."""
    levels = ("T11", *_films.LEVELS, "S1")
    outlines = {level: np.array(box(60, 20 + 25 * n)) for n, level in enumerate(levels)}
    return _films.Labelled("film", np.full((240, 160), 90, np.uint8), outlines)


@pytest.mark.parametrize(
    ("figure", "target", "met"),
    [
        (0.9, "at least 0.90", True),
        (0.89, "at least 0.90", False),
        (0.0, "at most 0", True),
        (1, "at most 0", False),
        (0.0, "above 0", False),
        (1e-9, "above 0", True),
        (None, "at least 0", False),
    ],
)
def test_targets(figure, target, met):
    assert meets(figure, target) is met
    assert meets_all({"figure": figure, "other": 5}, {"figure": target}) is met


def test_a_missing_figure_meets_no_target():
    assert not meets_all({}, {"figure": "at least 0"})


def test_settings_are_those_that_the_rule_train_hands_to_a_training():
    config = _training.configuration(preset="demo")
    config["networks"]["unet"]["augmentation"] = 2
    given = _training.parameters(config, "unet", batch_size=3)
    # The strength of the augmentation is in its limits, a title in no training.
    assert set(given["network"]) == set(config["networks"]["unet"]) - {"title", "augmentation"}
    assert given["network"]["batch_size"] == 3
    usual = config["training"]["augmentation"]
    assert given["training"]["augmentation"]["rotation_degrees"] == 2 * usual["rotation_degrees"]
    assert given["training"]["augmentation"]["cutout_probability"] <= 1


@hypothesis.settings(deadline=None)
@hypothesis.given(strategies.integers(8, 40), strategies.integers(0, 99))
def test_a_round_of_divisions_tests_no_film_twice(count, seed):
    a_round = [_films.division(range(count), number, seed) for number in range(count // 8)]
    tested = [film for films in a_round for film in films]
    assert len(tested) == len(set(tested)) == count // 8 * 8


def test_bootstrap_of_equal_films_has_no_width():
    assert _films.bootstrap([0.5] * 8, 1) == (0.5, 0.5, 0.5)
    mean, low, high = _films.bootstrap([0.2, 0.4, 0.9], 1)
    assert 0.2 <= low < mean < high <= 0.9
    assert mean == pytest.approx(0.5)


def test_windows_show_the_lumbar_bodies_and_no_others():
    found = windows([labelled(), labelled()], 256, seed=3)
    assert [film.name for film in found] == ["window00000", "window00001"]
    assert not np.array_equal(found[0].picture, found[1].picture)
    for film in found:
        assert film.picture.shape[0] == 256
        assert film.picture.dtype == np.uint8
        assert {each["level"] for each in film.structures} == set(_films.LEVELS)
        assert {each["class_name"] for each in film.structures} == {"lumbar_vertebra"}


def test_a_cohort_is_written_as_training_reads_it(tmp_path):
    film = _films.Annotated(
        "a",
        np.full((120, 80), 50, np.uint8),
        [
            structure("lumbar_vertebra", box(10, 10)),
            structure("sacral_vertebra", box(10, 60)),
            structure("screw", box(50, 80, 10, 30)),
        ],
    )
    cohort = write_cohort(tmp_path, {"train": [film], "val": [], "test": []}, CLASSES, CLASSES[:2])
    expected = np.zeros((120, 80), bool)
    expected[10:30, 10:40] = expected[60:80, 10:40] = True
    np.testing.assert_array_equal(cohort.reference("a"), expected)
    assert cohort.names == {"train": ["a"], "val": [], "test": []}
    scores = _training.score(
        Cohort(tmp_path, CLASSES, CLASSES[:2], {"test": ["a"]}), [("a", expected)]
    )
    assert Trained(0, 0, 0, scores).mean("mean_iou") == 1


@hypothesis.settings(deadline=None)
@hypothesis.given(
    seconds=strategies.floats(1, 4000),
    per_step=strategies.floats(0.01, 20),
    between=strategies.floats(0, 30),
    around=strategies.floats(0, 60),
    usual=strategies.integers(1, 60),
)
def test_a_training_fits_its_time(seconds, per_step, between, around, usual):
    asked = {}

    def train_in(folder, network, cohort, settings, threads, stop):
        asked.update(settings["network"])
        return [{"split": "train", "images_per_second": 2.0}, {"split": "val"}]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_training, "_trial", lambda *_: (per_step, between, around))
        patch.setattr(_training, "train_in", train_in)
        settings = {"network": {"epoch_iterations": usual}}
        trained = train_within(seconds, Path("folder"), "unet", None, settings, 1)
    epoch = asked["epoch_iterations"]
    epochs, rest = divmod(asked["iterations"], epoch)
    assert rest == 0 < epochs <= 60
    assert (epochs, epoch) == (1, 1) or (around + epochs * (epoch * per_step + between) <= seconds)
    assert trained.iterations == epoch  # of the one epoch that was told
    assert trained.seconds_per_image == 0.5


SET = (
    "num_classes",
    "ann_file",
    "data_root",
    "data_prefix.img",
    "metainfo.classes",
    "scale",
    "backbone.depth",
    "backbone.init_cfg",
    "backbone.init_cfg.type",
    "backbone.init_cfg.checkpoint",
    "backbone.frozen_stages",
    "backbone.norm_eval",
    "neck.in_channels",
    "auto_scale_lr.enable",
    "log_level",
    "default_hooks.checkpoint",
    "default_hooks.checkpoint.type",
    "default_hooks.checkpoint.interval",
    "anchor_generator.strides",
    "anchor_generator.centers",
)
"""What may differ from the library's configuration files."""


def flat(config, place=()):
    """The values of a configuration by their path."""
    if isinstance(config, dict):
        pairs = config.items()
    elif isinstance(config, (list, tuple)) and any(isinstance(v, dict) for v in config):
        pairs = enumerate(config)
    else:
        return {place: config}
    return {k: v for key, value in pairs for k, v in flat(value, (*place, str(key))).items()}


@pytest.mark.parametrize("network", ["mask_rcnn", "yolact"])
def test_stock_configurations_differ_from_the_library_as_told(network, tmp_path):
    cohort = Cohort(tmp_path, CLASSES, CLASSES[:2], {})
    stock = flat(_stock.get_config(f"mmdet::{_stock._CONFIGS[network]}").to_dict())
    own = flat(_stock._config(network, cohort, (352, 192)).to_dict())
    # Configurations also carry the constants that they were written with.
    changed = {
        ".".join(place)
        for place in stock.keys() | own.keys()
        if stock.get(place, "-") != own.get(place, "-")
    }
    assert not [key for key in changed if not key.endswith(SET)]
    heads = ("roi_head", "bbox_head") if network == "mask_rcnn" else ("bbox_head",)
    assert own["model", *heads, "num_classes"] == len(CLASSES)


def test_durations_leave_the_first_one_out():
    assert _stock._between([0.0, 9.0, 10.0, 12.0]) == [1.0, 2.0]
    assert _stock._between([0.0, 9.0]) == [9.0]
