"""The objects of many films, as files."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pydicom

from ..files import atomic_path
from ..measure.cohort import Film
from ..measure.film import Tuning, measure, spine_of_network
from .coding import Device
from .report import measurement_report
from .segmentation import segmentation


def write_objects(
    films: Sequence[Film],
    predictions: pd.DataFrame,
    dicom: Path,
    folder: Path,
    vertebrae: Sequence[str],
    tuning: Tuning,
    settings: Mapping[str, Any],
    network: str,
    weights: Path,
    log: logging.Logger,
) -> int:
    """Write a Segmentation (`{image_id}.seg.dcm`) and a structured report (`{image_id}.sr.dcm`).

    A film on which nothing was found has a report and no Segmentation; one that came as a picture
    has neither, as there is no object to refer to. The same films and weights give the same files.

    Args:
        films: to write of.
        predictions: the network's instances, with the columns of `predictions/networks/*.parquet`.
        dicom: folder with the de-identified films, `{image_id}.dcm`.
        folder: where the files go; made if it is not there.
        vertebrae: the classes of bodies.
        tuning: of the network.
        settings: `measure` of the configuration.
        network: its name.
        weights: its file, whose content is part of the version.
        log: where progress is told.

    Returns:
        How many objects there are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    version = hashlib.sha256(weights.read_bytes()).hexdigest()[:16]
    device = Device(network, f"weights {version}")
    by_film = dict(iter(predictions.groupby("image_id")))
    objects = [film for film in films if (dicom / f"{film.image_id}.dcm").is_file()]
    if len(objects) < len(films):
        pictures = len(films) - len(objects)
        log.info("%d films came as pictures: there is no object to refer to", pictures)
    count, told = 0, time.monotonic()
    for number, film in enumerate(objects, start=1):
        source = pydicom.dcmread(dicom / f"{film.image_id}.dcm", stop_before_pixels=True)
        instances = by_film.get(film.image_id, predictions.iloc[:0])
        spine = spine_of_network(instances, film.rows, film.columns, vertebrae, tuning)
        found = measure(spine, film.spacing_mm, settings, tuning.calibration)
        segments = segmentation(source, spine, device)
        report = measurement_report(source, segments, spine, found, device)
        for kind, made in (("seg", segments), ("sr", report)):
            if made is not None:
                with atomic_path(folder / f"{film.image_id}.{kind}.dcm") as temporary:
                    made.save_as(temporary, enforce_file_format=True)
                count += 1
        if time.monotonic() - told > 5 or number == len(objects):
            told = time.monotonic()
            log.info("film %d of %d", number, len(objects))
    return count
