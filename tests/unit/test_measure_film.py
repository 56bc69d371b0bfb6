"""A film's way from instances or outlines to tables: levels, angles, repair, tuning."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest

from lumbarflow.errors import InputError
from lumbarflow.measure.bodies import encode, of_record
from lumbarflow.measure.cohort import (
    LABELLED,
    Film,
    films_of,
    known_levels,
    label_films,
    read_tuning,
    tune,
    write_tuning,
    wrong_levels,
)
from lumbarflow.measure.confidence import Calibration
from lumbarflow.measure.film import (
    MEASUREMENTS,
    VERTEBRAE,
    Tuning,
    measure,
    spine_of_network,
    spine_of_record,
    spines_of_network,
)
from lumbarflow.measure.levels import Prior
from lumbarflow.rle import decode
from lumbarflow.synthetic.alignment import draw_build
from lumbarflow.synthetic.film import choose_format, plan_film
from lumbarflow.synthetic.spine import make_spine
from lumbarflow.synthetic.surgery import make_surgery

BODIES = ["lumbar_vertebra", "sacral_vertebra"]
SETTINGS = {"cobb": [["T12", "L2"]], "uncertain_below": 0.5}
LOG = logging.getLogger("test")


def planned(seed: int, operated: bool = False):
    rng = np.random.default_rng([200_100, seed])
    shape, spacing = choose_format(rng, 0.4)
    spine = make_spine(rng, draw_build(rng, healthy=True))
    implants = make_surgery(rng, spine) if operated else ()
    return plan_film(rng, spine, implants, shape, spacing)


def record_of(plan, **changes) -> dict:
    structures = [
        structure | {"structure_id": f"s{number}"} | changes
        for number, structure in enumerate(plan.structures)
    ]
    rows, columns = plan.shape
    return {"rows": rows, "columns": columns, "structures": structures, "lines": []}


def instances_of(plan, image_id: str = "film") -> pd.DataFrame:
    """What a perfect network says: the outlines as masks, without levels."""
    record = record_of(plan)
    names = sorted({s["class_name"] for s in record["structures"]})
    rows = [
        encode(replace(body, score=0.95), image_id, *plan.shape) | {"level": None}
        for body in of_record(record["structures"], *plan.shape, names)
    ]
    return pd.DataFrame(rows)


def film_of(plan, image_id: str = "film") -> Film:
    return Film(image_id, *plan.shape, plan.pixel_spacing_mm / plan.magnification)


def known(plan, name: str, site: str) -> float:
    return next(m["value"] for m in plan.measurements if (m["name"], m["site"]) == (name, site))


def labelled(plans: list, **changes) -> dict[str, pd.DataFrame]:
    names = [f"film{number}" for number in range(len(plans))]
    films = [film_of(plan, name) for name, plan in zip(names, plans, strict=True)]
    instances = pd.concat(map(instances_of, plans, names), ignore_index=True)
    arguments = {"processes": 1, "log": LOG} | changes
    return label_films(films, instances, BODIES, Tuning(), SETTINGS, **arguments)


@pytest.mark.parametrize("seed", range(3))
def test_outlines_give_the_levels_and_the_true_angles(seed):
    plan = planned(seed)
    spine = spine_of_network(instances_of(plan), *plan.shape, BODIES, Tuning())
    drawn = [s["level"] for s in plan.structures if s["class_name"] in BODIES]
    assert [vertebra.level for vertebra in spine.vertebrae] == drawn
    assert spine.anterior == plan.anterior and spine.sacrum_seen
    found = measure(spine, film_of(plan).spacing_mm, SETTINGS, Calibration())
    values = {(m.name, m.site): m for m in found}
    lordosis = values["lordosis", "L1-S1"]
    assert lordosis.value == pytest.approx(known(plan, "lordosis", "L1-S1"), abs=1.5)
    assert lordosis.status == "measured" and lordosis.unit == "deg"
    height = values["disc_height_anterior", "L3/L4"]
    assert height.value == pytest.approx(known(plan, "disc_height_anterior", "L3/L4"), abs=1.0)
    assert height.unit == "mm"
    assert ("cobb", "T12-L2") in values


def test_lengths_are_in_pixels_where_the_spacing_is_not_known():
    plan = planned(4)
    spine = spine_of_record(record_of(plan), BODIES)
    units = {m.unit for m in measure(spine, None, SETTINGS, Calibration())}
    assert "px" in units and "mm" not in units


def test_levels_of_annotators_stand_and_others_are_found():
    plan = planned(5)
    drawn = [s["level"] for s in plan.structures if s["class_name"] in BODIES]
    certain = spine_of_record(record_of(plan), BODIES)
    assert {v.level_probability for v in certain.vertebrae} == {1.0} and not certain.flags
    found = spine_of_record(record_of(plan, level=None), BODIES)
    assert [v.level for v in found.vertebrae] == drawn
    assert max(v.level_probability for v in found.vertebrae) < 1


def test_the_order_of_structures_does_not_matter():
    plan = planned(3)
    record = record_of(plan)
    one = spine_of_record(record, BODIES)
    other = spine_of_record(record | {"structures": record["structures"][::-1]}, BODIES)
    values = [measure(spine, 0.2, SETTINGS, Calibration()) for spine in (one, other)]
    assert [(m.name, m.site, m.value) for m in values[0]] == [
        (m.name, m.site, m.value) for m in values[1]
    ]


@pytest.mark.parametrize("turned", [False, True])
def test_s1_drawn_as_a_line_is_an_endplate(turned):
    plan = planned(6)
    record = record_of(plan)
    s1 = next(s for s in record["structures"] if s["level"] == "S1")
    whole = spine_of_record(record, BODIES)
    record["structures"] = [s for s in record["structures"] if s["class_name"] != s1["class_name"]]
    plate = next(v for v in whole.vertebrae if v.level == "S1").shape.superior
    points = [plate.posterior.tolist(), plate.anterior.tolist()]
    line = {"structure_id": "l", "level": "S1", "points": points[::-1] if turned else points}
    spine = spine_of_record(record | {"lines": [line]}, BODIES)
    assert spine.sacrum_seen and spine.vertebrae[-1].level == "S1"

    def lordosis(of) -> float:
        found = measure(of, 0.2, SETTINGS, Calibration())
        return next(m.value for m in found if (m.name, m.site) == ("lordosis", "L1-S1"))

    assert lordosis(spine) == pytest.approx(lordosis(whole), abs=1e-6)


def test_tables_hold_one_row_a_vertebra_and_the_implants_as_they_were():
    plan = planned(7, operated=True)
    raw = instances_of(plan, "film0")
    tables = labelled([plan])
    table = tables["labelled"]
    bodies = table[table["class_name"].isin(BODIES)]
    assert bodies["level"].is_unique and bodies["level"].notna().all()
    assert (bodies["level_probability"] > 0.5).all()
    others = table[~table["class_name"].isin(BODIES)]
    assert len(others) and others["level"].isna().all()
    merged = others.merge(raw, on="instance_id", suffixes=("", "_raw"))
    assert len(merged) == len(others) and (merged["rle_counts"] == merged["rle_counts_raw"]).all()
    assert list(table.columns) == [*raw.columns, *LABELLED]
    assert dict(tables["measurements"].dtypes.astype(str)) == MEASUREMENTS
    assert list(tables["vertebrae"].columns) == list(VERTEBRAE)
    assert set(tables["measurements"]["status"]) <= {"measured", "uncertain", "not_measurable"}


def test_fused_bodies_are_two_after_repair_only():
    plan = planned(8)
    raw = instances_of(plan)
    lumbar = raw[raw["class_name"] == "lumbar_vertebra"]
    pair = lumbar.iloc[2:4]
    masks = [decode(row.rle_counts, *plan.shape) for row in pair.itertuples()]
    both = (masks[0] | masks[1]).astype(np.uint8)
    both = cv2.morphologyEx(both, cv2.MORPH_CLOSE, np.ones((25, 9), np.uint8)).astype(bool)
    body = of_record(record_of(plan)["structures"], *plan.shape, BODIES)[0]
    fused = replace(body, instance_id="fused", origin=(0, 0), mask=both, outline=None, level=None)
    fused_row = encode(fused, "film", *plan.shape) | {"level": None}
    table = pd.concat([raw.drop(pair.index), pd.DataFrame([fused_row])], ignore_index=True)
    drawn = [s["level"] for s in plan.structures if s["class_name"] in BODIES]
    spine, plain = spines_of_network(table, *plan.shape, BODIES, Tuning())
    assert [v.level for v in spine.vertebrae] == drawn
    assert sorted(v.body.repair for v in spine.vertebrae).count("split") == 2
    assert len(plain.vertebrae) == len(drawn) - 1


def test_several_processes_give_the_same_tables_as_one():
    plans = [planned(seed) for seed in (9, 10, 11)]
    one, two = labelled(plans), labelled(plans, processes=2)
    for name, table in one.items():
        pd.testing.assert_frame_equal(table, two[name])


def test_a_film_without_instances_has_nothing_measurable():
    plan = planned(12)
    nothing = instances_of(plan).iloc[:0]
    tables = label_films([film_of(plan)], nothing, BODIES, Tuning(), SETTINGS, 1, LOG)
    assert tables["labelled"].empty and tables["vertebrae"].empty
    assert tables["measurements"]["value"].isna().all()
    assert (tables["measurements"]["status"] == "not_measurable").all()


def test_tuning_is_of_validation_films_and_survives_its_file(tmp_path):
    plans = [planned(seed) for seed in (13, 14)]
    films = [film_of(plan, f"film{k}") for k, plan in enumerate(plans)]
    instances = pd.concat(
        [instances_of(plan, film.image_id) for plan, film in zip(plans, films, strict=True)]
    )
    tuning = tune(films, instances, [record_of(plan) for plan in plans], BODIES, SETTINGS, LOG)
    write_tuning(tmp_path / "labelling.json", tuning)
    assert read_tuning(tmp_path / "labelling.json") == tuning
    assert tuning.calibration.films == 2
    # Two films of a network without a fault: a little surer than the default.
    assert tuning.prior.missed < Prior().missed and tuning.prior.wrong_class < Prior().wrong_class
    assert sum(tuning.prior.top.values()) == pytest.approx(sum(Prior().top.values()), abs=0.05)
    values = json.loads((tmp_path / "labelling.json").read_text())
    del values["separation"]["score"]
    (tmp_path / "labelling.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"labelling.json is of another version"):
        read_tuning(tmp_path / "labelling.json")


def test_bodies_beyond_what_was_drawn_have_the_levels_that_follow():
    plan = planned(13)
    spine = spine_of_network(instances_of(plan), *plan.shape, BODIES, Tuning())
    drawn = of_record(record_of(plan)["structures"], *plan.shape, BODIES)
    names = [body.level for body in sorted(drawn, key=lambda b: b.origin[1])]
    known = known_levels(spine, drawn)
    assert list(known.levels) == names
    # The first and the last not drawn: they are known all the same; one in between is not.
    fewer = [body for body in drawn if body.level not in (names[0], names[-1], "L3")]
    without = [None if name == "L3" else name for name in names]
    assert list(known_levels(spine, fewer).levels) == without
    assert set(known_levels(spine, []).levels) == {None}


def test_levels_that_bodies_of_other_levels_got_are_wrong():
    plan = planned(15)
    right = spine_of_record(record_of(plan), BODIES)
    assert wrong_levels(right, right) == set()
    names = [v.level for v in right.vertebrae]
    moved = tuple(
        replace(v, level=name) for v, name in zip(right.vertebrae, ["T10", *names], strict=False)
    )
    assert wrong_levels(replace(right, vertebrae=moved), right) == {"T10", *names[:-1]}


def test_a_film_that_is_not_accepted_is_named():
    manifest = pd.DataFrame(
        {
            "image_id": ["a", "b"],
            "status": ["accepted", "rejected"],
            "rows": [10, 10],
            "columns": [5, 5],
            "pixel_spacing_mm": [None, 0.2],
        }
    )
    assert films_of(manifest, ["a"]) == [Film("a", 10, 5, None)]
    with pytest.raises(InputError, match="no accepted film b"):
        films_of(manifest, ["b"])
