"""De-identification: nothing that identifies survives, wherever it hides; the picture does."""

from __future__ import annotations

import os
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_films import objects, reread, saved
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, RLELossless

from lumbarflow.acquire.films import take_dicom
from lumbarflow.acquire.render import render
from lumbarflow.acquire.spacing import pixel_aspect, pixel_spacing
from lumbarflow.deidentify.deidentifier import Deidentifier
from lumbarflow.deidentify.engine import SOP_CLASSES, age_years, deidentify
from lumbarflow.deidentify.profile import TEXTS
from lumbarflow.deidentify.pseudonyms import Pseudonyms
from lumbarflow.errors import InputError

DATA = Path(os.environ.get("LUMBARFLOW_DATA", Path(__file__).parents[2] / "../shared/data"))
SAMPLES = DATA / "dicom_samples"
DX = "1.2.840.10008.5.1.4.1.1.1.1"
KEYED = Pseudonyms(b"a key for these tests only")
PICTURE = (np.arange(48, dtype=np.uint16).reshape(6, 8) * 83) % 4096
SECRET = "QZsecretXW"  # in no keyword, pseudonym or library version

unhurried = settings(max_examples=80, deadline=None)


def film(**changes) -> FileDataset:
    """A small 12-bit DX film; `changes` replace or, if None, remove attributes."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DX
    meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    values = {
        "SOPClassUID": DX,
        "SOPInstanceUID": "1.2.3.4",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.1",
        "PatientID": "PID",
        "Modality": "DX",
        "ViewPosition": "LL",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": PICTURE.shape[0],
        "Columns": PICTURE.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "PixelData": PICTURE.astype("<u2").tobytes(),
    }
    for keyword, value in (values | changes).items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def assert_clean(source: Dataset, *texts: str | bytes) -> FileDataset:
    clean = deidentify(source, KEYED)
    data = saved(clean)
    for text in texts or (SECRET,):
        forms = [text] if isinstance(text, bytes) else [text.encode(), text.encode("utf-16-le")]
        assert not any(form in data for form in forms)
    return clean


def test_the_picture_and_what_describes_it_stay():
    source = film(
        PixelSpacing=[0.14, 0.14],
        WindowCenter=[2000, 1000],
        WindowWidth=[3000, 500],
        PatientSex="F",
        PatientOrientation=["P", "F"],
        BodyPartExamined="LSPINE",
    )
    clean = pydicom.dcmread(BytesIO(saved(deidentify(source, KEYED))))
    np.testing.assert_array_equal(clean.pixel_array, PICTURE)
    for keyword in ("PixelSpacing", "WindowCenter", "WindowWidth", "PatientSex", "ViewPosition",
                    "PatientOrientation", "BodyPartExamined", "BitsStored"):  # fmt: skip
        assert clean[keyword].value == source[keyword].value
    assert clean.PatientIdentityRemoved == "YES"
    assert clean.PatientName == clean.PatientID == KEYED.patient("\0PID")


# Where text hides ------------------------------------------------------------------------------

TEXT = {
    "AE": 16,
    "LO": 64,
    "LT": 900,
    "PN": 64,
    "SH": 16,
    "ST": 900,
    "UC": 900,
    "UR": 900,
    "UT": 900,
}
# Attributes of every text VR that the dictionary knows, dates, times and UIDs among them.
PUBLIC = [
    tag
    for tag, (vr, *_) in sorted(pydicom.datadict.DicomDictionary.items())
    if vr in {*TEXT, "DA", "DT", "TM", "UI", "AS"}
    and 0x0008 <= tag >> 16 < 0x7FE0
    and pydicom.datadict.keyword_for_tag(tag) not in TEXTS
]
GENERATED = {"SOPClassUID"}


@unhurried
@given(st.data())
def test_no_text_of_any_attribute_survives_at_any_depth(data):
    """Names planted in several public or private elements, in sequences below sequences."""
    source = film()
    planted = []
    for number in range(data.draw(st.integers(1, 6))):
        target = source
        for _ in range(data.draw(st.integers(0, 3))):
            item = Dataset()
            sequence = data.draw(st.sampled_from([0x00400275, 0x00081140, 0x00082112, 0x00283010]))
            item.add_new(0x00080050, "SH", SECRET)
            if sequence == 0x00283010:  # a VOI LUT, from which two elements are taken
                item.add_new("LUTDescriptor", "US", [48, 0, 12])
                item.add_new("LUTData", "OW", PICTURE.tobytes())
            target.add_new(sequence, "SQ", [item])
            target = item
        text = f"{SECRET}{number}"
        if data.draw(st.booleans()):
            group = data.draw(st.integers(0x0009, 0x7FE1).filter(lambda n: n % 2))
            block = target.private_block(group, f"{SECRET} BLOCK", create=True)
            block.add_new(data.draw(st.integers(0, 255)), data.draw(st.sampled_from([*TEXT])), text)
        else:
            tag = data.draw(st.sampled_from(PUBLIC))
            vr = pydicom.datadict.dictionary_VR(tag)
            if vr not in TEXT or pydicom.datadict.keyword_for_tag(tag) in GENERATED:
                continue
            target.add_new(tag, vr, text)
        planted.append(text)
    assert_clean(reread(source), SECRET, *planted)


def test_no_attribute_of_a_text_or_date_vr_is_copied():
    """Every attribute that the dictionary knows of these VRs, in one object."""
    dates = {"DA": "19410523", "DT": "19410523101112", "TM": "101112.13", "AS": "101Y"}
    source = film()
    for number, tag in enumerate(PUBLIC):
        vr = pydicom.datadict.dictionary_VR(tag)
        value = f"1.2.77777.{number}" if vr == "UI" else dates.get(vr, f"{SECRET}{number}")
        if pydicom.datadict.keyword_for_tag(tag) not in GENERATED:
            source.add_new(tag, vr, value)
    assert len(source) > 1000
    assert_clean(source, SECRET, "1.2.77777.", *dates.values())


@unhurried
@given(st.sampled_from(TEXTS), st.sampled_from(["{}", "X {} 3", "Room-{}", "{}S", "\u00c4{}"]))
def test_a_text_of_the_equipment_stays_if_it_names_no_one(keyword, form):
    text = form.format("Miller")
    source = film(PatientName="Jones^Ann", **{keyword: text})
    clean = deidentify(source, KEYED)
    # Not every attribute is one of DX.
    assert clean.get(keyword) in (text, None) and (keyword != "Manufacturer" or keyword in clean)
    for name in ("Miller^A", "Jones^MILLER", "Jones=\u7530\u4e2d=Miller"):
        item = Dataset()
        item.PersonName = name
        for hidden in ({"PatientName": name}, {"ReferencedImageSequence": [item]}):
            clean = deidentify(film(**{keyword: text} | hidden), KEYED)
            assert clean.get(keyword) in (None, "", "removed", "US")


def test_overlays_curves_and_what_surrounds_the_data_set():
    source = film()
    source.preamble = (SECRET + "x" * 128).encode()[:128]
    for name in ("SourceApplicationEntityTitle", "SendingApplicationEntityTitle",
                 "ReceivingApplicationEntityTitle", "ImplementationVersionName"):  # fmt: skip
        setattr(source.file_meta, name, SECRET)
    source.file_meta.PrivateInformationCreatorUID = "1.2.77777.41.8"
    source.file_meta.PrivateInformation = SECRET.encode()
    source.add_new(0x60000022, "LO", SECRET)  # Overlay Description
    source.add_new(0x60003000, "OW", SECRET.encode())  # Overlay Data
    source.add_new(0x60041500, "LO", SECRET)  # Overlay Label
    source.add_new(0x50000022, "LO", SECRET)  # Curve Description
    source.add_new(0x50003000, "OW", SECRET.encode())  # Curve Data
    source.add_new(0xFFFCFFFC, "OB", SECRET.encode())  # Data Set Trailing Padding
    source.add_new(0x00120062, "CS", "NO")
    clean = assert_clean(reread(source), SECRET, "1.2.77777.41.8")
    assert not [element for element in clean if element.tag.group not in
                {0x08, 0x10, 0x12, 0x18, 0x20, 0x28, 0x2050, 0x7FE0}]  # fmt: skip


def test_look_up_tables_keep_their_numbers_only():
    source = film()
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [4096, 0, 12])
    item.add_new("LUTData", "OW", np.arange(4096, dtype="<u2").tobytes())
    item.LUTExplanation = item.ModalityLUTType = SECRET
    item.add_new(0x00091010, "LO", SECRET)
    source.VOILUTSequence = source.ModalityLUTSequence = [item]
    clean = assert_clean(reread(source))
    for sequence in (clean.VOILUTSequence, clean.ModalityLUTSequence):
        assert sequence[0].LUTData == item.LUTData
        assert list(sequence[0].LUTDescriptor) == [4096, 0, 12]


@pytest.mark.parametrize("vr", ["LO", "LT", "CS", "UT"])
@pytest.mark.parametrize("keyword", ["BodyPartExamined", "PixelSpacing", "WindowCenter", "LUTData"])
def test_text_in_place_of_a_code_or_a_number(keyword, vr):
    """An explicit VR that is not the dictionary's does not carry free text past the allow-list."""
    source = film()
    holder = source
    if keyword == "LUTData":
        holder = Dataset()
        holder.add_new("LUTDescriptor", "US", [4096, 0, 12])
        source.VOILUTSequence = [holder]
    holder.add_new(keyword, vr, SECRET)
    try:
        assert_clean(reread(source))
    except InputError as error:
        assert SECRET not in str(error)


def test_no_text_rides_on_the_pixels():
    after = film(PixelData=PICTURE.astype("<u2").tobytes() + SECRET.encode())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(assert_clean(after).pixel_array, PICTURE)

    # A retired overlay in the four unused bits: a letter drawn there is one to read.
    overlaid = film(PixelData=(PICTURE | 0xA000).astype("<u2").tobytes())
    np.testing.assert_array_equal(
        np.frombuffer(assert_clean(overlaid).PixelData, "<u2").reshape(PICTURE.shape), PICTURE
    )

    compressed = film()
    compressed.compress(RLELossless)
    frame = pydicom.encaps.get_frame(compressed.PixelData, 0)
    compressed.PixelData = encapsulate([frame + SECRET.encode()])
    clean = assert_clean(compressed)
    assert clean.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    np.testing.assert_array_equal(clean.pixel_array, PICTURE)


@unhurried
@given(objects())
def test_the_new_object_looks_the_same(source):
    """Once written and read, in spite of what is moved, masked, swapped or left behind."""
    clean = reread(deidentify(source, KEYED))
    np.testing.assert_array_equal(render(clean), render(source))
    assert clean.HighBit == clean.BitsStored - 1
    assert pixel_spacing(clean) == pixel_spacing(source)


@unhurried
@given(st.data())
def test_the_new_object_keeps_the_geometry(data):
    """Sizes of pixels, their calibration and the distances from the source."""
    size = st.sampled_from([0.1, 0.12, 0.139, 0.2])
    source = film()
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        if data.draw(st.booleans()):
            setattr(source, keyword, data.draw(st.lists(size, min_size=2, max_size=2)))
    if data.draw(st.booleans()):
        source.PixelSpacingCalibrationType = data.draw(st.sampled_from(["GEOMETRY", "FIDUCIAL"]))
        source.PixelSpacingCalibrationDescription = SECRET
    if data.draw(st.booleans()):
        source.EstimatedRadiographicMagnificationFactor = data.draw(st.sampled_from([1, 1.2, 9]))
    source.SOPClassUID = data.draw(st.sampled_from([*SOP_CLASSES]))
    source.DistanceSourceToDetector, source.DistanceSourceToPatient = 1150, 1000
    if data.draw(st.booleans()):
        source.PixelAspectRatio = [5, 4]
    clean = reread(assert_clean(source))
    assert pixel_spacing(clean) == pixel_spacing(source)
    assert pixel_aspect(clean) == pixel_aspect(source)


def test_signed_and_big_endian_pixels_keep_their_values():
    signed = PICTURE.astype(np.int16) - 2048
    source = film(PixelRepresentation=1, PixelData=(signed & 0x0FFF).astype("<u2").tobytes())
    np.testing.assert_array_equal(deidentify(source, KEYED).pixel_array, signed)
    source = film(PixelData=PICTURE.astype(">u2").tobytes())
    source.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    np.testing.assert_array_equal(deidentify(source, KEYED).pixel_array, PICTURE)
    odd = np.arange(15, dtype=np.uint8).reshape(3, 5)
    source = film(Rows=3, Columns=5, BitsAllocated=8, BitsStored=8, HighBit=7,
                  PixelData=odd.tobytes() + b"\0")  # fmt: skip
    np.testing.assert_array_equal(reread(deidentify(source, KEYED)).pixel_array, odd)


# UIDs, classes, ages ---------------------------------------------------------------------------

uids = st.lists(st.integers(0, 99999), min_size=2, max_size=8).map(
    lambda parts: "1.2." + ".".join(map(str, parts))
)


@unhurried
@given(uids, uids, uids)
def test_uids_are_keyed_and_deterministic(study, series, instance):
    source = film(StudyInstanceUID=study, SeriesInstanceUID=series, SOPInstanceUID=instance)
    clean, again = deidentify(source, KEYED), deidentify(reread(source), KEYED)
    other = deidentify(source, Pseudonyms(b"another key for these tests"))
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
        uid = clean[keyword].value
        assert UID(uid).is_valid and uid.startswith("2.25.") and len(uid) <= 64
        assert again[keyword].value == uid != other[keyword].value
        assert uid == KEYED.uid(source[keyword].value)
    assert clean.file_meta.MediaStorageSOPInstanceUID == clean.SOPInstanceUID
    assert clean.PatientID == again.PatientID != other.PatientID


def test_the_source_is_not_changed():
    source = film(PatientName="A^B", WindowCenter=5, WindowWidth=9)
    before = saved(source)
    deidentify(source, KEYED)
    assert saved(source) == before


def test_patients_are_told_apart_by_issuer_and_number():
    def patient(**changes):
        return deidentify(film(**changes), KEYED).PatientID

    assert patient(PatientID="1") == patient(PatientID="1 ", PatientName="Other")
    assert patient(PatientID="1") != patient(PatientID="2")
    assert patient(PatientID="1", IssuerOfPatientID="A") != patient(PatientID="1")


every_class = sorted(
    uid for uid, entry in pydicom.uid.UID_dictionary.items() if entry[1] == "SOP Class"
)


def test_only_cr_and_dx_are_taken():
    for sop_class in (*every_class, "", "1.2.3", None):
        source = film(SOPClassUID=sop_class)
        if sop_class in SOP_CLASSES:
            assert deidentify(source, KEYED).SOPClassUID == sop_class
        else:
            with pytest.raises(InputError, match="are not taken"):
                deidentify(source, KEYED)


@pytest.mark.parametrize(
    ("text", "years"),
    [("045Y", 45), ("089Y", 89), ("090Y", 89), ("103Y", 89), ("018M", 1), ("011M", 0), ("", None),
     (None, None), ("45", None), ("XXXY", None)],
)  # fmt: skip
def test_ages_above_89_are_not_told_apart(text, years):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = film(PatientAge=text)
        assert age_years(source) == years
        clean = deidentify(source, KEYED)
    assert clean.get("PatientAge") == (None if years is None else f"{years:03d}Y")


@pytest.mark.parametrize(
    "changes",
    [
        {"PixelData": None},
        {"PixelData": b"\1\2"},
        {"Rows": None},
        {"BitsStored": None},
        {"SamplesPerPixel": 3},
        {"NumberOfFrames": 2, "Rows": 3},
        {"HighBit": 10},
        {"HighBit": 16},
    ],
)
def test_a_broken_picture_is_refused_without_a_quotation(changes):
    with pytest.raises(InputError) as caught:
        deidentify(film(PatientName=SECRET, **changes), KEYED)
    assert SECRET not in str(caught.value)


# Real objects ----------------------------------------------------------------------------------

IDENTIFYING = {"PN", "LO", "SH", "LT", "ST", "UT", "DA", "UI", "AE", "DT", "TM", "UC"}


def texts_of(dataset: Dataset) -> set[str]:
    """Values of 4 or more characters of the VRs that identify, at any depth.

    Without the texts of equipment and the standard's own codes, which stay.
    """
    found = set()
    for element in dataset.iterall():
        stays = element.keyword in (*TEXTS, "CodeValue", "CodeMeaning", "CodingSchemeDesignator")
        if element.VR in IDENTIFYING and not element.is_empty and not stays:
            values = element.value if element.VM > 1 else [element.value]
            for value in map(str, values):
                found |= {value, *value.split("^")} if element.VR == "PN" else {value}
    # UIDs that the standard defines name no one.
    return {v for v in found if len(v) >= 4 and not v.startswith("1.2.840.10008.")}


def without_chance(clean: FileDataset) -> bytes:
    """The saved object without pixels and random digits, which hold any short text by chance."""
    clean.PixelData = b""
    del clean.DeidentificationMethodCodeSequence  # words that headers hold, too
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID"):
        assert str(clean[keyword].value).startswith(("pat-", "2.25."))
        del clean[keyword]
    assert clean.SOPInstanceUID.startswith("2.25.")
    clean.SOPInstanceUID = clean.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
    return saved(clean)


def samples() -> list[Path]:
    return sorted(SAMPLES.rglob("*.dcm")) if SAMPLES.is_dir() else []


@pytest.mark.skipif(not samples(), reason=f"no sample objects in {SAMPLES}")
@pytest.mark.filterwarnings("ignore")
def test_real_objects_are_refused_or_clean(tmp_path):
    taken = 0
    for path in samples():
        source = pydicom.dcmread(path)
        accept = {KEYED.image(str(source.get("SOPInstanceUID", ""))): "accept"}
        row = take_dicom(source, Deidentifier(KEYED), tmp_path, accept, None)
        texts = texts_of(source) | texts_of(source.file_meta)
        assert texts
        if row["status"] == "rejected":
            assert row["reason"]
        else:
            taken += 1
        assert not {str(value) for value in row.values() if value is not None} & texts
        try:
            data = without_chance(deidentify(source, KEYED))
        except InputError as error:
            data = str(error).encode()
        for encoding in ("utf-8", "latin-1", "iso2022_jp", "euc_kr", "gb18030"):
            assert not [text for text in texts if text.encode(encoding, "ignore") in data]
    assert taken >= 1
    written = {path.stem for path in tmp_path.rglob("*.*")}
    assert all(name.startswith("img-") for name in written)
