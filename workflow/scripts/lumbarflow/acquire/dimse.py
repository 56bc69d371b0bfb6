"""Associations with a DICOM archive: C-ECHO, C-FIND and C-GET with plain diagnoses (pynetdicom).

Every sentence of an :class:`InputError` names the configuration key to change and no patient.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind as StudyFind,
)
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelGet as StudyGet,
)
from pynetdicom.sop_class import (
    Verification,
)

from ..errors import InputError
from .deidentify import SOP_CLASSES

_UNCOMPRESSED = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
_COMPRESSED = [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless, RLELossless, JPEGBaseline8Bit]
_PENDING = (0xFF00, 0xFF01)


@dataclass(frozen=True)
class Archive:
    """Address and titles of an archive; times in seconds."""

    host: str
    port: int
    ae_title: str
    calling_ae_title: str
    timeout_seconds: float

    def __str__(self) -> str:
        return f"{self.ae_title} at {self.host}:{self.port}"


@contextmanager
def association(
    archive: Archive, on_store: Callable[[evt.Event], int] | None = None
) -> Iterator[Association]:
    """Open an association for C-ECHO, C-FIND and, with `on_store`, C-GET; release it at the end.

    Args:
        archive: whom to call.
        on_store: handler of the objects that a C-GET brings; returns a C-STORE status.

    Raises:
        InputError: the archive cannot be reached, refuses a title, or offers none of the services.
    """
    ae = AE(ae_title=archive.calling_ae_title)
    ae.connection_timeout = ae.acse_timeout = archive.timeout_seconds
    ae.dimse_timeout = ae.network_timeout = archive.timeout_seconds
    ae.add_requested_context(Verification)
    ae.add_requested_context(StudyFind)
    roles, handlers = [], []
    if on_store is not None:
        ae.add_requested_context(StudyGet)
        for sop_class in SOP_CLASSES:
            ae.add_requested_context(sop_class, _UNCOMPRESSED)
            # One context each, so that the archive can send what it holds without decoding it.
            for syntax in _COMPRESSED:
                ae.add_requested_context(sop_class, syntax)
            roles.append(build_role(sop_class, scp_role=True))
        handlers = [(evt.EVT_C_STORE, on_store)]
    try:
        assoc = ae.associate(
            archive.host,
            archive.port,
            ae_title=archive.ae_title,
            ext_neg=roles,
            evt_handlers=handlers,
        )
    except OSError as error:
        raise InputError(_unreachable(error, archive)) from None
    if not assoc.is_established:
        raise InputError(_diagnosis(assoc, archive))
    try:
        needed = [StudyFind] + ([StudyGet] if on_store is not None else [])
        accepted = {context.abstract_syntax for context in assoc.accepted_contexts}
        if missing := [syntax for syntax in needed if syntax not in accepted]:
            raise InputError(
                f"The archive {archive} does not offer {' and '.join(s.name for s in missing)}: "
                f"ask its administrator to allow them for {archive.calling_ae_title} "
                "(archive.calling_ae_title)."
            )
        yield assoc
    finally:
        if assoc.is_established:
            assoc.release()


def _diagnosis(assoc: Association, archive: Archive) -> str:
    if assoc.is_rejected:
        answer = assoc.acceptor.primitive
        # Result source and diagnostic of an A-ASSOCIATE-RJ (DICOM PS3.8 table 9-21).
        reasons = {
            (1, 3): (
                f"it does not know the calling AE title {archive.calling_ae_title}: register it "
                "there or change archive.calling_ae_title"
            ),
            (
                1,
                7,
            ): f"it does not answer to the AE title {archive.ae_title}: change archive.ae_title",
        }
        key = (answer.result_source, answer.diagnostic)
        reason = reasons.get(key, f"{answer.reason_str}; ask its administrator")
        return f"The archive at {archive.host}:{archive.port} refused the association: {reason}."
    try:
        socket.create_connection((archive.host, archive.port), archive.timeout_seconds).close()
    except OSError as error:
        return _unreachable(error, archive)
    return (
        f"The archive {archive} broke off before an association was made: check that archive.port "
        "is its DICOM port, and that it accepts this machine and archive.calling_ae_title."
    )


def _unreachable(error: OSError, archive: Archive) -> str:
    if isinstance(error, socket.gaierror):
        return f"The host name {archive.host} is not known: check archive.host."
    cause = "no answer in time" if isinstance(error, TimeoutError) else error.strerror
    return (
        f"The archive at {archive.host}:{archive.port} cannot be reached ({cause}): check "
        "archive.host, archive.port and whether the archive is running."
    )


def find(assoc: Association, archive: Archive, query: Dataset) -> list[Dataset]:
    """Return the data sets that match `query` in the Study Root model (DICOM PS3.4 C.4.1).

    Raises:
        InputError: the archive answers with a failure or not at all.
    """
    found = []
    for status, identifier in assoc.send_c_find(query, StudyFind):
        _check_status(status, archive, "C-FIND")
        if status.Status in _PENDING and identifier is not None:
            found.append(identifier)
    return found


def get(assoc: Association, archive: Archive, identifier: Dataset) -> None:
    """Fetch what `identifier` names; the association's `on_store` receives it (PS3.4 C.4.3).

    Raises:
        InputError: the archive answers with a failure or not at all.
    """
    for status, _ in assoc.send_c_get(identifier, StudyGet):
        _check_status(status, archive, "C-GET")


def _check_status(status: Dataset, archive: Archive, service: str) -> None:
    if not status:
        raise InputError(
            f"The archive {archive} stopped answering during {service}: run the same command again "
            "(what is already here stays), or raise archive.timeout_seconds."
        )
    # 0xB000: some sub-operations failed; the caller counts what arrived.
    if status.Status not in (0x0000, 0xB000, *_PENDING):
        raise InputError(
            f"The archive {archive} refused {service} with status 0x{status.Status:04X}: ask its "
            "administrator, naming this status."
        )


def identifier(level: str, **keys: str | Iterable[str]) -> Dataset:
    """A query/retrieve identifier: `keys` are DICOM keywords, an empty text asks for the value."""
    result = Dataset()
    result.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(result, keyword, value)
    return result
