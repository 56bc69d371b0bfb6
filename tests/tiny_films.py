"""A prepared data set of few and small films, for tests of training and prediction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from lumbarflow.files import write_json, write_png
from lumbarflow.prepare.coco import coco_dataset
from lumbarflow.prepare.masks import bit_mask, rasterise

CLASSES = ["lumbar_vertebra", "sacral_vertebra", "screw"]
FILM = 150, 83  # rows and columns: no multiple of anything that networks need

AUGMENTATION = {
    "rotation_degrees": 8,
    "scale": 0.12,
    "shift": 0.06,
    "contrast": 0.25,
    "flip_probability": 0.5,
    "local_contrast": 0.3,
    "shading": 0.15,
    "sharpness": 0.5,
    "noise": 0.03,
    "collimation_probability": 0.2,
    "implant_probability": 0.2,
    "cutout_probability": 0.2,
}
STILL = dict.fromkeys(AUGMENTATION, 0.0)
"""Limits that leave a film as it is."""


def structures(rng: np.random.Generator) -> list[dict]:
    """Two lumbar vertebrae, a sacral one, and a screw that lies over the first."""
    x, y = rng.uniform(20, 30), rng.uniform(12, 22)

    def box(left, top, width, height, class_name):
        right, bottom = left + width, top + height
        polygon = [[left, top], [right, top + 2.3], [right - 1.6, bottom], [left + 0.7, bottom]]
        return {
            "structure_id": f"{class_name}-{top:.0f}",
            "class_name": class_name,
            "level": None,
            "polygon": polygon,
        }

    return [
        box(x, y, 34, 30, "lumbar_vertebra"),
        box(x - 3, y + 40, 34, 30, "lumbar_vertebra"),
        box(x - 6, y + 82, 30, 28, "sacral_vertebra"),
        box(x - 10, y + 10, 30, 7, "screw"),
    ]


def film(found: list[dict], rng: np.random.Generator) -> np.ndarray:
    """A picture (FILM, uint8) on which the structures are brighter than the rest."""
    picture = np.full(FILM, 50.0)
    for structure in found:
        bright = 230 if structure["class_name"] == "screw" else 150
        picture[rasterise(structure["polygon"], *FILM)] = bright
    return np.clip(picture + rng.normal(0, 6, FILM), 1, 255).astype(np.uint8)


def write(folder: Path, *, train: int = 3, val: int = 2, bare: bool = False) -> tuple[Path, Path]:
    """Write films, masks and COCO files; return the prepared folder and that of the films.

    With `bare`, the first training film has no structure.
    """
    prepared, pictures = folder / "prepared", folder / "png"
    rng = np.random.default_rng(7)
    for subset, count in (("train", train), ("val", val), ("test", 1)):
        records = []
        for number in range(count):
            image_id = f"{subset}{number}"
            found = [] if bare and image_id == "train0" else structures(rng)
            write_png(pictures / f"{image_id}.png", film(found, rng))
            write_png(prepared / "masks" / f"{image_id}.png", bit_mask(found, CLASSES, *FILM))
            records.append(
                {
                    "image_id": image_id,
                    "rows": FILM[0],
                    "columns": FILM[1],
                    "structures": found,
                }
            )
        table = pd.DataFrame({"image_id": [record["image_id"] for record in records]})
        write_json(prepared / "coco" / f"{subset}.json", coco_dataset(records, table, CLASSES))
    return prepared, pictures


def parameters(**network) -> dict:
    """`network`, `training`, `classes` and `foreground` of a training of two epochs."""
    return {
        "network": {
            "backbone": "resnet18",
            "width": 8,
            "weights": None,
            "size": [96, 64],
            "iterations": 4,
            "epoch_iterations": 2,
            "batch_size": 2,
            "learning_rate": 0.001,
            "weight_decay": 0.01,
            "moving_average": 0.9,
        }
        | network,
        "training": {"seed": 3, "augmentation": AUGMENTATION},
        "classes": CLASSES,
        "foreground": ["lumbar_vertebra", "sacral_vertebra"],
    }
