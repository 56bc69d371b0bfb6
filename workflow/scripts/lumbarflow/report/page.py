"""The HTML report: gathers what the earlier stages wrote and fills the page's template.

The page is one file. Pictures are embedded, styles are inline, and nothing is fetched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd

from ..annotate.qc import CHECKS
from ..errors import InputError
from ..evaluate.tables import TABLE1_ROWS, paper_order, table1
from ..files import read_grey, read_json, write_text
from ..prepare.masks import rasterise
from ..rle import decode
from .annotators import agreement_section
from .classes import classes_section
from .comparison import comparison_section
from .figures import TIMES, class_colours, duration, jpeg_uri, learning_curves, overlay, shrink
from .findings import SEVERITIES, finding_pictures, worst_first
from .labelling import labelling_section
from .reading import missing, read_table
from .replicates import replicates_section

#: Kónya et al. 2021, Table 1, in percent; the metrics in the order of `TABLE1_ROWS`.
PAPER_TABLE1 = {
    "unet": (98.17, 88.64, 92.65, 96.48),
    "mask_rcnn": (96.58, 86.78, 90.25, 93.47),
    "pspnet": (97.88, 86.50, 90.91, 95.93),
    "deeplabv3": (98.00, 88.14, 92.25, 96.16),
    "yolact": (97.84, 91.64, 94.43, 95.84),
}
#: Columns of an embedded film: sharp when enlarged, about 50 kB each.
FILM_WIDTH = 480
#: Films to decide that are pictured; all of them are in images/uncertain.
MAX_UNDECIDED = 120
#: Why a film is left out though it may be wanted, and has a picture.
UNDECIDED = ("view_uncertain", "burned_in_text_uncertain")
#: Findings listed in full; the counts above them are always complete.
MAX_FINDINGS = 200
#: Findings pictured, at about 25 kB each.
MAX_FINDING_PICTURES = 48
SUBSETS = {"train": "Training", "val": "Validation", "test": "Test"}


@dataclass(frozen=True)
class Page:
    """Everything that the template shows, ready to print.

    Attributes:
        models: display names, in the order of the columns.
        facts: (value, label) of the headline figures.
        subsets: (name, films, patients).
        rejected: (reason, films), most frequent first.
        privacy: what the statement of de-identification shows, see :func:`_privacy`.
        undecided: films whose header does not tell what they show: {"image_id", "evidence",
            "image"}, at most :data:`MAX_UNDECIDED`.
        n_undecided: how many there are.
        table1: a row a metric: {"metric", "cells": [{"run", "low", "high", "best", "paper",
            "paper_best"}]}, a cell a model, in percent as text; "paper" is None for a model that
            the paper lacks.
        n_test: films scored.
        comparison: differences between networks, see :func:`~.comparison.comparison_section`.
        legend: (class name, CSS colour).
        classes: figures by class, see :func:`~.classes.classes_section`.
        replicates: see :func:`~.replicates.replicates_section`; None without seeds and folds.
        runs: a row a model: {"name", "parameters", "epochs", "best_epoch", "time", "device",
            "seed"}.
        curves: address of the drawing of the learning curves.
        films: {"image_id", "note", "panels": [{"caption", "note", "alt", "image"}]}.
        labelling: levels and measurements, see :func:`~.labelling.labelling_section`.
        findings: (check, severity, count, meaning, remedy).
        finding_pictures: see :func:`lumbarflow.report.findings.finding_pictures`; at most
            :data:`MAX_FINDING_PICTURES`.
        n_to_picture: how many there would be.
        finding_list: (image_id, structure_id, check, severity, message), worst first, at most
            :data:`MAX_FINDINGS`.
        agreement: between annotators, see :func:`~.annotators.agreement_section`.
        config: the resolved configuration as text.
        versions: (package, version).
    """

    models: list[str]
    facts: list[tuple[str, str]]
    subsets: list[tuple[str, int, int]]
    rejected: list[tuple[str, int]]
    privacy: dict[str, Any]
    undecided: list[dict[str, Any]]
    n_undecided: int
    table1: list[dict[str, Any]]
    n_test: int
    comparison: dict[str, Any]
    legend: list[tuple[str, str]]
    classes: dict[str, Any]
    replicates: dict[str, Any] | None
    runs: list[dict[str, Any]]
    curves: str
    films: list[dict[str, Any]]
    labelling: dict[str, Any]
    findings: list[tuple[str, str, int, str, str]]
    finding_pictures: list[dict[str, Any]]
    n_to_picture: int
    finding_list: list[tuple[str, str, str, str, str]]
    agreement: dict[str, Any] | None
    config: str
    versions: list[tuple[str, str]]


def build_page(page: Page) -> str:
    """Fill the template; everything from outside is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("index.html.j2").render(vars(page))


def build_report(
    results: Path,
    models: Sequence[str],
    model_names: Mapping[str, str],
    classes: Sequence[str],
    films_shown: int,
    config: Mapping[str, Any],
    out: Path,
) -> None:
    """Write the report of a finished run to `out`.

    Args:
        results: the results folder; read are the manifest, the
            audit of de-identification, splits, findings, agreement, records, metrics,
            predictions, measurements and overlays, the models' `history.jsonl` and `run.json`, the
            films shown and those to decide.
        models: models to show; they come out in the order of the paper's Table 1.
        model_names: display names; a model without one keeps its own.
        classes: all classes in configuration order.
        films_shown: number of test films to picture, evenly spaced from the best to the worst.
        config: the resolved configuration.
        out: the HTML file.

    Raises:
        InputError: a file is missing or broken, or a model has no scores.
    """
    models = paper_order(models)
    names = {model: model_names.get(model, model) for model in models}
    manifest = read_table(results / "images/manifest.parquet")
    splits = read_table(results / "splits.parquet")
    findings = read_table(results / "annotations/qc.parquet")
    per_image = read_table(results / "metrics/per_image.parquet")
    summary = read_table(results / "metrics/summary.parquet")
    runs = {model: _read_json(results / f"models/{model}/run.json") for model in models}
    histories = {
        names[model]: _read_history(results / f"models/{model}/history.jsonl") for model in models
    }
    colours = class_colours(classes)
    uncertain = manifest[manifest["reason"].isin(UNDECIDED)].sort_values(
        ["reason", "image_id"], ascending=[False, True]
    )
    per_image = per_image[per_image["model"].isin(models)]
    pictures, n_to_picture = finding_pictures(results, findings, MAX_FINDING_PICTURES)
    films = _films(results, per_image, names, colours, films_shown)
    page = Page(
        models=list(names.values()),
        facts=_facts(manifest, splits),
        subsets=_subsets(splits),
        rejected=_counts(manifest.loc[manifest["status"] == "rejected", ["reason"]]),
        privacy=_privacy(read_table(results / "images/deidentification.parquet")),
        undecided=_undecided(results, uncertain.head(MAX_UNDECIDED)),
        n_undecided=len(uncertain),
        table1=_table1(summary, names),
        n_test=per_image["image_id"].nunique(),
        comparison=comparison_section(results, models, names),
        legend=[(name.replace("_", " "), _css(colour)) for name, colour in colours.items()],
        classes=classes_section(
            results, models, names, {name: _css(colour) for name, colour in colours.items()}
        ),
        replicates=replicates_section(results, models, names, config.get("training", {})),
        runs=[_run_row(names[model], run) for model, run in runs.items()],
        curves=learning_curves(histories),
        films=films,
        labelling=labelling_section(results, models, names, [film["image_id"] for film in films]),
        findings=_finding_counts(findings),
        finding_pictures=pictures,
        n_to_picture=n_to_picture,
        finding_list=[
            tuple("" if pd.isna(value) else str(value) for value in row)
            for row in worst_first(findings)[
                ["image_id", "structure_id", "check", "severity", "message"]
            ]
            .head(MAX_FINDINGS)
            .itertuples(index=False)
        ],
        agreement=agreement_section(read_table(results / "annotations/agreement.parquet")),
        config=json.dumps(config, indent=2, ensure_ascii=False, default=str),
        versions=_versions(runs),
    )
    write_text(out, build_page(page))


def _facts(manifest: pd.DataFrame, splits: pd.DataFrame) -> list[tuple[str, str]]:
    accepted = manifest[manifest["status"] == "accepted"]
    return [
        (f"{len(manifest):,}", "films met"),
        (f"{len(accepted):,}", "accepted"),
        (f"{len(manifest) - len(accepted):,}", "rejected"),
        (f"{accepted['patient_id'].nunique():,}", "patients with accepted films"),
        (f"{accepted['study_id'].nunique():,}", "studies with accepted films"),
        (f"{len(splits):,}", "films annotated"),
    ]


def _subsets(splits: pd.DataFrame) -> list[tuple[str, int, int]]:
    rows = []
    for subset, name in SUBSETS.items():
        films = splits[splits["subset"] == subset]
        rows.append((name, len(films), films["patient_id"].nunique()))
    return rows


def _undecided(results: Path, films: pd.DataFrame) -> list[dict[str, Any]]:
    """Picture and evidence of each film that a person has to look at."""
    return [
        {
            "image_id": row.image_id,
            "text": row.reason != "view_uncertain",
            "evidence": [] if pd.isna(row.view_evidence) else row.view_evidence.split(),
            "image": jpeg_uri(read_grey(results / f"images/uncertain/{row.image_id}.png")),
        }
        for row in films.itertuples()
    ]


def _privacy(audit: pd.DataFrame) -> dict[str, Any]:
    """The statement of de-identification from its audit (images/deidentification.parquet).

    Returns:
        statement: sentences; fingerprint: of the key; versions: (package, version); films, text:
        counts by outcome or item; outcomes: (outcome, attributes, elements); attributes:
        (attribute, outcome, count); verification: counts by item, empty where it was switched off.
    """

    def part(name: str) -> pd.DataFrame:
        return audit[audit["part"] == name]

    def counts(name: str, by: str) -> dict[str, int]:
        return part(name).set_index(by)["count"].to_dict()

    attributes = part("attribute")
    outcomes = attributes.groupby("outcome")["count"].agg(["size", "sum"])
    return {
        "statement": part("statement")["item"].tolist(),
        "fingerprint": part("key")["item"].iloc[0],
        "versions": list(zip(part("version")["item"], part("version")["outcome"], strict=True)),
        "films": counts("film", "outcome"),
        "text": counts("text", "item"),
        "outcomes": list(outcomes.sort_values("sum", ascending=False).itertuples(name=None)),
        "attributes": list(
            attributes[["item", "outcome", "count"]].itertuples(index=False, name=None)
        ),
        "verification": counts("verification", "item"),
    }


def _counts(table: pd.DataFrame) -> list[tuple]:
    """Each distinct row of `table` with its count, most frequent first."""
    columns = list(table.columns)
    counts = table.fillna("not stated").groupby(columns).size().reset_index(name="n")
    counts = counts.sort_values(["n", *columns], ascending=[False, *[True] * len(columns)])
    return list(counts.itertuples(index=False, name=None))


def _finding_counts(findings: pd.DataFrame) -> list[tuple[str, str, int, str, str]]:
    """Check, severity, count, meaning and remedy of each kind of finding, the worst first."""
    counts = sorted(
        _counts(findings[["check", "severity"]]), key=lambda row: SEVERITIES.index(row[1])
    )
    rows = []
    for check, severity, count in counts:
        known = CHECKS.get(check)
        meaning, remedy = (known.meaning, known.remedy) if known else ("", "")
        rows.append((check, severity, count, meaning, remedy))
    return rows


def _table1(summary: pd.DataFrame, names: Mapping[str, str]) -> list[dict[str, Any]]:
    table = table1(summary, list(names), names).set_index("metric")
    intervals = 100 * summary.set_index(["model", "metric"])[["ci_low", "ci_high"]]
    rows = []
    for index, (metric, title) in enumerate(TABLE1_ROWS.items()):
        best = table.loc[title].max()
        paper = {model: PAPER_TABLE1[model][index] for model in names if model in PAPER_TABLE1}
        cells = []
        for model, name in names.items():
            low, high = intervals.loc[(model, metric)]
            cells.append(
                {
                    "run": f"{table.loc[title, name]:.2f}",
                    "best": table.loc[title, name] == best,
                    "low": f"{low:.2f}",
                    "high": f"{high:.2f}",
                    "paper": f"{paper[model]:.2f}" if model in paper else None,
                    "paper_best": model in paper and paper[model] == max(paper.values()),
                }
            )
        rows.append({"metric": title, "cells": cells})
    return rows


def _run_row(name: str, run: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "parameters": f"{run['parameters'] / 1e6:.2f} M",
        "epochs": run["epochs"],
        "best_epoch": run["best_epoch"],
        "time": duration(run["seconds"]),
        "device": run["device"],
        "seed": run["seed"],
    }


def _versions(runs: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Each package with its version; with all of them where models were trained with several."""
    found: dict[str, set[str]] = {}
    for run in runs.values():
        for package, version in run["versions"].items():
            found.setdefault(package, set()).add(str(version))
    return [(package, ", ".join(sorted(found[package]))) for package in sorted(found)]


def _films(
    results: Path,
    per_image: pd.DataFrame,
    names: Mapping[str, str],
    colours: Mapping[str, tuple],
    films_shown: int,
) -> list[dict[str, Any]]:
    """Pictures of test films evenly spaced in rank of mean Dice, the best first."""
    ranking = per_image.groupby("image_id")["dice"].mean().reset_index()
    ranking = ranking.sort_values(["dice", "image_id"], ascending=[False, True])
    count = min(films_shown, len(ranking))
    ranks = np.unique(np.linspace(0, len(ranking) - 1, count).round().astype(int))
    shown = ranking["image_id"].iloc[ranks].to_list()
    dice = per_image.set_index(["model", "image_id"])["dice"]
    predictions = {
        model: read_table(
            results / f"predictions/networks/{model}.parquet", filters=[("image_id", "in", shown)]
        )
        for model in names
        if shown
    }
    films = []
    for rank, image_id in zip(ranks, shown, strict=True):
        film = read_grey(results / f"images/png/{image_id}.png")
        small = shrink(film, FILM_WIDTH)
        record = _read_json(results / f"annotations/records/{image_id}.json")
        drawings = [
            ("Film", "", []),
            ("Reference", "", _reference_layers(record, film.shape)),
        ]
        for model, name in names.items():
            rows = predictions[model][predictions[model]["image_id"] == image_id]
            score = dice.get((model, image_id), np.nan)
            note = "" if np.isnan(score) else f"Dice {100 * score:.1f}"
            drawings.append((name, note, _prediction_layers(rows)))
        panels = []
        for caption, note, layers in drawings:
            layers = [(kind, shrink(mask, FILM_WIDTH)) for kind, mask in layers if kind in colours]
            picture = overlay(small, layers, colours) if layers else small
            panels.append(
                {
                    "caption": caption,
                    "note": note,
                    "alt": f"{caption}: lateral lumbar radiograph {image_id}"
                    + (f" with {len(layers)} outlined structures" if caption != "Film" else ""),
                    "image": jpeg_uri(picture),
                }
            )
        films.append(
            {
                "image_id": image_id,
                "note": f"rank {rank + 1} of {len(ranking)} by mean Dice",
                "panels": panels,
            }
        )
    return films


def _reference_layers(record: Mapping[str, Any], shape: tuple) -> list[tuple[str, np.ndarray]]:
    return [
        (structure["class_name"], rasterise(structure["polygon"], *shape))
        for structure in record["structures"]
    ]


def _prediction_layers(rows: pd.DataFrame) -> list[tuple[str, np.ndarray]]:
    columns = rows[["class_name", "rle_counts", "rle_height", "rle_width"]]
    return [
        (name, decode(counts, int(height), int(width)))
        for name, counts, height, width in columns.itertuples(index=False)
    ]


def _read_json(path: Path) -> Any:
    try:
        return read_json(path)
    except FileNotFoundError:
        raise missing(path) from None
    except json.JSONDecodeError:
        raise InputError(f"{path} is not JSON: remove it and run the workflow again.") from None


def _read_history(path: Path) -> pd.DataFrame:
    """One row for each epoch and split, with the columns of :func:`~.figures.learning_curves`."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        raise missing(path) from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path} has a line that is not JSON ({error.msg}): remove it and train again."
        ) from None
    rows = [
        {key: line[key] for key in ("epoch", "split", "loss", "seconds")}
        | {"dice": line["metrics"].get("dice")}
        | {part: line.get("times", {}).get(part) for part in TIMES}
        for line in lines
    ]
    numbers = ["loss", "dice", "seconds", *TIMES]
    history = pd.DataFrame(rows, columns=["epoch", "split", *numbers])
    history = history.astype(dict.fromkeys(numbers, float))
    # A resumed training may write an epoch again; the later line is the one that counts.
    return history.drop_duplicates(["epoch", "split"], keep="last").sort_values("epoch")


def _css(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
