"""DICOM objects around synthetic films: pixels, grey values, names, validity."""

import datetime
import shutil
import subprocess
import warnings
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from lumbarflow.acquire.pixels import stored_values
from lumbarflow.acquire.render import render
from lumbarflow.synthetic.dicom import (
    _BITS,
    _GREY,
    _SYNTAXES,
    Coding,
    choose_coding,
    make_object,
    save,
)
from lumbarflow.synthetic.others import KINDS, OBJECTS, make_other
from lumbarflow.synthetic.people import (
    REGIONS,
    identifiers,
    make_patient,
    make_study,
    make_uid,
)

SHAPE = (64, 48)


def film(view="lateral", anterior="left"):
    """Every grey from 0 to 1, in no order, on a small film."""
    pixels = np.random.default_rng(1).permutation(np.linspace(0, 1, SHAPE[0] * SHAPE[1]))
    plan = SimpleNamespace(
        view=view, anterior=anterior, pixel_spacing_mm=0.148, magnification=1.15, kvp=85.0
    )
    return SimpleNamespace(pixels=pixels.reshape(SHAPE).astype(np.float32), plan=plan)


def make(seed, region=None, coding=None, **options):
    rng = np.random.default_rng(seed)
    patient = make_patient(rng, region)
    study = make_study(rng, patient, datetime.date(2019, 3, 14), seed % 2 == 0)
    uid = make_uid(rng)
    ds = make_object(film(**options), patient, study, rng, sop_instance_uid=uid, coding=coding)
    return ds, patient, study


def reread(ds, path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # pydicom warns of values that break their VR
        save(ds, path)
        back = pydicom.dcmread(path)
        list(back.iterall())
    return back


@pytest.mark.parametrize("bits", _BITS)
@pytest.mark.parametrize("syntax", _SYNTAXES, ids=lambda uid: uid.keyword)
def test_stored_values_survive_each_transfer_syntax(tmp_path, syntax, bits):
    plain, *_ = make(5, "german", Coding("DX", ExplicitVRLittleEndian, bits))
    coded, *_ = make(5, "german", Coding("DX", syntax, bits))
    back = reread(coded, tmp_path / "film.dcm")
    assert back.file_meta.TransferSyntaxUID == syntax and back.BitsStored == bits
    assert np.array_equal(stored_values(back), stored_values(plain))
    assert stored_values(back).max() < 2**bits


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("modality", ["DX", "CR"])
@pytest.mark.parametrize(
    ("grey", "tolerance"), [("window", 1), ("lut", 1), ("sigmoid", 2.5), ("none", 2.5)]
)
def test_the_objects_own_transformation_shows_the_film(grey, tolerance, modality, inverted):
    """A viewer that follows PS3.3 C.11 sees what the console showed; sigmoids lack the ends."""
    for seed in range(6):
        coding = Coding(modality, ExplicitVRLittleEndian, (10, 12, 14)[seed % 3], inverted, grey)
        ds, *_ = make(seed, None, coding)
        assert (ds.PhotometricInterpretation == "MONOCHROME1") == inverted
        shown = film().pixels * 255.0
        if grey == "none":  # then viewers stretch what there is
            low, high = np.percentile(shown, (0.5, 99.5))
            shown = np.clip((shown - low) / (high - low), 0, 1) * 255
        assert np.abs(render(ds) - shown).max() <= tolerance


@given(st.integers(0, 2**32), st.sampled_from(list(REGIONS)))
@settings(max_examples=60, deadline=None)
def test_every_identifying_value_is_listed_and_reads_back(tmp_path_factory, seed, region):
    ds, patient, study = make(seed, region)
    back = reread(ds, tmp_path_factory.mktemp("object") / "film.dcm")
    assert str(back.PatientName) == patient.name
    known = identifiers(patient, study)
    texts = []
    for element in back.iterall():
        values = element.value if element.VM > 1 else [element.value]
        if element.VR == "PN":
            assert all(str(value) in known for value in values)
        if element.VR in ("PN", "LO", "SH", "LT", "ST", "DA"):
            texts += map(str, values)
    assert {str(back.PatientID), back.PatientBirthDate, back.AccessionNumber} <= known
    assert {back.InstitutionName, back.InstitutionAddress, back.PatientAddress} <= known
    assert not [text for text in known if not any(text in other for other in texts)]
    assert "" not in known and not known & {region.title for region in REGIONS.values()}


@given(st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_names_fit_what_archives_hold(seed):
    patient = make_patient(np.random.default_rng(seed))
    assert len(patient.name) <= 64 and len(patient.address) <= 64
    groups = patient.name.split("=")
    assert groups[0].count("^") >= 1 and len(groups) in (1, 2, 3)
    assert len({group.count("^") for group in groups}) == 1


@pytest.mark.parametrize("anterior", ["left", "right"])
def test_orientation_follows_the_film(anterior):
    seen = set()
    for seed in range(12):
        ds, *_ = make(seed, anterior=anterior)
        if ds.PatientOrientation:
            seen.add(tuple(ds.PatientOrientation))
    assert seen == {("P" if anterior == "left" else "A", "F")}


def test_objects_vary():
    made = [make(seed)[0] for seed in range(150)]
    assert {ds.Modality for ds in made} == {"DX", "CR"}
    assert {ds.file_meta.TransferSyntaxUID for ds in made} == set(_SYNTAXES)
    assert {ds.BitsStored for ds in made} == set(_BITS)
    assert {ds.PhotometricInterpretation for ds in made} == {"MONOCHROME1", "MONOCHROME2"}
    assert {choose_coding(np.random.default_rng(n)).grey for n in range(99)} == set(_GREY)
    assert {ds.get("ViewPosition") for ds in made} >= {"LL", "RL", "LATERAL", "AP", None}
    assert {"PixelSpacing" in ds for ds in made} == {True, False}
    assert {"RescaleSlope" in ds for ds in made if ds.Modality == "CR"} == {True, False}
    charsets = {str(ds.get("SpecificCharacterSet")) for ds in made}
    assert len(charsets) >= 8


def test_text_in_the_picture_is_told_honestly_or_not_at_all():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        patient = make_patient(rng)
        study = make_study(rng, patient, datetime.date(2019, 3, 14), False)
        for text, told in ((True, "YES"), (False, "NO")):
            ds = make_object(film(), patient, study, rng, sop_instance_uid="1.2.3", text=text)
            assert ds.get("BurnedInAnnotation", told) == told
            assert ds.Modality == "CR" or "BurnedInAnnotation" in ds  # type 1 in DX


def objects_to_check(folder):
    """Objects of all regions, views and kinds as files that the validator reads."""
    for number, region in enumerate([*REGIONS] * 3):
        ds, patient, study = make(number, region, view="AP" if number % 5 == 4 else "lateral")
        if ds.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:  # it reads none
            ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        save(ds, folder / f"{number}.dcm")
    for kind in KINDS:
        rng = np.random.default_rng(7)
        save(make_other(kind, 0, patient, study, rng, sop_instance_uid="1.2.3"), folder / kind)


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (dicom3tools) is not installed")
def test_objects_are_valid(tmp_path):
    objects_to_check(tmp_path)
    for path in tmp_path.iterdir():
        run = subprocess.run(["dciodvfy", path], capture_output=True, encoding="latin-1")
        output = run.stdout + run.stderr
        assert output and not [line for line in output.splitlines() if "Error" in line], path


@pytest.mark.parametrize("kind", KINDS)
def test_objects_of_a_series_share_it(kind):
    rng = np.random.default_rng(3)
    patient = make_patient(rng)
    study = make_study(rng, patient, datetime.date(2019, 3, 14), False)
    series = [
        make_other(
            kind, n, patient, study, np.random.default_rng(4), sop_instance_uid=f"1.2.{n + 1}"
        )
        for n in range(OBJECTS[kind])
    ]
    assert len({ds.SeriesInstanceUID for ds in series}) == 1
    assert [ds.InstanceNumber for ds in series] == list(range(1, len(series) + 1))
    assert all(ds.StudyInstanceUID == study.uid for ds in series)
    assert all(ds.pixel_array.std() > 0 for ds in series)
