"""The canonical record of a film's annotations, whatever tool and annotator they came from.

A record is a dictionary: image_id, rows, columns and three lists.

- `structures`: structure_id, class_name, level (or None), polygon (points [x, y] in pixels, not
  repeating the first), annotator, source (name of the annotation file), origin. Only sound
  outlines.
- `lines`: regions whose class is in `annotations.ignore`, and endplates drawn as lines:
  structure_id, name (as drawn), level, shape, points, annotator, source, origin.
- `rejected`: regions with a finding of severity `error`: structure_id, class_name (None where it is
  missing or unknown), name (as drawn, or None), level, shape, points, check, annotator, source,
  origin. Nothing that was drawn is lost.

origin is `drawn`, or `predicted by {model}` for a prediction that an annotator accepted.

A film that an annotator reserved for testing (its attribute `subset` is `test`) has `subset`.

Where several files have regions on the film, `drawings` lists them in the order of the
configuration: annotator, source and the three lists of each; the record's own lists are what the
rule of `annotations.annotators` chose or merged.
"""

from __future__ import annotations

import json
import string
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..errors import InputError
from ..files import read_json, write_text
from .films import FilmIndex, name_some
from .mapping import SUBSET, Vocabulary, origin_of, reserved, shown
from .merging import check_priority, merge
from .qc import Finding, Problem, check_film, findings_table, graded
from .reading import read
from .regions import AnnotatedFilm, AnnotationFile, Note, Region

LISTS = ("structures", "lines", "rejected")


def build_records(
    files: Sequence[str | Path],
    images: pd.DataFrame,
    classes: Sequence[str],
    settings: Mapping[str, Any],
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """One record per annotated film from annotation files of any form.

    Args:
        files: the annotation files (see :func:`lumbarflow.annotate.reading.read`). Each may list
            every film; films that several have regions on are merged by the configured rule.
        images: image_id, status (`accepted` or `rejected`), rows, columns; optionally file_name
            (the name of the source file, or ``{image_id}.png``), pictures (see
            :class:`lumbarflow.annotate.films.FilmIndex`) and pixel_spacing_mm.
        classes: the class names of the configuration.
        settings: the section `annotations` of the configuration: that of
            :class:`lumbarflow.annotate.mapping.Vocabulary` and of
            :func:`lumbarflow.annotate.qc.check_film`; annotators with rule and priority (see
            :func:`lumbarflow.annotate.merging.merge`); severity (check -> severity or `off`). An
            annotator has the name of the file, without extension.

    Returns:
        The records of accepted films with at least one annotation, by image_id; and the findings
        (image_id, structure_id, check, severity, message, as strings; image_id is null for those
        about a whole file).

    Raises:
        InputError: a file cannot be read, no film of it is among the images, no file has a region
            or all have predictions only that nobody accepted, or the configuration names a class
            that is not there.
    """
    vocabulary = Vocabulary(classes, settings)
    index = FilmIndex(images)
    films = images.set_index("image_id", drop=False)
    paths = [Path(file) for file in files]
    annotators = _annotators(paths)
    check_priority((settings.get("annotators") or {}).get("priority") or (), annotators)
    drawn: dict[str, list[_Drawing]] = defaultdict(list)
    findings: list[Finding] = []
    read_files = [read(path) for path in paths]
    if not any(film.regions for file in read_files for film in file.films):
        raise InputError(
            f"{name_some(map(str, paths))} has no region on any film: annotate and export again, "
            "or remove the file from the configuration."
        )
    for file, annotator, source in zip(read_files, annotators, _short_names(paths), strict=True):
        entries, found = _match(file, index, source)
        findings += found
        by_class, by_level = vocabulary.attributes_in(file)
        findings += _file_findings(file, vocabulary, by_class, by_level, source)
        for image_id, same in entries.items():
            drawing = _Drawing(annotator, source, same, by_class, by_level)
            findings += [Finding(image_id, None, *note) for note in drawing.notes]
            if films.loc[image_id, "status"] != "accepted":
                count = sum(len(film.regions) for film in same)
                message = (
                    f"the film was rejected (see the image manifest), so its {count} regions in "
                    f"{source} are not used"
                )
                findings.append(Finding(image_id, None, "film_rejected", "warning", message))
                continue
            if drawing.unreviewed:
                findings.append(_unreviewed(image_id, drawing))
            if drawing.annotations:
                drawn[image_id].append(drawing)
    unreviewed = any(finding.check == "prediction_not_reviewed" for finding in findings)
    if unreviewed and not drawn:
        raise InputError(
            f"{name_some(map(str, paths))} has predicted outlines only, none of them accepted: set "
            "`review` of each right outline to accepted, or `reviewed` of its film to yes."
        )
    records = []
    for image_id in sorted(drawn):
        record, found = _record(films.loc[image_id], drawn[image_id], vocabulary, settings)
        records.append(record)
        findings += found
    for image_id, status in zip(images["image_id"], images["status"], strict=True):
        if status == "accepted" and image_id not in drawn:
            message = "the film has no annotation"
            findings.append(Finding(image_id, None, "no_annotation", "info", message))
    findings.sort(key=lambda finding: (finding.image_id or "", finding.structure_id or ""))
    return records, findings_table(graded(findings, settings))


def _short_names(paths: Sequence[Path]) -> list[str]:
    """Names that tell the files apart: with as many of their folders as they need."""
    names = [path.name for path in paths]
    depth = 1
    while len(set(names)) < len(set(paths)) and depth < max(len(path.parts) for path in paths):
        depth += 1
        twice = {name for name in names if names.count(name) > 1}
        names = [
            "/".join(path.parts[-depth:]) if name in twice else name
            for name, path in zip(names, paths, strict=True)
        ]
    return names


def _annotators(paths: Sequence[Path]) -> list[str]:
    """The same names without extension, for those who drew."""
    return _short_names([path.with_suffix("") for path in paths])


def _match(
    file: AnnotationFile, index: FilmIndex, source: str
) -> tuple[dict[str, list[AnnotatedFilm]], list[Finding]]:
    """The films of a file that have regions, by image_id.

    Names that match no image may hold a patient's, so no message tells them.
    """
    entries: dict[str, list[AnnotatedFilm]] = defaultdict(list)
    findings: list[Finding] = []
    known, empty = 0, 0
    for film in file.films:
        ids, by = index.match(film, file.path.parent)
        known += bool(ids)
        if not film.regions:
            empty += not ids
            continue
        size = "" if film.size is None else f" ({film.size} bytes)"
        entry = f"entry {film.number}{size} of {source}, with {len(film.regions)} regions,"
        if not ids:
            message = f"{entry} is none of the images: correct its name or add the film"
            findings.append(Finding(None, None, "film_not_found", "error", message))
        elif len(ids) > 1:
            message = (
                f"{entry} may be any of {len(ids)} images ({name_some(ids)}): write its path as in "
                "the folder of films, or image_id.png"
            )
            findings.append(Finding(None, None, "film_ambiguous", "error", message))
        else:
            entries[ids[0]].append(film)
            if by != "name":
                message = f"entry {film.number} of {source} was found by its {by}, not its name"
                findings.append(Finding(ids[0], None, "film_by_likeness", "info", message))
    if file.films and not known:
        count = len(file.films)
        films = "1 film, which is not" if count == 1 else f"{count} films, none of which is"
        raise InputError(
            f"{file.path} has {films} among the images: give the films their names in the folder, "
            "or image_id.png."
        )
    if empty:
        message = f"{empty} entries of {source}, without regions, are none of the images"
        findings.append(Finding(None, None, "film_not_found", "info", message))
    for image_id, same in entries.items():
        if len(same) > 1:
            message = f"{source} has regions on the film in {len(same)} entries: all are taken"
            findings.append(Finding(image_id, None, "film_twice", "warning", message))
    return entries, findings


def _file_findings(
    file: AnnotationFile,
    vocabulary: Vocabulary,
    by_class: Sequence[str],
    by_level: Sequence[str],
    source: str,
) -> list[Finding]:
    """What is to say about a file as a whole: damage, and classes that are not known."""
    findings = [
        Finding(None, None, note.check, note.severity, f"{source}: {note.message}")
        for note in file.problems
    ]
    regions = [region for film in file.films for region in film.regions]
    if not regions:
        message = f"{source} has no region on any film"
        findings.append(Finding(None, None, "no_region", "warning", message))
    elif not by_class:
        seen = Counter(name for region in regions for name in region.attributes)
        listed = name_some((repr(shown(name)) for name, _ in seen.most_common()), 20)
        message = (
            f"{source} has no region attribute that is known to hold the class; seen: "
            f"{listed or 'none'}; set `annotations.class_attribute`"
        )
        findings.append(Finding(None, None, "no_class_attribute", "error", message))
    unknown: Counter[str] = Counter()
    for region in regions:
        meaning = vocabulary.meaning(region, by_class, by_level)
        if any(note.check == "unknown_class" for note in meaning.notes):
            unknown[repr(meaning.name)] += 1
    if unknown:
        listed = name_some((f"{name} {count} times" for name, count in unknown.most_common()), 20)
        message = (
            f"{source} has classes that are not known: {listed}; add them to "
            "`annotations.class_names` or `annotations.ignore`"
        )
        findings.append(Finding(None, None, "unknown_class", "error", message))
    return findings


class _Drawing:
    """What one file has on one film, before it is classified."""

    def __init__(
        self,
        annotator: str,
        source: str,
        films: Sequence[AnnotatedFilm],
        by_class: Sequence[str],
        by_level: Sequence[str],
    ) -> None:
        self.annotator, self.source = annotator, source
        self.by_class, self.by_level = by_class, by_level
        marks = [reserved(film.attributes) for film in films]
        self.reserved = any(mark for mark, _ in marks)
        self.notes = [note for _, notes in marks for note in notes]
        # Numbered over all regions, so that mending or accepting one does not rename the others.
        regions = [(region, film) for film in films for region in film.regions]
        self.annotations: list[tuple[int, Region, str]] = []
        for number, (region, film) in enumerate(regions, 1):
            origin = origin_of(region, film.attributes)
            if origin:
                self.annotations.append((number, region, origin))
        self.unreviewed = len(regions) - len(self.annotations)


def _unreviewed(image_id: str, drawing: _Drawing) -> Finding:
    """A film whose review is half done trains without what was not accepted: that is to be seen."""
    message = f"{drawing.unreviewed} predicted outlines in {drawing.source} are not reviewed, so "
    if drawing.annotations:
        message += "the film is used without them: accept or delete them"
        return Finding(image_id, None, "prediction_half_reviewed", "warning", message)
    message += "they are no annotations"
    return Finding(image_id, None, "prediction_not_reviewed", "info", message)


def _letters(n: int) -> str:
    """Nothing for the first drawing of a film, then b, c, ... z, ba, bb, ..."""
    text = ""
    while n:
        n, rest = divmod(n, 26)
        text = string.ascii_lowercase[rest] + text
    return text


def _record(
    film: pd.Series,
    drawings: Sequence[_Drawing],
    vocabulary: Vocabulary,
    settings: Mapping[str, Any],
) -> tuple[dict[str, Any], list[Finding]]:
    """The record of a film, and its findings."""
    image_id, rows, columns = film["image_id"], int(film["rows"]), int(film["columns"])
    spacing = film.get("pixel_spacing_mm")
    spacing = None if spacing is None or pd.isna(spacing) else float(spacing)
    findings: list[Finding] = []
    sorted_drawings = []
    for n, drawing in enumerate(drawings):
        lists = _sort(drawing, f"{image_id}-{_letters(n)}", vocabulary, findings, image_id)
        problems = check_film(lists["structures"], lists["lines"], rows, columns, spacing, settings)
        _take_out(lists, problems)
        findings += [Finding(image_id, *problem) for problem in problems]
        sorted_drawings.append({"annotator": drawing.annotator, "source": drawing.source, **lists})
    record = {"image_id": image_id, "rows": rows, "columns": columns}
    if any(drawing.reserved for drawing in drawings):
        record[SUBSET] = "test"
    if len(drawings) == 1:
        return record | {key: sorted_drawings[0][key] for key in LISTS}, findings
    annotators = settings.get("annotators") or {}
    rule = annotators.get("rule") or "first"
    *merged, problems = merge(
        sorted_drawings,
        rule,
        annotators.get("priority") or (),
        vocabulary.classes,
        rows,
        columns,
    )
    findings += [Finding(image_id, *problem) for problem in problems]
    lists = dict(zip(LISTS, merged, strict=True))
    if rule == "consensus":
        # Sound drawings may have a merger that is not, such as one with a level twice.
        problems = check_film(lists["structures"], lists["lines"], rows, columns, spacing, settings)
        _take_out(lists, problems)
        told = {(finding.structure_id, finding.check) for finding in findings}
        findings += [
            Finding(image_id, *problem)
            for problem in problems
            if (problem.structure_id, problem.check) not in told
        ]
    return record | lists | {"drawings": sorted_drawings}, findings


def _take_out(lists: dict[str, list[dict[str, Any]]], problems: Iterable[Problem]) -> None:
    """Move structures with an error among `problems` to the rejected regions; see `_sort`."""
    errors: dict[str | None, str] = {}
    for problem in problems:
        if problem.severity == "error":
            errors.setdefault(problem.structure_id, problem.check)
    lists["rejected"] += [
        _as_rejected(structure, errors[structure["structure_id"]])
        for structure in lists["structures"]
        if structure["structure_id"] in errors
    ]
    lists["rejected"].sort(key=lambda region: region["structure_id"])
    lists["structures"] = [
        {key: value for key, value in structure.items() if key != "shape"}
        for structure in lists["structures"]
        if structure["structure_id"] not in errors
    ]


def _sort(
    drawing: _Drawing,
    prefix: str,
    vocabulary: Vocabulary,
    findings: list[Finding],
    image_id: str,
) -> dict[str, list[dict[str, Any]]]:
    """The three lists of a drawing, by classes and shapes only; structures still with their shape.

    Its findings are appended to `findings`.
    """
    lists: dict[str, list[dict[str, Any]]] = {key: [] for key in LISTS}
    for number, region, origin in drawing.annotations:
        meaning = vocabulary.meaning(region, drawing.by_class, drawing.by_level)
        common = {
            "structure_id": f"{prefix}{number:03d}",
            "level": meaning.level,
            "annotator": drawing.annotator,
            "source": drawing.source,
            "origin": origin,
        }
        notes = [*region.notes, *meaning.notes]
        outline = {"shape": region.shape, "points": region.points}
        if meaning.line and region.shape not in ("point", "damaged"):
            lists["lines"].append({"name": meaning.name, **outline, **common})
        else:
            notes += _not_an_outline(region)
            error = next((note.check for note in notes if note.severity == "error"), None)
            if error:
                named = {"class_name": meaning.class_name, "name": meaning.name, "check": error}
                lists["rejected"].append({**named, **outline, **common})
            else:
                named = {"class_name": meaning.class_name, "polygon": region.points}
                lists["structures"].append({**named, "shape": region.shape, **common})
        findings += [Finding(image_id, common["structure_id"], *note) for note in notes]
    return lists


def _not_an_outline(region: Region) -> list[Note]:
    if region.shape == "point":
        return [Note("point", "error", "a point outlines nothing: draw a polygon")]
    if region.shape == "polyline":
        message = "an open line outlines nothing: close it or draw a polygon"
        return [Note("open_line", "error", message)]
    return []


def _as_rejected(structure: Mapping[str, Any], check: str) -> dict[str, Any]:
    rest = {key: value for key, value in structure.items() if key != "polygon"}
    name = structure["class_name"]
    return {
        "shape": "polygon",
        **rest,
        "name": name,
        "points": structure["polygon"],
        "check": check,
    }


def write_records(folder: str | Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Bring ``folder/{image_id}.json`` up to date: only records that differ are written.

    Those of other films are removed. A record that has not changed keeps its file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kept = set()
    for record in records:
        path = folder / f"{record['image_id']}.json"
        text = _as_text(record)
        if not path.is_file() or path.read_bytes() != text.encode("utf-8"):
            write_text(path, text)
        kept.add(path)
    for path in set(folder.glob("*.json")) - kept:
        path.unlink()


def _as_text(record: Mapping[str, Any]) -> str:
    """JSON with a line for each region: much quicker to write than indented throughout."""

    def dumps(value: Any) -> str:
        return json.dumps(value, sort_keys=True, ensure_ascii=False)

    entries = []
    for key, value in sorted(record.items()):
        listed = isinstance(value, list) and value
        text = "[\n  " + ",\n  ".join(map(dumps, value)) + "\n ]" if listed else dumps(value)
        entries.append(f" {dumps(key)}: {text}")
    return "{\n" + ",\n".join(entries) + "\n}\n"


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
