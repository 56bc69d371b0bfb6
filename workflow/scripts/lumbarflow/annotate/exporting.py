"""Writing VIA 2 projects: drawings to go on with, and predictions to correct.

Format: projects of the VGG Image Annotator 2.0 (Dutta and Zisserman, "The VIA Annotation Software
for Images, Audio and Video", ACM Multimedia 2019), data format version 2.0.10.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from .. import rle
from ..errors import InputError
from ..files import write_text
from .mapping import SUBSET
from .outlines import outlines

MENU_LEVELS = ("T11", "T12", "L1", "L2", "L3", "L4", "L5", "L6", "S1", "S2")
"""The levels that VIA offers, beside those that the regions have."""

ORIGIN, REVIEW, REVIEWED = "origin", "review", "reviewed"
"""Region attributes of a prediction, and the file attribute that accepts all of a film."""

FILE_ATTRIBUTES = ORDER, SCORE, REASON = "order", "score", "reason"
"""File attributes that tell why a film comes where it comes."""

UNREVIEWED, ACCEPTED = "unreviewed", "accepted"

MOST_POINTS = 40
"""Points of a predicted outline at most: as many as a person would set, and can still move."""

_TOLERANCE = 1.0  # pixels; a prediction is corrected, so fewer points are worth more
_SMALLEST = 9  # square pixels of a part that is worth an outline


class Film(NamedTuple):
    """A film of a VIA project.

    file_name and size in bytes (-1 if unknown) name it. Each of regions has class_name and level
    (None where there is none) and either polygon or shape and points, all [x, y] in pixels; review
    and origin (see :func:`write_via_project`) where it was predicted. attributes are those of the
    file: text by name.
    """

    file_name: str
    size: int
    regions: Iterable[Mapping[str, Any]]
    attributes: Mapping[str, str] = {}


def write_via_project(
    path: str | Path,
    films: Iterable[Film | tuple],
    *,
    classes: Iterable[str] = (),
    class_attribute: str | Sequence[str] = "structure",
    level_attribute: str | Sequence[str] = "level",
    default_filepath: str = "",
    project_name: str = "lumbarflow",
    file_attributes: Sequence[str] = (),
    review: bool = False,
) -> None:
    """Write a VIA 2 project with one region a structure; VIA shows the films in their order here.

    Args:
        path: the project file, written atomically.
        films: see :class:`Film`; plain tuples of its fields will do.
        classes: the choices that VIA offers for the class, in this order; names that the
            regions use besides are added.
        class_attribute: the region attribute (a drop-down list) that holds the class; of several
            names, as reading may have them, the first.
        level_attribute: likewise for the level.
        default_filepath: the folder of the films as seen from the page of VIA, ending in ``/``.
        project_name: the project's name in VIA.
        file_attributes: names of the attributes of files, text, that VIA shows.
        review: whether predictions can be accepted: regions get the attributes `origin` (text,
            empty where drawn) and `review` (unreviewed or accepted, empty where drawn), films the
            attribute `reviewed` (yes or no), where yes accepts every prediction left on the film.
    """
    class_attribute, level_attribute = _first(class_attribute), _first(level_attribute)
    metadata: dict[str, Any] = {}
    class_options = dict.fromkeys(classes, "")
    level_options = dict.fromkeys(MENU_LEVELS, "")
    for film in (Film(*film) for film in films):
        regions = []
        for region in film.regions:
            class_name, level = region.get("class_name") or "", region.get("level") or ""
            # A value that is no option would be shown as empty, and lost when VIA saves.
            for value, options in ((class_name, class_options), (level, level_options)):
                if value:
                    options.setdefault(value, "")
            attributes = {class_attribute: class_name, level_attribute: level}
            if review:
                attributes[ORIGIN] = region.get(ORIGIN) or ""
                attributes[REVIEW] = region.get(REVIEW) or ""
            regions.append({"shape_attributes": _shape(region), "region_attributes": attributes})
        metadata[f"{film.file_name}{film.size}"] = {
            "filename": film.file_name,
            "size": int(film.size),
            "regions": regions,
            "file_attributes": dict(film.attributes) | ({REVIEWED: ""} if review else {}),
        }
    region_menus = {
        class_attribute: _menu("dropdown", class_options),
        level_attribute: _menu("dropdown", level_options),
    }
    file_menus = {name: _text() for name in file_attributes}
    if review:
        region_menus[ORIGIN] = _text("filled in by Lumbarflow: leave as it is")
        region_menus[REVIEW] = _menu("radio", {UNREVIEWED: "", ACCEPTED: ""})
        file_menus[REVIEWED] = _menu("radio", {"yes": "", "no": ""})
    project = {
        "_via_settings": {
            "ui": {
                "annotation_editor_height": 25,
                "annotation_editor_fontsize": 0.8,
                "leftsidebar_width": 18,
                "image_grid": {
                    "img_height": 80,
                    "rshape_fill": "none",
                    "rshape_fill_opacity": 0.3,
                    "rshape_stroke": "yellow",
                    "rshape_stroke_width": 2,
                    "show_region_shape": True,
                    "show_image_policy": "all",
                },
                "image": {
                    "region_label": level_attribute,
                    "region_color": class_attribute,
                    "region_label_font": "10px Sans",
                    "on_image_annotation_editor_placement": "NEAR_REGION",
                },
            },
            "core": {"buffer_size": 18, "filepath": {}, "default_filepath": default_filepath},
            "project": {"name": project_name},
        },
        "_via_img_metadata": metadata,
        "_via_attributes": {"region": region_menus, "file": file_menus},
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": list(metadata),
    }
    # Not sorted: the order of films and options is what annotators see.
    write_text(path, json.dumps(project, indent=1, ensure_ascii=False) + "\n")


def _first(names: str | Sequence[str]) -> str:
    return names if isinstance(names, str) else names[0]


def _text(description: str = "") -> dict[str, Any]:
    return {"type": "text", "description": description, "default_value": ""}


def _menu(kind: str, options: Mapping[str, str]) -> dict[str, Any]:
    # No default: VIA would give it to every region drawn anew.
    return {"type": kind, "description": "", "options": dict(options), "default_options": {}}


def _shape(region: Mapping[str, Any]) -> dict[str, Any]:
    """VIA's shape attributes; curves and rectangles became polygons when they were read."""
    points = region["polygon"] if "polygon" in region else region["points"]
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    shape = region.get("shape", "polygon")
    if shape == "point" and points:
        return {"name": "point", "cx": xs[0], "cy": ys[0]}
    name = "polyline" if shape == "polyline" else "polygon"
    return {"name": name, "all_points_x": xs, "all_points_y": ys}


def project_films(
    pictures: Path,
    ranking: pd.DataFrame,
    predictions: pd.DataFrame | None,
    model: str | None,
    records: Iterable[Mapping[str, Any]],
) -> list[Film]:
    """The films of a VIA project: those to annotate by rank, then those that have annotations.

    Args:
        pictures: folder with `{image_id}.png`.
        ranking: see :func:`lumbarflow.annotate.ranking.rank`.
        predictions: `predictions/unannotated/{model}.parquet` of the best network, or None.
        model: its name.
        records: the records of films that shall come last, with what was drawn on them.

    Raises:
        InputError: a picture is missing.
    """
    found = {} if predictions is None else dict(tuple(predictions.groupby("image_id")))
    films = []
    for row in ranking.to_dict("records"):
        instances = found.get(row["image_id"])
        score = "" if pd.isna(row["score"]) else f"{row['score']:.3f}"
        films.append(
            Film(
                *_picture(pictures, row["image_id"]),
                [] if instances is None else predicted_regions(instances, model),
                {ORDER: str(row["order"]), SCORE: score, REASON: row["reason"]},
            )
        )
    for record in records:
        attributes = {ORDER: "", SCORE: "", REASON: "has annotations"}
        if SUBSET in record:
            attributes[SUBSET] = record[SUBSET]
        films.append(
            Film(*_picture(pictures, record["image_id"]), drawn_regions(record), attributes)
        )
    return films


def _picture(pictures: Path, image_id: str) -> tuple[str, int]:
    name = f"{image_id}.png"
    try:
        return name, (pictures / name).stat().st_size
    except FileNotFoundError:
        raise InputError(
            f"{pictures / name} is missing: run the workflow again to make it."
        ) from None


def drawn_regions(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All that a record holds, also what was rejected, in the order in which it was drawn."""
    regions = [
        {
            **region,
            "class_name": region.get("class_name") or region.get("name"),
            ORIGIN: "" if region.get(ORIGIN, "drawn") == "drawn" else region[ORIGIN],
            REVIEW: "" if region.get(ORIGIN, "drawn") == "drawn" else ACCEPTED,
        }
        for kind in ("structures", "lines", "rejected")
        for region in record[kind]
        if region.get("polygon") or region.get("points")  # VIA cannot show a shape without points
    ]
    return sorted(regions, key=lambda region: region["structure_id"])


def predicted_regions(instances: pd.DataFrame, model: str) -> list[dict[str, Any]]:
    """The instances of a film as outlines to be reviewed, from the top of the film downwards.

    Args:
        instances: rows of `predictions/{model}.parquet` of one film; class_name, level, bbox_y and
            the mask as rle_counts, rle_height, rle_width.
        model: the network that predicted them.
    """
    regions = []
    for row in instances.sort_values(["bbox_y", "instance_id"]).itertuples():
        mask = rle.decode(row.rle_counts, row.rle_height, row.rle_width)
        # The largest part only: a network's crumbs would be more work than help.
        found = outlines(mask, tolerance=_TOLERANCE, most_points=MOST_POINTS)
        if found and mask.sum() >= _SMALLEST:
            regions.append(
                {
                    "class_name": row.class_name,
                    "level": None if pd.isna(row.level) else row.level,
                    "polygon": [[round(x, 1), round(y, 1)] for x, y in found[0]],
                    ORIGIN: f"predicted by {model}",
                    REVIEW: UNREVIEWED,
                }
            )
    return regions
