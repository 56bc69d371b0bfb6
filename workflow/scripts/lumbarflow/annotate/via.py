"""Reading and writing files of the VGG Image Annotator (VIA).

Format: VIA 2 project files and the JSON exports of VIA 1 and 2 (Dutta and Zisserman, "The VIA
Annotation Software for Images, Audio and Video", ACM Multimedia 2019).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..errors import InputError
from ..files import write_json
from .films import path_tail

CURVE_POINTS = 32
"""Points that stand for a circle or an ellipse."""

_FORMS = "VIA 2 projects and the JSON exports of VIA 1 and VIA 2 are read"
_OPEN_SHAPES = ("polyline", "point")


@dataclass(frozen=True)
class ViaRegion:
    """A drawn region.

    shape is one of polygon, rect, circle, ellipse (all closed), polyline (open) or point. points
    are [x, y] in pixels; those of a closed shape do not repeat the first one at the end.
    """

    shape: str
    points: list[list[float]]
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def closed(self) -> bool:
        """Whether the points outline an area."""
        return self.shape not in _OPEN_SHAPES


@dataclass(frozen=True)
class ViaImage:
    """A film of a VIA file: its name, its size in bytes (None if unknown) and its regions."""

    file_name: str
    size: int | None
    regions: list[ViaRegion]
    attributes: dict[str, Any] = field(default_factory=dict)


def read_via(path: str | Path) -> list[ViaImage]:
    """Read a VIA 2 project or a VIA 1 or 2 JSON export, recognised by its content.

    A polyline that ends where it began counts as a polygon. Of a ``file:`` URI only the file's
    name is kept.

    Raises:
        InputError: the file is missing, cut, not JSON, not of VIA, or has a malformed region.
    """
    path = Path(path)
    return [_image(path, key, entry) for key, entry in _metadata(path, _load(path)).items()]


def _load(path: Path) -> Any:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path} is missing: correct the path of the VIA file.") from None
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): give a readable VIA file."
        ) from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text: export it from VIA again as JSON.") from None
    if not text.strip():
        raise InputError(f"{path} is empty: export it from VIA again.")
    if text.lstrip()[0] not in "{[":
        raise InputError(f"{path} is not JSON: {_FORMS}, so export it from VIA as JSON.")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        # Plain parsing would silently keep the last entry only, and lose annotations.
        result = dict(pairs)
        if len(result) < len(pairs):
            seen: set[str] = set()
            twice = next(key for key, _ in pairs if key in seen or seen.add(key))
            raise InputError(f"{path} has the entry {twice!r} twice: merge or remove one of them.")
        return result

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        if _is_cut(text, error):
            end = text.rstrip()
            line, column = end.count("\n") + 1, len(end) - end.rfind("\n") - 1
            raise InputError(
                f"{path} is not complete JSON (it ends at line {line}, column {column}): "
                "export it from VIA again."
            ) from None
        raise InputError(
            f"{path} is not valid JSON at line {error.lineno}, column {error.colno}: "
            "export it from VIA again."
        ) from None
    except RecursionError:
        raise InputError(f"{path} is not a VIA file: {_FORMS}.") from None


def _is_cut(text: str, error: json.JSONDecodeError) -> bool:
    # The parser stops at the end, or a few characters before in a cut number, literal or escape;
    # for a string without an end it gives the start.
    end = text.rstrip()
    return (
        error.msg.startswith("Unterminated string")
        or error.pos >= len(end)
        or (end[-1] not in "}]" and len(end) - error.pos < 8)
    )


def _metadata(path: Path, data: Any) -> dict[str, Any]:
    """The dictionary of films of a parsed VIA file."""
    if isinstance(data, dict):
        entries = data.get("_via_img_metadata", data)
        if isinstance(entries, dict) and (entries or entries is not data):
            is_film = [
                isinstance(e, dict) and "filename" in e and "regions" in e for e in entries.values()
            ]
            if all(is_film):
                return entries
            if entries is not data or any(is_film):
                key = list(entries)[is_film.index(False)]
                raise InputError(
                    f"{path} has an entry without a file name and regions ({key!r}): "
                    "export it from VIA again."
                )
    raise InputError(f"{path} is not a VIA file that can be used: {_FORMS}.")


def _image(path: Path, key: str, entry: dict[str, Any]) -> ViaImage:
    name, regions = entry["filename"], entry["regions"]
    if not isinstance(name, str) or not path_tail(name).strip():
        raise InputError(f"{path} has no file name in its entry {key!r}: export it again.")
    if name.lower().startswith("file:"):
        name = path_tail(unquote(name))
    if isinstance(regions, dict):
        regions = list(regions.values())
    if not isinstance(regions, list):
        raise InputError(f"{path} has no list of regions for {name}: export it from VIA again.")
    return ViaImage(
        file_name=name,
        size=_size(entry.get("size")),
        regions=[_region(path, name, n, region) for n, region in enumerate(regions, 1)],
        attributes=_attributes(entry.get("file_attributes")),
    )


def _size(value: Any) -> int | None:
    try:
        size = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return size if size >= 0 else None


def _attributes(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _region(path: Path, name: str, number: int, region: Any) -> ViaRegion:
    try:
        drawn = region["shape_attributes"]
        shape, points = drawn["name"], _points(drawn)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InputError(
            f"{path} has no valid shape in region {number} of {name}: draw it again in VIA."
        ) from None
    if shape in ("polygon", "polyline") and len(points) > 2 and points[0] == points[-1]:
        shape, points = "polygon", points[:-1]
    return ViaRegion(shape, points, _attributes(region.get("region_attributes")))


def _points(drawn: Mapping[str, Any]) -> list[list[float]]:
    """The points of VIA shape attributes; KeyError, TypeError or ValueError if they are bad."""

    def number(key: str, default: float | None = None) -> float:
        return _finite(drawn[key] if default is None else drawn.get(key, default))

    match drawn["name"]:
        case "polygon" | "polyline":
            pairs = zip(drawn["all_points_x"], drawn["all_points_y"], strict=True)
            return [[_finite(x), _finite(y)] for x, y in pairs]
        case "rect":
            x, y = number("x"), number("y")
            right, bottom = x + number("width"), y + number("height")
            return [[x, y], [right, y], [right, bottom], [x, bottom]]
        case "circle":
            return _ellipse(number("cx"), number("cy"), number("r"), number("r"), 0.0)
        case "ellipse":
            # theta, the rotation in radians, came with VIA 2.0.9.
            radii = number("rx"), number("ry")
            return _ellipse(number("cx"), number("cy"), *radii, number("theta", 0.0))
        case "point":
            return [[number("cx"), number("cy")]]
    raise ValueError("unknown shape")


def _finite(value: Any) -> float:
    result = float(value)
    if not math.isfinite(result):
        raise ValueError("not a finite number")
    return result


def _ellipse(cx: float, cy: float, rx: float, ry: float, theta: float) -> list[list[float]]:
    cos, sin = math.cos(theta), math.sin(theta)
    points = []
    for n in range(CURVE_POINTS):
        angle = 2 * math.pi * n / CURVE_POINTS
        u, v = rx * math.cos(angle), ry * math.sin(angle)
        points.append([cx + u * cos - v * sin, cy + u * sin + v * cos])
    return points


def write_via_project(
    path: str | Path,
    images: Iterable[tuple[str, int, Iterable[Mapping[str, Any]]]],
    *,
    classes: Iterable[str] = (),
    class_attribute: str = "structure",
    level_attribute: str = "level",
    default_filepath: str = "",
    project_name: str = "lumbarflow",
) -> None:
    """Write a VIA 2 project with one polygon a structure.

    Args:
        path: the project file, written atomically.
        images: (file name, size in bytes or -1, structures) for each film; a structure has
            class_name, level (None where it has none) and polygon (points [x, y] in pixels).
        classes: the choices that VIA offers for the class, in this order; names that the
            structures use besides are added.
        class_attribute: the region attribute (a drop-down list) that holds the class.
        level_attribute: the region attribute (free text) that holds the level.
        default_filepath: the folder of the films as VIA shall look for them, ending in ``/``.
        project_name: the project's name in VIA.
    """
    metadata: dict[str, Any] = {}
    options = dict.fromkeys(classes, "")
    for file_name, size, structures in images:
        regions = []
        for structure in structures:
            options.setdefault(structure["class_name"], "")
            polygon = [(float(x), float(y)) for x, y in structure["polygon"]]
            regions.append(
                {
                    "shape_attributes": {
                        "name": "polygon",
                        "all_points_x": [x for x, _ in polygon],
                        "all_points_y": [y for _, y in polygon],
                    },
                    "region_attributes": {
                        class_attribute: structure["class_name"],
                        level_attribute: structure.get("level") or "",
                    },
                }
            )
        metadata[f"{file_name}{size}"] = {
            "filename": file_name,
            "size": int(size),
            "regions": regions,
            "file_attributes": {},
        }
    write_json(
        path,
        {
            "_via_settings": {
                "ui": {
                    "image": {
                        "region_label": level_attribute,
                        "region_color": class_attribute,
                        "region_label_font": "10px Sans",
                        "on_image_annotation_editor_placement": "NEAR_REGION",
                    }
                },
                "core": {
                    "buffer_size": 18,
                    "filepath": {},
                    "default_filepath": default_filepath,
                },
                "project": {"name": project_name},
            },
            "_via_img_metadata": metadata,
            "_via_attributes": {
                "region": {
                    class_attribute: {
                        "type": "dropdown",
                        "description": "",
                        "options": options,
                        "default_options": {},
                    },
                    level_attribute: {"type": "text", "description": "", "default_value": ""},
                },
                "file": {},
            },
            "_via_data_format_version": "2.0.10",
            "_via_image_id_list": list(metadata),
        },
    )
