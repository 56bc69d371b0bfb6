"""Per-image, per-class and per-instance tables, their summary, and Table 1."""

import numpy as np
import pandas as pd
import pytest

from lumbarflow.errors import InputError
from lumbarflow.evaluate.tables import (
    Reference,
    match_vertebrae,
    paper_order,
    score_masks,
    summarise,
    table1,
)
from lumbarflow.prepare.masks import bit_mask, rasterise
from lumbarflow.rle import encode

CLASSES = ["lumbar_vertebra", "sacral_vertebra", "cage"]
FOREGROUND = CLASSES[:2]
SHAPE = (60, 40)
COLUMNS = [
    *("image_id", "instance_id", "class_name", "level", "score"),
    *("rle_counts", "rle_height", "rle_width"),
]


def box(x, y, width=10, height=10):
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]


def structure(class_name, polygon, level=None):
    return {"class_name": class_name, "level": level, "polygon": polygon}


def reference(image_id, *structures):
    return Reference(image_id, bit_mask(list(structures), CLASSES, *SHAPE), structures)


def predicted(*rows):
    """Rows of (image_id, instance_id, class_name, polygon)."""
    return pd.DataFrame(
        [
            (image, name, kind, None, 0.9, encode(rasterise(polygon, *SHAPE)), *SHAPE)
            for image, name, kind, polygon in rows
        ],
        columns=COLUMNS,
    )


SPINE = reference(
    "film1",
    structure("lumbar_vertebra", box(5, 5), "L4"),
    structure("lumbar_vertebra", box(5, 20), "L5"),
    structure("sacral_vertebra", box(5, 40), "S1"),
)


def test_perfect_prediction():
    predictions = predicted(
        ("film1", "a", "lumbar_vertebra", box(5, 20)),
        ("film1", "b", "lumbar_vertebra", box(5, 5)),
        ("film1", "c", "sacral_vertebra", box(5, 40)),
    )
    per_image, per_class = score_masks("unet", predictions, [SPINE], CLASSES, FOREGROUND)
    instances = match_vertebrae("unet", predictions, [SPINE], FOREGROUND)
    assert per_image.drop(columns=["model", "image_id"]).eq(1).all(axis=None)
    assert per_class.set_index("class_name")["dice"].to_dict() == pytest.approx(
        {"lumbar_vertebra": 1, "sacral_vertebra": 1, "cage": np.nan}, nan_ok=True
    )
    assert per_class["n_reference"].tolist() == per_class["n_predicted"].tolist() == [2, 1, 0]
    assert instances["level"].tolist() == ["L4", "L5", "S1"]
    assert instances["matched_instance_id"].tolist() == ["b", "a", "c"]
    assert instances["iou"].tolist() == [1, 1, 1]
    assert instances["predicted_level"].isna().all()


def test_wrong_class_still_matches_but_costs_in_its_class():
    predictions = predicted(
        ("film1", "a", "sacral_vertebra", box(5, 20)), ("film1", "b", "cage", box(5, 5))
    )
    per_image, per_class = score_masks("unet", predictions, [SPINE], CLASSES, FOREGROUND)
    instances = match_vertebrae("unet", predictions, [SPINE], FOREGROUND)
    area = np.count_nonzero(rasterise(box(5, 5), *SHAPE))
    # One of three equal vertebrae is in the merged mask, whatever it is called; the cage is not.
    assert per_image["dice"].item() == pytest.approx(2 * area / (area + 3 * area))
    assert per_class["iou"].tolist() == [0, 0, 0]
    assert instances["matched_instance_id"].tolist() == [pd.NA, "a", pd.NA]
    assert instances["iou"].tolist() == [0, 1, 0]


def test_film_without_predictions_is_all_background():
    empty = reference("film2")
    other = predicted(("elsewhere", "a", "cage", box(0, 0)))
    per_image, per_class = score_masks("pspnet", other, [SPINE, empty], CLASSES, FOREGROUND)
    instances = match_vertebrae("pspnet", other, [SPINE, empty], FOREGROUND)
    assert per_image["image_id"].tolist() == ["film1", "film2"]
    assert per_image["dice"].tolist() == [0, 1]
    assert len(per_class) == 2 * len(CLASSES)
    assert per_class.loc[per_class["image_id"] == "film2", "dice"].isna().all()
    assert len(instances) == 3
    assert instances["matched_instance_id"].isna().all()


def test_no_predictions_at_all_and_integer_identifiers():
    nothing = pd.DataFrame(columns=COLUMNS)
    assert score_masks("unet", nothing, [SPINE], CLASSES, FOREGROUND)[0]["dice"].item() == 0
    numbered = predicted(("film1", 7, "lumbar_vertebra", box(5, 5)))
    instances = match_vertebrae("unet", numbered, [SPINE], FOREGROUND)
    assert instances["matched_instance_id"].tolist() == [7, pd.NA, pd.NA]


def test_overlapping_classes_are_scored_each():
    overlap = reference(
        "film1", structure("lumbar_vertebra", box(5, 5)), structure("cage", box(8, 8, 3, 3))
    )
    predictions = predicted(
        ("film1", "a", "lumbar_vertebra", box(5, 5)), ("film1", "b", "cage", box(8, 8, 3, 3))
    )
    per_class = score_masks("unet", predictions, [overlap], CLASSES, FOREGROUND)[1]
    assert per_class["iou"].tolist() == pytest.approx([1, np.nan, 1], nan_ok=True)


def test_bad_input_is_one_sentence():
    good = predicted(("film1", "a", "cage", box(5, 5)))
    with pytest.raises(InputError, match=r"foreground class 'disc' .*`classes`"):
        score_masks("unet", good, [SPINE], CLASSES, ["disc"])
    with pytest.raises(InputError, match=r"predictions/unet.parquet has the class 'rod'"):
        score_masks("unet", good.assign(class_name="rod"), [SPINE], CLASSES, FOREGROUND)
    with pytest.raises(InputError, match="mask of 61 x 40 pixels for the film film1 of 60 x 40"):
        score_masks("unet", good.assign(rle_height=61), [SPINE], CLASSES, FOREGROUND)


def scores(values, model="unet", **columns):
    frame = pd.DataFrame({"model": model, "image_id": [f"film{i}" for i in range(len(values))]})
    for metric in ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou", "dice"):
        frame[metric] = values
    return frame.assign(**columns)


def test_summary_of_one_patient_has_no_width():
    films = scores([0.5, 0.7, 0.9], patient_id="p")
    row = summarise(films, seed=1).iloc[0]
    assert row["mean"] == row["ci_low"] == row["ci_high"] == pytest.approx(0.7)
    assert row["n"] == 3
    by_film = summarise(films.drop(columns="patient_id"), seed=1).iloc[0]
    assert by_film["ci_low"] < 0.7 < by_film["ci_high"]


def test_interval_covers_like_the_normal_one():
    values = np.random.default_rng(0).normal(0.8, 0.05, 400)
    row = summarise(scores(values), seed=3).iloc[0]
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert row["mean"] == pytest.approx(values.mean())
    assert row["ci_low"] == pytest.approx(values.mean() - half, abs=half / 5)
    assert row["ci_high"] == pytest.approx(values.mean() + half, abs=half / 5)


def test_summary_does_not_depend_on_row_order_and_pairs_the_models():
    films = scores(np.linspace(0.1, 0.9, 12), patient_id=[f"p{i // 2}" for i in range(12)])
    first = summarise(films, seed=5)
    pd.testing.assert_frame_equal(first, summarise(films[::-1], seed=5))
    both = summarise(pd.concat([films, films.assign(model="yolact")]), seed=5)
    pd.testing.assert_frame_equal(
        both[both["model"] == "yolact"].drop(columns="model").reset_index(drop=True),
        first.drop(columns="model"),
    )


def test_table1_is_the_papers():
    summary = summarise(
        pd.concat([scores([0.98766], model) for model in ("own", "yolact", "unet")]), seed=0
    )
    table = table1(summary, ["own", "yolact", "unet"], {"unet": "U-Net", "yolact": "YOLACT"})
    assert table.columns.tolist() == ["metric", "U-Net", "YOLACT", "own"]
    assert table["metric"].tolist() == [
        "Pixel Accuracy Average",
        "Mean IoU Average",
        "Mean Accuracy Average",
        "Frequency Weighted IoU Average",
    ]
    assert set(table["U-Net"]) == {98.77}


def test_table1_needs_every_model():
    with pytest.raises(InputError, match=r"pspnet has no scores .*predictions/pspnet.parquet"):
        table1(summarise(scores([0.5]), seed=0), ["unet", "pspnet"], {})


def test_paper_order():
    models = ["yolact", "own", "deeplabv3", "unet", "pspnet", "mask_rcnn"]
    assert paper_order(models) == ["unet", "mask_rcnn", "pspnet", "deeplabv3", "yolact", "own"]
