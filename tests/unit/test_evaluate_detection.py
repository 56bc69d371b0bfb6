"""Average precision against pycocotools, panoptic quality against its definition."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from lumbarflow import runs
from lumbarflow.evaluate.detection import (
    MOST,
    THRESHOLDS,
    average_precision,
    match,
    match_panoptic,
    panoptic_quality,
)

SIDE = 40


def blocks(rng, count):
    """Masks of rectangles, some of them alike."""
    masks = []
    for _ in range(count):
        y, x = rng.integers(0, SIDE - 12, 2)
        mask = np.zeros((SIDE, SIDE), bool)
        mask[y : y + rng.integers(4, 14), x : x + rng.integers(4, 14)] = True
        masks.append(mask)
    return masks


def shifted(rng, masks):
    """What a network sees of masks: each moved a little, some not at all, and others besides."""
    seen = [np.roll(mask, rng.integers(-2, 3, 2), (0, 1)) for mask in masks if rng.random() < 0.8]
    return seen + blocks(rng, rng.integers(0, 4))


def cohort(seed, films=6, crowd=0):
    """Masks drawn, masks seen and scores by film; scores of two digits, so that some are equal."""
    rng = np.random.default_rng(seed)
    drawn = [blocks(rng, rng.integers(0, 6)) for _ in range(films)]
    seen = [shifted(rng, masks) for masks in drawn]
    seen[0] += blocks(rng, crowd)
    return drawn, seen, [rng.random(len(masks)).round(2) for masks in seen]


def of_coco(drawn, seen, scores):
    """Precision at each threshold, as COCOeval has it."""
    coco, number = COCO(), 0
    images = [{"id": k + 1, "height": SIDE, "width": SIDE} for k in range(len(drawn))]
    annotations, found = [], []
    for k, masks in enumerate(drawn):
        for mask in masks:
            number += 1
            segment = runs.of_plane(mask)
            annotations.append(
                {
                    **{"id": number, "image_id": k + 1, "category_id": 1, "iscrowd": 0},
                    **{"segmentation": segment, "area": int(mask.sum()), "bbox": [0, 0, 1, 1]},
                }
            )
        for mask, score in zip(seen[k], scores[k], strict=True):
            segment = runs.of_plane(mask)
            one = {"image_id": k + 1, "category_id": 1, "segmentation": segment}
            found.append(one | {"score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):
        coco.dataset = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": 1, "name": "a"}],
            "info": {},
        }
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(found), "segm")
        judge.evaluate()
        judge.accumulate()
    return judge.eval["precision"][:, :, 0, 0, -1].mean(axis=1)


def ours(drawn, seen, scores):
    told, right = [], []
    for masks, others, values in zip(drawn, seen, scores, strict=True):
        matrix = runs.iou_matrix(*([runs.of_plane(m) for m in group] for group in (masks, others)))
        kept = np.argsort(np.argsort(-values, kind="stable"), kind="stable") < MOST
        told.append(values[kept])
        right.append(match(values, matrix)[kept])
    return np.concatenate(told), np.concatenate(right), sum(map(len, drawn))


@pytest.mark.parametrize("seed", range(20))
def test_average_precision_equals_cocos(seed):
    case = cohort(seed)
    assert average_precision(*ours(*case)) == pytest.approx(of_coco(*case), abs=1e-12)


def test_only_the_best_hundred_of_a_film_count():
    case = cohort(1, crowd=2 * MOST)
    assert average_precision(*ours(*case)) == pytest.approx(of_coco(*case), abs=1e-12)


def test_a_resample_is_what_repeated_films_are():
    drawn, seen, scores = cohort(5)
    times = [2, 0, 1, 3, 0, 1]
    repeated = [[part[k] for k, n in enumerate(times) for _ in range(n)] for part in cohort(5)]
    # Equal scores on different films would leave the order open.
    rng = np.random.default_rng(0)
    scores = [values + 1e-4 * rng.random(len(values)) for values in scores]
    repeated[2] = [scores[k] for k, n in enumerate(times) for _ in range(n)]
    told, right, _ = ours(drawn, seen, scores)
    weights = np.repeat(times, [len(values) for values in scores])[None]
    references = [[sum(n * len(masks) for n, masks in zip(times, drawn, strict=True))]]
    found = average_precision(told, right, references[0], weights)
    assert found[0] == pytest.approx(average_precision(*ours(*repeated)), abs=0.02)
    once = average_precision(told, right, [sum(map(len, drawn))], np.ones_like(weights))
    assert once[0] == pytest.approx(average_precision(told, right, sum(map(len, drawn))))


def test_nothing_seen_and_nothing_drawn():
    nothing = np.zeros((0, len(THRESHOLDS)), bool)
    assert average_precision(np.zeros(0), nothing, 3).tolist() == [0] * 10
    assert np.isnan(average_precision(np.zeros(0), nothing, 0)).all()
    assert match([0.5], np.zeros((0, 1))).tolist() == [[False] * 10]
    assert match([], np.zeros((2, 0))).shape == (0, 10)


def test_a_better_score_takes_the_structure():
    right = match([0.3, 0.9], np.array([[0.9, 0.6]]))
    assert right.sum(axis=1).tolist() == [6, 3]  # the first one from 0.65 on, where the other fails
    assert right[1].tolist() == [True] * 3 + [False] * 7


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_panoptic_quality_of_segments_that_do_not_overlap(seed):
    rng = np.random.default_rng(seed)
    drawn, seen = (rng.integers(0, 4, (8, 8)) for _ in range(2))
    if rng.random() < 0.8:
        seen = np.where(rng.random((8, 8)) < 0.2, seen, drawn)
    parts = [[labels == k for k in np.unique(labels) if k] for labels in (drawn, seen)]
    found, taken = [], set()
    for one in parts[0]:
        for k, other in enumerate(parts[1]):
            value = (one & other).sum() / (one | other).sum()
            if value > 0.5:
                found.append(value)
                taken.add(k)
    assert len(taken) == len(found)
    pairs = match_panoptic(
        runs.iou_matrix(*([runs.of_plane(mask) for mask in group] for group in parts))
    )
    assert sorted(pairs) == pytest.approx(sorted(found))
    quality = panoptic_quality(len(pairs), pairs.sum(), len(parts[0]), len(parts[1]))
    wrong = len(parts[0]) + len(parts[1]) - 2 * len(found)
    if parts[0] or parts[1]:
        assert quality["panoptic_quality"] == pytest.approx(
            sum(found) / (len(found) + wrong / 2), abs=1e-12
        )
    if found:
        product = quality["segmentation_quality"] * quality["recognition_quality"]
        assert quality["panoptic_quality"] == pytest.approx(product)
    else:
        assert np.isnan(quality["segmentation_quality"])


def test_a_fused_blob_is_one_extra_and_all_missed():
    overlaps = np.array([[1 / 3], [1 / 3], [1 / 3]])
    pairs = match_panoptic(overlaps)
    quality = panoptic_quality(len(pairs), pairs.sum(), 3, 1)
    assert quality["panoptic_quality"] == quality["recognition_quality"] == 0
