"""Films of a selection from a DICOM archive, study by study, in parallel and restartable."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from pynetdicom import evt
from pynetdicom.association import Association

from ..deidentify.deidentifier import Deidentifier
from ..deidentify.pseudonyms import Pseudonyms
from ..errors import InputError
from ..files import read_json, remove_leftovers, write_json
from .dimse import (
    Archive,
    PassingError,
    RefusedError,
    check,
    fetch,
    identifier,
    receiving,
)
from .films import follows, is_whole, rejected_unseen, take_dicom, write_manifest
from .lines import Line, Lines
from .plan import Series, Study, find_studies, look_up, summary
from .progress import Progress
from .selection import Selection
from .view import fingerprint

_SUCCESS, _OUT_OF_RESOURCES, _CANNOT_PROCESS = 0x0000, 0xA700, 0xC000
_TOLD_STUDIES = 5

Row = dict[str, Any]


def query(archive: Archive, selection: Selection, log: logging.Logger) -> pd.DataFrame:
    """Ask what :func:`retrieve` would fetch, without fetching: see :func:`plan.summary`.

    Raises:
        InputError: the archive cannot be used, or nothing matches.
    """
    check(archive)
    with Lines(archive, None, log.warning) as lines:
        studies = find_studies(lines, archive, selection, log)
        log.info("%s: %d studies match", archive, len(studies))
        return summary(look_up(lines, archive, studies, selection, log))


def retrieve(
    archive: Archive,
    selection: Selection,
    deidentifier: Deidentifier,
    images: Path,
    manifest: Path,
    decisions: Mapping[str, str],
    log: logging.Logger,
    allow_missing: bool = False,
) -> list[Row]:
    """Fetch every study of the selection that is not here yet, and write the manifest.

    Names, numbers and dates stay in the memory of this process; a study counts as here once
    `images/studies/{study_id}.json`, written after its last film, exists.

    Args:
        archive: whom to ask.
        selection: what is wanted.
        deidentifier: what films are de-identified with.
        images: folder for `dicom/`, `png/`, `uncertain/` and `studies/`.
        manifest: the manifest to write.
        decisions: `accept` or `reject` by image_id, of a person.
        log: where progress is told.
        allow_missing: go on without the images that the archive lists but does not send; they are
            rejected as `not_sent`, and asked for again at the next run.

    Returns:
        The rows of the manifest; those of films that were looked at with their `audit`, see
        :func:`.films.take_dicom`.

    Raises:
        InputError: the archive cannot be used, nothing matches, images are missing, no film is
            accepted, or the disk is full; films and studies that are here stay.
    """
    for folder in ("dicom", "png", "uncertain", "studies"):
        remove_leftovers(images / folder)
    check(archive)
    pseudonyms = deidentifier.pseudonyms
    receiver = _Receiver(deidentifier, images, decisions, selection, log)
    with (
        Lines(archive, receiver.on_store, log.warning) as lines,
        receiving(archive, receiver.on_store) if archive.retrieve_by == "move" else nullcontext(),
    ):
        studies = find_studies(lines, archive, selection, log)
        known: dict[str, list[Row]] = {}
        for study in studies:
            deidentifier.note(study.answer)
            record = _record(images, pseudonyms, study)
            rows = _known_rows(record, images, receiver.asked(study), decisions)
            if rows is not None:
                known[study.uid] = rows
        new = [study for study in studies if study.uid not in known]
        log.info("%s: %d studies match, %d are here", archive, len(studies), len(known))
        planned = look_up(lines, archive, new, selection, log)
        if not known and not any(s.images and not s.reason for _, found in planned for s in found):
            raise InputError(
                f"None of {len(studies)} studies in the archive {archive} has a series that is "
                "wanted: widen archive.modalities, archive.body_parts and archive.descriptions "
                "(`snakemake query` counts what each leaves out)."
            )
        receiver.progress = Progress(sum(len(s.wanted) for _, found in planned for s in found), log)

        def fetch_one(line: Line, item: tuple[Study, list[Series]]) -> _Incoming:
            return _fetch_study(line, archive, *item, receiver)

        missing = []
        for incoming in lines.share(planned, fetch_one):
            if incoming.missing and not allow_missing:
                missing.append(incoming)
                continue
            complete = not incoming.missing
            for uid in sorted(incoming.missing):
                receiver.reject(incoming, uid, "not_sent")
            study, rows = incoming.study, [row for _, row in sorted(incoming.rows.items())]
            record = receiver.asked(study) | {"complete": complete, "rows": rows}
            write_json(_record(images, pseudonyms, study), record)
            known[study.uid] = rows
    if missing:
        raise _missing(missing, archive, pseudonyms)
    # With another selection, another study may be the patient's first.
    rows = [row | {"study_day": study.day} for study in studies for row in known[study.uid]]
    table = write_manifest(manifest, rows)
    accepted = int((table["status"] == "accepted").sum())
    log.info(
        "%d films accepted, %d rejected; %d studies fetched now, %d were here",
        accepted,
        len(table) - accepted,
        len(new),
        len(studies) - len(new),
    )
    return rows


def _missing(missing: list[_Incoming], archive: Archive, pseudonyms: Pseudonyms) -> InputError:
    names = ", ".join(pseudonyms.study(item.study.uid) for item in missing[:_TOLD_STUDIES])
    more = " ..." if len(missing) > _TOLD_STUDIES else ""
    reasons = {item.failure for item in missing if item.failure}
    return InputError(
        f"The archive {archive} did not send {sum(len(item.missing) for item in missing)} images "
        f"of {len(missing)} studies ({names}{more}): run the same command again (what is already "
        "here stays), or set archive.allow_missing to true to go on without them."
        + (f" What it answered last: {sorted(reasons)[0]}" if reasons else "")
    )


# One study ------------------------------------------------------------------------------------


class _Incoming:
    """A study while it is fetched: manifest rows by SOP instance UID, and what is still missing."""

    def __init__(self, study: Study):
        self.study = study
        self.rows: dict[str, Row] = {}
        self.missing: set[str] = set()
        self.failure: str | None = None


class _Receiver:
    """Takes the objects of a C-GET or C-MOVE as they arrive, from whichever association."""

    def __init__(
        self,
        deidentifier: Deidentifier,
        images: Path,
        decisions: Mapping[str, str],
        selection: Selection,
        log: logging.Logger,
    ):
        self.progress = Progress(0, log)
        self.failure: Exception | None = None
        self._lock = threading.Lock()
        self._deidentifier, self._images, self._decisions = deidentifier, images, decisions
        self._selection, self._log = selection, log
        self._expected: dict[str, list[_Incoming]] = {}  # a few archives list one in two studies

    def asked(self, study: Study) -> dict[str, Any]:
        """What a study on disk must have been fetched with to count as here."""
        return {
            "modalities": list(self._selection.modalities),
            "body_parts": list(self._selection.body_parts),
            "descriptions": list(self._selection.descriptions),
            "choice": fingerprint(),
            "deidentification": self._deidentifier.rules,
            "listed": study.listed,
        }

    def expect(self, incoming: _Incoming, uids: Iterable[str]) -> None:
        """Take these SOP instances, as a part of a study, when they come."""
        for uid in uids:
            incoming.missing.add(uid)
            with self._lock:
                self._expected.setdefault(uid, []).append(incoming)

    def forget(self, incoming: _Incoming, uids: Iterable[str]) -> None:
        """Take these SOP instances for this study no longer."""
        for uid in uids:
            with self._lock:
                self._expected[uid].remove(incoming)

    def reject(self, incoming: _Incoming, uid: str, reason: str) -> None:
        """Note an object that does not come or cannot be looked at."""
        incoming.rows[uid] = rejected_unseen(
            self._deidentifier.pseudonyms, uid, incoming.study.uid, incoming.study.day, reason
        )
        incoming.missing.discard(uid)

    def on_store(self, event: evt.Event) -> int:
        """Handle a C-STORE request; return its status."""
        uid = str(event.request.AffectedSOPInstanceUID)
        with self._lock:
            expecting = list(self._expected.get(uid, ()))
        if not expecting:
            return _CANNOT_PROCESS  # not asked for
        try:
            for incoming in expecting:
                if uid in incoming.missing:  # otherwise it has come before
                    self._take(event, uid, incoming)
                    self.progress.done()
        except (InputError, OSError) as error:  # pynetdicom would swallow it: the caller raises it
            self.failure = self.failure or error
            return _OUT_OF_RESOURCES
        except Exception as error:  # a broken object; the exception may quote what it holds
            self._log.warning("an object cannot be read (%s): rejected", type(error).__name__)
            for incoming in expecting:
                self.reject(incoming, uid, "not_readable")
                self.progress.done()
        return _SUCCESS

    def _take(self, event: evt.Event, uid: str, incoming: _Incoming) -> None:
        dataset = event.dataset
        dataset.file_meta = event.file_meta
        self._deidentifier.note(dataset)
        if reason := self._selection.excludes(dataset):
            self.reject(incoming, uid, reason)
            return
        incoming.rows[uid] = take_dicom(
            dataset, self._deidentifier, self._images, self._decisions, incoming.study.day
        )
        incoming.missing.discard(uid)


def _fetch_study(
    line: Line, archive: Archive, study: Study, found: list[Series], receiver: _Receiver
) -> _Incoming:
    """Fetch the wanted series of a study; what does not come stays in `missing`.

    Raises:
        InputError: the archive can no longer be used, or the disk is full.
    """
    incoming = _Incoming(study)
    for series in found:
        if series.reason:
            continue
        for uid in series.images.keys() - set(series.wanted):
            receiver.reject(incoming, uid, "sop_class_not_taken")
        receiver.expect(incoming, series.wanted)
        try:
            line.do(partial(_fetch_series, archive, study, series, incoming, receiver))
        except (PassingError, RefusedError) as error:
            incoming.failure = str(error)
            for _ in incoming.missing & set(series.wanted):
                receiver.progress.failed()
            line.do(lambda assoc: None)  # where the archive itself is gone, the run ends here
        receiver.forget(incoming, series.wanted)
    return incoming


def _fetch_series(
    archive: Archive,
    study: Study,
    series: Series,
    incoming: _Incoming,
    receiver: _Receiver,
    assoc: Association,
) -> None:
    """Ask for the images of a series that are missing.

    Raises:
        PassingError: some did not come.
        RefusedError: the archive will not send some.
    """
    missing = sorted(incoming.missing & set(series.wanted))
    if not missing:
        return
    keys = {"StudyInstanceUID": study.uid, "SeriesInstanceUID": series.uid}
    if len(missing) == len(series.images):
        asked = identifier("SERIES", **keys)
    else:
        asked = identifier("IMAGE", **keys, SOPInstanceUID=missing)
    refused = None
    try:
        fetch(assoc, archive, asked)
    except RefusedError as error:
        # Orthanc ends with the first image that it cannot send: the others are asked for singly.
        refused = error
        for uid in sorted(incoming.missing & set(missing)) if len(missing) > 1 else ():
            with suppress(RefusedError):
                fetch(assoc, archive, identifier("IMAGE", **keys, SOPInstanceUID=uid))
    finally:
        if receiver.failure:
            # An archive whose films are not taken here fails, too: the first failure is the cause.
            raise receiver.failure
    if refused and incoming.missing & set(missing):
        raise refused
    left = len(incoming.missing & set(series.wanted))
    if left:
        raise PassingError(
            f"The archive {archive} sent {len(missing) - left} of {len(missing)} images of a "
            "series."
        )


# What is on disk ------------------------------------------------------------------------------


def _record(images: Path, pseudonyms: Pseudonyms, study: Study) -> Path:
    return images / "studies" / f"{pseudonyms.study(study.uid)}.json"


def _known_rows(
    record: Path, images: Path, asked: dict[str, Any], decisions: Mapping[str, str]
) -> list[Row] | None:
    """The manifest rows of a study that is whole on disk and was `asked` for so, otherwise None."""
    if not record.exists():
        return None
    content = read_json(record)
    rows = content["rows"]
    if any(content.get(key) != value for key, value in (asked | {"complete": True}).items()):
        return None
    good = all(follows(row, decisions) and is_whole(row, images) for row in rows)
    return rows if good else None
