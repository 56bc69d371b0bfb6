"""The structures of a film as a DICOM Segmentation (PS3.3 A.51), one segment each."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import cv2
import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ..errors import InputError
from ..measure.anatomy import Body, Implant, LabelledSpine
from .coding import REGION, Device, derived_uid, is_bone, private, structure, tracking_uid
from .objects import dates, equipment, header, settle

_SERIES_NUMBER = 9001
# Colours that colour-blind people tell apart (Okabe and Ito, 2008).
_COLOURS = {
    "lumbar_vertebra": (86, 180, 233),
    "sacral_vertebra": (230, 159, 0),
    "cage": (0, 158, 115),
    "screw": (240, 228, 66),
    "instrumentation": (204, 121, 167),
}
_OTHER_COLOUR = (213, 94, 0)
_SUBPIXEL_BITS = 8


@dataclass(frozen=True, eq=False)
class _Structure:
    """What becomes a segment: its mask is of the DICOM object's size, bool."""

    label: str
    class_name: str
    level: str | None
    remark: str
    mask: np.ndarray


def segmentation(source: Dataset, spine: LabelledSpine, device: Device) -> Segmentation | None:
    """The vertebrae, cranial to caudal, and the implants of a film; None where there are none.

    The object belongs to the film's study and tells of the patient what the film tells. The same
    film, network and structures give the same object, byte for byte.

    Args:
        source: the film, CR or DX; its pixels are not needed.
        spine: found on the film's picture, whose pixels are square: where the film's are not, the
            masks are brought back to them.
        device: who found it.

    Raises:
        InputError: the picture's size cannot be that of this film.
    """
    found = _structures(source, spine)
    if not found:
        return None
    masks = np.stack([item.mask for item in found]).view(np.uint8)
    descriptions = [
        _description(number, item, source, device) for number, item in enumerate(found, 1)
    ]
    film = (str(source.SOPInstanceUID), device.network, device.version)
    content = [np.packbits(masks).tobytes(), *(item.to_json() for item in descriptions)]
    result = Segmentation(
        source_images=[header(source)],
        # highdicom takes frames x rows x columns x segments; a view, so that segments stay whole.
        pixel_array=np.moveaxis(masks, 0, -1)[np.newaxis],
        segmentation_type="BINARY",
        segment_descriptions=descriptions,
        series_instance_uid=derived_uid("segmentations", *film),
        series_number=_SERIES_NUMBER,
        series_description=f"{device.name}: segmentation"[:64],
        sop_instance_uid=derived_uid("segmentation", *film, *content),
        instance_number=1,
        content_label="VERTEBRAE",
        content_description="Vertebrae and implants of a lateral lumbar radiograph",
        **equipment(device),
        **dates(source),
    )
    # Type 2C in images that have no place in the patient (PS3.3 C.7.6.1).
    result.PatientOrientation = source.get("PatientOrientation")
    settle(result, source)
    return result


def segment_numbers(segments: Dataset | None) -> dict[str, int]:
    """Segment numbers by label, such as `L4`."""
    return {
        item.SegmentLabel: int(item.SegmentNumber)
        for item in (segments.SegmentSequence if segments is not None else ())
    }


def vertebra_labels(spine: LabelledSpine) -> list[str]:
    """A label for each vertebra: its level, or `Vertebra` and its place from above."""
    return [
        vertebra.level or f"Vertebra {number}" for number, vertebra in enumerate(spine.vertebrae, 1)
    ]


def _structures(source: Dataset, spine: LabelledSpine) -> list[_Structure]:
    """All structures that cover a pixel."""
    shape = (int(source.Rows), int(source.Columns))
    # A picture with square pixels is stretched along one side only.
    if spine.rows != shape[0] and spine.columns != shape[1]:
        raise InputError(
            f"The film has {shape[0]} x {shape[1]} pixels, and its picture has {spine.rows} x "
            f"{spine.columns}: predict again on the picture of this film."
        )
    found = []
    for label, vertebra in zip(vertebra_labels(spine), spine.vertebrae, strict=True):
        remark = f"Level {vertebra.level}, probability {vertebra.level_probability:.3f}"
        if vertebra.level is None:
            remark = "Level not known"
        mask = _of_body(vertebra.body, spine)
        found.append((label, vertebra.body.class_name, vertebra.level, remark, mask))
    count: Counter[str] = Counter()
    for implant in spine.implants:
        count[implant.class_name] += 1
        label = f"{implant.class_name.capitalize()} {count[implant.class_name]}"
        remark = f"Score {implant.score:.3f}"
        mask = _of_implant(implant, spine)
        found.append((label, implant.class_name, implant.level, remark, mask))
    if (spine.rows, spine.columns) != shape:
        found = [(*rest, cv2.resize(mask, shape[::-1], None, 0, 0, cv2.INTER_NEAREST))
                 for *rest, mask in found]  # fmt: skip
    return [_Structure(*rest, mask > 0) for *rest, mask in found if mask.any()]


def _of_body(body: Body, spine: LabelledSpine) -> np.ndarray:
    """A body's mask, rows x columns uint8 of the picture; what lies beyond its edges is left."""
    result = np.zeros((spine.rows, spine.columns), np.uint8)
    (x, y), (height, width) = body.origin, body.mask.shape
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, spine.columns), min(y + height, spine.rows)
    if right > left and bottom > top:
        result[top:bottom, left:right] = body.mask[top - y : bottom - y, left - x : right - x]
    return result


def _of_implant(implant: Implant, spine: LabelledSpine) -> np.ndarray:
    """An implant's mask, rows x columns uint8 of the picture."""
    result = np.zeros((spine.rows, spine.columns), np.uint8)
    # Outlines have whole numbers at the corners of pixels, OpenCV at their centres.
    points = np.rint((implant.outline - 0.5) * 2**_SUBPIXEL_BITS).astype(np.int32)
    cv2.fillPoly(result, [points], 1, shift=_SUBPIXEL_BITS)
    return result


def _description(
    number: int, item: _Structure, source: Dataset, device: Device
) -> SegmentDescription:
    """Label, codes, colour and origin of a segment (PS3.3 C.8.20.4)."""
    bone = is_bone(item.class_name)
    # Category: CID 7150. Algorithm family: CID 7162.
    result = SegmentDescription(
        segment_number=number,
        segment_label=item.label,
        segmented_property_category=(
            codes.cid7150.AnatomicalStructure if bone else codes.cid7150.PhysicalObject
        ),
        segmented_property_type=structure(item.class_name, item.level),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=device.name,
            family=codes.cid7162.ArtificialIntelligence,
            version=device.version,
            source="Lumbarflow",
        ),
        tracking_uid=tracking_uid(source, item.label, device),
        tracking_id=item.label,
        # What is no anatomy does not tell where it is.
        anatomic_regions=None if bone else [REGION],
        display_color=CIELabColor.from_rgb(*_COLOURS.get(item.class_name, _OTHER_COLOUR)),
    )
    result.SegmentDescription = item.remark
    if not bone:
        kind = result.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [private(item.class_name)]
    return result
