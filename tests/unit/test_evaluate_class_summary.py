"""Figures by class, their intervals, and how far scores keep their word."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from lumbarflow.evaluate.class_summary import CLASS_SUMMARY, summarise_classes
from lumbarflow.evaluate.detection import THRESHOLDS, average_precision, panoptic_quality
from lumbarflow.evaluate.film import BOUNDARIES, COUNTS, DETECTIONS, FOREGROUND, INSTANCES, RIGHT
from lumbarflow.evaluate.scores import ALL, SCORE_RELIABILITY, score_reliability
from lumbarflow.evaluate.tables import METRICS, pixel_tables, summarise

CLASSES = ["lumbar_vertebra", "cage", "screw"]
PATIENTS = pd.DataFrame(
    {"image_id": [f"film{k}" for k in range(12)], "patient_id": [f"p{k // 2}" for k in range(12)]}
)


def frame(rows, columns):
    return pd.DataFrame(rows, columns=list(columns)).astype(columns)


def tables(model="unet", seed=0):
    """Made-up rows of twelve films; screws are on none of them, cages on every other one."""
    rng = np.random.default_rng(seed)
    counts, boundaries, detections, instances = [], [], [], []
    for number, image_id in enumerate(PATIENTS["image_id"]):
        key = {"model": model, "image_id": image_id}
        for name in [*CLASSES, FOREGROUND]:
            there = name != "screw" and (name != "cage" or number % 2)
            n = 1000 * there
            both = int(n * rng.uniform(0.7, 1))
            pairs = 4 * there
            counts.append(
                key
                | {"class_name": name, "n_both": both, "n_reference": n, "n_predicted": n}
                | {"n_pixels": 9000, "reference_instances": 5 * there}
                | {"predicted_instances": 5 * there, "matched_instances": pairs}
                | {"matched_iou": pairs * rng.uniform(0.6, 0.9)}
            )
            unit = "px" if number < 2 else "mm"
            near = rng.uniform(0.5, 1) if there else np.nan
            boundaries.append(
                key
                | {"class_name": name, "unit": unit, "tolerance": 1.0, "surface_dice": near}
                | dict.fromkeys(list(BOUNDARIES)[5:9], 1.0)
                | dict.fromkeys(["hausdorff_95", "mean_distance"], 10 * (1 - near))
            )
            for k in range(5 * (there and name != FOREGROUND)):
                right = rng.random() < 0.8
                detections.append(
                    key
                    | {"instance_id": f"{image_id}-{name}-{k}", "class_name": name}
                    | {"score": rng.random(), "structure_id": "a", "iou": 0.8 * right}
                    | {name: right and k > at // 2 for at, name in enumerate(RIGHT)}
                )
        for level in ("L4", "L5", None):
            told = level if rng.random() < 0.7 else "L3"
            instances.append(
                key
                | {"class_name": "lumbar_vertebra", "level": level, "matched_instance_id": "a"}
                | {"iou": rng.choice([0.4, 0.9]), "predicted_level": told}
                | {"level_probability": 0.9, "waviness": 1.5, "reference_waviness": 1.0}
            )
    return {
        "counts": frame(counts, COUNTS),
        "boundaries": frame(boundaries, BOUNDARIES),
        "detections": frame(detections, DETECTIONS),
        "instances": frame(instances, INSTANCES),
    }


@pytest.fixture(scope="module")
def made():
    return tables()


@pytest.fixture(scope="module")
def summary(made):
    return summarise_classes(made, PATIENTS, seed=3, n_boot=200)


def figure(summary, class_name, metric, unit=None):
    rows = summary[(summary["class_name"] == class_name) & (summary["metric"] == metric)]
    return (rows if unit is None else rows[rows["unit"] == unit]).squeeze()


def test_columns_and_order_of_the_interval(summary):
    assert summary.dtypes.astype(str).to_dict() == CLASS_SUMMARY
    assert (summary["ci_low"] <= summary["value"] + 1e-12).mean() > 0.9
    assert (summary["ci_low"] <= summary["ci_high"]).all()
    assert not summary.duplicated(["model", "class_name", "metric", "unit"]).any()


def test_the_foreground_is_that_of_the_main_summary(made, summary):
    per_image, _ = pixel_tables(made["counts"])
    main = summarise(per_image.merge(PATIENTS), seed=3, n_boot=200).set_index("metric").loc["dice"]
    found = figure(summary, FOREGROUND, "dice")
    assert [found["value"], found["ci_low"], found["ci_high"], found["n"]] == pytest.approx(
        [main["mean"], main["ci_low"], main["ci_high"], main["n"]]
    )
    assert list(METRICS)[-1] == "dice"


def test_means_are_over_the_films_that_have_the_class(made, summary):
    _, per_class = pixel_tables(made["counts"])
    cages = per_class[per_class["class_name"] == "cage"]
    assert figure(summary, "cage", "iou")["n"] == 6
    assert figure(summary, "cage", "iou")["value"] == pytest.approx(cages["iou"].mean())
    assert figure(summary, "screw", "iou").empty
    assert figure(summary, "screw", "panoptic_quality").empty
    assert figure(summary, "screw", "ap").empty


def test_millimetres_and_pixels_are_apart(made, summary):
    rows = made["boundaries"].query("class_name == 'lumbar_vertebra'").groupby("unit")
    for unit, films in rows:
        found = figure(summary, "lumbar_vertebra", "hausdorff_95", unit)
        assert found["value"] == pytest.approx(films["hausdorff_95"].mean())
        assert found["n"] == {"mm": 10, "px": 2}[unit]


def test_average_precision_by_class_and_over_classes(made, summary):
    values = []
    for name in CLASSES[:2]:
        part = made["detections"].query("class_name == @name")
        n = made["counts"].query("class_name == @name")["reference_instances"].sum()
        precision = average_precision(part["score"], part[list(RIGHT)], n)
        values.append(precision.mean())
        assert figure(summary, name, "ap")["value"] == pytest.approx(precision.mean())
        assert figure(summary, name, "ap_75")["value"] == pytest.approx(
            precision[np.isclose(THRESHOLDS, 0.75)][0]
        )
        assert figure(summary, name, "ap")["n"] == n
    assert figure(summary, ALL, "ap")["value"] == pytest.approx(np.mean(values))
    assert figure(summary, ALL, "ap")["ci_low"] < np.mean(values)


def test_panoptic_quality_is_of_the_sums(made, summary):
    sums = made["counts"].query("class_name == 'cage'").sum(numeric_only=True)
    expected = panoptic_quality(
        *sums[["matched_instances", "matched_iou", "reference_instances", "predicted_instances"]]
    )
    for metric, value in expected.items():
        assert figure(summary, "cage", metric)["value"] == pytest.approx(value)
    both = [figure(summary, name, "panoptic_quality")["value"] for name in CLASSES[:2]]
    assert figure(summary, ALL, "panoptic_quality")["value"] == pytest.approx(np.mean(both))


def test_recognition_rate_counts_vertebrae_with_a_level(made, summary):
    named = made["instances"].dropna(subset="level")
    right = (named["predicted_level"] == named["level"]) & (named["iou"] >= 0.5)
    found = figure(summary, FOREGROUND, "recognition_rate")
    assert found["value"] == pytest.approx(right.mean())
    assert found["n"] == 24


def test_calibration_error_is_that_of_the_reliability(made, summary):
    table = score_reliability(made["detections"])
    assert table.dtypes.astype(str).to_dict() == SCORE_RELIABILITY
    for name in (ALL, "cage"):
        bins = table[table["class_name"] == name]
        gap = (bins["confidence"] - bins["right"]).abs()
        found = figure(summary, name, "calibration_error")
        assert found["value"] == pytest.approx(np.average(gap, weights=bins["n"]))
        assert found["n"] == bins["n"].sum() == (60 + 30 if name == ALL else 30)


def test_one_patient_has_no_width(made):
    one = PATIENTS.assign(patient_id="p")
    summary = summarise_classes(made, one, seed=0, n_boot=100)
    assert summary["ci_low"].to_numpy() == pytest.approx(summary["value"].to_numpy())
    assert summary["ci_high"].to_numpy() == pytest.approx(summary["value"].to_numpy())


def test_models_see_the_same_draws(made, summary):
    other = tables("yolact")
    both = {name: pd.concat([made[name], other[name]]) for name in made}
    found = summarise_classes(both, PATIENTS, seed=3, n_boot=200)
    for model in ("unet", "yolact"):
        part = found[found["model"] == model].drop(columns="model").reset_index(drop=True)
        pd.testing.assert_frame_equal(part, summary.drop(columns="model"))


def test_a_network_that_saw_nothing(made):
    nothing = dict(made)
    nothing["detections"] = made["detections"].iloc[:0]
    columns = ["n_both", "n_predicted", "predicted_instances", "matched_instances"]
    nothing["counts"] = made["counts"].assign(**dict.fromkeys(columns, 0), matched_iou=0.0)
    summary = summarise_classes(nothing, PATIENTS, seed=0, n_boot=100)
    assert figure(summary, ALL, "ap")["value"] == 0
    assert figure(summary, "cage", "panoptic_quality")["value"] == 0
    assert figure(summary, "cage", "segmentation_quality").empty
    assert figure(summary, ALL, "calibration_error").empty
    assert score_reliability(nothing["detections"]).empty
