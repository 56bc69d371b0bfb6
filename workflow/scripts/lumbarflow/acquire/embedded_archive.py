"""A DICOM archive for one run: pynetdicom's query/retrieve application over a folder of objects."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from pathlib import Path

import pydicom
from pynetdicom import ALL_TRANSFER_SYNTAXES, AE, evt
from pynetdicom.apps.qrscp import db, handlers
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    Verification,
)
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from ..errors import InputError
from ..files import write_json
from .deidentify import SOP_CLASSES


def serve(storage: Path, host: str, port: int, ae_title: str, address: Path) -> None:
    """Answer C-ECHO, C-FIND and C-GET until a SIGTERM comes or the parent process ends.

    Args:
        storage: the archive's folder; its objects lie in `objects/`, its index beside them.
        host: address to listen on.
        port: TCP port; another free one is taken where it is in use.
        ae_title: the only called AE title that is answered.
        address: JSON file that is written once associations are accepted: `host` and `port`.

    Raises:
        InputError: the folder holds no object.
    """
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    parent = os.getppid()
    index = _index(storage)
    quiet = logging.getLogger("lumbarflow.embedded_archive")
    quiet.setLevel(logging.CRITICAL)  # the application logs identifiers
    ae = AE(ae_title=ae_title)
    ae.require_called_aet = True
    ae.add_supported_context(Verification)
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    ae.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
    for sop_class in SOP_CLASSES:
        ae.add_supported_context(sop_class, ALL_TRANSFER_SYNTAXES, scu_role=True, scp_role=True)
    bindings = [
        (evt.EVT_C_ECHO, handlers.handle_echo, [None, quiet]),
        (evt.EVT_C_FIND, handlers.handle_find, [index, None, quiet]),
        (evt.EVT_C_GET, handlers.handle_get, [index, None, quiet]),
    ]
    try:
        server = ae.start_server((host, port), block=False, evt_handlers=bindings)
    except OSError:
        server = ae.start_server((host, 0), block=False, evt_handlers=bindings)
    write_json(address, {"host": host, "port": server.server_address[1]})
    # A killed workflow cannot stop its server: it stops when it is orphaned.
    while not stop.wait(1) and os.getppid() == parent:
        pass
    server.shutdown()


def read_address(path: str | Path) -> tuple[str, int]:
    """Host and port that :func:`serve` wrote."""
    content = json.loads(Path(path).read_text(encoding="utf-8"))
    return content["host"], content["port"]


def _index(storage: Path) -> str:
    """Index the archive's objects anew in `index.sqlite`; return the database's URL."""
    objects = sorted((storage / "objects").glob("*.dcm"))
    if not objects:
        raise InputError(f"The embedded archive {storage} is empty: remove the folder and run again.")
    path = storage / "index.sqlite"
    path.unlink(missing_ok=True)
    url = f"sqlite:///{path.resolve()}"
    db.create(url)
    engine = create_engine(url)
    with Session(engine) as session:
        for file in objects:
            dataset = pydicom.dcmread(file, stop_before_pixels=True)
            db.add_instance(dataset, session, str(file.resolve()))
    engine.dispose()
    return url
