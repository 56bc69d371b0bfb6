"""Codes and UIDs of the objects: those of the standard where it has them, ours where it has none.

Context groups (CID) are of DICOM PS3.16. A code of our own scheme comes from the word that our
tables use: docs/reference/dicom-objects.md.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from itertools import pairwise

from highdicom import UID
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

SCHEME = "99LUMBARFLOW"
#: Region of everything on these films, CID 4.
REGION = codes.cid4.LumbarSpine
UNITS = {
    "deg": codes.UCUM.Degree,
    "mm": codes.UCUM.Millimeter,
    "px": Code("{pixels}", "UCUM", "Pixels"),
    "%": codes.UCUM.Percent,
    "1": codes.UCUM.NoUnits,
}

_MEASUREMENTS = {"cobb": codes.SCT.CobbAngle}
_IMPLANTS = {"screw": codes.cid7157.BoneScrew}  # CID 7157; the others are implants, CID 7151
_LEVEL = re.compile(r"\b[TLS]\d+\b")
_LEVEL_IN_WORDS = re.compile(r"\b[tls]\d+\b")
_COUNTED = re.compile(r"\b\d+\b|\?")
_LONGEST_CODE = 16  # VR SH
_BYTES = 16  # of a UUID


@dataclass(frozen=True)
class Device:
    """Who made an object: Lumbarflow with one trained network.

    Attributes:
        network: such as `unet`.
        version: of the program and of the weights, at most 64 characters: another version makes
            other objects.
    """

    network: str
    version: str

    @property
    def name(self) -> str:
        """As it stands in the objects."""
        return f"Lumbarflow {self.network}"

    @property
    def uid(self) -> UID:
        """The same wherever this network runs in this version."""
        return derived_uid("device", self.network, self.version)

    @property
    def serial(self) -> str:
        """In place of a serial number, which the standard asks for (PS3.3 C.7.5.2)."""
        return _digest("serial", self.network, self.version).hex()[:_BYTES]


def derived_uid(*parts: str | bytes) -> UID:
    """A UID that depends on `parts` only: 2.25 and 128 bits of their SHA-256 (PS3.5 B.2)."""
    return UID(f"2.25.{int.from_bytes(_digest(*parts)[:_BYTES], 'big')}")


def tracking_uid(source: Dataset, site: str, device: Device) -> UID:
    """What a site of a patient is recognised by in all studies, whoever finds it (Tracking UID).

    What is counted, such as `L4 screw 1`, is recognised on its film only, and by its finder.
    """
    if _COUNTED.search(site):
        return derived_uid("counted", str(source.SOPInstanceUID), device.uid, site)
    return derived_uid("site", str(source.get("PatientID") or source.StudyInstanceUID), site)


def _digest(*parts: str | bytes) -> bytes:
    result = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        result.update(len(data).to_bytes(8, "big") + data)  # no two lists of parts run together
    return result.digest()


def private(word: str) -> CodedConcept:
    """A code of :data:`SCHEME` for a word of our tables.

    It is the word. Of one longer than 16 characters, for which not every reader is ready (Long Code
    Value, PS3.3 table 8.8-1), it is the beginning and 4 digits of its SHA-256. The meaning is the
    whole word.
    """
    code = word
    if len(code) > _LONGEST_CODE:
        start = word[: _LONGEST_CODE - 5].rstrip("_")
        code = f"{start}-{hashlib.sha256(word.encode()).hexdigest()[:4]}"
    meaning = word.replace("_", " ").capitalize()
    meaning = _LEVEL_IN_WORDS.sub(lambda level: level[0].upper(), meaning)
    return CodedConcept(code, SCHEME, meaning[:64])


def scheme() -> CodingSchemeIdentificationItem:
    """What objects say of :data:`SCHEME` (PS3.3 C.12.1.1)."""
    return CodingSchemeIdentificationItem(
        SCHEME, name="Words of Lumbarflow's tables", responsible_organization="Lumbarflow"
    )


def quantity(name: str) -> Code | CodedConcept:
    """The concept of a measurement."""
    return _MEASUREMENTS.get(name) or private(name)


def is_bone(class_name: str) -> bool:
    """Whether a class is of vertebrae, and not of implants."""
    return class_name.endswith("vertebra")


def structure(class_name: str, level: str | None) -> Code:
    """What a structure is; for vertebrae the level decides, where it is known.

    Vertebrae are of CID 7603. It ends at L5: a sixth lumbar or thirteenth thoracic vertebra, and
    one of unknown level, are vertebrae; the bodies of the sacrum are the sacrum (CID 7151).
    """
    if not is_bone(class_name):
        return _IMPLANTS.get(class_name, codes.cid7151.Implant)
    if level is None:
        sacral = class_name == "sacral_vertebra"
        return codes.cid7151.Sacrum if sacral else codes.cid7151.Vertebra
    if level.startswith("S"):
        return codes.cid7151.Sacrum
    return getattr(codes.cid7603, f"{level}Vertebra", codes.cid7151.Vertebra)


def levels(site: str) -> list[str]:
    """The levels that a site names, such as L4 and L5 of `L4/L5`."""
    return _LEVEL.findall(site)


def places(site: str) -> list[Code]:
    """Where a site is: a vertebra, a disc (CID 7604), both ends of a range, or :data:`REGION`."""
    named = levels(site)
    if "/" in site:
        discs = [getattr(codes.cid7604, f"{a}{b}Disc", None) for a, b in pairwise(named)]
        if discs and all(discs):
            return discs
    found = [structure("lumbar_vertebra", level) for level in named]
    return list(dict.fromkeys(found)) or [REGION]
