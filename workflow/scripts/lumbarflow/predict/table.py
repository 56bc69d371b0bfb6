"""The prediction table that every network fills (design: `predictions/{model}.parquet`)."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch

from .. import networks, rle
from ..files import read_grey
from ..networks.base import Instance
from ..train.run import read_weights

COLUMNS = {
    "image_id": "string",
    "instance_id": "string",
    "class_name": "string",
    "level": "string",
    "score": "float64",
    "bbox_x": "float64",
    "bbox_y": "float64",
    "bbox_w": "float64",
    "bbox_h": "float64",
    "rle_counts": "string",
    "rle_height": "int64",
    "rle_width": "int64",
}


def predict(
    model: str,
    weights: Path,
    image_ids: list[str],
    pictures: Path,
    thresholds: Mapping[str, float | None],
    threads: int,
    log: logging.Logger,
) -> pd.DataFrame:
    """Predict the films and return a row an instance; boxes in pixels of the film.

    Args:
        model: name of the network.
        weights: what training wrote.
        image_ids: the films.
        pictures: folder with `{image_id}.png`.
        thresholds: `predict` of the configuration; where it is None, what training chose counts.
        threads: CPU threads.
        log: where progress is told.

    Raises:
        InputError: a film is missing or unreadable.
    """
    torch.set_num_threads(threads)
    settings, state, chosen = read_weights(weights)
    limits = {name: chosen.get(name) if v is None else v for name, v in thresholds.items()}
    rows = []
    started = time.monotonic()
    found = networks.load(model).predict(state, _films(image_ids, pictures), settings, limits)
    for number, (image_id, instances) in enumerate(found, start=1):
        rows += [row(image_id, index, instance) for index, instance in enumerate(instances)]
        left = (time.monotonic() - started) / number * (len(image_ids) - number)
        if number % 10 == 0 or number == len(image_ids):
            log.info("film %d of %d, about %.0f s left", number, len(image_ids), left)
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def row(image_id: str, index: int, instance: Instance) -> dict[str, object]:
    """The table row of an instance; its level is unknown before labelling."""
    mask = instance.mask.astype(np.uint8)
    x, y, width, height = cv2.boundingRect(mask)
    return {
        "image_id": image_id,
        "instance_id": f"{image_id}-p{index:03d}",
        "class_name": instance.class_name,
        "level": None,
        "score": instance.score,
        "bbox_x": x,
        "bbox_y": y,
        "bbox_w": width,
        "bbox_h": height,
        "rle_counts": rle.encode(mask),
        "rle_height": mask.shape[0],
        "rle_width": mask.shape[1],
    }


def _films(image_ids: list[str], pictures: Path) -> Iterator[tuple[str, np.ndarray]]:
    for image_id in image_ids:
        yield image_id, read_grey(pictures / f"{image_id}.png")
