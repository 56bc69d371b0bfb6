"""What films have in common that may be hard for networks: implants, degeneration, fractures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from ..annotate.shapes import measure, shared_area

#: The strata and their values, in the order in which they are shown.
STRATA = {
    "implants": ("without", "with"),
    "degeneration": ("none", "mild", "severe"),
    "fracture": ("without", "with"),
    "overlap": ("without", "with"),
}
#: Columns of :func:`film_strata` and their types.
COLUMNS = {"image_id": "string", "patient_id": "string", **dict.fromkeys(STRATA, "string")}

#: Of a healthy disc, see :func:`degeneration`: height by depth of the body above it.
NORMAL_DISC_INDEX = {
    **{"L1/L2": 0.22, "L2/L3": 0.25, "L3/L4": 0.27, "L4/L5": 0.29, "L5/S1": 0.27},
    **{"L5/L6": 0.27, "L6/S1": 0.27},
}
#: From where a disc is mildly, and from where severely degenerated.
HEIGHT_LOSS = (0.25, 0.5)  # of a healthy disc's height
OSTEOPHYTE = (0.1, 0.2)  # by the posterior height of its body: about 3 and 6 mm
SLIP_PERCENT = (8.0, 25.0)  # about 3 mm, and Meyerding's grade II
#: From which share of the smaller one two bodies overlap.
OVERLAP = 0.02


def film_strata(
    records: Mapping[str, Mapping[str, Any]],
    measurements: pd.DataFrame,
    patients: Mapping[str, str],
    vertebrae: Sequence[str],
) -> pd.DataFrame:
    """To which strata each film belongs, by what annotators drew.

    - implants: whether there is an outline of another class than `vertebrae`;
    - degeneration: see :func:`degeneration`;
    - fracture: whether a body has lost a fifth of a height or more (Genant's grade 1);
    - overlap: whether two vertebral bodies share :data:`OVERLAP` of the smaller one or more.

    Args:
        records: of each film, by image_id.
        measurements: `measurements/annotation.parquet`.
        patients: patient_id by image_id.
        vertebrae: the classes of vertebrae.

    Returns:
        The columns of :data:`COLUMNS`, a row a record, in their order. A value is null where it
        cannot be told, for want of a measurement.
    """
    by_film = dict(iter(measurements.groupby("image_id")))
    rows = []
    for image_id, record in records.items():
        measured = by_film.get(image_id, measurements.iloc[:0])
        measured = measured[measured["value"].notna()]
        structures = record["structures"]
        bodies = [s["polygon"] for s in structures if s["class_name"] in vertebrae]
        grades = measured.loc[measured["name"] == "genant_grade", "value"]
        rows.append(
            {
                "image_id": image_id,
                "patient_id": patients[image_id],
                "implants": _whether(len(bodies) < len(structures)),
                "degeneration": degeneration(measured),
                "fracture": _whether(grades.max() >= 1) if len(grades) else None,
                "overlap": _whether(_overlap(bodies)),
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def degeneration(measured: pd.DataFrame) -> str | None:
    """How degenerated the worst disc of a film is.

    Lane et al. (J Rheumatol 1993;20:1911) grade a disc by its height and its osteophytes: none,
    mild, or moderate to severe, here called severe. They grade by eye; the limits here are numbers
    without a unit, so that films of unknown pixel spacing have them too. Height is that lost of a
    healthy disc's (:data:`NORMAL_DISC_INDEX`: Zhou et al., Eur Spine J 2000;9:242, by depths of
    Panjabi et al., Spine 1992;17:299). Slips count, too, from about 3 mm on: smaller ones are
    common in health.

    Args:
        measured: the rows of `measurements/annotation.parquet` of a film that have a value.

    Returns:
        A value of :data:`STRATA`; None where no disc was measured.
    """
    index = _values(measured, "disc_height_index")
    index = index[index.index.isin(list(NORMAL_DISC_INDEX))]
    if index.empty:
        return None
    loss = 1 - index / index.index.map(NORMAL_DISC_INDEX).to_numpy(float)
    spurs = _values(measured, "osteophyte_length")
    heights = _values(measured, "body_height_posterior")
    spurs = spurs / heights.reindex(spurs.index.str.split().str[0]).to_numpy()
    grade = max(
        _grade(values, limits)
        for values, limits in (
            (loss, HEIGHT_LOSS),
            (spurs, OSTEOPHYTE),
            (_values(measured, "slip_percent").abs(), SLIP_PERCENT),
        )
    )
    return STRATA["degeneration"][grade]


def _values(measured: pd.DataFrame, name: str) -> pd.Series:
    """The values of a measurement by site."""
    return measured[measured["name"] == name].set_index("site")["value"].astype("float64")


def _grade(values: pd.Series, limits: tuple[float, float]) -> int:
    """How many of the two limits the greatest value reaches."""
    greatest = values.max()
    return int(np.sum(greatest >= np.array(limits))) if pd.notna(greatest) else 0


def _whether(is_so: bool) -> str:
    return STRATA["implants"][int(is_so)]


def _overlap(bodies: Sequence[Any]) -> bool:
    outlines = [np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in bodies]
    if len(outlines) < 2:
        return False
    areas = measure(outlines).area
    return any(
        shared_area(outlines[a], outlines[b]) >= OVERLAP * min(areas[a], areas[b])
        for a, b in combinations(range(len(outlines)), 2)
    )
