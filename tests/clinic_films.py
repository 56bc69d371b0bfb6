"""De-identified films with exactly known spines, for tests of the objects made from them."""

from __future__ import annotations

import datetime
from functools import cache
from io import BytesIO

import cv2
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import ExplicitVRLittleEndian

from lumbarflow.clinic.coding import Device
from lumbarflow.deidentify.engine import deidentify
from lumbarflow.deidentify.pseudonyms import Pseudonyms
from lumbarflow.measure.anatomy import Body, Implant, LabelledSpine, Measurement, Vertebra
from lumbarflow.synthetic.alignment import draw_build
from lumbarflow.synthetic.dicom import Coding, make_object
from lumbarflow.synthetic.film import Film, choose_format, plan_film
from lumbarflow.synthetic.people import identifiers, make_patient, make_study, make_uid
from lumbarflow.synthetic.spine import make_spine
from lumbarflow.synthetic.surgery import make_surgery

KEYED = Pseudonyms(b"a key for these tests only")
DEVICE = Device("unet", "0.1+3f9a")


@cache
def plan(seed: int, scale: float = 0.1):
    """Where everything lies on an operated patient's film."""
    rng = np.random.default_rng(seed)
    shape, spacing = choose_format(rng, scale)
    spine = make_spine(rng, draw_build(rng))
    return plan_film(rng, spine, make_surgery(rng, spine), shape, spacing)


def film(seed: int, modality: str, scale: float = 0.1) -> tuple[FileDataset, FileDataset, set[str]]:
    """The identified object, the de-identified one, and every identifying text of the first."""
    rng = np.random.default_rng(seed)
    placed = plan(seed, scale)
    pixels = np.tile(np.linspace(0, 1, placed.shape[1], dtype=np.float32), (placed.shape[0], 1))
    patient = make_patient(rng)
    study = make_study(rng, patient, datetime.date(2020, 5, 4), False)
    made = make_object(
        Film(pixels, placed),
        patient,
        study,
        rng,
        sop_instance_uid=make_uid(rng),
        coding=Coding(modality, ExplicitVRLittleEndian),
    )
    return made, deidentify(made, KEYED), identifiers(patient, study)


def spine(seed: int, scale: float = 0.1) -> LabelledSpine:
    """The true spine of a film."""
    placed = plan(seed, scale)
    vertebrae, implants = [], []
    for number, item in enumerate(placed.structures):
        outline = np.array(item["polygon"], float)
        if item["class_name"].endswith("vertebra"):
            body = body_of(str(number), item["class_name"], outline, placed.shape)
            vertebrae.append(Vertebra(body, item["level"], 0.97, None))
        else:
            name, level = item["class_name"], item["level"]
            implants.append(Implant(str(number), name, 0.9, outline, level))
    vertebrae.sort(key=lambda vertebra: vertebra.body.origin[1])
    return LabelledSpine(
        *placed.shape, tuple(vertebrae), placed.anterior, 0.99, True, (), tuple(implants)
    )


def body_of(name: str, class_name: str, outline: np.ndarray, shape: tuple[int, int]) -> Body:
    """A body with the mask of an outline."""
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.rint(outline - 0.5).astype(np.int32)], 1)
    x, y, width, height = cv2.boundingRect(mask)
    return Body(name, class_name, 1.0, (x, y), mask[y : y + height, x : x + width] > 0)


def measurements(seed: int, scale: float = 0.1, whole: bool = False) -> list[Measurement]:
    """The true measurements of some sites, or of the whole film, and one of each other status."""
    on_film = {vertebra.level for vertebra in spine(seed, scale).vertebrae}
    some = {"L1-S1", "S1", "L4", "L4/L5"}
    found = [
        Measurement(row["name"], row["site"], row["value"], row["unit"], 0.9, "measured")
        for row in plan(seed, scale).measurements
        if set(row["site"].replace("-", "/").split("/")) <= on_film
        and (whole or row["site"] in some)
    ]
    reason = "L5 is cut by the film's edge"
    return [
        *found,
        Measurement("cobb", "L1-L5", 3.2, "deg", 0.4, "uncertain", reason),
        Measurement("disc_height_index", "L5/S1", None, "1", 0.0, "not_measurable", reason),
        Measurement("osteophyte_length", "L4 anterior_superior", 5.0, "px", 0.8, "measured"),
        Measurement("screw_endplate_angle", "L4 screw 1", -4.0, "deg", 0.8, "measured"),
    ]


def encoded(dataset: Dataset) -> bytes:
    """A data set as a file's bytes."""
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def reread(dataset: Dataset) -> FileDataset:
    """A data set as it comes from a file."""
    return pydicom.dcmread(BytesIO(encoded(dataset)))
