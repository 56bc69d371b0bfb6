"""What went wrong on each film: errors by their kind, and films in the order of their errors.

Masks stay run-length encoded throughout: areas and intersections of whole films cost no more than
their outlines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from pycocotools import mask as coco_mask

from .. import runs
from ..annotate.ranking import dice, merged
from ..prepare.masks import rasterise_window
from .levels import MIN_IOU, level_steps
from .metrics import match_instances
from .statistics import FAMILIES
from .strata import STRATA

#: The kinds of errors, see :func:`film_errors`.
KINDS = (
    *("missed", "extra", "fused", "split"),
    *("level_shifted", "leaking_outline", "implant_as_bone"),
)
#: `network`: masks as the network drew them; `labelled`: bodies after separating and joining.
STAGES = ("network", "labelled")

#: Columns of the table of errors and their types.
ERRORS = {
    "model": "string",
    "image_id": "string",
    "stage": "string",
    "kind": "string",
    "level": "string",
    "instance_id": "string",
    "size": "float64",
}
#: Columns of :func:`rank_films` and their types, before those of the strata.
RANKING = {
    "image_id": "string",
    "error": "float64",
    "error_rank": "int64",
    "disagreement": "float64",
    "disagreement_rank": "Int64",
    "n_errors": "int64",
    "best_model": "string",
    "worst_model": "string",
    "semantic_minus_instance": "float64",
}

#: An instance covers a vertebra, or lies in it, from this share on.
MOST = 0.5
#: The least part of a vertebra that counts as a part of a split one.
PART = 0.1
#: An outline leaks where what lies beyond its vertebra is this share of it or more.
LEAK = 0.25
#: Implants count as taken for bone from this share of a typical vertebra on.
IMPLANT = 0.1
#: Smaller instances, relative to a typical vertebra, are specks and no extra vertebrae.
SPECK = 0.05


@dataclass(frozen=True)
class Outlines:
    """What annotators drew on one film, in COCO's compressed run-length encoding.

    Attributes:
        vertebrae: a mask for each vertebra.
        levels: of the vertebrae; None where none was given.
        bone: the vertebrae's union.
        implants: the union of all other structures.
        metal_in_bone: what both have in common.
    """

    vertebrae: list[runs.Runs]
    levels: list[str | None]
    bone: runs.Runs
    implants: runs.Runs
    metal_in_bone: runs.Runs


def outlines(record: Mapping[str, Any], foreground: Sequence[str]) -> Outlines:
    """The structures of a record: those of `foreground` are vertebrae, all others implants."""
    size = record["rows"], record["columns"]
    drawn = [s for s in record["structures"] if s["class_name"] in foreground]
    others = [s for s in record["structures"] if s["class_name"] not in foreground]
    vertebrae, metal = (
        [runs.of_window(*rasterise_window(s["polygon"], *size), *size) for s in structures]
        for structures in (drawn, others)
    )
    bone, implants = runs.union(vertebrae, *size), runs.union(metal, *size)
    return Outlines(
        vertebrae,
        [structure["level"] for structure in drawn],
        bone,
        implants,
        coco_mask.merge([bone, implants], intersect=True),
    )


def film_errors(
    reference: Outlines, instances: pd.DataFrame, labelled: bool
) -> list[dict[str, Any]]:
    """The errors of one network on one film.

    A vertebra is found where the intersection over union with an instance is 0.5 or more; they are
    matched one to one by falling overlap. What overlaps less is told apart by what covers what. A
    typical vertebra is the median one of the film.

    - missed: nothing was found, nor is it part of another error; size is the share of the vertebra
      that no instance covers;
    - extra: an instance that is not a speck and belongs to no vertebra, such as a thoracic one that
      annotators left out, or a second one of the same vertebra; level is the one given; size is in
      typical vertebrae;
    - fused: one instance covers most of two or more vertebrae of which no other is found; level
      names them, as `L4+L5`; size is their number;
    - split: a vertebra holds two or more instances, each of a tenth of it or more; size is their
      number;
    - level_shifted: found, but with another level (of labelled instances); size is the number of
      levels, negative towards the head;
    - leaking_outline: what an instance covers beyond its vertebra, or the vertebrae that it fuses,
      is a quarter of it or more, or so much that it does not count as found; size is that share;
    - implant_as_bone: an instance holds implants outside of all vertebrae as large as a tenth of a
      typical vertebra, or lies in them for the most part; size is in typical vertebrae.

    Args:
        reference: what annotators drew.
        instances: the foreground's instances on this film: instance_id, level and their masks.
        labelled: whether the instances have levels.

    Returns:
        Dictionaries with kind, level, instance_id and size.
    """
    codes = [
        runs.of_string(row.rle_counts, row.rle_height, row.rle_width)
        for row in instances.itertuples()
    ]
    area = np.array(coco_mask.area(codes) if codes else [], np.float64)
    kept = np.flatnonzero(area > 0)
    codes, area = [codes[k] for k in kept], area[kept]
    names = instances["instance_id"].astype(object).iloc[kept].tolist()
    told = instances["level"].astype(object).where(instances["level"].notna(), None)
    told = told.iloc[kept].tolist()
    size = np.array(coco_mask.area(reference.vertebrae) if reference.vertebrae else [], np.float64)
    # An outline beyond the film's edge, or of less than a pixel, cannot be found.
    seen = np.flatnonzero(size > 0)
    bodies, size = [reference.vertebrae[k] for k in seen], size[seen]
    levels = [reference.levels[k] for k in seen]
    typical = float(np.median(size if len(size) else area)) if len(size) + len(area) else 1.0

    shared = _shared(codes, area, bodies)  # instances x vertebrae, pixels
    cover = shared / size
    inside = shared / area[:, None]
    overlap = shared / (area[:, None] + size - shared)
    match = match_instances(np.where(overlap >= MIN_IOU, overlap, 0.0).T)
    metal = _shared(codes, area, [reference.implants, reference.metal_in_bone])
    metal = metal[:, 0] - metal[:, 1]

    rows: list[dict[str, Any]] = []

    def add(kind: str, level: str | None, instance: int | None, measure: float) -> None:
        name = None if instance is None else names[instance]
        rows.append({"kind": kind, "level": level, "instance_id": name, "size": float(measure)})

    own: dict[int, list[int]] = {}  # vertebrae of each instance
    settled = match >= 0
    for vertebra, instance in enumerate(match):
        if instance >= 0:
            own[int(instance)] = [vertebra]
    fused: set[int] = set()
    for instance in range(len(codes)):
        held = np.flatnonzero(
            (cover[instance] >= MOST) & ((match == instance) | (match < 0) & ~settled)
        )
        if len(held) > 1:
            own[instance] = held.tolist()
            settled[held] = True
            fused.update(own[instance])
            add("fused", _joined(levels, held), instance, len(held))
    parts: set[int] = set()
    for vertebra in range(len(size)):
        pieces = [
            instance
            for instance in np.flatnonzero(
                (inside[:, vertebra] >= MOST) & (cover[:, vertebra] >= PART)
            )
            if vertebra not in fused and own.get(int(instance), [vertebra]) == [vertebra]
        ]
        pieces = _apart(pieces, codes, area, cover[:, vertebra])
        if len(pieces) > 1:
            parts.update(pieces)
            settled[vertebra] = True
            add("split", levels[vertebra], pieces[0], len(pieces))
    for vertebra in np.flatnonzero(~settled):
        free = np.array([k not in own and k not in parts for k in range(len(codes))], bool)
        covering = np.where(free, cover[:, vertebra], 0.0)
        best = int(covering.argmax()) if len(covering) else -1
        if best >= 0 and covering[best] >= MOST:
            own[best] = [int(vertebra)]
            continue
        left = 1 - _covered(codes, reference.vertebrae[seen[vertebra]]) / size[vertebra]
        within = np.where(free, np.where(inside[:, vertebra] >= MOST, cover[:, vertebra], 0.0), 0.0)
        poor = int(within.argmax()) if within.any() else None
        if poor is not None:
            parts.add(poor)
        add("missed", levels[vertebra], poor, left)
    for instance in range(len(codes)):
        held = own.get(instance, [])
        level = _joined(levels, held) if held else told[instance]
        if held:
            taken = metal[instance] >= IMPLANT * typical
        else:
            large = instance not in parts and area[instance] >= SPECK * typical
            taken = large and metal[instance] >= MOST * area[instance]
        if taken:
            add("implant_as_bone", level, instance, metal[instance] / typical)
        if held:
            beyond = area[instance] - _covered([bodies[k] for k in held], codes[instance])
            beyond -= metal[instance]
            whole = size[held].sum()
            poor = len(held) == 1 and match[held[0]] != instance
            if beyond >= LEAK * whole or (poor and not taken):
                add("leaking_outline", level, instance, beyond / whole)
        elif large and not taken:
            add("extra", told[instance], instance, area[instance] / typical)
    if labelled:
        for vertebra, instance in enumerate(match):
            given = told[instance] if instance >= 0 else None
            if given and levels[vertebra] and given != levels[vertebra]:
                add(
                    "level_shifted",
                    levels[vertebra],
                    instance,
                    level_steps(levels[vertebra], given),
                )
    return rows


def find_errors(
    records: Mapping[str, Mapping[str, Any]],
    tables: Mapping[str, Mapping[str, pd.DataFrame]],
    foreground: Sequence[str],
) -> pd.DataFrame:
    """The errors of all networks on all films, before and after their bodies were separated.

    Args:
        records: of each test film, by image_id.
        tables: for each model the predictions of both :data:`STAGES`.
        foreground: the classes of vertebrae.

    Returns:
        The columns of :data:`ERRORS`.
    """
    parts = {
        (model, stage): dict(
            iter(table[table["class_name"].isin(list(foreground))].groupby("image_id"))
        )
        for model, of_stages in tables.items()
        for stage, table in of_stages.items()
    }
    drawn = {image_id: outlines(record, foreground) for image_id, record in records.items()}
    rows = []
    for (model, stage), by_film in parts.items():
        nothing = tables[model][stage].iloc[:0]
        for image_id, reference in drawn.items():
            key = {"model": model, "image_id": image_id, "stage": stage}
            found = by_film.get(image_id, nothing)
            rows += [key | row for row in film_errors(reference, found, stage == "labelled")]
    return pd.DataFrame(rows, columns=list(ERRORS)).astype(ERRORS)


def disagreements(
    tables: Mapping[str, pd.DataFrame], films: Iterable[str], foreground: Sequence[str]
) -> dict[str, float]:
    """How far networks differ on each film: 1 - Dice of their foregrounds, mean over all pairs.

    Args:
        tables: predictions of each model.
        films: image_ids.
        foreground: the classes that are merged.

    Returns:
        By film, from 0 to 1; NaN with fewer than two models.
    """
    by_film = [dict(iter(table.groupby("image_id"))) for table in tables.values()]
    found = {}
    for film in films:
        masks = [merged(of_model.get(film), foreground) for of_model in by_film]
        pairs = [1 - dice(a, b) for a, b in combinations(masks, 2)]
        found[film] = float(np.mean(pairs)) if pairs else float("nan")
    return found


def rank_films(
    per_image: pd.DataFrame,
    errors: pd.DataFrame,
    disagreement: Mapping[str, float],
    strata: pd.DataFrame,
    families: Mapping[str, str | None],
) -> pd.DataFrame:
    """The test films in the order of their errors.

    Args:
        per_image: `metrics/per_image.parquet`.
        errors: rows of :func:`find_errors`.
        disagreement: of :func:`disagreements`.
        strata: rows of :func:`~.strata.film_strata`.
        families: for each network `semantic`, `instance` or None.

    Returns:
        The columns of :data:`RANKING`, then those of the strata; the worst film first. error is 1 -
        mean IoU, mean over the networks; n_errors counts those of the labelled stage over all
        networks; semantic_minus_instance is the difference of the two families' mean IoU, null
        without one of them. Ranks count from 1.
    """
    scores = per_image.pivot(index="image_id", columns="model", values="mean_iou")
    counted = errors.loc[errors["stage"] == "labelled", "image_id"].value_counts()
    means = [
        scores[[model for model in scores if families.get(model) == family]].mean(axis=1)
        for family in FAMILIES
    ]
    table = pd.DataFrame(
        {
            "image_id": scores.index.to_numpy(object),
            "error": 1 - scores.mean(axis=1).to_numpy(),
            "disagreement": [disagreement[image_id] for image_id in scores.index],
            "n_errors": [int(counted.get(image_id, 0)) for image_id in scores.index],
            "best_model": scores.idxmax(axis=1).to_numpy(object),
            "worst_model": scores.idxmin(axis=1).to_numpy(object),
            "semantic_minus_instance": (means[0] - means[1]).to_numpy(),
        }
    )
    for name in ("error", "disagreement"):
        table[f"{name}_rank"] = table[name].rank(ascending=False, method="first")
    table = table.sort_values("error_rank", ignore_index=True)[list(RANKING)].astype(RANKING)
    known = strata.drop(columns="patient_id").astype({"image_id": "string"})
    return table.merge(known, on="image_id", how="left")[[*RANKING, *STRATA]]


def _shared(
    codes: Sequence[dict[str, Any]], area: np.ndarray, others: Sequence[dict[str, Any]]
) -> np.ndarray:
    """Pixels that masks (with their areas) have in common with each of the others."""
    if not codes or not others:
        return np.zeros((len(codes), len(others)))
    # With a crowd, COCO divides by the area of the instance alone.
    shares = coco_mask.iou(list(codes), list(others), [1] * len(others))
    return np.rint(np.asarray(shares) * area[:, None])


def _joined(levels: Sequence[str | None], held: Sequence[int]) -> str | None:
    """The levels of an instance's vertebrae, `?` for one that has none; None where none has."""
    named = [levels[k] for k in held]
    return "+".join(level or "?" for level in named) if any(named) else None


def _covered(codes: Sequence[dict[str, Any]], mask: dict[str, Any]) -> float:
    """Pixels of a mask that any of `codes` covers."""
    if not codes:
        return 0.0
    union = coco_mask.merge(list(codes))
    return float(coco_mask.area(coco_mask.merge([union, mask], intersect=True)))


def _apart(
    pieces: Sequence[int], codes: Sequence[dict[str, Any]], area: np.ndarray, cover: np.ndarray
) -> list[int]:
    """Those of the pieces, the largest first, that do not lie in larger ones for the most part."""
    chosen: list[int] = []
    for piece in sorted((int(piece) for piece in pieces), key=lambda piece: -cover[piece]):
        within = _covered([codes[k] for k in chosen], codes[piece])
        if within < MOST * area[piece]:
            chosen.append(piece)
    return chosen
