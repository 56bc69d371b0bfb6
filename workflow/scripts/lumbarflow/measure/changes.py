"""What changed between a patient's studies, and what is within the error of measuring.

The smallest detectable change of two measurements that each err with standard deviation s is
1.96 sqrt(2) s: without any change, 95 % of differences are smaller (de Vet et al., J Clin Epidemiol
2006;59:1033). A constant bias of a network cancels.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from .confidence import TOLERANCES, conversion

#: Columns of `changes/{source}.parquet` and their types.
COLUMNS = {
    "patient_id": "string",
    "name": "string",
    "site": "string",
    "consecutive": "bool",
    "first_to_last": "bool",
    "study_id_from": "string",
    "study_id_to": "string",
    "image_id_from": "string",
    "image_id_to": "string",
    "study_day_from": "int64",
    "study_day_to": "int64",
    "value_from": "float64",
    "value_to": "float64",
    "change": "float64",
    "unit": "string",
    "smallest_detectable_change": "float64",
    "status": "string",
    "reason": "string",
}
STATUSES = ("changed", "within_error", "not_comparable")


def changes(
    measurements: pd.DataFrame,
    manifest: pd.DataFrame,
    error_sd: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Compare the films of each patient, one day with the next, and the first with the last.

    Films of a day count as one study, as nothing tells their order. Of several, the one whose
    values have the largest sum of confidences stands for the day: all values of a day come from
    one film, taken in one posture. How the patient stood is not known, so a change of posture is
    found as a change.

    Args:
        measurements: rows of `measurements/{source}.parquet`.
        manifest: image_id, patient_id, study_id and study_day of the films; those without a day
            cannot be put in order and are left out.
        error_sd: standard deviation of the error by name, in the units of
            :data:`~lumbarflow.measure.confidence.TOLERANCES`, as measured for this source; names
            without take the one there.

    Returns:
        The columns of :data:`COLUMNS`, by patient, days, name and site, for each pair of days that
        are next to each other (consecutive) or the patient's first and last (first_to_last; both
        where there are two), and each measurement of either. change is value_to - value_from in
        `unit`, null where one is missing or it has no common unit. status is `changed` where it is
        larger than the smallest detectable change, `within_error` where not, and `not_comparable`,
        with a reason, where a value is missing or uncertain, or lengths are in pixels, which are
        not the same size on two films.
    """
    sds = {name: known.error_sd for name, known in TOLERANCES.items()} | dict(error_sd or {})
    films = manifest.loc[
        manifest["study_day"].notna() & manifest["image_id"].isin(measurements["image_id"]),
        ["image_id", "patient_id", "study_id", "study_day"],
    ]
    weight = measurements["confidence"].where(measurements["value"].notna(), 0.0)
    films = films.assign(
        weight=films["image_id"].map(weight.groupby(measurements["image_id"]).sum())
    )
    films = films.sort_values(
        ["patient_id", "study_day", "weight", "image_id"], ascending=[True, True, False, True]
    ).drop_duplicates(["patient_id", "study_day"])
    by_film = {
        image_id: {(row["name"], row["site"]): row for row in table.to_dict("records")}
        for image_id, table in measurements[
            measurements["image_id"].isin(films["image_id"])
        ].groupby("image_id")
    }
    rows: list[dict[str, Any]] = []
    for patient_id, days in films.groupby("patient_id", sort=True):
        studies = days.to_dict("records")
        last = len(studies) - 1
        pairs = list(pairwise(range(last + 1)))
        if last > 1:
            pairs.append((0, last))
        for a, b in pairs:
            kind = {"consecutive": b == a + 1, "first_to_last": (a, b) == (0, last)}
            before, after = (by_film[studies[k]["image_id"]] for k in (a, b))
            for name, site in sorted(before.keys() | after.keys()):
                one, other = before.get((name, site)), after.get((name, site))
                row = {"patient_id": patient_id, "name": name, "site": site} | kind
                for end, study in (("from", studies[a]), ("to", studies[b])):
                    for column in ("study_id", "image_id", "study_day"):
                        row[f"{column}_{end}"] = study[column]
                rows.append(row | _change(name, one, other, sds.get(name)))
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def smallest_detectable_change(error_sd: float) -> float:
    """Of two measurements whose errors have this standard deviation each, in its unit."""
    return 1.96 * float(np.sqrt(2)) * error_sd


def _change(
    name: str,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    error_sd: float | None,
) -> dict[str, Any]:
    """What :func:`changes` tells of a measurement at two studies; None where there is no row."""
    values, problems = [], []
    for study, row in (("earlier", before), ("later", after)):
        value = np.nan if row is None or pd.isna(row["value"]) else float(row["value"])
        values.append(value)
        status = "not_measurable" if np.isnan(value) else row["status"]
        if status != "measured":
            why = "" if row is None or pd.isna(row["reason"]) else row["reason"]
            problem = f"{status.replace('_', ' ')} at the {study} study"
            problems.append(f"{problem}: {why}" if why else problem)
    rows = [row for row in (before, after) if row is not None]
    # What has no value has no unit of its own.
    rows = [row for row in rows if not pd.isna(row["value"])] or rows
    unit = rows[0]["unit"]
    change = limit = np.nan
    if any(row["unit"] != unit for row in rows):
        problems.append("the pixel spacing of one film is unknown")
    elif unit == "px":
        problems.append("the pixel spacing is unknown, so the films have no common scale")
    else:
        change = values[1] - values[0]
        factor = conversion(TOLERANCES[name].unit, unit) if name in TOLERANCES else 1.0
        if error_sd is None or factor is None:
            problems.append("its measurement error is unknown")
        else:
            limit = smallest_detectable_change(error_sd) * factor
    status = "changed" if abs(change) > limit else "within_error"
    return {
        "value_from": values[0],
        "value_to": values[1],
        "change": change,
        "unit": unit,
        "smallest_detectable_change": limit,
        "status": "not_comparable" if problems else status,
        "reason": "; ".join(problems),
    }
