"""A film from a network's instances, or an annotator's outlines, to a labelled, measured spine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np
import pandas as pd

from ..rle import decode
from . import bodies as bodies_of
from .anatomy import (
    CORNERS,
    Body,
    Endplate,
    Implant,
    LabelledSpine,
    Measurement,
    Shape,
    Vertebra,
)
from .confidence import Calibration, calibrated
from .levels import Prior, label
from .orientation import facing
from .quantities import measure_spine
from .shape import chain_directions, fit_shape

#: Columns of `measurements/{source}.parquet` and their types.
MEASUREMENTS = {
    "image_id": "string",
    "name": "string",
    "site": "string",
    "value": "float64",
    "unit": "string",
    "confidence": "float64",
    "status": "string",
    "reason": "string",
}
#: Columns of `measurements/vertebrae/{source}.parquet` and their types.
VERTEBRAE = {
    "image_id": "string",
    "instance_id": "string",
    "class_name": "string",
    "level": "string",
    "level_probability": "float64",
    "quality": "float64",
    "cut": "boolean",
    "repair": "string",
    "anterior": "string",
    "anterior_probability": "float64",
    "flags": "string",
    **{f"{corner}_{axis}": "float64" for corner in CORNERS for axis in "xy"},
}


@dataclass(frozen=True)
class Tuning:
    """What was chosen for one network on the validation films.

    Attributes:
        separation: how its instances are repaired.
        prior: what is expected of its bodies when they are labelled.
        calibration: from confidences to probabilities.
    """

    separation: bodies_of.Separation = field(default_factory=bodies_of.Separation)
    prior: Prior = field(default_factory=Prior)
    calibration: Calibration = field(default_factory=Calibration)


def spine_of_network(
    instances: pd.DataFrame,
    rows: int,
    columns: int,
    vertebrae: Sequence[str],
    tuning: Tuning,
) -> LabelledSpine:
    """Separate and label what a network saw on one film; see :func:`spines_of_network`."""
    return spines_of_network(instances, rows, columns, vertebrae, tuning)[0]


def spines_of_network(
    instances: pd.DataFrame,
    rows: int,
    columns: int,
    vertebrae: Sequence[str],
    tuning: Tuning,
) -> tuple[LabelledSpine, LabelledSpine]:
    """Label what a network saw on one film.

    Args:
        instances: rows of `predictions/networks/{model}.parquet` of the film.
        rows, columns: of the film.
        vertebrae: the classes of bodies; all other classes are implants.
        tuning: of the network.

    Returns:
        The spine of the repaired bodies, and that of the bodies as they were.
    """
    found = bodies_of.decode(instances, vertebrae)
    repaired = bodies_of.repair(found, rows, columns, tuning.separation)
    others = instances[~instances["class_name"].isin(list(vertebrae))]
    implants = [i for row in others.to_dict("records") if (i := _implant(row)) is not None]
    spine = _assemble(repaired, implants, rows, columns, tuning.prior)
    if {id(body) for body in repaired} == {id(body) for body in found}:
        return spine, spine
    return spine, _assemble(_downwards(found), implants, rows, columns, tuning.prior)


def spine_of_record(record: Mapping[str, Any], vertebrae: Sequence[str]) -> LabelledSpine:
    """The spine that annotators outlined on a film.

    Levels that they drew are taken for certain; others are found as for a network. Where they drew
    S1 as a line alone, that is its endplate.

    Args:
        record: the canonical record of the film.
        vertebrae: the classes of bodies; all other classes are implants.
    """
    rows, columns = record["rows"], record["columns"]
    found = bodies_of.of_record(record["structures"], rows, columns, vertebrae)
    implants = [
        Implant(s["structure_id"], s["class_name"], 1.0, np.array(s["polygon"], float), s["level"])
        for s in record["structures"]
        if s["class_name"] not in vertebrae
    ]
    spine = _assemble(_downwards(found), implants, rows, columns, Prior())
    lines = [line for line in record.get("lines", ()) if line["level"] == "S1"]
    if not lines or any(vertebra.level == "S1" for vertebra in spine.vertebrae):
        return spine
    s1 = _endplate_alone(lines[0], spine.anterior)
    return replace(spine, vertebrae=(*spine.vertebrae, s1), sacrum_seen=True)


def _assemble(
    bodies: Sequence[Body],
    implants: Sequence[Implant],
    rows: int,
    columns: int,
    prior: Prior,
) -> LabelledSpine:
    """The labelled spine of bodies in their order from cranial to caudal."""
    anterior, sure = facing(bodies, implants)
    centres = np.array([_centre(body) for body in bodies]).reshape(-1, 2)
    directions = chain_directions(centres, anterior)
    shapes = [
        fit_shape(body, cranial, front, rows, columns)
        for body, cranial, front in zip(bodies, *directions, strict=True)
    ]
    labels = label(bodies, shapes, anterior, prior)
    chain = []
    for body, shape, level, probability in zip(
        bodies, shapes, labels.levels, labels.probabilities, strict=True
    ):
        drawn = body.level is not None
        chain.append(
            Vertebra(
                body, body.level if drawn else level, 1.0 if drawn else float(probability), shape
            )
        )
    seen = labels.sacrum_seen or any(body.level == "S1" for body in bodies)
    # Where annotators named every body there is nothing left to doubt.
    flags = () if bodies and all(body.level for body in bodies) else labels.flags
    return LabelledSpine(rows, columns, tuple(chain), anterior, sure, seen, flags, tuple(implants))


def measure(
    spine: LabelledSpine,
    spacing_mm: float | None,
    settings: Mapping[str, Any],
    calibration: Calibration,
) -> list[Measurement]:
    """Measure a spine.

    Args:
        spine: what was seen.
        spacing_mm: side of a pixel in the patient; None where it is unknown.
        settings: `measure` of the configuration.
        calibration: of the network; the default one for annotators.
    """
    raw = measure_spine(spine, spacing_mm, cobb=[tuple(pair) for pair in settings["cobb"]])
    return calibrated(raw, calibration, settings["uncertain_below"])


def measurement_rows(image_id: str, found: Sequence[Measurement]) -> list[dict[str, Any]]:
    """Rows of `measurements/{source}.parquet`."""
    names = list(MEASUREMENTS)[1:]
    return [{"image_id": image_id} | {name: getattr(m, name) for name in names} for m in found]


def vertebra_rows(image_id: str, spine: LabelledSpine) -> list[dict[str, Any]]:
    """Rows of `measurements/vertebrae/{source}.parquet`, from cranial to caudal."""
    rows = []
    for vertebra in spine.vertebrae:
        body, shape = vertebra.body, vertebra.shape
        row = {
            "image_id": image_id,
            "instance_id": body.instance_id,
            "class_name": body.class_name,
            "level": vertebra.level,
            "level_probability": vertebra.level_probability,
            "quality": None if shape is None else shape.quality,
            "cut": None if shape is None else shape.cut,
            "repair": body.repair,
            "anterior": spine.anterior,
            "anterior_probability": spine.anterior_probability,
            "flags": " ".join(spine.flags),
        }
        if shape is not None:
            for corner, (x, y) in zip(CORNERS, shape.corners, strict=True):
                row |= {f"{corner}_x": x, f"{corner}_y": y}
        rows.append(row)
    return rows


def prediction_rows(instances: pd.DataFrame, spine: LabelledSpine) -> list[dict[str, Any]]:
    """Rows of `predictions/{model}.parquet`: the labelled bodies, then the implants as they were.

    Args:
        instances: as of :func:`spine_of_network`.
        spine: what became of them.
    """
    image_id = instances["image_id"].iloc[0] if len(instances) else None
    rows = []
    for vertebra in spine.vertebrae:
        row = bodies_of.encode(vertebra.body, image_id, spine.rows, spine.columns)
        rows.append(
            row
            | {
                "level": vertebra.level,
                "level_probability": vertebra.level_probability,
                "repair": vertebra.body.repair,
            }
        )
    kept = {implant.instance_id for implant in spine.implants}
    for row in instances[instances["instance_id"].isin(kept)].to_dict("records"):
        rows.append(row | {"level": None, "level_probability": None, "repair": ""})
    return rows


def _endplate_alone(line: Mapping[str, Any], anterior: str) -> Vertebra:
    """S1, of which only the upper endplate was drawn."""
    points = np.array(line["points"], float)
    ends = points[[0, -1]]
    posterior, front = ends[np.argsort(ends[:, 0] * (1 if anterior == "right" else -1))]
    plate = Endplate(posterior, front, (posterior + front) / 2, 0.0, 1.0)
    body = Body(line["structure_id"], "sacral_vertebra", 1.0, (0, 0), np.zeros((1, 1), bool))
    return Vertebra(body, "S1", 1.0, Shape(points, plate, plate, (), 1.0, cut=False))


def _downwards(bodies: Sequence[Body]) -> list[Body]:
    """Bodies from the top of the film to its bottom."""
    return sorted(bodies, key=lambda body: _centre(body)[1])


def _centre(body: Body) -> np.ndarray:
    """Centre of area of a body on the film, px."""
    moments = cv2.moments(body.mask.astype(np.uint8), binaryImage=True)
    area = max(moments["m00"], 1.0)
    return np.array([moments["m10"], moments["m01"]]) / area + 0.5 + np.array(body.origin)


def _implant(row: Mapping[str, Any]) -> Implant | None:
    """The largest part of a predicted implant; None where there is hardly any."""
    x, y = int(row["bbox_x"]), int(row["bbox_y"])
    mask = decode(row["rle_counts"], int(row["rle_height"]), int(row["rle_width"]))
    window = mask[y : y + int(row["bbox_h"]), x : x + int(row["bbox_w"])].astype(np.uint8)
    contours, _ = cv2.findContours(window, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(contours, key=cv2.contourArea, default=None)
    if largest is None or len(largest) < 3:
        return None
    outline = largest[:, 0].astype(float) + 0.5 + (x, y)
    return Implant(row["instance_id"], row["class_name"], float(row["score"]), outline)
