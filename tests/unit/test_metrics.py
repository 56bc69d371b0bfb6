"""The four metrics, Dice and the matching of instances."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lumbarflow.evaluate.metrics import (
    binary_metrics,
    match_instances,
    segmentation_metrics,
)

NAMES = ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou")
N_LABELS = 5

shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)
label_pairs = shapes.flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.uint8, shape, elements=st.integers(0, 4))] * 2)
)
mask_pairs = shapes.flatmap(lambda shape: st.tuples(*[hnp.arrays(bool, shape)] * 2))


def square():
    """4 x 4 pixels of background with a 2 x 2 block of class 1."""
    labels = np.zeros((4, 4), np.uint8)
    labels[1:3, 1:3] = 1
    return labels


def slow_metrics(reference, prediction):
    """The four metrics from a confusion matrix filled pixel by pixel."""
    confusion = [[0] * N_LABELS for _ in range(N_LABELS)]
    for true, guess in zip(reference.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        confusion[true][guess] += 1
    hit = accuracy_sum = iou_sum = weighted = 0
    present = 0
    for i in range(N_LABELS):
        t = sum(confusion[i])
        p = sum(confusion[j][i] for j in range(N_LABELS))
        if t == 0:
            continue
        present += 1
        hit += confusion[i][i]
        accuracy_sum += confusion[i][i] / t
        class_iou = confusion[i][i] / (t + p - confusion[i][i]) if p else 0
        iou_sum += class_iou
        weighted += t * class_iou
    size = reference.size
    return hit / size, accuracy_sum / present, iou_sum / present, weighted / size


def absent_class():
    prediction = square()
    prediction[0, 0] = 2
    return square(), prediction


def missed():
    return square(), np.zeros((4, 4), np.uint8)


def false_pixel():
    prediction = np.zeros((4, 4), np.uint8)
    prediction[0, 0] = 1
    return np.zeros((4, 4), np.uint8), prediction


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (absent_class, (0.9375, 0.958333, 0.958333, 0.9375)),
        (missed, (0.75, 0.5, 0.375, 0.5625)),
        (false_pixel, (0.9375, 0.9375, 0.9375, 0.9375)),
    ],
)
def test_worked_cases(case, expected):
    metrics = segmentation_metrics(*case())
    assert [metrics[name] for name in NAMES] == pytest.approx(expected, abs=1e-6)


def test_a_thousand_pairs_with_absent_classes():
    rng = np.random.default_rng(0)
    absent = 0
    for _ in range(1000):
        shape = rng.integers(1, 20, 2)
        pair = [rng.choice(rng.permutation(N_LABELS)[: rng.integers(1, 6)], shape) for _ in "ab"]
        if rng.random() < 0.5:
            pair[1] = np.where(rng.random(shape) < 0.2, pair[1], pair[0])
        absent += len(np.unique(pair[0])) < N_LABELS
        metrics = segmentation_metrics(*pair)
        expected = slow_metrics(*pair)
        assert [metrics[name] for name in NAMES] == pytest.approx(expected, rel=0, abs=1e-12)
        # The merged mask: only counts are needed.
        masks = [np.isin(labels, (1, 2)) for labels in pair]
        merged = binary_metrics(*masks)
        expected = slow_metrics(*(mask.astype(int) for mask in masks))
        assert [merged[name] for name in NAMES] == pytest.approx(expected, rel=0, abs=1e-12)
    assert absent > 500


@given(label_pairs)
def test_equals_slow_computation(pair):
    metrics = segmentation_metrics(*pair)
    assert [metrics[name] for name in NAMES] == pytest.approx(slow_metrics(*pair))


@given(label_pairs, st.permutations(range(N_LABELS)))
def test_permuting_classes_changes_nothing(pair, order):
    permuted = (np.array(order, np.uint8)[labels] for labels in pair)
    assert segmentation_metrics(*permuted) == pytest.approx(segmentation_metrics(*pair))


@given(label_pairs)
def test_range_and_perfection(pair):
    metrics = segmentation_metrics(*pair)
    assert all(0 <= value <= 1 for value in metrics.values())
    assert set(segmentation_metrics(pair[0], pair[0]).values()) == {1.0}
    # Any wrong pixel costs something in every metric.
    assert np.array_equal(*pair) or max(metrics.values()) < 1


@given(mask_pairs)
def test_binary_equals_general(pair):
    metrics = binary_metrics(*pair)
    del metrics["dice"]
    assert metrics == pytest.approx(segmentation_metrics(*(m.astype(np.uint8) for m in pair)))


@given(mask_pairs)
def test_dice(pair):
    a, b = ({tuple(index) for index in np.argwhere(mask)} for mask in pair)
    found = binary_metrics(*pair)["dice"]
    assert found == pytest.approx(2 * len(a & b) / (len(a) + len(b)) if a | b else 1)


def test_empty_masks_agree():
    empty = np.zeros((3, 3), bool)
    assert binary_metrics(empty, empty)["dice"] == 1.0
    assert binary_metrics(empty, ~empty)["dice"] == 0.0


@pytest.mark.parametrize(
    "pair",
    [
        (np.zeros((2, 2), int), np.zeros((2, 3), int)),
        (np.zeros((0, 2), int), np.zeros((0, 2), int)),
        (np.zeros((2, 2), int), np.full((2, 2), -1)),
        (np.zeros((2, 2)), np.zeros((2, 2))),
    ],
)
def test_what_is_not_a_label_map_is_refused(pair):
    with pytest.raises(ValueError, match=r"shapes differ|label map"):
        segmentation_metrics(*pair)


def test_masks_of_different_size_are_refused():
    with pytest.raises(ValueError, match="shapes differ"):
        binary_metrics(np.zeros((2, 2), bool), np.zeros((2, 3), bool))


def test_matching_takes_the_best_pair_first():
    overlaps = np.array([[0.6, 0.5, 0.0], [0.7, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert match_instances(overlaps).tolist() == [1, 0, -1]


def test_equal_overlaps_go_to_the_first():
    assert match_instances(np.full((2, 3), 0.5)).tolist() == [0, 1]


@given(
    hnp.arrays(
        float,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=5),
        elements=st.floats(0, 1),
    )
)
def test_matching_is_one_to_one_and_stable(overlaps):
    matched = match_instances(overlaps)
    used = matched[matched >= 0].tolist()
    assert len(used) == len(set(used))
    # No unmatched pair may be better than what both its members got: greedy means stable.
    for row, column in np.ndindex(*overlaps.shape):
        mine = overlaps[row, matched[row]] if matched[row] >= 0 else 0
        holder = np.flatnonzero(matched == column)
        theirs = overlaps[holder[0], column] if holder.size else 0
        assert overlaps[row, column] <= max(mine, theirs)
