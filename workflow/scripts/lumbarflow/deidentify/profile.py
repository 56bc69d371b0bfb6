"""What becomes of each attribute of a CR or DX object: DICOM PS3.15 Annex E within PS3.3's objects.

An attribute is kept only if the object's definition (PS3.3 A.2 and A.26, iods.json) has it at that
place, and then by what Table E.1-1 says, which dicom-anonymizer carries as data. What neither knows
goes. Where the table leaves a choice (`X/Z/D`), the attribute's type decides: 1 gets a dummy, 2 is
emptied, 3 is removed, so that the object stays valid.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import NamedTuple

from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as annex_e
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.sr import _concepts_dict, _snomed_dict

_IODS = Path(__file__).with_name("iods.json")

# Names of the lists of Table E.1-1 in dicom-anonymizer's data, by the codes that the table uses.
_ACTIONS = {
    "D": annex_e.D_TAGS,
    "Z": annex_e.Z_TAGS,
    "X": annex_e.X_TAGS,
    "U": annex_e.U_TAGS,
    "Z/D": annex_e.Z_D_TAGS,
    "X/Z": annex_e.X_Z_TAGS,
    "X/D": annex_e.X_D_TAGS,
    "X/Z/D": annex_e.X_Z_D_TAGS,
    "X/Z/U*": annex_e.X_Z_U_STAR_TAGS,
}
#: Table E.1-1: action by tag; its three repeating groups (curves, overlays) are no part of a film.
TABLE: Mapping[int, str] = {
    tag[0] << 16 | tag[1]: action
    for action, tags in _ACTIONS.items()
    for tag in tags
    if len(tag) == 2
}


class Action(Enum):
    """What is done with an attribute."""

    REMOVE = "removed"
    EMPTY = "emptied"
    DUMMY = "replaced by a dummy"
    UID = "replaced by a keyed UID"  # unless it is one of the standard's
    PSEUDONYM = "replaced by the pseudonym"
    DATE = "shifted"
    KEEP = "kept"  # numbers
    CODE_STRING = "kept if a code string"
    TEXT = "kept if it names no one"
    BODY_PART = "kept if anatomical"
    SEX = "kept if M, F or O"
    AGE = "kept in years up to 89"
    WORDS = "kept as far as radiological"
    CODES = "kept if codes of the standard"
    ITEMS = "walked"
    WRITTEN = "written anew"


class Rule(NamedTuple):
    """An action, and what it takes.

    Attributes:
        action: what is done.
        kind: type of the attribute in its module (PS3.5 7.4): 1, 1C, 2, 2C or 3.
        vr: value representation that it must have.
        items: the rules of the items of a sequence, by tag.
    """

    action: Action
    kind: str
    vr: str
    items: Mapping[int, Rule]


@dataclass(frozen=True)
class Options:
    """The options of Annex E (PS3.15 E.3) that a film may be given; the defaults are the safe ones.

    Attributes:
        dates: `shifted` by a secret number of days, the same for all films of a patient (Retain
            Longitudinal Temporal Information With Modified Dates), or `removed`.
        patient_characteristics: keep sex, and age in years up to 89; size, weight and all else go.
        device: keep serial numbers, station and detector.
        institution: keep the name and department of the institution.
        descriptions: `removed`, or `vocabulary`: only the words of radiology stay (Clean
            Descriptors).

    The options Retain UIDs, Retain Safe Private and Full Dates are not offered: nothing here needs
    them. Graphics, structured content and faces are not in a film of the spine.
    """

    dates: str = "shifted"
    patient_characteristics: bool = True
    device: bool = False
    institution: bool = False
    descriptions: str = "removed"

    @property
    def kept(self) -> tuple[str, ...]:
        """Keywords of identifying attributes that these options keep."""
        return (
            *(_DEVICE if self.device else ()),
            *(_INSTITUTION if self.institution else ()),
            *(_DESCRIPTIONS if self.descriptions == "vocabulary" else ()),
        )

    def codes(self, pixels_checked: bool) -> list[str]:
        """Code values of CID 7050 (PS3.16) for what was done."""
        return [
            "113100",  # Basic Application Confidentiality Profile
            *(["113101"] if pixels_checked else []),
            *(["113105"] if self.descriptions == "vocabulary" else []),
            *(["113107"] if self.dates == "shifted" else []),
            *(["113108"] if self.patient_characteristics else []),
            *(["113109"] if self.device else []),
            *(["113112"] if self.institution else []),
        ]

    def statement(self) -> list[str]:
        """What is done, in words."""
        lines = [
            "Retain Longitudinal Temporal Information With Modified Dates Option: dates of the "
            "examination are moved by a secret number of days, the same for all films of a "
            "patient; times of day and all other dates are removed."
            if self.dates == "shifted"
            else "All dates and times are removed.",
            "Retain Patient Characteristics Option: sex, and age in years up to 89; nothing else."
            if self.patient_characteristics
            else "Sex, age and all other characteristics of the patient are removed.",
        ]
        if self.device:
            lines.append("Retain Device Identity Option: serial numbers and stations are kept.")
        if self.institution:
            lines.append("Retain Institution Identity Option: name and department are kept.")
        if self.descriptions == "vocabulary":
            lines.append("Clean Descriptors Option: of descriptions, words of radiology are kept.")
        return lines


#: The options where nothing else is asked for.
SAFE = Options()

#: Needed for the picture and its measures whatever the object's definition says of them.
GEOMETRY = (
    "PixelSpacing",
    "PixelSpacingCalibrationType",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "PixelAspectRatio",
    "DistanceSourceToDetector",
    "DistanceSourceToPatient",
    "EstimatedRadiographicMagnificationFactor",
    "PatientOrientation",
    "ViewPosition",
    "ImageLaterality",
    "PixelIntensityRelationship",
    "RescaleIntercept",
    "RescaleSlope",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "PresentationLUTShape",
    "PresentationIntentType",
    "DetectorType",
)
# Written by the engine, for what it writes.
_WRITTEN = (
    "SpecificCharacterSet",
    "PixelData",
    "HighBit",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "ModalityLUTSequence",
    "VOILUTSequence",
)
#: Short texts that name equipment and processing. No other text is free of people's names.
TEXTS = (
    "Manufacturer",
    "ManufacturerModelName",
    "SoftwareVersions",
    "DetectorManufacturerName",
    "DetectorManufacturerModelName",
    "AcquisitionDeviceProcessingCode",
    "PhosphorType",
    "PlateType",
    "FilterType",
    "CollimatorGridName",
    "RescaleType",
    "ContrastBolusRoute",
)
#: Code strings that are no one's name, whatever people are called.
TERMS = {
    "FOR PRESENTATION", "FOR PROCESSING", "ORIGINAL", "DERIVED", "PRIMARY", "SECONDARY", "CR",
    "DX", "YES", "NO", "MONOCHROME1", "MONOCHROME2", "IDENTITY", "INVERSE", "LIN", "LOG",
    "DISP", "LINEAR", "LINEAR_EXACT", "SIGMOID", "RECTANGULAR", "CIRCULAR", "POLYGONAL",
    "HEXAGONAL", "ROUND", "AREA", "SLOT", "POINT", "COLUMN", "AUTO", "AUTOMATIC", "MANUAL",
    "NORMAL", "ABORTED", "DIRECT", "SCINTILLATOR", "STORAGE", "FILM", "TUNGSTEN", "MOLYBDENUM",
    "RHODIUM", "ALUMINUM", "COPPER", "NONE", "CARM", "TILTING", "FIXED", "MOTORIZED",
    "GEOMETRY", "FIDUCIAL",
}  # fmt: skip
_DESCRIPTIONS = ("StudyDescription", "SeriesDescription", "ProtocolName")
_DEVICE = (
    "DeviceSerialNumber",
    "StationName",
    "DetectorID",
    "PlateID",
    "CassetteID",
    "GantryID",
    "GridID",
)
_INSTITUTION = ("InstitutionName", "InstitutionalDepartmentName")
# Sequences that Table E.1-1 does not list although they hold identities, or what cannot be read.
_NEVER = (
    "CodingSchemeIdentificationSequence",
    "ContextGroupIdentificationSequence",
    "ContributingEquipmentSequence",
    "ConversionSourceAttributesSequence",
    "DeidentificationMethodCodeSequence",
    "EncryptedAttributesSequence",
    "GroupOfPatientsIdentificationSequence",
    "HL7StructuredDocumentReferenceSequence",
    "IssuerOfAccessionNumberSequence",
    "IssuerOfPatientIDQualifiersSequence",
    "MACParametersSequence",
    "MappingResourceIdentificationSequence",
    "PrivateDataElementCharacteristicsSequence",
    "ReasonForPerformedProcedureCodeSequence",
    "RequestingServiceCodeSequence",
    "SourcePatientGroupIdentificationSequence",
)
# Of animals, likewise.
_ANIMALS = ("PatientSpecies", "PatientBreed", "Breed", "Strain", "Genetic")
# Dates of the examination. Those of equipment are the same for many patients and known to others:
# shifted, they would give the patients' secret offsets away.
_DATES = (
    "StudyDate",
    "SeriesDate",
    "AcquisitionDate",
    "ContentDate",
    "InstanceCreationDate",
    "PerformedProcedureStepStartDate",
    "PerformedProcedureStepEndDate",
    "AcquisitionDateTime",
)
_NUMBERS = {"AT", "DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "US or SS", "UV"}
_CAN_BE_DUMMY = {"AE", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UT"}

# Of a coded item; its other attributes are of no use without a scheme of one's own.
_CODE = ("CodeValue", "LongCodeValue", "CodingSchemeDesignator", "CodeMeaning")

_SPECIAL = {
    "PatientName": Action.PSEUDONYM,
    "PatientID": Action.PSEUDONYM,
    "BodyPartExamined": Action.BODY_PART,
    **dict.fromkeys(_WRITTEN, Action.WRITTEN),
}


def by_kind(kind: str, vr: str) -> Action:
    """How an attribute loses its value: type 1 by a dummy, 2 by emptying, 3 by removal."""
    if kind[0] == "1" and vr in _CAN_BE_DUMMY:
        return Action.DUMMY
    return Action.EMPTY if kind[0] == "2" else Action.REMOVE


def rules(iod: str, options: Options) -> Mapping[int, Rule]:
    """The rule of every attribute that may stay or must be there, by tag; all others go.

    Args:
        iod: `CR` or `DX`.
        options: the options of Annex E.
    """
    return _rules(iod, options)


@cache
def _rules(iod: str, options: Options) -> Mapping[int, Rule]:
    content = json.loads(_IODS.read_text(encoding="utf-8"))

    def compiled(part: Mapping[str, str]) -> dict[int, Rule]:
        found = {}
        for keyword, entry in part.items():
            kind, _, number = entry.partition(" ")
            items = content["parts"][int(number)] if number else {}
            tag = tag_for_keyword(keyword)
            vr = dictionary_VR(tag)
            action = _action(keyword, tag, vr, kind, items, part, options)
            walked = action in (Action.ITEMS, Action.CODES)
            if action != Action.REMOVE:
                found[tag] = Rule(action, kind, vr, compiled(items) if walked else {})
        return found

    return compiled(dict.fromkeys(GEOMETRY, "3") | content[iod])


def _action(
    keyword: str,
    tag: int,
    vr: str,
    kind: str,
    items: Iterable[str],
    siblings: Iterable[str],
    options: Options,
) -> Action:
    if keyword in _SPECIAL:
        return _SPECIAL[keyword]
    if "CodeMeaning" in siblings and keyword in _CODE:
        return Action.WRITTEN
    if keyword in ("PatientSex", "PatientAge") and options.patient_characteristics:
        return Action.SEX if keyword == "PatientSex" else Action.AGE
    if keyword in options.kept:
        return Action.WORDS if keyword in _DESCRIPTIONS else Action.TEXT
    if keyword in _DATES and options.dates == "shifted":
        return Action.DATE
    if keyword in _NEVER or keyword.startswith(_ANIMALS):
        return Action.REMOVE
    if tag in TABLE:
        return _of_table(TABLE[tag], kind, vr)
    if vr == "SQ":
        return Action.CODES if "CodeMeaning" in items else Action.ITEMS
    if keyword in TEXTS:
        return Action.TEXT
    if vr == "UI":
        return Action.UID
    if vr == "CS":
        return Action.CODE_STRING
    return Action.KEEP if vr in _NUMBERS else by_kind(kind, vr)


def _of_table(code: str, kind: str, vr: str) -> Action:
    """What a code of Table E.1-1 comes to for an attribute of this type."""
    if code == "U":
        return Action.UID
    if code == "X/Z/U*" or (vr == "SQ" and (kind[0] == "1" or code == "D")):
        return Action.ITEMS
    if code in ("Z", "D", "Z/D") and kind[0] != "1":
        return Action.EMPTY
    return by_kind(kind, vr)


@cache
def standard_codes() -> Mapping[tuple[str, str], str]:
    """Meaning by (coding scheme designator, code value) of the codes that PS3.16 uses.

    The retired SNOMED-RT ones are there under each of the designators that they are written with.
    """
    known = {
        (scheme, value): meaning
        for scheme, concepts in _concepts_dict.concepts.items()
        for values in concepts.values()
        for value, (meaning, _) in values.items()
    }
    for old, new in _snomed_dict.mapping["SRT"].items():
        if meaning := known.get(("SCT", new)):
            known |= {(scheme, old): meaning for scheme in ("SRT", "SNM3", "99SDM")}
    return known
