"""The canonical record of a film's annotations, whatever tool and annotator they came from.

A record is a dictionary: image_id, rows, columns and three lists.

- `structures`: structure_id, class_name, level (or None), polygon (points [x, y] in pixels, not
  repeating the first), annotator, source (name of the VIA file). Only sound outlines.
- `lines`: regions whose class is in `annotations.ignore`, such as an endplate drawn as a line:
  structure_id, name, level, shape, points, annotator, source.
- `rejected`: regions with a finding of severity `error`: structure_id, class_name (None where it is
  missing), level, shape, points, check, annotator, source. Nothing that was drawn is lost.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import InputError
from ..files import read_json, write_json
from .films import FilmIndex, name_some
from .qc import Finding, Problem, check_region, findings_table
from .via import ViaImage, ViaRegion, read_via


def build_records(
    via_files: Sequence[str | Path],
    images: pd.DataFrame,
    classes: Sequence[str],
    settings: Mapping[str, Any],
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Merge VIA files into one record per annotated film.

    Several annotators may share the work: each VIA file may list every film, but only one of them
    may have regions on a given film.

    Args:
        via_files: the VIA files (see :func:`lumbarflow.annotate.via.read_via`).
        images: image_id, status (`accepted` or `rejected`), rows, columns and file_name (the name
            of the source file, or ``{image_id}.png``).
        classes: the class names of the configuration.
        settings: the section `annotations` of the configuration: class_attribute and
            level_attribute (names of region attributes), ignore (class values to keep as lines),
            class_names (class value in VIA -> class name), annotator (default: the VIA file's name
            without extension).

    Returns:
        The records of accepted films with at least one region, by image_id; and the findings
        (image_id, structure_id, check, severity, message, as strings).

    Raises:
        InputError: a VIA file cannot be read, has no region at all, or names an unknown or
            ambiguous film; a film has regions twice; a class or the class attribute is unknown.
    """
    reader = _RegionReader(classes, settings)
    index = FilmIndex(images)
    films = images.set_index("image_id", drop=False)
    drawn_in: dict[str, Path] = {}
    records: list[dict[str, Any]] = []
    findings: list[Finding] = []
    for path in map(Path, via_files):
        via_images = read_via(path)
        matched = _match(path, via_images, index)
        reader.check_attributes(path, via_images)
        for image_id, via_image in matched:
            if not via_image.regions:
                continue
            if image_id in drawn_in:
                other = drawn_in[image_id]
                where = "twice" if other == path else f"in {other} too"
                raise InputError(
                    f"{path} has regions on {via_image.file_name}, which has regions {where}: "
                    "keep the regions of each film in one entry of one VIA file."
                )
            drawn_in[image_id] = path
            film = films.loc[image_id]
            if film["status"] != "accepted":
                message = (
                    f"the film was rejected (see the image manifest), so its "
                    f"{len(via_image.regions)} regions in {path.name} are not used"
                )
                findings.append(Finding(image_id, None, "film_rejected", "warning", message))
                continue
            record, found = reader.record(
                path, image_id, int(film["rows"]), int(film["columns"]), via_image
            )
            records.append(record)
            findings += found
    for image_id, status in zip(images["image_id"], images["status"], strict=True):
        if status == "accepted" and image_id not in drawn_in:
            message = "the film has no annotation"
            findings.append(Finding(image_id, None, "no_annotation", "info", message))
    records.sort(key=lambda record: record["image_id"])
    findings.sort(key=lambda finding: (finding.image_id, finding.structure_id or ""))
    return records, findings_table(findings)


def _match(
    path: Path, via_images: Sequence[ViaImage], index: FilmIndex
) -> list[tuple[str, ViaImage]]:
    """Each film of a VIA file with its image_id."""
    if not any(via_image.regions for via_image in via_images):
        raise InputError(
            f"{path} has no region on any film: annotate in VIA and export again, or remove the "
            "file from the configuration."
        )
    found = [(index.find(via_image.file_name), via_image) for via_image in via_images]
    unknown = [via_image.file_name for ids, via_image in found if not ids]
    if unknown:
        films = "1 film that is" if len(unknown) == 1 else f"{len(unknown)} films that are"
        raise InputError(
            f"{path} names {films} not among the images ({name_some(unknown)}): put them in the "
            "folder or remove them from the VIA file."
        )
    for ids, via_image in found:
        if len(ids) > 1:
            raise InputError(
                f"{path} names {via_image.file_name}, which may be any of {len(ids)} images "
                f"({name_some(ids)}): write its path as in the folder of films, or image_id.png."
            )
    return [(ids[0], via_image) for ids, via_image in found]


class _RegionReader:
    """Turns VIA regions into structures by the configuration."""

    def __init__(self, classes: Sequence[str], settings: Mapping[str, Any]) -> None:
        self.classes = list(classes)
        self.class_attribute = settings.get("class_attribute", "structure")
        self.level_attribute = settings.get("level_attribute", "level")
        self.annotator = settings.get("annotator")
        self.ignore = {str(value).strip() for value in settings.get("ignore") or ()}
        # VIA keeps blanks around the options of a list; no class name means them.
        self.class_names = {
            str(value).strip(): name for value, name in (settings.get("class_names") or {}).items()
        }
        for value, name in self.class_names.items():
            if name not in self.classes:
                raise InputError(
                    f"`annotations.class_names` maps {value!r} to {name!r}, which is not in "
                    f"`classes` ({', '.join(self.classes)}){_nearest(name, self.classes)}: "
                    "correct one of the two."
                )

    def check_attributes(self, path: Path, via_images: Sequence[ViaImage]) -> None:
        """Refuse a file that keeps its classes in another attribute, rather than drop it all."""
        names = Counter(
            name
            for via_image in via_images
            for region in via_image.regions
            for name, value in region.attributes.items()
            if _choices(value)
        )
        others = [name for name, _ in names.most_common() if name != self.level_attribute]
        if others and self.class_attribute not in names:
            raise InputError(
                f"{path} has no region with the attribute {self.class_attribute!r} (its regions "
                f"have {name_some(map(repr, others))}): set `annotations.class_attribute` to the "
                "one that holds the class."
            )

    def record(
        self, path: Path, image_id: str, rows: int, columns: int, via_image: ViaImage
    ) -> tuple[dict[str, Any], list[Finding]]:
        """The record of a film, and its findings."""
        structures, lines, rejected, findings = [], [], [], []
        for number, region in enumerate(via_image.regions, 1):
            # Numbered over all regions, so that mending one does not rename the others.
            structure_id = f"{image_id}-{number:03d}"
            origin = {
                "annotator": self.annotator or path.stem,
                "source": path.name,
                "structure_id": structure_id,
                "level": " ".join(_choices(region.attributes.get(self.level_attribute))) or None,
            }
            drawn = {"shape": region.shape, "points": region.points}
            name, problems = self._classify(path, region)
            if name is not None and name not in self.classes:
                lines.append({"name": name, **drawn, **origin})
            else:
                if name is not None:
                    problems = check_region(region, rows, columns)
                error = next((p.check for p in problems if p.severity == "error"), None)
                if error:
                    rejected.append({"class_name": name, "check": error, **drawn, **origin})
                else:
                    structures.append({"class_name": name, "polygon": region.points, **origin})
            findings += [Finding(image_id, structure_id, *problem) for problem in problems]
        record = {
            "image_id": image_id,
            "rows": rows,
            "columns": columns,
            "structures": structures,
            "lines": lines,
            "rejected": rejected,
        }
        return record, findings

    def _classify(self, path: Path, region: ViaRegion) -> tuple[str | None, list[Problem]]:
        """The class of a region (or its ignored value, or None) and the problems with it."""
        values = _choices(region.attributes.get(self.class_attribute))
        if not values:
            message = f"the region has no class: fill in its attribute {self.class_attribute!r}"
            return None, [Problem("no_class", "error", message)]
        if len(values) > 1:
            message = f"the region has {len(values)} classes: choose one"
            return None, [Problem("several_classes", "error", message)]
        value = values[0]
        if value in self.ignore:
            message = f"{value} is in `annotations.ignore`: kept in the record, not a structure"
            return value, [Problem("ignored_class", "info", message)]
        name = self.class_names.get(value, value)
        if name not in self.classes:
            known = [*self.classes, *self.class_names, *sorted(self.ignore)]
            raise InputError(
                f"{path} uses the class {value!r}, which the configuration does not know (known: "
                f"{', '.join(self.classes)}){_nearest(value, known)}: correct it in VIA, or add it "
                "to `classes`, `annotations.class_names` or `annotations.ignore`."
            )
        return name, []


def _nearest(name: str, known: Sequence[str]) -> str:
    lower = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), lower, n=1)
    return f"; did you mean {lower[near[0]]!r}?" if near else ""


def _choices(value: Any) -> list[str]:
    """The values of a VIA attribute: text, or the ticked boxes of a checkbox dictionary."""
    if isinstance(value, dict):
        return [key.strip() for key, ticked in value.items() if ticked and key.strip()]
    text = "" if value is None else str(value).strip()
    return [text] if text else []


def write_records(folder: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write each record to ``folder/{image_id}.json`` and remove those of other films."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = set()
    for record in records:
        path = folder / f"{record['image_id']}.json"
        write_json(path, record)
        written.add(path)
    for path in set(folder.glob("*.json")) - written:
        path.unlink()


def read_record(path: str | Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        return read_json(path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing: run the workflow again to make it.") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise InputError(
            f"{path} is damaged: delete it and run the workflow again to make it."
        ) from None


def read_records(folder: str | Path) -> list[dict[str, Any]]:
    """Read all records of a folder, by image_id."""
    return [read_record(path) for path in sorted(Path(folder).glob("*.json"))]
