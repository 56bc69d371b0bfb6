"""The films of a cohort, each labelled and measured, on all cores."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from ..annotate.records import read_record
from ..annotate.spine import LEVELS, RANK, skipped
from ..errors import InputError
from ..evaluate.metrics import match_instances
from ..files import read_grey, read_json, write_json, write_png
from ..parallel import each
from . import bodies as bodies_of
from .anatomy import Body, LabelledSpine, Measurement
from .confidence import Calibration, fit, judge
from .film import (
    MEASUREMENTS,
    VERTEBRAE,
    Tuning,
    measure,
    measurement_rows,
    prediction_rows,
    spine_of_network,
    spine_of_record,
    spines_of_network,
    vertebra_rows,
)
from .levels import Known, Prior, learn
from .pictures import overlay

#: What a labelled prediction has besides the columns of the raw one.
LABELLED = {"level_probability": "float64", "repair": "string"}


@dataclass(frozen=True)
class Film:
    """A film to measure: rows and columns in pixels; spacing_mm is None where it is unknown."""

    image_id: str
    rows: int
    columns: int
    spacing_mm: float | None


def films_of(manifest: pd.DataFrame, image_ids: Iterable[str]) -> list[Film]:
    """The films of these names, in their order.

    Raises:
        InputError: one of them is not among the accepted films.
    """
    accepted = manifest[manifest["status"] == "accepted"].set_index("image_id")
    films = []
    for image_id in image_ids:
        if image_id not in accepted.index:
            raise InputError(
                f"images/manifest.parquet has no accepted film {image_id}: run the workflow again."
            )
        row = accepted.loc[image_id]
        spacing = row["pixel_spacing_mm"]
        films.append(
            Film(
                image_id,
                int(row["rows"]),
                int(row["columns"]),
                None if pd.isna(spacing) else float(spacing),
            )
        )
    return films


def read_tuning(path: str | Path) -> Tuning:
    """What :func:`tune` chose, from its file.

    Raises:
        InputError: the file is of another version.
    """
    values = read_json(path)
    for name, kind in (("separation", bodies_of.Separation), ("prior", Prior)):
        if set(values.get(name, ())) != {field.name for field in fields(kind)}:
            raise InputError(f"{path} is of another version: remove it and run the workflow again.")
    return Tuning(
        bodies_of.Separation(**values["separation"]),
        Prior(**values["prior"]),
        Calibration.from_dict(values["calibration"]),
    )


def write_tuning(path: str | Path, tuning: Tuning) -> None:
    """Keep what :func:`tune` chose."""
    write_json(
        path,
        {
            "separation": asdict(tuning.separation),
            "prior": asdict(tuning.prior),
            "calibration": tuning.calibration.as_dict(),
        },
    )


def tune(
    films: Sequence[Film],
    predictions: pd.DataFrame,
    records: Sequence[Mapping[str, Any]],
    vertebrae: Sequence[str],
    settings: Mapping[str, Any],
    log: logging.Logger,
) -> Tuning:
    """Choose how a network's bodies are repaired, and learn how sure its measurements are.

    Args:
        films: of the validation subset; no other may be among them.
        predictions: the network's instances on them.
        records: of the films, in their order.
        vertebrae: the classes of bodies.
        settings: `measure` of the configuration.
        log: where the choice is told.
    """
    of_film = _by_film(films, predictions)
    pairs = [
        (
            bodies_of.decode(instances, vertebrae),
            bodies_of.of_record(record["structures"], film.rows, film.columns, vertebrae),
            film.rows,
            film.columns,
        )
        for film, instances, record in zip(films, of_film, records, strict=True)
    ]
    tuning = Tuning(separation=bodies_of.tune(pairs))
    seen = [
        known_levels(
            spine_of_network(instances, film.rows, film.columns, vertebrae, tuning), reference
        )
        for film, instances, (_, reference, _, _) in zip(films, of_film, pairs, strict=True)
    ]
    tuning = replace(tuning, prior=learn(seen))
    judged = []
    for film, instances, record in zip(films, of_film, records, strict=True):
        spine = spine_of_network(instances, film.rows, film.columns, vertebrae, tuning)
        drawn = spine_of_record(record, vertebrae)
        found = measure(spine, film.spacing_mm, settings, Calibration())
        reference = measure(drawn, film.spacing_mm, settings, Calibration())
        table = pd.DataFrame(measurement_rows(film.image_id, reference), columns=list(MEASUREMENTS))
        judged.append(judge(found, table.astype(MEASUREMENTS), wrong_levels(spine, drawn)))
    log.info("%d validation films: %s, %s", len(films), tuning.separation, tuning.prior)
    return replace(tuning, calibration=fit(judged))


def known_levels(spine: LabelledSpine, reference: Sequence[Body]) -> Known:
    """The bodies of a spine with their true levels.

    Bodies that go on beyond the reference's ends have the levels that follow there; others without
    a reference body have none.

    Args:
        spine: from cranial to caudal.
        reference: what annotators drew, with levels.
    """
    bodies = [vertebra.body for vertebra in spine.vertebrae]
    reference = [body for body in reference if body.level is not None]
    overlaps = bodies_of.iou_matrix(reference, bodies)
    matches = match_instances(np.where(overlaps >= bodies_of.RECOGNISED_IOU, overlaps, 0))
    levels: list[str | None] = [None] * len(bodies)
    for body, at in zip(reference, matches, strict=True):
        if at >= 0:
            levels[at] = body.level
    matched = [k for k, level in enumerate(levels) if level is not None]
    if matched:
        ends = RANK[levels[matched[0]]], RANK[levels[matched[-1]]]
        names = {RANK[body.level] for body in reference}
        if ends[0] == min(names):
            above = skipped(-1, ends[0])[::-1]
            levels[: matched[0]] = above[: matched[0]][::-1]
        if ends[1] == max(names):
            below = skipped(ends[1], len(LEVELS))
            levels[matched[-1] + 1 :] = below[: len(bodies) - matched[-1] - 1]
    return Known(bodies, [v.shape for v in spine.vertebrae], levels, spine.anterior)


def wrong_levels(spine: LabelledSpine, reference: LabelledSpine) -> set[str]:
    """Levels that a spine gives to bodies whose centres lie in reference bodies of another level.

    Bodies that lie in no reference body with a level have no wrong one.
    """
    wrong = set()
    drawn = [v for v in reference.vertebrae if v.level is not None and v.shape is not None]
    for vertebra in spine.vertebrae:
        if vertebra.level is None or vertebra.shape is None:
            continue
        x, y = vertebra.shape.contour.mean(axis=0)
        for other in drawn:
            contour = other.shape.contour.astype(np.float32)
            if cv2.pointPolygonTest(contour, (float(x), float(y)), measureDist=False) >= 0:
                if other.level != vertebra.level:
                    wrong.add(vertebra.level)
                break
    return wrong


def label_films(
    films: Sequence[Film],
    predictions: pd.DataFrame,
    vertebrae: Sequence[str],
    tuning: Tuning,
    settings: Mapping[str, Any],
    processes: int,
    log: logging.Logger,
    pictures: Path | None = None,
    overlays: Path | None = None,
    title: str = "",
) -> dict[str, pd.DataFrame]:
    """Label and measure what a network saw.

    Args:
        films: to measure.
        predictions: the network's instances, with the columns of `predictions/networks/*.parquet`.
        vertebrae: the classes of bodies.
        tuning: of the network.
        settings: `measure` of the configuration.
        processes: how many to use.
        log: where progress is told.
        pictures: folder with `{image_id}.png`, needed for overlays.
        overlays: folder for `{image_id}.png` with what was found drawn over it; None for none.
        title: first line of the overlays, before the film's name.

    Returns:
        The tables `labelled`, `unrepaired` (labelled without repair), `measurements` and
        `vertebrae`.
    """
    read = partial(
        _label, vertebrae=vertebrae, tuning=tuning, settings=settings,
        pictures=pictures, overlays=overlays, title=title,
    )  # fmt: skip
    done = list(
        each(read, list(zip(films, _by_film(films, predictions), strict=True)), processes, log)
    )
    columns = [*predictions.columns, *LABELLED]
    types = dict(predictions.dtypes) | LABELLED | {"level": "string"}
    tables = {
        name: pd.DataFrame([row for one in done for row in one[name]], columns=columns).astype(
            types
        )
        for name in ("labelled", "unrepaired")
    }
    return tables | _measured(done)


def measure_records(
    films: Sequence[Film],
    records: Path,
    vertebrae: Sequence[str],
    settings: Mapping[str, Any],
    processes: int,
    log: logging.Logger,
) -> dict[str, pd.DataFrame]:
    """Measure what annotators drew: the tables `measurements` and `vertebrae`.

    Args:
        films: to measure, each with a record.
        records: folder with `{image_id}.json`.
        vertebrae: the classes of bodies.
        settings: `measure` of the configuration.
        processes: how many to use.
        log: where progress is told.
    """
    read = partial(_measure_record, records=records, vertebrae=vertebrae, settings=settings)
    return _measured(list(each(read, [(film,) for film in films], processes, log)))


def _label(
    film: Film,
    instances: pd.DataFrame,
    *,
    vertebrae: Sequence[str],
    tuning: Tuning,
    settings: Mapping[str, Any],
    pictures: Path | None,
    overlays: Path | None,
    title: str,
) -> dict[str, list[dict[str, Any]]]:
    place = film.rows, film.columns
    spine, plain = spines_of_network(instances, *place, vertebrae, tuning)
    found = measure(spine, film.spacing_mm, settings, tuning.calibration)
    if overlays is not None:
        _draw(film, spine, found, pictures, overlays, title)
    return {
        "labelled": prediction_rows(instances, spine),
        "unrepaired": prediction_rows(instances, plain),
        **_rows(film, spine, found),
    }


def _measure_record(
    film: Film, *, records: Path, vertebrae: Sequence[str], settings: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    spine = spine_of_record(read_record(records / f"{film.image_id}.json"), vertebrae)
    return _rows(film, spine, measure(spine, film.spacing_mm, settings, Calibration()))


def _rows(
    film: Film, spine: LabelledSpine, found: Sequence[Measurement]
) -> dict[str, list[dict[str, Any]]]:
    return {
        "measurements": measurement_rows(film.image_id, found),
        "vertebrae": vertebra_rows(film.image_id, spine),
    }


def _draw(
    film: Film,
    spine: LabelledSpine,
    found: Sequence[Measurement],
    pictures: Path,
    overlays: Path,
    title: str,
) -> None:
    picture = read_grey(pictures / f"{film.image_id}.png")
    name = f"{title} {film.image_id}".strip()
    page = overlay(picture, spine, found, title=name, spacing_mm=film.spacing_mm)
    write_png(overlays / f"{film.image_id}.png", page[:, :, ::-1])


def _measured(done: Sequence[Mapping[str, list]]) -> dict[str, pd.DataFrame]:
    return {
        name: pd.DataFrame(
            [row for one in done for row in one[name]], columns=list(columns)
        ).astype(columns)
        for name, columns in (("measurements", MEASUREMENTS), ("vertebrae", VERTEBRAE))
    }


def _by_film(films: Sequence[Film], predictions: pd.DataFrame) -> list[pd.DataFrame]:
    groups = dict(iter(predictions.groupby("image_id")))
    return [groups.get(film.image_id, predictions.iloc[:0]) for film in films]
