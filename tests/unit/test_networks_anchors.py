"""Anchors from training films: overlap as MMDetection has it, coverage, networks with them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import tiny_films
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.registry import init_default_scope

from lumbarflow.networks import anchors, mask_rcnn, yolact
from lumbarflow.networks.detection import _sample, _tensor, _truth
from lumbarflow.train.films import Polygon, TrainingFilms, scale_points

CANVAS = 352, 192  # rows and columns
PYRAMIDS = {"mask_rcnn": [4, 8, 16, 32, 64], "yolact": [8, 16, 32, 64, 128]}
STOCK_SCALES = {"mask_rcnn": [4, 8], "yolact": [3]}
unhurried = settings(max_examples=40, deadline=None)


def rectangle(centre, width, height, degrees=0.0, class_index=0):
    """An oblique rectangle as a polygon of the canvas."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width / 2, height / 2]
    turn = np.radians(degrees)
    turned = corners @ [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
    return Polygon(class_index, scale_points(turned + centre, 1.0))


def spine(rng):
    """Vertebrae, a sacral one, screws over some of them, a cage, and on some films a rod."""
    x, tops = rng.uniform(80, 110), 40 + 45 * np.arange(6) + rng.uniform(-8, 8)
    bodies = [
        rectangle((x, top), *rng.normal([36, 30], 2), rng.uniform(-20, 20), min(1, number // 5))
        for number, top in enumerate(tops)
    ]
    screws = [
        rectangle((x - 25, top), rng.normal(52, 3), 6, rng.uniform(-25, 25), 2)
        for top in tops[3 : 3 + rng.integers(0, 3)]
    ]
    cages = [rectangle((x, tops[4] + 22), 24, 8, rng.uniform(-20, 20), 3)]
    rods = [rectangle((x - 40, tops[3]), 6, rng.uniform(60, 120), rng.uniform(-10, 10), 4)]
    return bodies + screws + cages + (rods if rng.random() < 0.3 else [])


def films_of(polygons, canvas=CANVAS):
    empty = np.zeros(canvas, np.uint8)
    count = len(polygons)
    return TrainingFilms(
        [f"film{number}" for number in range(count)], [empty] * count, [empty] * count, polygons
    )


def cohort(seed, count=25):
    rng = np.random.default_rng(seed)
    return films_of([spine(rng) for _ in range(count)])


def stock(model):
    """The shapes of networks whose training films have not been looked at."""
    return {
        "strides": PYRAMIDS[model],
        "shapes": [
            [
                [stride * scale / ratio**0.5, stride * scale * ratio**0.5]
                for scale in STOCK_SCALES[model]
                for ratio in (0.5, 1.0, 2.0)
            ]
            for stride in PYRAMIDS[model]
        ],
    }


def mmdet_ious(boxes, found):
    """Highest IoU of each box with the anchors that MMDetection lays over the canvas."""
    init_default_scope("mmdet")
    made = TASK_UTILS.build(anchors.generator(found))
    grids = [tuple(-(-side // stride) for side in CANVAS) for stride in found["strides"]]
    laid = torch.cat(made.grid_priors(grids, device="cpu"))
    return bbox_overlaps(torch.tensor(boxes, dtype=torch.float32), laid).max(dim=1)[0].numpy()


sides = st.floats(2, 150)
boxes_drawn = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), sides, sides), min_size=1)


def inside(drawn):
    x, y, width, height = np.transpose(drawn)
    left, top = x * (CANVAS[1] - width), y * (CANVAS[0] - height)
    return np.stack([left, top, left + width, top + height], axis=1)


@unhurried
@given(boxes_drawn, st.sampled_from([4, 8, 16]), st.lists(st.tuples(sides, sides), min_size=1))
def test_overlap_is_that_of_mmdetection(drawn, finest, shapes):
    boxes = inside(drawn)
    found = {"strides": [finest, 2 * finest], "shapes": [shapes, shapes[::-1]]}
    own = anchors._ious(boxes, *anchors._flat(found))
    assert own.shape == (len(boxes), 2 * len(shapes))
    # Which of two shapes lies over a box best is that of the nearest place, for all of them.
    assert own.max(axis=1) == pytest.approx(mmdet_ious(boxes, found), abs=1e-4)


def test_overlap_by_hand():
    # Half of the box's width apart from the place at 4, 4: a third of the union is common.
    boxes = np.array([[2.0, 2, 6, 6], [4, 2, 8, 6]])
    ious = anchors._ious(boxes, np.array([8]), np.array([[4.0, 4.0]]))
    assert ious[:, 0].tolist() == pytest.approx([1, 1 / 3])
    found = {"strides": [8], "shapes": [[[4.0, 4.0]]]}
    assert anchors.coverage(boxes, found) == 0.5
    assert anchors.coverage(boxes, found, np.array([3.0, 1.0])) == 0.75


def test_boxes_lie_about_the_outlines():
    polygons = [rectangle((50, 60), 20, 10), rectangle((10, 10), 40, 6, class_index=2)]
    thin = rectangle((90, 90), 30, 1)
    outside = rectangle((400, 90), 30, 30)
    boxes, classes = anchors.boxes_of(films_of([polygons, [thin, outside], []]))
    assert boxes == pytest.approx(np.array([[40, 55, 60, 65], [0, 7, 30, 13]]))
    assert classes.tolist() == [0, 2]


def test_boxes_of_augmentation_are_of_moved_outlines():
    films = films_of([[rectangle((96, 176), 60, 4)]])
    boxes, classes = anchors.boxes_of(films, tiny_films.AUGMENTATION | {"rotation_degrees": 45})
    assert len(boxes) == len(classes) > 1
    assert (boxes[1:, 3] - boxes[1:, 1]).max() > 10  # turned
    still, _ = anchors.boxes_of(films, tiny_films.STILL)
    assert still == pytest.approx(np.tile(boxes[:1], (len(still), 1)))


@pytest.mark.parametrize("model", PYRAMIDS)
def test_most_boxes_of_other_films_have_an_anchor(model):
    films = cohort(1)
    found = anchors.of_films(films, PYRAMIDS[model], tiny_films.AUGMENTATION)
    boxes, classes = anchors.boxes_of(cohort(2))
    balanced = anchors._balanced(classes)
    stocked = anchors.coverage(boxes, stock(model), balanced)
    assert anchors.coverage(boxes, found) >= 0.95
    assert anchors.coverage(boxes, found, balanced) > max(0.9, stocked)
    assert found["coverage"] >= 0.9
    own, others = mmdet_ious(boxes, found), mmdet_ious(boxes, stock(model))
    assert own.mean() > others.mean() + 0.03
    # As the networks lay them out.
    assert (own >= 0.5).mean() == pytest.approx(anchors.coverage(boxes, found), abs=1e-2)


def test_the_same_films_give_the_same_anchors():
    first, second = (
        anchors.of_films(cohort(3), PYRAMIDS["mask_rcnn"], tiny_films.AUGMENTATION)
        for _ in range(2)
    )
    assert first == second


def test_what_is_returned_is_plain():
    films = cohort(4, count=5)
    found = anchors.of_films(films, np.array(PYRAMIDS["yolact"]))
    assert found["objects"] == max(map(len, films.polygons))
    assert len(found["shapes"]) == len(found["strides"]) == 5
    assert len({len(level) for level in found["shapes"]}) == 1
    numbers = [side for level in found["shapes"] for shape in level for side in shape]
    assert {type(number) for number in numbers} == {float}
    assert {type(stride) for stride in found["strides"]} == {int}
    assert type(found["coverage"]) is float and 0 <= found["coverage"] <= 1
    assert min(numbers) > 0


def test_films_without_objects_have_no_anchors():
    assert anchors.of_films(films_of([[], []]), PYRAMIDS["yolact"]) is None


@unhurried
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), sides, sides), min_size=1, max_size=3))
def test_few_boxes_are_enough(drawn):
    polygons = [
        rectangle(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), *(box[2:] - box[:2]))
        for box in inside(drawn)
    ]
    found = anchors.of_films(films_of([polygons]), [4, 8, 16])
    if found is not None:  # a side of two pixels may be a little less
        assert np.isfinite(found["shapes"]).all()


def test_learnt_anchors_stay_where_they_fit_as_well():
    strides = PYRAMIDS["mask_rcnn"]
    kept = anchors.of_films(cohort(5), strides)
    again = anchors.of_films(cohort(6), strides, kept=kept)
    assert again["shapes"] == kept["shapes"]
    assert again["coverage"] >= 0.9
    assert again["objects"] == max(map(len, cohort(6).polygons))
    thin = films_of([[rectangle((90, 170), 150, 3)]] * 3)
    assert anchors.of_films(thin, strides, kept=kept)["shapes"] != kept["shapes"]
    halved = anchors.of_films(cohort(6), [stride // 2 for stride in strides], kept=kept)
    assert halved["strides"] == [stride // 2 for stride in strides]
    assert halved["shapes"] != kept["shapes"]


# The networks -----------------------------------------------------------------------------------


def network_settings(found):
    return SimpleNamespace(
        classes=["lumbar_vertebra", "sacral_vertebra", "screw", "cage", "instrumentation"],
        backbone="resnet18",
        width=8,
        weights=None,
        size=CANVAS,
        normalisation=(128.0, 64.0),
        anchors=found,
    )


@pytest.mark.parametrize("network", [mask_rcnn, yolact], ids=list(PYRAMIDS))
def test_networks_learn_and_find_with_their_anchors(network):
    init_default_scope("mmdet")
    strides = anchors.strides_of(network._build(network_settings(None)))
    assert strides == PYRAMIDS[network.__name__.rpartition(".")[2]]
    films = cohort(7, count=2)
    found = anchors.of_films(films, strides)
    config = network._build(network_settings(found))
    assert anchors.strides_of(config) == strides
    model = MODELS.build(config)
    head = model.rpn_head if network is mask_rcnn else model.bbox_head
    assert head.num_base_priors == len(found["shapes"][0])
    batch = {"inputs": [], "data_samples": []}
    for number, polygons in enumerate(films.polygons):
        sample = _sample(f"film{number}", CANVAS)
        sample.gt_instances = _truth([(p.class_index, p.points) for p in polygons], CANVAS)
        batch["inputs"].append(_tensor(films.pictures[number]))
        batch["data_samples"].append(sample)
    losses = model(**model.data_preprocessor(batch, training=True), mode="loss")
    total = sum(
        part.mean()
        for name, value in losses.items()
        if "loss" in name
        for part in (value if isinstance(value, list) else [value])
    )
    total.backward()
    assert torch.isfinite(total)
    model.eval()
    with torch.no_grad():
        predicted = model.test_step(batch)[0].pred_instances
    assert predicted.masks.shape[1:] == CANVAS


@pytest.mark.parametrize(("width", "regions"), [(8, 90), (256, 300)])
def test_regions_follow_the_number_of_objects(width, regions):
    found = {"strides": [4] * 5, "shapes": [[[9.0, 9.0]]] * 5, "coverage": 1.0, "objects": 30}
    config = mask_rcnn._build(SimpleNamespace(**vars(network_settings(found)) | {"width": width}))
    assert config.train_cfg.rcnn.sampler.num == regions
    assert config.train_cfg.rpn_proposal.max_per_img == config.test_cfg.rpn.max_per_img
    assert config.test_cfg.rpn.max_per_img >= 4 * 30
    assert config.test_cfg.rcnn.max_per_img >= 2 * 30
