"""Pictures of findings: each with the outline in question on its part of the film."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from ..errors import InputError
from ..files import read_grey, read_json
from .figures import jpeg_uri

#: Worst first; what is only told is not pictured.
SEVERITIES = ("error", "warning", "info")
#: Side of a picture in pixels.
SIDE = 420
#: A picture shows at least this share of the film's longer side, and this many times the outline.
_FILM_SHARE, _MARGIN = 0.4, 2.4
#: Blue, green, red: Okabe and Ito's vermillion, yellow and, for the other outlines, sky blue.
_COLOURS = {"error": (0, 94, 213), "warning": (66, 228, 240), "other": (233, 180, 86)}
_OUTSIDE = 52  # grey beyond the film's border
_SHIFT = 4  # binary digits behind the point in OpenCV's drawing coordinates


def worst_first(findings: pd.DataFrame) -> pd.DataFrame:
    """Findings by severity, and within it by turns from each check, so that none hides another."""
    rank = findings["severity"].map({name: n for n, name in enumerate(SEVERITIES)})
    turn = findings.groupby(["severity", "check"]).cumcount()
    return (
        findings.assign(rank=rank, turn=turn)
        .sort_values(["rank", "turn", "check"], kind="stable")
        .drop(columns=["rank", "turn"])
    )


def finding_pictures(
    results: Path, findings: pd.DataFrame, limit: int
) -> tuple[list[dict[str, Any]], int]:
    """Pictures of errors and warnings on films that have a picture, worst first.

    Args:
        results: the results folder; read are `annotations/records` and `images/png`.
        findings: image_id, structure_id, check, severity and message of each finding.
        limit: the greatest number of pictures.

    Returns:
        The pictures, one a structure (or film, for findings without one): {"image_id",
        "structure_id" (or None), "severity" (the worst), "notes" ((check, severity, message) of
        each finding), "alt", "image" (a `data:` address)}; and how many structures and films have
        such findings.

    Raises:
        InputError: a picture or record of a film is damaged.
    """
    shown = findings[findings["severity"].isin(SEVERITIES[:2]) & findings["image_id"].notna()]
    pictured = [
        image_id
        for image_id in shown["image_id"].unique()
        if (results / f"images/png/{image_id}.png").is_file()
    ]
    shown = worst_first(shown[shown["image_id"].isin(pictured)])
    groups: dict[tuple[str, str | None], list[tuple[str, str, str]]] = {}
    for row in shown.itertuples():
        structure_id = None if pd.isna(row.structure_id) else row.structure_id
        note = (row.check, row.severity, row.message)
        groups.setdefault((row.image_id, structure_id), []).append(note)
    chosen = list(groups.items())[:limit]
    images: dict[int, str] = {}
    # One film at a time: its picture is read once, and only one is in memory.
    order = sorted(range(len(chosen)), key=lambda n: chosen[n][0][0])
    image_id = film = regions = None
    for n in order:
        key, notes = chosen[n]
        if key[0] != image_id:
            image_id = key[0]
            film = read_grey(results / f"images/png/{image_id}.png")
            regions = _regions(results / f"annotations/records/{image_id}.json")
        images[n] = jpeg_uri(draw_finding(film, regions, key[1], notes[0][1]))
    pictures = [
        {
            "image_id": image_id,
            "structure_id": structure_id,
            "severity": notes[0][1],
            "notes": notes,
            "alt": f"{structure_id or image_id}: {notes[0][0].replace('_', ' ')}",
            "image": images[n],
        }
        for n, ((image_id, structure_id), notes) in enumerate(chosen)
    ]
    return pictures, len(groups)


def draw_finding(
    film: np.ndarray,
    regions: Mapping[str, Mapping[str, Any]],
    structure_id: str | None,
    severity: str,
) -> np.ndarray:
    """Draw a finding's outline in the colour of its severity, the other outlines of the film thin.

    Args:
        film: H x W uint8.
        regions: by structure_id: points ([x, y] in pixels), closed and level (or None).
        structure_id: the region in question; None, or one that is not there, shows the whole film.
        severity: `error` or `warning`.

    Returns:
        SIDE x SIDE x 3 uint8, in OpenCV's channel order (blue, green, red). Where the outline
        leaves the film the picture goes on beyond its border, in plain grey.
    """
    size = np.array(film.shape[::-1], float)
    region = regions.get(structure_id)
    low, side = _window(size, None if region is None else region["points"])
    scale = SIDE / side
    part = np.full((side, side), _OUTSIDE, np.uint8)
    (x0, y0), (x1, y1) = np.maximum(low, 0), np.minimum(low + side, film.shape[::-1])
    part[y0 - low[1] : y1 - low[1], x0 - low[0] : x1 - low[0]] = film[y0:y1, x0:x1]
    shrinks = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    image = cv2.cvtColor(cv2.resize(part, (SIDE, SIDE), interpolation=shrinks), cv2.COLOR_GRAY2BGR)
    for other, drawn in regions.items():
        if other != structure_id:
            # Of a whole film all outlines are in question.
            colour = _COLOURS["other" if region is not None else severity]
            _outline(image, drawn, low, scale, colour, 1)
    if region is not None:
        _outline(image, region, low, scale, (0, 0, 0), 5)
        _outline(image, region, low, scale, _COLOURS[severity], 3)
    for drawn in regions.values():
        if drawn["level"] and len(drawn["points"]):
            x, y = (_scaled(drawn["points"], low, scale).mean(axis=0)).round().astype(int)
            if 0 <= x < SIDE and 0 <= y < SIDE:
                for colour, width in (((0, 0, 0), 5), ((255, 255, 255), 2)):
                    at = (int(x) - 6 * len(drawn["level"]), int(y) + 5)
                    font = cv2.FONT_HERSHEY_SIMPLEX
                    cv2.putText(image, drawn["level"], at, font, 0.6, colour, width, cv2.LINE_AA)
    return image


def _window(size: np.ndarray, points: np.ndarray | None) -> tuple[np.ndarray, int]:
    """Upper left corner and side of the square of the film to show, in whole pixels."""
    longer = float(size.max())
    corner, side = (size - longer) / 2, longer
    if points is not None and len(points):
        low, high = points.min(axis=0), points.max(axis=0)
        near = (low > -longer / 2).all() and (high < size + longer / 2).all()
        wanted = max(_MARGIN * float((high - low).max()), _FILM_SHARE * longer)
        # An outline far beyond the film, or nearly as large, is shown on the whole film.
        if near and wanted < longer:
            side = wanted
            # No more of what is beyond the border than the outline needs.
            corner = np.clip((low + high) / 2 - side / 2, 0, np.maximum(size - side, 0))
            corner = np.clip(corner, high + 0.05 * side - side, low - 0.05 * side)
    return np.floor(corner).astype(int), round(side)


def _scaled(points: np.ndarray, low: np.ndarray, scale: float) -> np.ndarray:
    # OpenCV counts from the centre of the first pixel, the outlines from its corner.
    return np.clip((points - low) * scale - 0.5, -1e5, 1e5)


def _outline(
    image: np.ndarray,
    region: Mapping[str, Any],
    low: np.ndarray,
    scale: float,
    colour: tuple[int, int, int],
    width: int,
) -> None:
    points = _scaled(region["points"], low, scale)
    if len(points) == 1:
        centre = np.rint(points[0]).astype(int).tolist()
        cv2.drawMarker(image, centre, colour, cv2.MARKER_TILTED_CROSS, 18, width, cv2.LINE_AA)
    elif len(points):
        fixed = np.rint(points * 2**_SHIFT).astype(np.int32)
        cv2.polylines(image, [fixed], region["closed"], colour, width, cv2.LINE_AA, _SHIFT)


def _regions(path: Path) -> dict[str, dict[str, Any]]:
    """Every region of a film's record by structure_id, those of each annotator included."""
    try:
        record = read_json(path)
    except FileNotFoundError:
        return {}  # a film without a sound region has none
    except ValueError:
        raise InputError(f"{path} is not JSON: remove it and run the workflow again.") from None
    found = {}
    for structure_id, region in _each(record):
        points = np.asarray(region.get("polygon", region.get("points")), float).reshape(-1, 2)
        found.setdefault(
            structure_id,
            {
                "points": points[np.isfinite(points).all(axis=1)],
                "closed": region.get("shape", "polygon") not in ("polyline", "point"),
                "level": region.get("level"),
            },
        )
    return found


def _each(record: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for drawing in (record, *record.get("drawings", ())):
        for kind in ("structures", "lines", "rejected"):
            for region in drawing.get(kind, ()):
                yield region["structure_id"], region
