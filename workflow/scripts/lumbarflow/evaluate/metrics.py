"""Overlap metrics of segmentations, and the matching of instances.

The four metrics of the paper's Table 1 follow Long, Shelhamer and Darrell, "Fully Convolutional
Networks for Semantic Segmentation" (CVPR 2015), section 5, in the form computed by the tool that
the paper names (its reference 16), which differs where a class is absent: such a class is in no
denominator of a mean, and contributes 0.

Notation: n_ii pixels of class i predicted as class i, t_i reference pixels of class i, p_i pixels
predicted as class i; C_gt the classes with t_i > 0, C_u those with t_i > 0 or p_i > 0.
"""

from __future__ import annotations

import numpy as np


def segmentation_metrics(reference: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """The four metrics of two label maps.

    - pixel_accuracy = sum over C_gt of n_ii / sum over C_gt of t_i
    - mean_accuracy = 1/|C_gt| * sum over C_gt of n_ii / t_i
    - mean_iou = 1/|C_gt| * sum over C_u of n_ii / (t_i + p_i - n_ii)
    - frequency_weighted_iou = 1/(H W) * sum over C_u of t_i n_ii / (t_i + p_i - n_ii)

    The paper describes the last one differently in prose (d); this formula gives its numbers.

    Args:
        reference: H x W non-negative integers, a class a value; 0 counts as a class like any other.
        prediction: the same shape; it may hold classes that the reference lacks.

    Returns:
        Fractions from 0 to 1, by the names above.

    Raises:
        ValueError: the shapes differ, an array is empty, or its values are not labels.
    """
    _check_pair(reference, prediction)
    for labels in (reference, prediction):
        if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
            raise ValueError("a label map holds non-negative integers")
    n_labels = int(max(reference.max(), prediction.max())) + 1
    return _metrics_from_counts(
        np.bincount(reference[reference == prediction], minlength=n_labels),
        np.bincount(reference.ravel(), minlength=n_labels),
        np.bincount(prediction.ravel(), minlength=n_labels),
    )


def binary_metrics(reference: np.ndarray, prediction: np.ndarray) -> dict[str, float]:
    """:func:`segmentation_metrics` of background and foreground, and the foreground's `dice`.

    Dice is 2 |A and B| / (|A| + |B|); of two masks without a pixel, which agree, 1.

    Args:
        reference: H x W bool.
        prediction: H x W bool.

    Raises:
        ValueError: the shapes differ, or the masks are empty arrays.
    """
    _check_pair(reference, prediction)
    return binary_metrics_from_counts(
        np.count_nonzero(reference & prediction),
        np.count_nonzero(reference),
        np.count_nonzero(prediction),
        reference.size,
    )


def binary_metrics_from_counts(
    n_both: int, n_reference: int, n_predicted: int, n_pixels: int
) -> dict[str, float]:
    """:func:`binary_metrics` of two masks of which only pixels are counted.

    Args:
        n_both: pixels in both masks.
        n_reference: pixels in the reference.
        n_predicted: pixels in the prediction.
        n_pixels: of the film.
    """
    total = n_reference + n_predicted
    metrics = _metrics_from_counts(
        np.array([n_pixels - n_reference - n_predicted + n_both, n_both]),
        np.array([n_pixels - n_reference, n_reference]),
        np.array([n_pixels - n_predicted, n_predicted]),
    )
    return metrics | {"dice": 2 * n_both / total if total else 1.0}


def match_instances(overlaps: np.ndarray) -> np.ndarray:
    """Match reference to predicted instances one to one, greedily by descending IoU.

    Args:
        overlaps: R x P IoU values; pairs with IoU 0 are never matched. Equal values go to the
            earlier reference, then to the earlier prediction.

    Returns:
        R integers: the column of the matched prediction, or -1.
    """
    matched = np.full(overlaps.shape[0], -1)
    free = np.ones(overlaps.shape[1], bool)
    for flat in np.argsort(-overlaps, axis=None, kind="stable"):
        row, column = np.unravel_index(flat, overlaps.shape)
        if overlaps[row, column] <= 0:
            break
        if matched[row] < 0 and free[column]:
            matched[row] = column
            free[column] = False
    return matched


def _metrics_from_counts(n: np.ndarray, t: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """The four metrics from n_ii, t_i and p_i of the same classes (integers, one dimension).

    Sums over C_u may run over C_gt: a class outside C_gt has n_ii = 0 and so adds 0.
    """
    present = t > 0
    n, t, p = n[present], t[present], p[present]
    class_iou = n / (t + p - n)
    return {
        "pixel_accuracy": float(n.sum() / t.sum()),
        "mean_accuracy": float(np.mean(n / t)),
        "mean_iou": float(class_iou.mean()),
        "frequency_weighted_iou": float((t * class_iou).sum() / t.sum()),
    }


def _check_pair(reference: np.ndarray, prediction: np.ndarray) -> None:
    if reference.shape != prediction.shape or not reference.size:
        raise ValueError(f"shapes differ or are empty: {reference.shape} and {prediction.shape}")
