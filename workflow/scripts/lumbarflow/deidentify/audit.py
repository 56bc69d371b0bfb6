"""The de-identification statement's figures: what was done to how much, for the ethics board."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from ..files import write_table
from ..verify.quarantine import quarantine
from ..verify.search import search
from .deidentifier import Deidentifier

#: Originals of which values are looked for, unless all are asked for.
SAMPLE = 50
COLUMNS = ("part", "item", "outcome", "count")
#: What the audit tells of a verification, by its name there.
VERIFIED = {
    "originals": "originals met",
    "objects": "originals of which values were looked for",
    "values": "values",
    "not_searchable": "values too short to be looked for",
    "files": "files searched",
    "bytes": "bytes searched",
    "findings": "findings",
}
_PACKAGES = ("pydicom", "dicom-anonymizer", "rapidocr", "onnxruntime")


def conclude(
    rows: Iterable[Mapping[str, Any]],
    deidentifier: Deidentifier,
    verify: str,
    results: Path,
    audit: Path,
    given: str,
    log: logging.Logger,
) -> None:
    """Verify what the run has written, and write the audit: the last step of an acquisition.

    Args:
        rows: of the manifest, with their `audit`, see :func:`lumbarflow.acquire.films.take_dicom`.
        deidentifier: what the films were de-identified with; its witness tells what to look for.
        verify: `all`, or else a sample of :data:`SAMPLE` originals is looked for.
        results: the folder of the results, searched with Snakemake's own; what identifies is moved
            into its `quarantine/`.
        audit: the table to write.
        given: what the user wrote, such as the configuration; its words are no finding.
        log: where the outcome is told.

    Raises:
        InputError: something that identifies was found.
    """
    rows = list(rows)
    verification: dict[str, Any] = {}
    if deidentifier.witness is not None:
        places = [place for place in (results, Path(".snakemake")) if place.exists()]
        sample = "all" if verify == "all" else SAMPLE
        found = search(deidentifier.witness, places, sample=sample, log=log, given=[given])
        if found.findings:
            raise quarantine(found.findings, results)
        verification = found.audit
    write_table(audit, table(rows, deidentifier, verification))


def table(
    rows: Iterable[Mapping[str, Any]],
    deidentifier: Deidentifier,
    verification: Mapping[str, Any],
) -> pd.DataFrame:
    """The audit: one row a count.

    Returns:
        part (`statement`, `key`, `version`, `film`, `text`, `attribute`, `verification`), item,
        outcome, count.
    """
    films: Counter[str] = Counter()
    text: Counter[str] = Counter()
    attributes: Counter[tuple[str, str]] = Counter()
    for row in rows:
        films["accepted" if row["status"] == "accepted" else row["reason"].split(":")[0]] += 1
        if row["blanked_texts"] is not None:
            text["films searched"] += 1
            text["films with text"] += row["blanked_texts"] > 0
            text["areas blanked"] += row["blanked_texts"]
        for item, outcome, count in row.get("audit") or ():
            attributes[item, outcome] += count
    lines = [("statement", sentence, "", 1) for sentence in deidentifier.statement]
    lines += [("key", deidentifier.pseudonyms.fingerprint, "", 1)]
    lines += [("version", package, version(package), 1) for package in _PACKAGES]
    lines += [("film", "films", outcome, count) for outcome, count in sorted(films.items())]
    lines += [("text", item, "", count) for item, count in sorted(text.items())]
    lines += [("attribute", *key, count) for key, count in sorted(attributes.items())]
    lines += [
        ("verification", title, "", round(verification[item]))
        for item, title in VERIFIED.items()
        if item in verification
    ]
    kinds = {"part": "string", "item": "string", "outcome": "string", "count": "int64"}
    return pd.DataFrame(lines, columns=list(COLUMNS)).astype(kinds)
