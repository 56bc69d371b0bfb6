"""A DICOM archive for one run: pynetdicom's query/retrieve application over a folder of objects.

It runs in a process of its own and is spoken to over the network like any archive. (As a Snakemake
`service()` it would be left running, and the workflow waiting, whenever its consumer fails.)
By hand: `python -m lumbarflow.acquire.embedded_archive STORAGE HOST PORT AE_TITLE`.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pydicom
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, evt
from pynetdicom.apps.qrscp import db, handlers
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    Verification,
)
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from ..deidentify.engine import SOP_CLASSES
from ..errors import InputError
from .dimse import Archive

_SECONDS_TO_STOP = 10


@contextmanager
def running(storage: str | Path, host: str, port: int, ae_title: str) -> Iterator[int]:
    """Run the archive in a child process for the length of the block; yield its TCP port.

    Args:
        storage: the archive's folder, see :func:`serve`.
        host: address to listen on.
        port: TCP port; another free one is taken where it is in use.
        ae_title: the only called AE title that is answered.

    Raises:
        InputError: the archive does not start.
    """
    package_folder = Path(__file__).parents[2]
    command = [sys.executable, "-m", __spec__.name, str(storage), host, str(port), ae_title]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(package_folder)},
    ) as process:
        try:
            line = process.stdout.readline()
            if not line.strip().isdigit():
                raise InputError(
                    f"The embedded archive did not start: set archive.host to an address of this "
                    f"machine, or remove the folder {storage} and run the same command again."
                )
            yield int(line)
        finally:
            process.terminate()
            try:
                process.wait(_SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def serving(truth: str | Path | None, settings: Mapping[str, Any]) -> Iterator[Archive]:
    """The archive of the configuration, for the length of the block.

    Args:
        truth: `truth.json` of the embedded archive, which is then started; empty for another.
        settings: `archive` of the configuration.

    Raises:
        InputError: the embedded archive does not start.
    """
    archive = Archive.of(settings)
    if not truth:
        yield archive
        return
    with running(Path(truth).parent, archive.host, archive.port, archive.ae_title) as port:
        yield replace(archive, port=port)


def serve(storage: Path, host: str, port: int, ae_title: str) -> None:
    """Answer C-ECHO, C-FIND and C-GET until a SIGTERM comes or the parent process ends.

    The port is printed once associations are accepted.

    Args:
        storage: the archive's folder; its objects lie in `objects/`, its index beside them.
        host: address to listen on.
        port: TCP port; another free one is taken where it is in use.
        ae_title: the only called AE title that is answered.
    """
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    # Ctrl-C reaches the whole process group: the retrieving parent decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()
    # Empty keys come as None, which the application takes for universal matching (PS3.4 C.2.2.2.3).
    pydicom.config.use_none_as_empty_text_VR_value = True
    index = _index(storage)
    quiet = logging.getLogger("quiet")
    quiet.disabled = True  # the application logs identifiers
    ae = AE(ae_title=ae_title)
    ae.require_called_aet = True
    ae.add_supported_context(Verification)
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
    for sop_class in SOP_CLASSES:
        ae.add_supported_context(sop_class, ALL_TRANSFER_SYNTAXES, scu_role=True, scp_role=True)
    bindings = [
        (evt.EVT_C_ECHO, handlers.handle_echo, [None, quiet]),
        (evt.EVT_C_FIND, _find, [index, None, quiet]),
        (evt.EVT_C_GET, handlers.handle_get, [index, None, quiet]),
    ]
    try:
        server = ae.start_server((host, port), block=False, evt_handlers=bindings)
    except OSError:
        server = ae.start_server((host, 0), block=False, evt_handlers=bindings)
    print(server.server_address[1], flush=True)
    # A killed workflow cannot stop its server: it stops when it is orphaned.
    while not stop.wait(0.5) and os.getppid() == parent:
        pass
    server.shutdown()


def _find(event: evt.Event, *arguments: Any) -> Iterator[tuple[int, pydicom.Dataset | None]]:
    """Answer a query in Unicode: the application leaves the character set of names open."""
    for status, answer in handlers.handle_find(event, *arguments):
        if answer is not None:
            answer.SpecificCharacterSet = "ISO_IR 192"
        yield status, answer


def _index(storage: Path) -> str:
    """Index the archive's objects anew in `index.sqlite`; return the database's URL."""
    path = storage / "index.sqlite"
    path.unlink(missing_ok=True)
    url = f"sqlite:///{path.resolve()}"
    db.create(url)
    engine = create_engine(url)
    with Session(engine) as session:
        for file in sorted((storage / "objects").glob("*.dcm")):
            dataset = pydicom.dcmread(file, stop_before_pixels=True)
            db.add_instance(dataset, session, str(file.resolve()))
    engine.dispose()
    return url


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Serve a folder of DICOM objects as an archive.")
    parser.add_argument("storage", type=Path)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("ae_title")
    try:
        serve(**vars(parser.parse_args()))
    except Exception as error:  # its text may quote an object
        sys.exit(f"The archive stopped: {type(error).__name__}")
