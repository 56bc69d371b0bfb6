"""One retrieval as a process of its own, to be killed: `python pull.py OPTIONS`.

OPTIONS is a JSON object with `port`, the archive's, and `out`, the folder to fill. The process
prints a line when it starts to retrieve, and its sentence where it fails.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "workflow" / "scripts"))

from lumbarflow.acquire.dimse import Archive
from lumbarflow.acquire.retrieve import retrieve
from lumbarflow.acquire.selection import Selection
from lumbarflow.deidentify.deidentifier import Deidentifier
from lumbarflow.deidentify.pseudonyms import Pseudonyms
from lumbarflow.errors import InputError

HOST, TITLE, CALLER = "127.0.0.1", "LUMBARPACS", "LUMBARFLOW"
KEYED = Pseudonyms(b"a key for these tests only")


def pull(port: int, out: Path) -> None:
    """Retrieve all lateral films."""
    retrieve(
        Archive(HOST, port, TITLE, CALLER, 20),
        Selection(("DX", "CR")),
        Deidentifier(KEYED),
        out,
        out / "manifest.parquet",
        {},
        logging.getLogger("pull"),
    )


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    print("started", flush=True)
    try:
        pull(options["port"], Path(options["out"]))
    except InputError as error:
        sys.exit(str(error))
