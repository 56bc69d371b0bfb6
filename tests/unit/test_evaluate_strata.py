"""The strata of films: implants, degeneration, fractures, overlapping bodies."""

import numpy as np
import pandas as pd
import pytest

from lumbarflow.evaluate.strata import COLUMNS, NORMAL_DISC_INDEX, STRATA, degeneration, film_strata
from lumbarflow.measure.film import MEASUREMENTS
from lumbarflow.synthetic.alignment import TYPICAL

FOREGROUND = ["lumbar_vertebra", "sacral_vertebra"]


def measured(*values, image_id="film"):
    """Rows (name, site, value) of measurements/annotation.parquet."""
    rows = [
        {"image_id": image_id, "name": name, "site": site, "value": value}
        for name, site, value in values
    ]
    table = pd.DataFrame(rows, columns=list(MEASUREMENTS))
    return table.astype(MEASUREMENTS)


def healthy():
    return [
        *(("disc_height_index", site, index) for site, index in NORMAL_DISC_INDEX.items()),
        *(("body_height_posterior", level, 28.0) for level in ("L3", "L4", "L5")),
        ("osteophyte_length", "L4 anterior_inferior", 0.0),
        ("slip_percent", "L4/L5", 1.0),
    ]


@pytest.mark.parametrize(
    ("finding", "grade"),
    [
        (None, "none"),
        (("disc_height_index", "L4/L5", 0.22), "none"),
        (("disc_height_index", "L4/L5", 0.21), "mild"),
        (("disc_height_index", "L4/L5", 0.14), "severe"),
        (("osteophyte_length", "L4 anterior_inferior", 2.0), "none"),
        (("osteophyte_length", "L4 anterior_inferior", 4.0), "mild"),
        (("osteophyte_length", "L4 anterior_inferior", 7.0), "severe"),
        # Of a body without a height nothing is told.
        (("osteophyte_length", "L1 anterior_inferior", 9.0), "none"),
        (("slip_percent", "L4/L5", 7.0), "none"),
        (("slip_percent", "L4/L5", 9.0), "mild"),
        (("slip_percent", "L4/L5", -26.0), "severe"),
    ],
)
def test_degeneration_is_that_of_the_worst_disc(finding, grade):
    rows = [row for row in healthy() if finding is None or row[:2] != finding[:2]]
    table = measured(*rows, *([finding] if finding else []))
    assert degeneration(table) == grade
    # Pixels instead of mm.
    lengths = table["name"].isin(["osteophyte_length", "body_height_posterior"])
    assert (
        degeneration(table.assign(value=table["value"].where(~lengths, 5 * table["value"])))
        == grade
    )


def test_degeneration_needs_a_disc():
    assert degeneration(measured()) is None
    assert degeneration(measured(("slip_percent", "L4/L5", 30.0))) is None


def test_healthy_discs_are_those_of_the_simulation():
    for site, index in NORMAL_DISC_INDEX.items():
        if (upper := site.split("/")[0]) in TYPICAL and site != "L5/L6":
            assert index == pytest.approx(
                TYPICAL[upper].disc_height / TYPICAL[upper].depth, abs=0.01
            )


def body(y, x=10, level="L3", class_name="lumbar_vertebra"):
    polygon = [[x, y], [x + 40, y], [x + 40, y + 30], [x, y + 30]]
    return {"class_name": class_name, "level": level, "polygon": polygon}


def strata_of(structures, *values):
    records = {"film": {"image_id": "film", "rows": 300, "columns": 200, "structures": structures}}
    table = film_strata(records, measured(*values), {"film": "someone"}, FOREGROUND)
    assert dict(table.dtypes.astype(str)) == COLUMNS
    return table.iloc[0].to_dict()


def test_implants_and_overlap():
    plain = [body(10), body(50), body(90, class_name="sacral_vertebra")]
    assert strata_of(plain)["implants"] == "without"
    assert strata_of(plain)["overlap"] == "without"
    assert strata_of([*plain, body(60, class_name="screw")])["implants"] == "with"
    assert strata_of([*plain, body(60, class_name="screw")])["overlap"] == "without"
    assert strata_of([*plain, body(117)])["overlap"] == "with"
    assert strata_of([])["overlap"] == "without"


def test_fracture_by_genants_grade():
    bodies = [body(10)]
    none = ("genant_grade", "L2", 0.0)
    assert strata_of(bodies, none)["fracture"] == "without"
    assert strata_of(bodies, none, ("genant_grade", "L3", 1.0))["fracture"] == "with"


def test_what_was_not_measured_has_no_stratum():
    found = strata_of([body(10)], ("genant_grade", "L2", np.nan))
    assert pd.isna(found["fracture"])
    assert pd.isna(found["degeneration"])
    assert found["patient_id"] == "someone"


def test_values_are_those_named():
    found = strata_of([body(10)], *healthy(), ("genant_grade", "L2", 0.0))
    assert all(found[stratum] in values for stratum, values in STRATA.items())
