"""A reader of VIA 2 projects, written from VIA's own description, with nothing of the package.

It does what the page of VIA 2.0 does on opening a project: it takes the films in the order of the
list of image ids, finds their pictures from where the page lies, and shows the attributes with
their menus. What VIA would not show, or would lose on saving, fails.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHAPES = {
    "rect": {"x", "y", "width", "height"},
    "circle": {"cx", "cy", "r"},
    "ellipse": {"cx", "cy", "rx", "ry"},
    "polygon": {"all_points_x", "all_points_y"},
    "polyline": {"all_points_x", "all_points_y"},
    "point": {"cx", "cy"},
}
MENUS = {"checkbox", "radio", "dropdown", "image"}


@dataclass
class Shown:
    """A film as VIA shows it: its picture, regions as (shape, attributes), and attributes."""

    picture: Path
    regions: list[tuple[dict[str, Any], dict[str, Any]]]
    attributes: dict[str, Any]


def open_project(project: Path, page: Path) -> tuple[list[Shown], dict[str, Any]]:
    """The films of a project opened in the page `page`, and the definitions of attributes."""
    content = json.loads(project.read_text(encoding="utf-8"))
    assert set(content) == {
        "_via_settings",
        "_via_img_metadata",
        "_via_attributes",
        "_via_data_format_version",
        "_via_image_id_list",
    }
    assert content["_via_data_format_version"] == "2.0.10"
    settings, metadata = content["_via_settings"], content["_via_img_metadata"]
    assert {"ui", "core", "project"} <= set(settings)
    assert isinstance(settings["project"]["name"], str)
    definitions = content["_via_attributes"]
    assert set(definitions) == {"region", "file"}
    for definition in [*definitions["region"].values(), *definitions["file"].values()]:
        assert isinstance(definition["description"], str)
        if definition["type"] == "text":
            assert isinstance(definition["default_value"], str)
        else:
            assert definition["type"] in MENUS
            assert set(definition["default_options"]) <= set(definition["options"])
    # How regions are labelled and coloured is the name of an attribute.
    for use in ("region_label", "region_color"):
        assert settings["ui"]["image"][use] in definitions["region"]

    ids = content["_via_image_id_list"]
    assert sorted(ids) == sorted(metadata) and len(ids) == len(set(ids))
    films = []
    for image_id in ids:
        entry = metadata[image_id]
        assert set(entry) == {"filename", "size", "regions", "file_attributes"}
        assert image_id == f"{entry['filename']}{entry['size']}"
        source = settings["core"]["filepath"].get(image_id, settings["core"]["default_filepath"])
        _shown(entry["file_attributes"], definitions["file"])
        regions = []
        for region in entry["regions"]:
            assert set(region) == {"shape_attributes", "region_attributes"}
            shape = region["shape_attributes"]
            assert set(shape) - {"name", "theta"} == SHAPES[shape["name"]]
            if "all_points_x" in shape:
                assert len(shape["all_points_x"]) == len(shape["all_points_y"]) > 1
            _shown(region["region_attributes"], definitions["region"])
            regions.append((shape, region["region_attributes"]))
        picture = page.parent / f"{source}{entry['filename']}"
        films.append(Shown(picture, regions, entry["file_attributes"]))
    return films, definitions


def _shown(values: dict[str, Any], definitions: dict[str, Any]) -> None:
    """Every value must be one that the attribute's menu can show."""
    for name, value in values.items():
        definition = definitions[name]
        assert isinstance(value, str)
        if definition["type"] in ("radio", "dropdown"):
            assert value == "" or value in definition["options"]
