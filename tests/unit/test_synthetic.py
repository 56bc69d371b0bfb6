"""The synthetic cohort: geometry, grey values, DX objects, determinism and restart."""

import datetime
import json
import warnings

import cv2
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbarflow.errors import InputError
from lumbarflow.synthetic.anatomy import make_anatomy, make_implants
from lumbarflow.synthetic.cohort import generate_cohort
from lumbarflow.synthetic.dicom import identifiers, make_dx, make_patient, make_study, make_uid
from lumbarflow.synthetic.film import FULL_SCALE, choose_format, plan_film, simulate_film

SCALE = 0.2
IMPLANTS = {"cage", "screw", "instrumentation"}


def film_of(seed, postoperative=True):
    rng = np.random.default_rng(seed)
    anatomy = make_anatomy(rng)
    return simulate_film(rng, anatomy, postoperative, *choose_format(rng, SCALE))


def area(polygon):
    x, y = np.asarray(polygon).T
    return 0.5 * abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))


def raster(polygon, shape):
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.round(np.array(polygon) * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
    return mask > 0


@given(st.integers(0, 2**32), st.booleans(), st.sampled_from([SCALE, 0.5, 1.0]))
@settings(max_examples=60, deadline=None)
def test_every_structure_lies_inside_the_collimated_field(seed, postoperative, scale):
    rng = np.random.default_rng(seed)
    anatomy = make_anatomy(rng)
    plan = plan_film(rng, anatomy, postoperative, *choose_format(rng, scale))
    x0, y0, x1, y1 = plan.field
    assert 0 <= x0 < x1 <= plan.shape[1] and 0 <= y0 < y1 <= plan.shape[0]
    for structure in plan.structures:
        polygon = np.array(structure["polygon"])
        assert (polygon >= (x0, y0)).all() and (polygon < (x1, y1)).all()
        assert area(polygon) > 0
    levels = [s["level"] for s in plan.structures if s["class_name"] == "lumbar_vertebra"]
    assert levels == [
        *(["T11"] if anatomy.top_level == "T11" else []),
        *["T12", "L1", "L2", "L3", "L4", "L5"],
    ]
    assert [s["level"] for s in plan.structures if s["class_name"] == "sacral_vertebra"] == [
        "S1",
        "S2",
    ]
    assert {"screw", "instrumentation"} <= {s["class_name"] for s in plan.structures} or (
        not postoperative
    )


@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_bodies_are_of_human_size_and_do_not_overlap(seed):
    anatomy = make_anatomy(np.random.default_rng(seed))
    for body in anatomy.bodies:
        assert 18 < body.height < 34 and 25 < body.depth < 42
    grid = np.zeros((500, 400), int)
    for body in anatomy.bodies + anatomy.sacrum:
        points = body.outline + np.array([200, 350])
        mask = np.zeros(grid.shape, np.uint8)
        cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 1, cv2.LINE_8, 4)
        grid += mask
    assert (grid > 1).sum() <= 60  # filled outlines share border pixels in narrow disc spaces
    heights = [b.centre[1] for b in anatomy.bodies + anatomy.sacrum]
    assert heights == sorted(heights)


@given(st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_implants_make_a_construct(seed):
    rng = np.random.default_rng(seed)
    anatomy = make_anatomy(rng)
    implants = make_implants(rng, anatomy)
    screws = [i for i in implants if i.class_name == "screw"]
    rods = [i for i in implants if i.class_name == "instrumentation"]
    assert len(rods) == 2 and 4 <= len(screws) <= 10 and len(screws) % 2 == 0
    for screw in screws:
        outline = anatomy.body(screw.level).outline.astype(np.float32)
        inside = [cv2.pointPolygonTest(outline, p, False) > 0 for p in screw.outline.tolist()]
        # The shaft is anchored in its body; the head stays behind it.
        assert 0.2 < np.mean(inside) < 0.9
    for cage in (i for i in implants if i.class_name == "cage"):
        assert cage.level in {disc.level for disc in anatomy.discs}


@pytest.mark.parametrize("seed", range(4))
def test_bodies_are_brighter_than_discs_and_implants_than_bodies(seed):
    film = film_of(seed)
    pixels, plan = film.pixels, film.plan
    assert pixels.dtype == np.uint16 and pixels.shape == plan.shape and pixels.max() <= FULL_SCALE
    metal = np.zeros(plan.shape, bool)
    bodies = {}
    for structure in film.structures:
        mask = raster(structure["polygon"], plan.shape)
        if structure["class_name"] in IMPLANTS:
            metal |= mask
        elif structure["class_name"] == "lumbar_vertebra":
            bodies[structure["level"]] = mask
    everything = np.logical_or.reduce(list(bodies.values()))
    for disc in plan.anatomy.discs:
        above, below = disc.level.split("/")
        if above not in bodies or below not in bodies:
            continue
        gap = raster(plan.to_pixels(disc.outline), plan.shape) & ~everything
        gap = cv2.erode(gap.astype(np.uint8), np.ones((2, 2))) > 0
        gap &= ~(cv2.dilate(metal.astype(np.uint8), np.ones((5, 5))) > 0)
        bone = (bodies[above] | bodies[below]) & ~metal
        if gap.sum() > 20:
            assert pixels[bone].mean() > pixels[gap].mean()
    screws = [s for s in film.structures if s["class_name"] == "screw"]
    for screw in screws:
        assert (
            pixels[raster(screw["polygon"], plan.shape)].mean() > pixels[everything & ~metal].mean()
        )
    assert screws


def test_film_repeats_with_its_seed_and_differs_with_another():
    one, same, other = film_of(5), film_of(5), film_of(6)
    assert np.array_equal(one.pixels, same.pixels) and one.structures == same.structures
    assert one.pixels.shape != other.pixels.shape or not np.array_equal(one.pixels, other.pixels)


def test_full_size_format_is_that_of_radiographs():
    for seed in range(20):
        (rows, columns), spacing = choose_format(np.random.default_rng(seed))
        assert 2000 <= rows <= 2900 and 1000 <= columns <= 1600 and 0.139 <= spacing <= 0.2


@pytest.mark.parametrize("seed", range(12))
def test_dx_object_reads_back_with_the_film_in_it(tmp_path, seed):
    rng = np.random.default_rng(seed)
    film = film_of(1)
    patient = make_patient(rng)
    study = make_study(rng, datetime.date(2019, 3, 14), True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pydicom warns of values that break their VR
        ds = make_dx(film, patient, study, rng, sop_instance_uid=make_uid(rng))
        ds.save_as(tmp_path / "film.dcm", enforce_file_format=True)
        back = pydicom.dcmread(tmp_path / "film.dcm")
        stored = back.pixel_array
    inverted = back.PhotometricInterpretation == "MONOCHROME1"
    assert np.array_equal(FULL_SCALE - stored if inverted else stored, film.pixels)
    assert (back.PresentationLUTShape == "INVERSE") == inverted
    assert str(back.PatientName) == patient.name
    assert back.Modality == "DX" and back.ViewPosition == "LL" and back.BodyPartExamined == "LSPINE"
    assert float(back.ImagerPixelSpacing[0]) == pytest.approx(film.pixel_spacing_mm, rel=1e-4)
    assert ("WindowCenter" in back) != ("VOILUTSequence" in back)
    family = patient.name.split("^")[0]
    assert {patient.name, family, patient.patient_id, study.accession_number} <= identifiers(
        patient, study
    )
    encoding = "latin-1" if back.SpecificCharacterSet == "ISO_IR 100" else "utf-8"
    raw = (tmp_path / "film.dcm").read_bytes()
    for text in identifiers(patient, study):
        assert text.encode(encoding) in raw


def test_objects_vary_in_polarity_and_grey_scale_transformation():
    seen = set()
    film = film_of(1)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        study = make_study(rng, datetime.date(2019, 3, 14), False)
        ds = make_dx(film, make_patient(rng), study, rng, sop_instance_uid=make_uid(rng))
        seen |= {
            ds.PhotometricInterpretation,
            ds.SpecificCharacterSet,
            "window" if "WindowCenter" in ds else "lut",
            "spacing" if "PixelSpacing" in ds else "no spacing",
        }
    assert seen == {"MONOCHROME1", "MONOCHROME2", "ISO_IR 100", "ISO_IR 192", "window", "lut",
                    "spacing", "no spacing"}  # fmt: skip


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    storage = tmp_path_factory.mktemp("cohort")
    return storage, generate_cohort(storage, 7, 11, scale=SCALE, log=lambda _: None)


def contents(storage):
    return {p.name: p.read_bytes() for p in sorted((storage / "objects").iterdir())}


def test_cohort_lists_every_object(cohort):
    storage, truth = cohort
    assert json.loads((storage / "truth.json").read_text(encoding="utf-8")) == truth
    assert {f"objects/{name}" for name in contents(storage)} == {i["file"] for i in truth["images"]}
    people = {}
    for image in truth["images"]:
        ds = pydicom.dcmread(storage / image["file"])
        assert ds.SOPInstanceUID == image["sop_instance_uid"]
        assert (ds.Rows, ds.Columns) == (image["rows"], image["columns"])
        assert bool(image["structures"]) == (ds.ViewPosition == "LL")
        fitted = {s["class_name"] for s in image["structures"]} & IMPLANTS
        assert bool(fitted) == image["postoperative"]
        for text in (str(ds.PatientName), ds.PatientID, ds.PatientBirthDate, ds.AccessionNumber,
                     ds.PatientAddress, ds.InstitutionName, str(ds.OperatorsName)):  # fmt: skip
            assert text in truth["identifiers"]
        people.setdefault(ds.PatientID, []).append(image)
    assert len(people) == 7
    laterals = [sum(i["view"] == "lateral" for i in images) for images in people.values()]
    assert sorted(laterals) == [1, 1, 1, 1, 2, 2, 2]  # 0.4 of 7 patients, rounded
    assert sum(any(i["postoperative"] for i in images) for images in people.values()) == 5
    assert sum(i["view"] == "AP" for i in truth["images"]) == 1


def test_films_of_one_patient_share_the_anatomy(cohort):
    storage, truth = cohort
    heights = {}
    for image in truth["images"]:
        if image["structures"]:
            ds = pydicom.dcmread(storage / image["file"], stop_before_pixels=True)
            areas = {s["level"]: area(s["polygon"]) for s in image["structures"]
                     if s["class_name"] == "lumbar_vertebra"}  # fmt: skip
            heights.setdefault(ds.PatientID, []).append(areas["L1"] / areas["L4"])
    pairs = [ratios for ratios in heights.values() if len(ratios) == 2]
    assert pairs
    for first, second in pairs:
        assert first == pytest.approx(second, rel=0.01)


def test_cohort_does_not_depend_on_workers(cohort, tmp_path):
    storage, truth = cohort
    assert generate_cohort(tmp_path, 7, 11, scale=SCALE, workers=2, log=lambda _: None) == truth
    assert contents(tmp_path) == contents(storage)


def test_restart_makes_only_what_is_missing_and_other_parameters_start_anew(tmp_path):
    said = []
    truth = generate_cohort(tmp_path, 2, 1, scale=SCALE, log=said.append)
    before = contents(tmp_path)
    first, *others = sorted((tmp_path / "objects").iterdir())
    first.unlink()
    (tmp_path / "truth.json").unlink()
    times = [p.stat().st_mtime_ns for p in others]
    said.clear()
    assert generate_cohort(tmp_path, 2, 1, scale=SCALE, log=said.append) == truth
    assert contents(tmp_path) == before
    assert [p.stat().st_mtime_ns for p in others] == times
    assert said[0].startswith(f"kept {len(others)} of {len(before)}")

    foreign = tmp_path / "objects" / "someone-elses.dcm"
    foreign.write_bytes(b"kept")
    other = generate_cohort(tmp_path, 1, 2, follow_up_fraction=0, scale=SCALE, log=said.append)
    assert set(contents(tmp_path)) == {"00000.dcm", foreign.name}
    assert other["images"][0]["sop_instance_uid"] not in {
        i["sop_instance_uid"] for i in truth["images"]
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [("patients", 0), ("seed", -1), ("postoperative_fraction", 1.5), ("follow_up_fraction", -0.1),
     ("scale", 0.0)],
)  # fmt: skip
def test_bad_parameters_are_named(tmp_path, name, value):
    parameters = {"patients": 1, "seed": 1, name: value}
    with pytest.raises(InputError, match=name):
        generate_cohort(tmp_path, **parameters)
    assert not list(tmp_path.iterdir())
