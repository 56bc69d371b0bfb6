"""A cohort of synthetic films in a folder, as an archive would hold it, with its ground truth."""

from __future__ import annotations

import datetime
import hashlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset

from ..errors import InputError
from ..files import atomic_path, read_json, write_json
from .alignment import draw_build
from .dicom import make_object, save
from .film import choose_format, plan_film, render_film
from .marks import burn_text, side_marker
from .others import KINDS, OBJECTS, make_other
from .people import Patient, Study, identifiers, make_patient, make_study, make_uid
from .spine import Spine, make_spine
from .surgery import Implant, make_surgery

TEST_ONLY = ("fracture", "vertebral_body_replacement")
_FOLDERS = {"objects": ".dcm", "truth": ".json"}
_REPORT_SECONDS = 5.0
_STUDIES = {2: 0.7, 3: 0.2, 4: 0.1}  # of patients with more than one, shares
_REPLACED = 0.1  # share of the operated patients, where asked for
_PREOPERATIVE = 0.6  # share of operated patients with several studies who have one from before

# Independent streams of one seed, by what they draw.
_PATIENT, _STUDY, _FILM, _OBJECT, _COHORT, _SURGERY, _TEXT, _UID, _ANATOMY = range(9)


@dataclass(frozen=True)
class Job:
    """One object to make, small enough to send to another process."""

    index: int
    seed: int
    patient: int
    study: int
    operated: bool  # whether any film of the patient shows implants
    postoperative: bool  # whether this one does
    view: str  # lateral, AP, or a kind of other object
    scale: float
    marker: bool = False  # a letter of lead on the detector
    text: bool = False  # burned into the picture
    number: int = 0  # within the series of another modality
    copy: bool = False  # the same object under another SOP Instance UID


def generate_cohort(
    storage: Path,
    patients: int,
    seed: int,
    postoperative_fraction: float = 0.72,
    follow_up_fraction: float = 0.4,
    scale: float = 1.0,
    side_marker_fraction: float = 0.6,
    burned_in_text_fraction: float = 0.05,
    distractors: Mapping[str, float] | None = None,
    test_only: Iterable[str] = (),
    workers: int = 1,
    log: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Write `storage/objects/*.dcm`, each with its part of the truth, then `storage/truth.json`.

    Patients who were operated on have the same construct on all films from the operation on, and
    many a film from before; all films of a patient show the same anatomy. Objects that an
    interrupted run with the same parameters left are kept; those of other parameters are removed
    first. Results depend on the parameters alone, not on `workers`.

    Args:
        storage: the folder to fill.
        patients: how many patients, 1 or more.
        seed: 0 or more.
        postoperative_fraction: share of the lateral films that show implants, 0 to 1.
        follow_up_fraction: share of patients with two to four studies, 0 to 1.
        scale: film size relative to a full radiograph, 0.1 to 1; for tests and quick trials.
        side_marker_fraction: share of the films with a letter of lead, 0 to 1.
        burned_in_text_fraction: share of the films with text in the picture, 0 to 1.
        distractors: shares (0 to 1) of `frontal`: AP films, and `other_modalities`: CT, MR and US
            series and chest films, per study; `duplicates`: lateral films that are there twice.
        test_only: of :data:`TEST_ONLY`, what must not be trained on: all films of patients who
            show it are `reserved` for the test subset.
        workers: processes to use.
        log: takes progress messages.

    Returns:
        What truth.json holds: `cohort` (the parameters), `images` (see :func:`make_job`) and
        `identifiers` (every identifying string in any object).

    Raises:
        InputError: a parameter is out of range, or a file of `storage` is unreadable.
    """
    parameters = cohort_parameters(
        patients=patients,
        seed=seed,
        postoperative_fraction=postoperative_fraction,
        follow_up_fraction=follow_up_fraction,
        scale=scale,
        side_marker_fraction=side_marker_fraction,
        burned_in_text_fraction=burned_in_text_fraction,
        distractors=distractors,
        test_only=test_only,
    )
    storage = Path(storage)
    for name in _FOLDERS:
        (storage / name).mkdir(parents=True, exist_ok=True)
    _clear_unless_same(storage, parameters | {"generator": _generator_digest()})

    jobs = plan_jobs(parameters)
    missing = [job for job in jobs if not _path(storage, job, "objects").exists()]
    if len(missing) < len(jobs):
        log(f"kept {len(jobs) - len(missing)} of {len(jobs)} synthetic films of an earlier run")
    _make_objects(storage, missing, parameters["test_only"], workers, log)

    found: set[str] = set()
    for job in jobs:
        found |= identifiers(*_people(job))
    images = [read_json(_path(storage, job, "truth")) for job in jobs]
    truth = {"cohort": parameters, "images": images, "identifiers": sorted(found)}
    write_json(storage / "truth.json", truth)
    return truth


def cohort_parameters(**given: Any) -> dict[str, Any]:
    """The parameters of :func:`generate_cohort` but for folder, workers and log, checked.

    Raises:
        InputError: one is out of range.
    """
    shares = dict.fromkeys(("frontal", "other_modalities", "duplicates"), 0.0)
    wanted = {"frontal": 0.08} if given["distractors"] is None else dict(given["distractors"])
    parameters = given | {"distractors": shares | wanted, "test_only": sorted(given["test_only"])}
    if parameters["patients"] < 1:
        raise InputError(f"patients is {parameters['patients']}: set it to 1 or more.")
    if parameters["seed"] < 0:
        raise InputError(f"seed is {parameters['seed']}: set it to 0 or more.")
    fractions = {name: parameters[name] for name in parameters if name.endswith("_fraction")}
    fractions |= {f"distractors.{name}": share for name, share in parameters["distractors"].items()}
    for name, value in fractions.items():
        if not 0 <= value <= 1:
            raise InputError(f"{name} is {value}: set it between 0 and 1.")
    if not 0.1 <= parameters["scale"] <= 1:
        raise InputError(f"scale is {parameters['scale']}: set it between 0.1 and 1.")
    if unknown := set(parameters["distractors"]) - set(shares):
        raise InputError(f"distractors has no {min(unknown)}: choose of {', '.join(shares)}.")
    if unknown := set(parameters["test_only"]) - set(TEST_ONLY):
        raise InputError(f"test_only has no {min(unknown)}: choose of {', '.join(TEST_ONLY)}.")
    return parameters


def _generator_digest() -> str:
    """A digest of this subpackage's code: films of another version are not kept."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _clear_unless_same(storage: Path, parameters: dict[str, Any]) -> None:
    """Remove this module's files of other parameters, then note the parameters."""
    note = storage / "cohort.json"
    try:
        same = read_json(note) == parameters
    except (FileNotFoundError, ValueError):
        same = False
    (storage / "truth.json").unlink(missing_ok=True)  # it comes back when all films are there
    for name, suffix in _FOLDERS.items():
        for path in (storage / name).iterdir():
            unfinished = re.fullmatch(rf"\.\d{{5}}\.\d+\.part{suffix}", path.name)
            if unfinished or (not same and re.fullmatch(rf"\d{{5}}{suffix}", path.name)):
                path.unlink()
    write_json(note, parameters)


# Who has which films ---------------------------------------------------------------------------


def plan_jobs(parameters: Mapping[str, Any]) -> list[Job]:
    """The objects of the cohort, in an order that tells nothing about who is on them."""
    seed, scale = parameters["seed"], parameters["scale"]
    rng = np.random.default_rng([seed, _COHORT])
    studies = _studies(rng, parameters["patients"], parameters["follow_up_fraction"])
    operations = _operations(rng, studies, parameters["postoperative_fraction"])
    laterals = [
        Job(0, seed, patient, study, before < count, study >= before, "lateral", scale)
        for patient, (count, before) in enumerate(zip(studies, operations, strict=True))
        for study in range(count)
    ]
    shares = parameters["distractors"]
    films = laterals + [
        replace(laterals[i], view="AP") for i in _some(rng, len(laterals), shares["frontal"])
    ]
    for i in _some(rng, len(films), parameters["side_marker_fraction"]):
        films[i] = replace(films[i], marker=True)
    for i in _some(rng, len(films), parameters["burned_in_text_fraction"]):
        films[i] = replace(films[i], text=True)
    for i in _some(rng, len(laterals), shares["duplicates"]):
        films.append(replace(films[i], copy=True))
    for i in _some(rng, len(laterals), shares["other_modalities"]):
        kind = KINDS[rng.integers(len(KINDS))]
        films += [replace(laterals[i], view=kind, number=number) for number in range(OBJECTS[kind])]
    order = rng.permutation(len(films))
    return [replace(films[i], index=index) for index, i in enumerate(order)]


def _some(rng: np.random.Generator, count: int, share: float) -> list[int]:
    """A share of the numbers below `count`, rounded, in order."""
    return sorted(rng.permutation(count)[: round(share * count)].tolist())


def _studies(rng: np.random.Generator, patients: int, share: float) -> list[int]:
    """The number of studies of each patient."""
    counts = [1] * patients
    followed = rng.permutation(patients)[: round(share * patients)]
    numbers, shares = list(_STUDIES), np.cumsum(list(_STUDIES.values()))
    for place, patient in enumerate(followed.tolist()):
        # Quotas, not draws: small cohorts are like large ones.
        counts[patient] = numbers[np.searchsorted(shares, (place + 0.5) / len(followed))]
    return counts


def _operations(rng: np.random.Generator, studies: list[int], share: float) -> list[int]:
    """The number of studies of each patient before the operation; all of them without one.

    As many of all films come after an operation as the share says.
    """
    before = [int(count > 1 and rng.random() < _PREOPERATIVE) for count in studies]
    order = rng.permutation(len(studies)).tolist()
    wanted = round(share * sum(studies))
    for patient in order:  # too many from before: some had their operation elsewhere
        if sum(studies) - sum(before) >= wanted:
            break
        before[patient] = 0
    result = list(studies)
    for patient in order:
        films = studies[patient] - before[patient]
        if films <= wanted:
            result[patient] = before[patient]
            wanted -= films
    for patient in order:
        if 0 < wanted < result[patient] == studies[patient]:
            result[patient] -= wanted
            wanted = 0
    return result


# Making them -----------------------------------------------------------------------------------


def _make_objects(
    storage: Path,
    jobs: list[Job],
    test_only: list[str],
    workers: int,
    log: Callable[[str], object],
) -> None:
    started = reported = time.monotonic()

    def progress(done: int) -> None:
        nonlocal reported
        now = time.monotonic()
        if done == len(jobs) or now - reported >= _REPORT_SECONDS:
            reported = now
            rate = done / max(now - started, 1e-9)
            left = (len(jobs) - done) / rate
            log(
                f"made {done} of {len(jobs)} synthetic films, {rate:.1f} a second, "
                f"about {left:.0f} s left"
            )

    if workers <= 1 or len(jobs) < 2:
        for done, job in enumerate(jobs, start=1):
            _write_object(storage, job, test_only)
            progress(done)
        return
    with ProcessPoolExecutor(workers) as pool:
        running = [pool.submit(_write_object, storage, job, test_only) for job in jobs]
        try:
            for done, future in enumerate(as_completed(running), start=1):
                future.result()
                progress(done)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _path(storage: Path, job: Job, folder: str) -> Path:
    return storage / folder / f"{job.index:05d}{_FOLDERS[folder]}"


def _write_object(storage: Path, job: Job, test_only: list[str]) -> None:
    """Write an object after its part of the truth: one that is there has both."""
    ds, image = make_job(job, test_only)
    write_json(_path(storage, job, "truth"), image)
    with atomic_path(_path(storage, job, "objects")) as temporary:
        save(ds, temporary)


def make_job(job: Job, test_only: Iterable[str] = ()) -> tuple[FileDataset, dict[str, Any]]:
    """Make one object of :func:`plan_jobs`, from nothing but the job.

    Returns:
        The object and its entry in truth.json: `sop_instance_uid`, `file` (relative to the
        archive's folder), `index`, `patient`, `study` (numbers), `view` (`lateral`, `AP` or a kind
        of other object), `postoperative`, `reserved` (`test` or None), `duplicate_of` (a SOP
        Instance UID or None), `structures` (none unless lateral), `measurements`; of films also
        `rows`, `columns`, `pixel_spacing_mm` (at the detector), `magnification`, `anterior` (where
        the patient faces, `left` or `right`) and `burned_in_text`.
    """
    patient, study = _people(job)
    uid, rng = _uid(job), _rng(job, _OBJECT)
    spine, implants = _body(job, set(test_only))
    image: dict[str, Any] = {
        "sop_instance_uid": uid,
        "file": f"objects/{job.index:05d}.dcm",
        "index": job.index,
        "patient": job.patient,
        "study": job.study,
        "view": job.view,
        "postoperative": job.postoperative,
        "reserved": "test" if _rare(spine, implants) & set(test_only) else None,
        "duplicate_of": _uid(replace(job, copy=False)) if job.copy else None,
        "structures": [],
        "measurements": [],
    }
    if job.view in KINDS:
        other = make_other(job.view, job.number, patient, study, rng, sop_instance_uid=uid)
        return other, image
    drawing = _rng(job, _FILM)
    shape, spacing = choose_format(drawing, job.scale)
    shown = implants if job.postoperative else ()
    plan = plan_film(drawing, spine, shown, shape, spacing, job.view)
    marker = None
    if job.marker:
        marker = side_marker(drawing, shape, spacing, plan.field, plan.anterior)
    film = render_film(plan, drawing, marker)
    if job.text:
        pixels = burn_text(film.pixels, patient, study, _rng(job, _TEXT))
        film = replace(film, pixels=pixels)
    ds = make_object(film, patient, study, rng, sop_instance_uid=uid, text=job.text)
    if job.copy:
        ds.SeriesInstanceUID = make_uid(rng)
    return ds, image | {
        "rows": plan.shape[0],
        "columns": plan.shape[1],
        "pixel_spacing_mm": plan.pixel_spacing_mm,
        "magnification": plan.magnification,
        "anterior": plan.anterior,
        "burned_in_text": job.text,
        "structures": plan.structures,
        "measurements": plan.measurements,
    }


def _rng(job: Job, stream: int) -> np.random.Generator:
    """The stream of one film (patient, study and view); its copy has the same."""
    return np.random.default_rng([job.seed, stream, job.patient, job.study, _view(job)])


def _uid(job: Job) -> str:
    """The SOP Instance UID."""
    place = [job.patient, job.study, _view(job), job.number, int(job.copy)]
    return make_uid(np.random.default_rng([job.seed, _UID, *place]))


def _view(job: Job) -> int:
    return ("lateral", "AP", *KINDS).index(job.view)


def _people(job: Job) -> tuple[Patient, Study]:
    """The patient, the same in all studies, and the study, the same in all its views."""
    rng = np.random.default_rng([job.seed, _PATIENT, job.patient])
    patient = make_patient(rng)
    first = datetime.date(2015, 1, 1) + datetime.timedelta(days=int(rng.integers(0, 2500)))
    days = rng.integers(30, 500, size=max(_STUDIES))  # between a study and the next
    day = first + datetime.timedelta(days=int(days[: job.study].sum()))
    rng = np.random.default_rng([job.seed, _STUDY, job.patient, job.study])
    return patient, make_study(rng, patient, day, job.postoperative)


def _body(job: Job, test_only: set[str]) -> tuple[Spine, tuple[Implant, ...]]:
    """The patient's spine and, of one who was operated on, the construct; on all films the same."""
    patient, study = _people(replace(job, study=0))
    age = int(study.date[:4]) - int(patient.birth_date[:4])
    rng = np.random.default_rng([job.seed, _ANATOMY, job.patient])
    spine = make_spine(rng, draw_build(rng, patient.sex, age))
    if not job.operated:
        return spine, ()
    rng = np.random.default_rng([job.seed, _SURGERY, job.patient])
    # A replaced body is so rare that it is only made where the test is to have some.
    replaced = "vertebral_body_replacement" in test_only and rng.random() < _REPLACED
    return spine, make_surgery(rng, spine, ("vertebral_body_replacement",) if replaced else None)


def _rare(spine: Spine, implants: Iterable[Implant]) -> set[str]:
    """What of :data:`TEST_ONLY` a patient has."""
    kinds = {implant.kind for implant in implants}
    if any(level.fracture for level in spine.build.levels):
        kinds.add("fracture")
    return kinds & set(TEST_ONLY)
