"""README.md and docs/: nothing in them may name what does not exist, or differ from the code."""

from __future__ import annotations

import ast
import importlib.util
import logging
import re
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from jsonschema import Draft202012Validator

from lumbarflow.acquire.films import MANIFEST
from lumbarflow.acquire.view import REASONS
from lumbarflow.annotate.agreement import AGREEMENT
from lumbarflow.annotate.qc import CHECKS, Check, Finding
from lumbarflow.deidentify.audit import COLUMNS as AUDIT
from lumbarflow.evaluate.class_summary import CLASS_SUMMARY
from lumbarflow.evaluate.failures import ERRORS, RANKING
from lumbarflow.evaluate.film import BOUNDARIES, COUNTS, DETECTIONS
from lumbarflow.evaluate.levels import CONFUSION, FILMS
from lumbarflow.evaluate.levels import SUMMARY as LEVEL_SUMMARY
from lumbarflow.evaluate.measurements import COMPARED, RELIABILITY, SUMMARY
from lumbarflow.evaluate.metrics import segmentation_metrics
from lumbarflow.evaluate.replicates import COLUMNS as REPLICATES
from lumbarflow.evaluate.replicates import DIFFERENCES
from lumbarflow.evaluate.replicates import SUMMARY as REPLICATE_SUMMARY
from lumbarflow.evaluate.scores import SCORE_RELIABILITY
from lumbarflow.evaluate.statistics import COMPARISONS, MEANS
from lumbarflow.evaluate.strata import STRATA
from lumbarflow.evaluate.tables import match_vertebrae, score_masks, summarise
from lumbarflow.measure.changes import COLUMNS as CHANGES
from lumbarflow.measure.cohort import LABELLED
from lumbarflow.measure.film import MEASUREMENTS, VERTEBRAE
from lumbarflow.prepare.folds import divide
from lumbarflow.prepare.splits import make_splits
from lumbarflow.train.history import History

ROOT = Path(__file__).resolve().parents[2]
GUIDE = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*(ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING")), *GUIDE]
PACKAGE = ROOT / "workflow" / "scripts" / "lumbarflow"
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DOTTED = re.compile(r"[a-z][a-z_0-9]*(?:\.[A-Za-z_0-9]+)+")
FILES = {"csv", "html", "json", "jsonl", "key", "md", "parquet", "png", "pth", "py", "tex", "yaml"}
FILES |= {"smk"}
NOT_KEYS = {"pandas.read_parquet"}


def load_make_docs():
    """Import tools/make_docs.py, which is no package."""
    spec = importlib.util.spec_from_file_location("make_docs", ROOT / "tools" / "make_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_docs = load_make_docs()
KEYS = {key for key, _ in make_docs.keys(SCHEMA)} | {f"networks.{make_docs.NETWORK}"}


def prose(page: Path) -> str:
    """The text of a page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    return [body for name, body in FENCE.findall(page.read_text("utf-8")) if name == language]


def code_spans(page: Path) -> list[str]:
    """The inline code of a page."""
    return re.findall(r"`([^`\n]+)`", prose(page))


def commands() -> list[str]:
    """Every line of a shell block, and every inline code, of all pages."""
    lines = [line for page in PAGES for body in blocks(page, "bash") for line in body.splitlines()]
    return lines + [span for page in PAGES for span in code_spans(page)]


def named_keys(page: Path) -> set[str]:
    """The configuration keys that the inline code of a page names, as `a.b` or `a: value`."""
    found = set()
    for span in code_spans(page):
        key, colon, _ = span.partition(": ")
        if colon and re.fullmatch(r"[a-z_.]+", key):
            found.add(key)
        elif DOTTED.fullmatch(span) and span.rpartition(".")[2] not in FILES:
            found.add(span)
    return found - NOT_KEYS


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def columns(heading: str) -> list[str]:
    """The first column of the table below a heading of results.md."""
    text = (ROOT / "docs/reference/results.md").read_text(encoding="utf-8")
    section = re.search(rf"^#+ {re.escape(heading)}.*?\n(.*?)(?=^#|\Z)", text, re.M | re.S)
    return re.findall(r"^\| `(\w+)` \|", section[1], re.MULTILINE)


def test_configuration_page_is_as_generated():
    assert make_docs.PAGE.read_text(encoding="utf-8") == make_docs.generate()


def test_check_tells_a_page_that_differs(tmp_path, monkeypatch, capsys):
    page = tmp_path / "configuration.md"
    monkeypatch.setattr(make_docs, "ROOT", tmp_path)
    monkeypatch.setattr(make_docs, "PAGE", page)
    page.write_text("old")
    monkeypatch.setattr(sys, "argv", ["make_docs.py", "--check"])
    assert make_docs.main() == 1
    assert page.read_text() == "old"
    assert "differs" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["make_docs.py"])
    assert make_docs.main() == 0
    assert page.read_text() == make_docs.generate(ROOT)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"type": "integer", "minimum": 1}, "whole number, at least 1"),
        ({"type": ["string", "null"]}, "text or null"),
        ({"type": "string", "enum": ["a", "b"]}, "one of `a`, `b`"),
        (
            {"type": "array", "items": {"type": "integer", "minimum": 4}, "minItems": 1},
            "list of whole numbers, at least 4, at least 1 of them",
        ),
        ({"type": "object", "additionalProperties": {"type": "string"}}, "group of text"),
    ],
)
def test_type_of(entry, words):
    assert make_docs.type_of(entry) == words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(page))
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def links(page: Path) -> list[Path]:
    """What a page links to in this repository, without anchors."""
    found = re.findall(r"\]\((?!https?:)([^)\s#]+)", prose(page))
    return [(page.parent / link).resolve() for link in found]


def reached(start: Path) -> set[Path]:
    """The pages that one can come to by links of the guide, from `start`."""
    found, waiting = set(), [start]
    while waiting:
        page = waiting.pop()
        if page not in found:
            found.add(page)
            waiting += [link for link in links(page) if link in PAGES]
    return found


def test_every_page_is_reached_from_the_index_and_the_readme():
    assert reached(ROOT / "docs/index.md") >= set(GUIDE)
    assert reached(ROOT / "README.md") == set(PAGES)


@pytest.mark.parametrize("kind", ["how-to", "explanation", "reference"])
def test_the_index_has_each_page_under_its_heading(kind):
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {kind}:.*?\n(.*?)(?=^## |\Z)", index, re.M | re.S | re.I)
    pages = [path.name for path in (ROOT / "docs" / kind).glob("*.md")]
    assert sorted(re.findall(rf"\({kind}/([^)]+)\)", section[1])) == sorted(pages)


def test_links_are_told_from_text(tmp_path, monkeypatch):
    pages = {
        "index.md": "[a](sub/a.md#x) [b](https://b.example/c.md)\n```\n[c](c.md)\n```\n",
        "sub/a.md": "[i](../index.md) [d](d.md)",
        "sub/d.md": "",
        "c.md": "",
    }
    for name, text in pages.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setitem(globals(), "PAGES", [tmp_path / name for name in pages])
    assert reached(tmp_path / "index.md") == {tmp_path / name for name in pages} - {
        tmp_path / "c.md"
    }


def test_places_that_contributors_are_sent_to_exist():
    tops = {path.name for path in ROOT.iterdir()}
    spans = code_spans(ROOT / "CONTRIBUTING.md")
    places = [span for span in spans if "/" in span and span.split("/")[0] in tops]
    assert len(places) > 15
    assert not [place for place in places if not (ROOT / place).exists()]


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    rules = re.findall(r"^([\w -]+):(?!=)", makefile, re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    named = {name for line in commands() for name in re.findall(r"\bmake ([a-z][\w-]*)", line)}
    assert {"demo", "test"} <= named
    assert named <= targets


def test_forced_rules_exist():
    rules = {
        name
        for path in (ROOT / "workflow/rules").glob("*.smk")
        for name in re.findall(r"^\s*rule (\w+):", path.read_text(), re.MULTILINE)
    }
    named = {name for line in commands() for name in re.findall(r"--forcerun (\w+)", line)}
    assert named
    assert named <= rules


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_configuration_keys_exist(page):
    assert named_keys(page) <= KEYS


def test_configuration_keys_are_found_in_the_pages():
    named = set.union(*map(named_keys, PAGES))
    assert {"archive.embedded", "preset", "networks.NAME.width"} <= named


def test_configurations_in_the_pages_are_valid():
    validator = Draft202012Validator(SCHEMA)
    found = [yaml.safe_load(body) for page in PAGES for body in blocks(page, "yaml")]
    assert found
    for configuration in found:
        assert not [error.message for error in validator.iter_errors(configuration)]


def test_columns_in_results_are_those_of_the_code():
    tree = ast.parse((PACKAGE / "predict/table.py").read_text())  # importing it takes torch
    predictions = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "COLUMNS"
    )
    empty = pd.DataFrame(columns=list(predictions)).astype(predictions)
    per_image, per_class = score_masks("unet", empty, [], ["a"], ["a"])
    instances = match_vertebrae("unet", empty, [], ["a"])
    films = pd.DataFrame({"image_id": list("abc"), "patient_id": list("xyz")})
    scores = pd.DataFrame([["unet", "a", *[0.5] * 5]], columns=per_image.columns)
    tables = {
        "images/manifest.parquet": MANIFEST,
        "images/deidentification.parquet": AUDIT,
        "annotations/qc.parquet": Finding._fields,
        "annotations/agreement.parquet": AGREEMENT,
        "splits.parquet": make_splits(films, 1, 0.5, 0),
        "prepared/folds/films.parquet": divide(films.assign(subset="train"), 3, 0),
        "predictions/{model}.parquet": [*predictions, *LABELLED],
        "measurements/{source}.parquet": MEASUREMENTS,
        "measurements/vertebrae/{source}.parquet": VERTEBRAE,
        "measurements/changes/{source}.parquet": CHANGES,
        "metrics/counts.parquet": COUNTS,
        "metrics/boundaries.parquet": BOUNDARIES,
        "metrics/detections.parquet": DETECTIONS,
        "metrics/per_image.parquet": per_image,
        "metrics/per_class.parquet": per_class,
        "metrics/instances.parquet": [*instances, "iou_unrepaired", "level_unrepaired"],
        "metrics/measurements.parquet": ["model", "against", *COMPARED],
        "metrics/measurement_summary.parquet": ["model", "against", *SUMMARY],
        "metrics/reliability.parquet": ["model", "against", *RELIABILITY],
        "metrics/levels.parquet": FILMS,
        "metrics/level_summary.parquet": LEVEL_SUMMARY,
        "metrics/level_confusion.parquet": CONFUSION,
        "metrics/comparisons.parquet": COMPARISONS,
        "metrics/strata.parquet": MEANS,
        "metrics/errors.parquet": ERRORS,
        "metrics/film_ranking.parquet": [*RANKING, *STRATA],
        "metrics/summary.parquet": summarise(scores, 0, 10),
        "metrics/class_summary.parquet": CLASS_SUMMARY,
        "metrics/score_reliability.parquet": SCORE_RELIABILITY,
        "metrics/replicates.parquet": REPLICATES,
        "metrics/replicate_summary.parquet": REPLICATE_SUMMARY,
        "metrics/replicate_differences.parquet": DIFFERENCES,
    }
    for heading, table in tables.items():
        assert columns(heading) == list(table), heading


def test_keys_of_the_history_in_results_are_those_of_the_code(tmp_path):
    history = History(tmp_path / "history.jsonl", 1, logging.getLogger("lumbarflow.test"))
    history.add(1, "train", 1.0, {}, 1.0, 1, times={}, losses={}, learning_rate=0.1)
    assert columns("models") == list(history.rows[0])


def test_quality_checks_in_the_page_are_those_of_the_code():
    page = (ROOT / "docs/reference/quality-checks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+)( \(fixed\))? \| (.+) \| (.+) \|$", page, re.MULTILINE)
    listed = {name: Check(severity, *texts, bool(fixed)) for name, severity, fixed, *texts in rows}
    assert listed == CHECKS
    assert list(listed) == list(CHECKS)


def test_findings_of_the_reader_are_among_the_checks():
    folder = PACKAGE / "annotate"
    files = [folder / "records.py", folder / "mapping.py", *(folder / "reading").glob("*.py")]
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    calls = r'(?:Note\(|Finding\([\w\[\]]+, None,)\s*"(\w+)",\s*"(\w+)"'
    found = set(re.findall(calls, text))
    assert len(found) > 15
    # An entry without regions that fits no film is an info.
    named = {(name, CHECKS[name].severity) for name, _ in found} | {("film_not_found", "info")}
    assert found == named


def test_severities_in_the_configuration_are_those_of_the_code():
    entries = SCHEMA["properties"]["annotations"]["properties"]["severity"]["properties"]
    assert {name: entry["default"] for name, entry in entries.items()} == {
        name: check.severity for name, check in CHECKS.items() if not check.fixed
    }


def test_reasons_in_the_guide_are_those_of_the_code():
    names = ("films", "folder", "retrieve", "selection")
    code = "".join((PACKAGE / f"acquire/{name}.py").read_text() for name in names)
    page = (ROOT / "docs/how-to/own-archive.md").read_text(encoding="utf-8")
    section = page.partition("## What is taken")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    named = set(re.findall(r'row \| {"reason": f?"(\w+)', code))
    named |= set(re.findall(r'reject\(incoming, uid, "(\w+)"\)', code))
    named |= set(re.findall(r'return "(\w+)"', code))
    named |= set(re.findall(r'else "(\w+)"\n', code))
    assert sorted(listed) == sorted(named | {*REASONS})


def test_worked_cases_of_metrics_are_what_the_code_computes():
    block, empty = np.zeros((4, 4), int), np.zeros((4, 4), int)
    block[1:3, 1:3] = 1
    absent_class, one_pixel = block.copy(), empty.copy()
    absent_class[0, 0], one_pixel[0, 0] = 2, 1
    cases = {
        "one background pixel predicted as absent class 2": (block, absent_class),
        "class 1 missed entirely": (block, empty),
        "reference all background, one false pixel": (empty, one_pixel),
    }
    page = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", page, re.M)
    assert {case for case, *_ in rows} == set(cases)
    for case, *values in rows:
        computed = segmentation_metrics(*cases[case])
        names = ("pixel_accuracy", "mean_accuracy", "mean_iou", "frequency_weighted_iou")
        assert [float(value) for value in values] == pytest.approx(
            [computed[name] for name in names], abs=5e-7
        )


def test_example_network_can_be_built():
    torch = pytest.importorskip("torch")
    from lumbarflow.networks.base import Settings

    page = ROOT / "docs/how-to/add-a-network.md"
    module = types.ModuleType("lumbarflow.networks.fpn")
    module.__package__ = "lumbarflow.networks"
    exec(compile(blocks(page, "python")[0], str(page), "exec"), vars(module))
    entry = yaml.safe_load(blocks(page, "yaml")[0])["networks"]["fpn"]
    entry.pop("title")
    training = {"foreground": ["a"], "weights": None, "seed": 1, "augmentation": {}}
    training["normalisation"] = (128.0, 64.0)
    settings = Settings(classes=["a", "b"], **training, **entry)
    assert hasattr(module.NETWORK, "losses")
    with torch.no_grad():
        logits = module._build(settings).eval()(torch.zeros(1, 1, 64, 96))
    assert logits.shape == (1, 2, 64, 96)


def test_citation_and_licence():
    """What the Citation File Format 1.2.0 requires of the software and of a reference."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= set(paper)
    assert all(set(author) == {"family-names", "given-names"} for author in paper["authors"])
    readme = re.sub(r"\s*\n>?\s*", " ", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert paper["doi"] in readme
    assert paper["title"] in readme
    assert (ROOT / "LICENSE").read_text().startswith(f"{citation['license']} License\n")
    assert citation["authors"][0]["name"] in (ROOT / "LICENSE").read_text()


def test_entry_of_the_workflow_catalog():
    entry = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(entry) == {"mandatory-flags", "software-stack-deployment"}
    deployment = entry["software-stack-deployment"]
    assert set(deployment) == {"conda", "apptainer", "apptainer+conda", "report"}
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    assert deployment["conda"] == ("conda:" in rules)
    assert deployment["report"] == ("report(" in rules)
    assert deployment["apptainer"] == ("container:" in rules)
