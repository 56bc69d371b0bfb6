"""Records as a COCO instances data set (Lin et al., "Microsoft COCO", ECCV 2014)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..annotate.watching import digest, pictures_digest, structures_digest
from ..errors import InputError
from .masks import Polygon, rasterise_window


def coco_dataset(
    records: Iterable[Mapping[str, Any]], images: pd.DataFrame, classes: Sequence[str]
) -> dict[str, Any]:
    """The COCO instances data set of some films.

    Args:
        records: records of films (see :mod:`lumbarflow.annotate.records`); more than the films of
            the subset are welcome.
        images: the films of the subset, in order, as columns image_id and, where known, patient_id.
        classes: the class names in configuration order: categories 1, 2, ...

    Returns:
        The data set as it goes into JSON. Images carry their pseudonyms as image_id and patient_id,
        annotations their level and structure_id, beside the usual keys. Polygons are cut at the
        border of the film; area is the number of pixels, by the rule of
        :mod:`lumbarflow.prepare.masks`.

    Raises:
        InputError: a film has no record.
    """
    by_id = {record["image_id"]: record for record in records}
    categories = {name: number for number, name in enumerate(classes, 1)}
    coco_images, annotations = [], []
    patients = images.set_index("image_id").get("patient_id", {})
    for number, image_id in enumerate(images["image_id"], 1):
        if image_id not in by_id:
            raise InputError(
                f"The film {image_id} has no annotation record: run the workflow again from the "
                "annotations on."
            )
        record = by_id[image_id]
        rows, columns = record["rows"], record["columns"]
        coco_images.append(
            {
                "id": number,
                "file_name": f"{image_id}.png",
                "height": rows,
                "width": columns,
                "image_id": image_id,
                **({"patient_id": patients[image_id]} if len(patients) else {}),
            }
        )
        for structure in record["structures"]:
            polygon = clip(structure["polygon"], rows, columns)
            x, y = polygon.min(axis=0).tolist()
            width, height = np.ptp(polygon, axis=0).tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": categories[structure["class_name"]],
                    "segmentation": [polygon.ravel().tolist()],
                    "area": int(rasterise_window(polygon, rows, columns)[2].sum()),
                    "bbox": [x, y, width, height],
                    "iscrowd": 0,
                    "level": structure["level"],
                    "structure_id": structure["structure_id"],
                }
            )
    return {
        "info": {"description": "Lateral lumbar spine radiographs, annotated structures"},
        "licenses": [],
        "images": coco_images,
        "annotations": annotations,
        "categories": [
            {"id": number, "name": name, "supercategory": "spine"}
            for name, number in categories.items()
        ],
    }


def subset_digests(
    subset: str, dataset: Mapping[str, Any], image_ids: Sequence[str], records: Path, pictures: Path
) -> dict[str, str]:
    """Digests of just what training, labelling and evaluation use of a subset.

    Args:
        subset: train, val or test.
        dataset: its COCO data set.
        image_ids: its films.
        records: folder with `{image_id}.json`.
        pictures: folder with `{image_id}.png`.

    Returns:
        `pictures`, `structures`, and of train and val `annotations`: networks do not see levels,
        labelling and metrics do.
    """
    digests = {
        "pictures": pictures_digest(pictures, image_ids),
        "structures": structures_digest(records, image_ids),
    }
    if subset != "test":
        digests["annotations"] = training_digest(dataset)
    return digests


def training_digest(dataset: Mapping[str, Any]) -> str:
    """A digest of what networks see of a data set: films, classes and outlines, but no levels."""
    unseen = ("level", "structure_id")
    annotations = [
        {key: value for key, value in annotation.items() if key not in unseen}
        for annotation in dataset["annotations"]
    ]
    return digest(dict(dataset) | {"annotations": annotations})


def clip(polygon: Polygon, rows: int, columns: int) -> np.ndarray:
    """Cut a polygon at the border of an image (Sutherland and Hodgman, CACM 17, 1974).

    Returns:
        Points (M x 2, float) within [0, columns] x [0, rows]; the polygon itself where it already
        lies within. A concave polygon cut in two stays one, joined along the border.
    """
    points = np.asarray(polygon, dtype=float).reshape(-1, 2)
    for axis, limit, sign in ((0, 0, 1), (0, columns, -1), (1, 0, 1), (1, rows, -1)):
        inner = sign * (points[:, axis] - limit)
        if (inner >= 0).all():
            continue
        kept = []
        for k in range(len(points)):
            before, here = inner[k - 1], inner[k]
            if (before < 0) != (here < 0):
                cut = points[k - 1] + (points[k] - points[k - 1]) * (before / (before - here))
                cut[axis] = limit
                kept.append(cut)
            if here >= 0:
                kept.append(points[k])
        points = np.array(kept).reshape(-1, 2)
    return points
