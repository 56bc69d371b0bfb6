"""What the objects have in common: header of the film, dates, character set."""

from __future__ import annotations

from typing import Any

from pydicom.dataset import Dataset

from .coding import Device, derived_uid

# Type 2 of the modules that an object shares with its film: there, but empty where not known.
_NAME = "PatientName"
_SHARED = (
    "PatientID",
    _NAME,
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
    """The film's header without its picture and the patient's name, for highdicom.

    It has every attribute that the objects share with it.

    Without a frame of reference: pixels of a projection have no place in the patient, so the
    segments refer to the film's pixels (PS3.3 A.51.5).
    """
    result = Dataset()
    result.update(source)
    # highdicom quotes names that it finds odd in warnings: `settle` adds them. Of the size of pixels
    # it makes a functional group that it cannot read again without a thickness of slices.
    for keyword in ("PixelData", "FrameOfReferenceUID", "PixelSpacing", _NAME):
        if keyword in result:
            del result[keyword]
    for keyword in _SHARED:
        if keyword not in result:
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
    date = source.get("ContentDate") or source.get("StudyDate")
    time = source.get("ContentTime") or source.get("StudyTime")
    return {"content_date": str(date or _NO_DATE), "content_time": str(time or _NO_TIME)}


def settle(made: Dataset, source: Dataset) -> None:
    """Complete an object that highdicom made, and take out what differs from run to run."""
    made.PatientName = source.get(_NAME)
    made.InstanceCreationDate, made.InstanceCreationTime = made.ContentDate, made.ContentTime
    for item in made.get("ContributingEquipmentSequence", ()):
        item.pop("ContributionDateTime", None)
    organization = derived_uid("dimensions", made.SOPInstanceUID)
    for keyword in ("DimensionOrganizationSequence", "DimensionIndexSequence"):
        for item in made.get(keyword, ()):
            item.DimensionOrganizationUID = organization
