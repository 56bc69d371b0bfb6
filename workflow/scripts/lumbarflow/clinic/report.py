"""The measurements of a film as a DICOM structured report (TID 1500, PS3.16), a Comprehensive SR.

One group of content items for the whole film, one for each vertebra, which refers to its segment,
and one for each other site. A measurement that could not be made is no number there, either: its
place holds the code "Value indeterminate" and the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    ComprehensiveSR,
    ContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageContentItem,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    NumContentItem,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    ReferencedSegmentationFrame,
    SourceImageForMeasurementGroup,
    SourceImageForSegmentation,
    TextContentItem,
    TrackingIdentifier,
)
from highdicom.sr import Measurement as NumericMeasurement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ..measure.anatomy import LabelledSpine, Measurement, Vertebra
from .coding import (
    REGION,
    UNITS,
    Device,
    derived_uid,
    levels,
    places,
    private,
    quantity,
    scheme,
    structure,
    tracking_uid,
)
from .objects import dates, equipment, header, settle
from .segmentation import segment_numbers, vertebra_labels

#: Names of content items in our own scheme; the others are measurements and flags.
STATUS, LEVEL_PROBABILITY, FACES, SACRUM, FLAG = (
    "measurement_status",
    "level_probability",
    "patient_faces",
    "sacrum",
    "flag",
)

_SERIES_NUMBER = 9002
_FILM = "film"
_DECIMALS = 3  # far below any error of measurement
_PROPERTIES = "HAS PROPERTIES"


def measurement_report(
    source: Dataset,
    segments: Dataset | None,
    spine: LabelledSpine,
    measurements: Sequence[Measurement],
    device: Device,
) -> ComprehensiveSR:
    """The measurements of a film, each with its site, status and confidence.

    The object belongs to the film's study and tells of the patient what the film tells. The same
    film, network and measurements give the same object, byte for byte. It is neither verified nor
    final: no person has seen it.

    Args:
        source: the film, CR or DX; its pixels are not needed.
        segments: the object of :func:`.segmentation.segmentation` for this film and spine.
        spine: what was measured.
        measurements: all of it, in the order of the report.
        device: who measured.
    """
    by_site: dict[str, list[Measurement]] = {}
    for item in measurements:
        by_site.setdefault(item.site, []).append(item)
    groups = [_film_group(source, spine, device)]
    for label, vertebra in zip(vertebra_labels(spine), spine.vertebrae, strict=True):
        found = by_site.pop(label, ())
        groups.append(_vertebra_group(label, vertebra, found, source, segments, device))
    for site, found in by_site.items():
        groups.append(_site_group(site, found, source, segments, device))
    content = MeasurementReport(
        observation_context=ObservationContext(
            observer_device_context=ObserverContext(
                observer_type=codes.cid270.Device,
                observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
                    uid=device.uid,
                    name=device.name,
                    manufacturer_name="Lumbarflow",
                    model_name=device.network,
                    serial_number=device.serial,
                ),
            )
        ),
        procedure_reported=codes.cid100.XRUnspecifiedBodyRegion,  # CID 100 has none of the spine
        imaging_measurements=groups,
        title=codes.cid7021.ImagingMeasurementReport,
    )
    identity = (str(source.SOPInstanceUID), device.network, device.version)
    film = header(source)
    result = ComprehensiveSR(
        evidence=[film] if segments is None else [film, segments],
        content=content,
        series_instance_uid=derived_uid("reports", *identity),
        series_number=_SERIES_NUMBER,
        series_description=f"{device.name}: measurements"[:64],
        sop_instance_uid=derived_uid("report", *identity, content[0].to_json()),
        instance_number=1,
        is_complete=True,
        coding_schemes=[scheme()],
        **equipment(device),
        **dates(source),
    )
    settle(result, source)
    return result


# Groups -------------------------------------------------------------------------------------------


def _film_group(source: Dataset, spine: LabelledSpine, device: Device) -> ContentSequence:
    """What is said of the whole film: by what, which way the patient faces, what to know."""
    answers = [
        (FACES, f"{spine.anterior}_on_film"),
        (SACRUM, "seen" if spine.sacrum_seen else "not_seen"),
        *((FLAG, flag) for flag in spine.flags),
    ]
    return MeasurementsAndQualitativeEvaluations(
        TrackingIdentifier(derived_uid(source.SOPInstanceUID, _FILM), _FILM),
        finding_sites=[FindingSite(REGION)],
        algorithm_id=AlgorithmIdentification(
            device.name,
            device.version,
            family=codes.cid7162.ArtificialIntelligence,
            manufacturer="Lumbarflow",
        ),
        qualitative_evaluations=[
            QualitativeEvaluation(private(name), private(answer)) for name, answer in answers
        ],
        source_images=[SourceImageForMeasurementGroup.from_source_image(source)],
    )


def _vertebra_group(
    label: str,
    vertebra: Vertebra,
    measurements: Iterable[Measurement],
    source: Dataset,
    segments: Dataset | None,
    device: Device,
) -> ContentSequence:
    """How probable a vertebra's level is, and its measurements; it refers to its segment."""
    what = structure(vertebra.body.class_name, vertebra.level)
    tracking = TrackingIdentifier(tracking_uid(source, label, device), label)
    common = {
        "finding_category": codes.cid7150.AnatomicalStructure,
        "finding_type": what,
        "finding_sites": [FindingSite(what)],
    }
    number = segment_numbers(segments).get(label)
    if number is None:
        group = MeasurementsAndQualitativeEvaluations(tracking, **common)
    else:
        group = PlanarROIMeasurementsAndQualitativeEvaluations(
            tracking,
            referenced_segment=ReferencedSegmentationFrame(
                segments.SOPClassUID,
                segments.SOPInstanceUID,
                frame_number=None,  # not beside a segment's number (PS3.3 C.18.4)
                segment_number=number,
                source_image=SourceImageForSegmentation(source.SOPClassUID, source.SOPInstanceUID),
            ),
            **common,
        )
    probability = round(float(vertebra.level_probability), _DECIMALS)
    level = NumericMeasurement(private(LEVEL_PROBABILITY), probability, UNITS["1"])[0]
    return _filled(group, [level, *map(_content, measurements)])


def _site_group(
    site: str,
    measurements: Iterable[Measurement],
    source: Dataset,
    segments: Dataset | None,
    device: Device,
) -> ContentSequence:
    """The measurements of a site that is not one whole vertebra, with the segments they are of."""
    group = MeasurementsAndQualitativeEvaluations(
        TrackingIdentifier(tracking_uid(source, site, device), site),
        finding_sites=[FindingSite(place) for place in places(site)],
        source_images=[SourceImageForMeasurementGroup.from_source_image(source)],
    )
    numbers = segment_numbers(segments)
    # One item each: not every reader takes several numbers in one.
    used = [
        ImageContentItem(
            name=codes.DCM.SourceOfMeasurement,
            referenced_sop_class_uid=segments.SOPClassUID,
            referenced_sop_instance_uid=segments.SOPInstanceUID,
            referenced_segment_numbers=numbers[level],
            relationship_type="CONTAINS",
        )
        for level in levels(site)
        if level in numbers
    ]
    return _filled(group, [*map(_content, measurements), *used])


def _filled(group: ContentSequence, contents: Iterable[ContentItem]) -> ContentSequence:
    """The group with further content items at its end."""
    group[0].ContentSequence.extend(contents)
    return group


# Items --------------------------------------------------------------------------------------------


def _content(measurement: Measurement) -> ContentItem:
    """A measurement (TID 300) with its properties, or why there is none."""
    name = quantity(measurement.name)
    properties: list[ContentItem] = []
    if measurement.value is None:
        item = CodeContentItem(name, codes.cid42.ValueIndeterminate, "CONTAINS")
    else:
        value, unit = round(float(measurement.value), _DECIMALS), UNITS[measurement.unit]
        item = NumericMeasurement(name, value, unit)[0]
        properties += [
            CodeContentItem(private(STATUS), private(measurement.status), _PROPERTIES),
            NumContentItem(
                codes.DCM.CertaintyOfFinding,
                round(100 * measurement.confidence, 1),
                UNITS["%"],
                relationship_type=_PROPERTIES,
            ),
        ]
    if measurement.reason:
        properties.append(TextContentItem(codes.DCM.Comment, measurement.reason, _PROPERTIES))
    if properties:
        item.ContentSequence = ContentSequence(properties)
    return item
