"""Per-image, per-class and per-instance tables, their summary, and Table 1."""

import logging

import numpy as np
import pandas as pd
import pytest

from lumbarflow.errors import InputError
from lumbarflow.evaluate.film import BOUNDARIES, COUNTS, DETECTIONS
from lumbarflow.evaluate.tables import (
    Reference,
    match_vertebrae,
    paper_order,
    pixel_tables,
    score_all,
    score_masks,
    summarise,
    table1,
)
from lumbarflow.files import write_json, write_png, write_table
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
    with pytest.raises(InputError, match=r"`classes` .* has 'all', .* another name"):
        score_masks("unet", good, [SPINE], [*CLASSES, "all"], FOREGROUND)
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


EVALUATION = {
    "foreground": FOREGROUND,
    "tolerance_mm": 1.0,
    "tolerance_px": 3,
    "bootstrap_samples": 100,
    "seed": 1,
}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Two films of two patients, one without a known spacing, seen by two networks."""
    folder = tmp_path_factory.mktemp("cohort")
    drawn = [
        structure("lumbar_vertebra", box(5, 5), "L4"),
        structure("lumbar_vertebra", box(5, 20), "L5"),
        structure("cage", box(6, 16, 6, 3)),
    ]
    for number, image_id in enumerate(("film1", "film2")):
        structures = [
            one | {"structure_id": f"{image_id}-{k}", "annotator": "a", "source": "via"}
            for k, one in enumerate(drawn[: 3 - number])
        ]
        write_png(folder / f"masks/{image_id}.png", bit_mask(structures, CLASSES, *SHAPE))
        record = {"image_id": image_id, "rows": SHAPE[0], "columns": SHAPE[1]}
        write_json(folder / f"records/{image_id}.json", record | {"structures": structures})
    perfect = predicted(
        ("film1", "film1-p000", "lumbar_vertebra", box(5, 5)),
        ("film1", "film1-p001", "lumbar_vertebra", box(5, 20)),
        ("film1", "film1-p002", "cage", box(6, 16, 6, 3)),
        ("film2", "film2-p000", "lumbar_vertebra", box(5, 5)),
        ("film2", "film2-p001", "lumbar_vertebra", box(5, 20)),
    ).assign(level_probability=0.9)
    # One body for two on the first film, nothing on the second.
    fused = predicted(("film1", "film1-p000", "lumbar_vertebra", box(5, 5, 10, 25)))
    for model, table in (("unet", perfect), ("yolact", fused.assign(level_probability=0.9))):
        table["level"] = table["level"].astype("string")
        write_table(folder / f"{model}.parquet", table)
    return folder


FILMS = pd.DataFrame(
    {
        "image_id": ["film1", "film2"],
        "patient_id": ["p1", "p2"],
        "pixel_spacing_mm": [0.5, np.nan],
    }
)


def score(folder, films=FILMS, processes=1, models=("unet", "yolact")):
    paths = {
        model: dict.fromkeys(("networks", "unrepaired", "labelled"), folder / f"{model}.parquet")
        for model in models
    }
    places = folder / "masks", folder / "records"
    log = logging.getLogger("test")
    return score_all(paths, films, *places, CLASSES, EVALUATION, {}, processes, log)


def test_all_tables_of_a_cohort(cohort):
    tables = score(cohort)
    table1 = tables.pop("table1")
    assert {name: list(tables[name]) for name in ("counts", "boundaries", "detections")} == {
        "counts": list(COUNTS),
        "boundaries": list(BOUNDARIES),
        "detections": list(DETECTIONS),
    }
    assert set(table1["unet"]) == {100}
    counts = tables["counts"].set_index(["model", "image_id", "class_name"])
    assert len(counts) == 2 * 2 * (len(CLASSES) + 1)
    assert counts.loc["unet", "film1", "foreground"]["n_both"] == 200
    assert counts.loc["unet", "film1", "lumbar_vertebra"]["matched_iou"] == 2
    fused = counts.loc["yolact", "film1", "foreground"]
    assert (fused["n_both"], fused["n_predicted"], fused["n_pixels"]) == (200, 250, 2400)
    assert (fused["predicted_instances"], fused["matched_instances"]) == (1, 0)
    # Both aggregates follow from the counts.
    per_image, per_class = pixel_tables(tables["counts"])
    pd.testing.assert_frame_equal(per_image, tables["per_image"])
    pd.testing.assert_frame_equal(per_class, tables["per_class"])
    alone = score_masks(
        "yolact", pd.read_parquet(cohort / "yolact.parquet"), [], CLASSES, FOREGROUND
    )
    assert [list(table) for table in alone] == [list(per_image), list(per_class)]


def test_boundaries_are_in_mm_where_the_spacing_is_known(cohort):
    boundaries = score(cohort)["boundaries"].set_index(["model", "image_id", "class_name"])
    near, far = (boundaries.loc["unet", film, "foreground"] for film in ("film1", "film2"))
    assert (near["unit"], near["tolerance"], far["unit"], far["tolerance"]) == ("mm", 1, "px", 3)
    assert near["reference_length"] == pytest.approx(far["reference_length"] / 2)
    assert near["hausdorff_95"] == far["mean_distance"] == 0
    missed = boundaries.loc["yolact", "film2", "lumbar_vertebra"]
    assert np.isnan(missed["hausdorff_95"])
    assert missed["surface_dice"] == 0
    absent = boundaries.loc["unet", "film2", "cage"]
    assert np.isnan(absent["surface_dice"])


def test_detections_name_the_structure_of_their_class(cohort):
    tables = score(cohort)
    detections = tables["detections"].set_index(["model", "instance_id"])
    right = [f"right_{k}" for k in range(50, 100, 5)]
    assert detections.loc["unet", right].all(axis=None)
    assert detections.loc["unet", "film1-p001"]["structure_id"] == "film1-1"
    fused = detections.loc["yolact", "film1-p000"]
    assert fused["structure_id"] == "film1-0"
    assert fused["iou"] == pytest.approx(100 / 250)
    assert not fused[right].any()
    summary = tables["class_summary"].set_index(["model", "class_name", "metric"])["value"]
    assert summary["unet", "all", "ap"] == summary["unet", "all", "panoptic_quality"] == 1
    assert summary["yolact", "all", "ap"] == summary["yolact", "all", "panoptic_quality"] == 0


def test_waviness_only_where_a_vertebra_is_found(cohort):
    instances = score(cohort)["instances"].set_index("model")
    assert instances.loc["unet", ["waviness", "reference_waviness"]].eq(1).all(axis=None)
    assert instances.loc["yolact", ["waviness", "reference_waviness"]].isna().all(axis=None)
    assert instances["iou_unrepaired"].tolist() == instances["iou"].tolist()


def test_processes_and_order_of_films_change_nothing(cohort):
    one, two = score(cohort), score(cohort, processes=2)
    turned = score(cohort, FILMS[::-1])
    for name, table in one.items():
        pd.testing.assert_frame_equal(table, two[name])
        if name in ("summary", "class_summary", "score_reliability", "table1"):
            pd.testing.assert_frame_equal(table, turned[name])


def test_one_film_and_one_network(cohort):
    tables = score(cohort, FILMS[:1], models=["yolact"])
    assert set(tables["class_summary"]["model"]) == {"yolact"}
    assert (tables["summary"]["ci_low"] == tables["summary"]["mean"]).all()
