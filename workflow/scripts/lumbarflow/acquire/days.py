"""Days between studies: what is left of dates, which identify."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime
from typing import Any


def study_days(studies: Iterable[tuple[str, str, Any]]) -> dict[str, int | None]:
    """Days since the patient's first dated study, by Study Instance UID.

    Args:
        studies: patient identifier, Study Instance UID and Study Date of each study; a study may be
            met more than once (once for each of its films) and counts with its earliest date.

    Returns:
        0 or more for each study met; None where its date or its patient is unknown. A study without
        a UID is none.
    """
    patients: dict[str, str] = {}
    dates: dict[str, date] = {}
    for patient, uid, value in studies:
        if not uid:
            continue
        patients[uid] = patients.get(uid) or patient
        day = _date(value)
        if day is not None:
            dates[uid] = min(day, dates.get(uid, day))
    first: dict[str, date] = {}
    for uid, day in dates.items():
        patient = patients[uid]
        first[patient] = min(day, first.get(patient, day))
    return {
        uid: (dates[uid] - first[patient]).days if patient and uid in dates else None
        for uid, patient in patients.items()
    }


def _date(value: Any) -> date | None:
    """A date (VR DA); the dots of ACR-NEMA are read, too (PS3.5 6.2)."""
    try:
        return datetime.strptime(str(value).strip().replace(".", ""), "%Y%m%d").date()
    except ValueError:
        return None
