"""What a run has to offer a paper: tables as Markdown and LaTeX, methods, reporting checklists."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..annotate.records import read_record
from ..errors import InputError
from ..evaluate.statistics import FAMILIES
from ..evaluate.tables import paper_order
from ..files import read_json, write_text
from . import paper_tables
from .paper_checklist import checklist
from .paper_methods import Run, methods
from .paper_tables import Table, latex, markdown
from .reading import missing, read_table

#: The files of :func:`write_paper`.
FILES = (
    *("table1.md", "table1.tex", "table2.md", "table2.tex", "comparisons.md", "comparisons.tex"),
    *("methods.md", "checklist.md"),
)
_STRUCTURE = ("class_name", "level", "origin")


def write_paper(
    results: Path,
    models: Sequence[str],
    titles: Mapping[str, str],
    config: Mapping[str, Any],
    versions: Mapping[str, str],
    out: Path,
) -> None:
    """Write :data:`FILES`.

    Args:
        results: the results folder; read is what :func:`read_run` names.
        models: networks to show; they come out in the order of the paper's Table 1.
        titles: display names; a network without one keeps its own.
        config: the resolved configuration.
        versions: of packages that tables and statistics were made with.
        out: the folder to write to.

    Raises:
        InputError: a file is missing or damaged, or a network has no scores.
    """
    for name, text in paper_texts(read_run(results, models, titles, config, versions)).items():
        write_text(out / name, text)


def read_run(
    results: Path,
    models: Sequence[str],
    titles: Mapping[str, str],
    config: Mapping[str, Any],
    versions: Mapping[str, str],
) -> Run:
    """Read what the texts are made from.

    Read are the manifest, the audit of the de-identification, splits, findings, agreement, records
    and `run.json`, and of the metrics summary, comparisons, errors, class_summary where there is
    one, and replicate_summary where the configuration asks for seeds or folds. The arguments are
    those of :func:`write_paper`.

    Raises:
        InputError: a file is missing or damaged, or a network has no scores.
    """
    names = {model: titles.get(model, model) for model in paper_order(models)}
    splits = read_table(results / "splits.parquet")
    summary = read_table(results / "metrics/summary.parquet")
    for model in names:
        if model not in set(summary["model"]):
            raise InputError(
                f"The network {model} has no scores in metrics/summary.parquet: run the workflow "
                f"again, or take {model} out of `models`."
            )
    compared = read_table(results / "metrics/comparisons.parquet")
    shown = [*names, *FAMILIES]
    structures, annotators = _drawn(results / "annotations/records", splits["image_id"])
    training = config["training"]
    further = training.get("seeds") or training.get("folds")
    classes = results / "metrics/class_summary.parquet"
    return Run(
        config=config,
        titles=names,
        manifest=read_table(results / "images/manifest.parquet"),
        splits=splits,
        audit=read_table(results / "images/deidentification.parquet"),
        findings=read_table(results / "annotations/qc.parquet"),
        agreement=read_table(results / "annotations/agreement.parquet"),
        structures=structures,
        annotators=annotators,
        runs={model: _run_json(results / f"models/{model}/run.json") for model in names},
        summary=summary,
        compared=compared[compared["a"].isin(shown) & compared["b"].isin(shown)],
        errors=read_table(results / "metrics/errors.parquet"),
        classes=read_table(classes) if classes.exists() else None,
        replicates=read_table(results / "metrics/replicate_summary.parquet") if further else None,
        versions=versions,
    )


def paper_texts(run: Run) -> dict[str, str]:
    """The content of each of :data:`FILES`."""
    films, patients = run.size("test")
    foreground = run.config["evaluation"]["foreground"]
    of_classes = None
    if run.classes is not None:
        of_classes = paper_tables.table2(run.classes, run.titles, foreground, patients)
    first = paper_tables.table1(run.summary, run.titles, films, patients)
    compared = paper_tables.comparison_tables(run.compared, run.titles)
    alone = "There is one network: it has nothing to be compared with."
    return {
        **_both("table1", [first], ""),
        **_both("table2", [of_classes] if of_classes else [], "There are no scores by class."),
        **_both("comparisons", compared, alone),
        "methods.md": methods(run),
        "checklist.md": checklist(run),
    }


def _both(name: str, tables: Sequence[Table], otherwise: str) -> dict[str, str]:
    """Tables as Markdown and LaTeX; without any, what is said instead."""
    return {
        f"{name}.md": "\n".join(map(markdown, tables)) or f"{otherwise}\n",
        f"{name}.tex": "\n".join(map(latex, tables)) or f"% {otherwise}\n",
    }


def _drawn(records: Path, films: Sequence[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`structures` and `annotators` of :class:`.paper_methods.Run`."""
    structures, annotators = [], set()
    for image_id in films:
        record = read_record(records / f"{image_id}.json")
        # What is merged from several drawings need not name who drew it.
        for drawing in record.get("drawings") or record["structures"]:
            annotators.add((image_id, drawing["annotator"]))
        for structure in record["structures"]:
            structures.append((image_id, *(structure.get(name) for name in _STRUCTURE)))
    return tuple(
        pd.DataFrame(rows, columns=["image_id", *columns], dtype="string")
        for rows, columns in ((structures, _STRUCTURE), (sorted(annotators), ["annotator"]))
    )


def _run_json(path: Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except FileNotFoundError:
        raise missing(path) from None
    except json.JSONDecodeError:
        raise InputError(f"{path} is not JSON: remove it and run the workflow again.") from None
