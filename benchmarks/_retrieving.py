"""The retrieving process of `retrieval.py`: `python _retrieving.py WHAT OPTIONS`.

WHAT is `raw` or `whole`; OPTIONS a JSON object with `port`, the archive's, and `out`, the folder
to fill. The last line printed is the seconds that the retrieval took, without Python's start and
imports.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow" / "scripts"))

from pynetdicom import evt

from lumbarflow.acquire.dimse import Archive, fetch, identifier
from lumbarflow.acquire.lines import Line, Lines
from lumbarflow.acquire.plan import Series, Study, find_studies, look_up
from lumbarflow.acquire.retrieve import retrieve
from lumbarflow.acquire.selection import Selection
from lumbarflow.deidentify.deidentifier import Deidentifier
from lumbarflow.deidentify.pseudonyms import Pseudonyms

LOG = logging.getLogger("retrieval")
WANTED = Selection(("DX",))


def archive(port: int) -> Archive:
    return Archive("127.0.0.1", port, "LUMBARPACS", "LUMBARFLOW", 60)


def raw(port: int, out: Path) -> None:
    """Retrieve everything and write it as it comes, as getscu does."""
    asked = archive(port)

    def on_store(event: evt.Event) -> int:
        with (out / f"{event.request.AffectedSOPInstanceUID}.dcm").open("wb") as handle:
            handle.write(event.encoded_dataset())
        return 0x0000

    def fetch_study(line: Line, item: tuple[Study, list[Series]]) -> None:
        keys = {"StudyInstanceUID": item[0].uid}
        for series in item[1]:
            wanted = identifier("SERIES", **keys, SeriesInstanceUID=series.uid)
            line.do(partial(fetch, archive=asked, query=wanted))

    with Lines(asked, on_store, LOG.warning) as lines:
        studies = find_studies(lines, asked, WANTED, LOG)
        planned = look_up(lines, asked, studies, WANTED, LOG)
        list(lines.share(planned, fetch_study))


def whole(port: int, out: Path) -> None:
    """Retrieve, de-identify and render everything, as the workflow does."""
    keyed = Pseudonyms(b"a key for this benchmark only")
    retrieve(archive(port), WANTED, Deidentifier(keyed), out, out / "manifest.parquet", {}, LOG)


if __name__ == "__main__":
    options = json.loads(sys.argv[2])
    started = time.perf_counter()
    {"raw": raw, "whole": whole}[sys.argv[1]](options["port"], Path(options["out"]))
    print(time.perf_counter() - started)
