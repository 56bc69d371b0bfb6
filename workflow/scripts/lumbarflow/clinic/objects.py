"""What the objects have in common: header of the film, dates, character set."""

from __future__ import annotations

from copy import deepcopy
from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset

from .coding import Device, derived_uid

# Type 2 of the modules that an object shares with its film: there, but empty where not known.
_SHARED = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
_NO_DATE, _NO_TIME = "19000101", "000000"  # as de-identification writes where it may not be empty


def header(source: Dataset) -> Dataset:
    """The film's header as highdicom takes it: without the picture, and without what it judges.

    It refuses some values of patient and study, and quotes names in warnings: :func:`settle` copies
    those as they are. Without a frame of reference, too: pixels of a projection have no place in
    the patient, so segments refer to the film's pixels (PS3.3 A.51.5).
    """
    result = Dataset()
    result.update(source)
    # Of the size of pixels highdicom makes a group that it cannot read without a slice's thickness.
    for keyword in ("PixelData", "PixelSpacing", "FrameOfReferenceUID", *_SHARED):
        if keyword in result:
            del result[keyword]
    for keyword in _SHARED:  # now elements of its own, not the film's
        setattr(result, keyword, None)
    return result


def equipment(device: Device) -> dict[str, Any]:
    """Arguments of highdicom that tell who made the object."""
    return {
        "manufacturer": "Lumbarflow",
        "manufacturer_model_name": device.name,
        "software_versions": device.version,
        "device_serial_number": device.serial,
        # Names of all scripts, whatever the film's own set.
        "specific_character_set": "ISO_IR 192",
    }


def dates(source: Dataset) -> dict[str, str]:
    """Content Date and Time: the film's.

    Those of the day would stand out among the moved dates of a de-identified patient, and would
    make every run's objects different.
    """
    date = str(source.get("ContentDate") or source.get("StudyDate"))
    time = str(source.get("ContentTime") or source.get("StudyTime"))
    return {
        "content_date": date if _follows(date, "%Y%m%d") else _NO_DATE,
        "content_time": time[:6] if _follows(time[:6], "%H%M%S") else _NO_TIME,
    }


def _follows(text: str, form: str) -> bool:
    """Whether a text is a date or time of a form."""
    try:
        return datetime.strptime(text, form).strftime(form) == text
    except ValueError:
        return False


def settle(made: Dataset, source: Dataset) -> None:
    """Complete an object that highdicom made, and take out what differs from run to run."""
    for keyword in _SHARED:
        if keyword in source:
            made[keyword] = deepcopy(source[keyword])
    made.InstanceCreationDate, made.InstanceCreationTime = made.ContentDate, made.ContentTime
    for item in made.get("ContributingEquipmentSequence", ()):
        item.pop("ContributionDateTime", None)
    organization = derived_uid("dimensions", made.SOPInstanceUID)
    for keyword in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in made.get(keyword, ()):
            item.DimensionOrganizationUID = organization
