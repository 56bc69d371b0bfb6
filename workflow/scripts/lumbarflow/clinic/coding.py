"""Codes and UIDs of the objects: those of the standard where it has them, ours where it has none.

Context groups (CID) are of DICOM PS3.16. A code of our own scheme is the word that our tables use,
so that :data:`SCHEME` needs no list of its own.
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
_LEVEL = re.compile(r"[TLS]\d+")
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


def tracking_uid(source: Dataset, site: str) -> UID:
    """What a site of a patient is recognised by in all studies (Tracking UID)."""
    return derived_uid("site", str(source.get("PatientID") or source.StudyInstanceUID), site)


def _digest(*parts: str | bytes) -> bytes:
    result = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        result.update(len(data).to_bytes(8, "big") + data)  # no two lists of parts run together
    return result.digest()


def private(word: str) -> CodedConcept:
    """A code of :data:`SCHEME`: a word of our tables, with its underscores as blanks for people."""
    return CodedConcept(word, SCHEME, word.replace("_", " ").capitalize()[:64])


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
