"""A cohort of synthetic films in a folder, as an archive would hold it, with its ground truth."""

from __future__ import annotations

import datetime
import hashlib
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files import atomic_path, read_json, write_json
from .anatomy import Anatomy, make_anatomy
from .dicom import Patient, Study, identifiers, make_dx, make_patient, make_study, make_uid, save
from .film import FilmPlan, choose_format, plan_film, render_film

_REPORT_SECONDS = 5.0
_FRONTAL_EVERY = 12  # one patient in so many also has an AP view

# Independent streams of one seed, by what they draw.
_PATIENT, _STUDY, _FILM, _OBJECT, _COHORT = range(5)


@dataclass(frozen=True)
class _Job:
    """One object to make, small enough to send to another process."""

    number: int
    seed: int
    patient: int
    study: int
    view: str
    postoperative: bool
    scale: float


def generate_cohort(
    storage: Path,
    patients: int,
    seed: int,
    postoperative_fraction: float = 0.7,
    follow_up_fraction: float = 0.4,
    scale: float = 1.0,
    workers: int = 1,
    log: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Write `storage/objects/*.dcm` and then `storage/truth.json`.

    Patients who were operated on and followed up have a film before and one after the fusion;
    other followed-up patients have two plain films. A few patients have an AP view besides.
    Objects that an interrupted run with the same parameters left are kept; those of other
    parameters are removed first. Results depend on the parameters alone, not on `workers`.

    Args:
        storage: the folder to fill.
        patients: how many patients, 1 or more.
        seed: 0 or more.
        postoperative_fraction: share of patients with a fusion, 0 to 1.
        follow_up_fraction: share of patients with two studies, 0 to 1.
        scale: film size relative to a full radiograph, 0.1 to 1; for tests and quick trials.
        workers: processes to use.
        log: takes progress messages.

    Returns:
        What truth.json holds: `cohort` (the parameters), `images` (a dictionary an object with
        `sop_instance_uid`, `file` (relative to `storage`), `rows`, `columns`, `view`,
        `postoperative`, `pixel_spacing_mm`, `structures`) and `identifiers` (every identifying
        string in any object).

    Raises:
        InputError: a parameter is out of range, or a file of `storage` is unreadable.
    """
    parameters = {
        "patients": patients,
        "seed": seed,
        "postoperative_fraction": postoperative_fraction,
        "follow_up_fraction": follow_up_fraction,
        "scale": scale,
    }
    _check(parameters)
    storage = Path(storage)
    objects = storage / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    _clear_unless_same(storage, parameters | {"generator": _generator_digest()})

    jobs = _plan_jobs(parameters)
    missing = [job for job in jobs if not _object_path(storage, job).exists()]
    if len(missing) < len(jobs):
        log(f"kept {len(jobs) - len(missing)} of {len(jobs)} synthetic films of an earlier run")
    _make_objects(storage, missing, workers, log)

    images, found = [], set()
    for job in jobs:
        image, strings = _describe(job)
        images.append(image)
        found |= strings
    truth = {"cohort": parameters, "images": images, "identifiers": sorted(found)}
    write_json(storage / "truth.json", truth)
    return truth


def _check(parameters: dict[str, Any]) -> None:
    if parameters["patients"] < 1:
        raise InputError(f"patients is {parameters['patients']}: set it to 1 or more.")
    if parameters["seed"] < 0:
        raise InputError(f"seed is {parameters['seed']}: set it to 0 or more.")
    for name in ("postoperative_fraction", "follow_up_fraction"):
        if not 0 <= parameters[name] <= 1:
            raise InputError(f"{name} is {parameters[name]}: set it between 0 and 1.")
    if not 0.1 <= parameters["scale"] <= 1:
        raise InputError(f"scale is {parameters['scale']}: set it between 0.1 and 1.")


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
    for path in (storage / "objects").iterdir():
        unfinished = re.fullmatch(r"\.\d{5}\.\d+\.part\.dcm", path.name)
        if unfinished or (not same and re.fullmatch(r"\d{5}\.dcm", path.name)):
            path.unlink()
    write_json(note, parameters)


def _plan_jobs(parameters: dict[str, Any]) -> list[_Job]:
    """The objects of the cohort, in an order that tells nothing about who is on them."""
    patients, seed = parameters["patients"], parameters["seed"]
    rng = np.random.default_rng([seed, _COHORT])
    operated = rng.permutation(patients) < round(parameters["postoperative_fraction"] * patients)
    followed = rng.permutation(patients) < round(parameters["follow_up_fraction"] * patients)
    films = []
    for patient in range(patients):
        studies = 2 if followed[patient] else 1
        for study in range(studies):
            films.append(
                (patient, study, "lateral", bool(operated[patient]) and study == studies - 1)
            )
        if patient % _FRONTAL_EVERY == _FRONTAL_EVERY // 2:
            films.append((patient, 0, "AP", False))
    return [
        _Job(number, seed, *films[index], parameters["scale"])
        for number, index in enumerate(rng.permutation(len(films)))
    ]


def _make_objects(
    storage: Path, jobs: list[_Job], workers: int, log: Callable[[str], object]
) -> None:
    started = reported = time.monotonic()

    def progress(done: int) -> None:
        nonlocal reported
        now = time.monotonic()
        if done == len(jobs) or now - reported >= _REPORT_SECONDS:
            reported = now
            left = (now - started) / done * (len(jobs) - done)
            log(f"made {done} of {len(jobs)} synthetic films, about {left:.0f} s left")

    if workers <= 1 or len(jobs) < 2:
        for done, job in enumerate(jobs, start=1):
            _make_object(storage, job)
            progress(done)
        return
    with ProcessPoolExecutor(workers) as pool:
        running = [pool.submit(_make_object, storage, job) for job in jobs]
        try:
            for done, future in enumerate(as_completed(running), start=1):
                future.result()
                progress(done)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _object_path(storage: Path, job: _Job) -> Path:
    return storage / "objects" / f"{job.number:05d}.dcm"


def _rng(job: _Job, stream: int) -> np.random.Generator:
    """The stream of one film (patient, study and view)."""
    return np.random.default_rng([job.seed, stream, job.patient, job.study, int(job.view == "AP")])


def _people(job: _Job) -> tuple[Anatomy, Patient, Study]:
    """Anatomy and patient, the same in all studies, and the study, the same in all its views."""
    rng = np.random.default_rng([job.seed, _PATIENT, job.patient])
    anatomy, patient = make_anatomy(rng), make_patient(rng)
    first = datetime.date(2015, 1, 1) + datetime.timedelta(days=int(rng.integers(0, 2500)))
    rng = np.random.default_rng([job.seed, _STUDY, job.patient, job.study])
    later = job.study * int(rng.integers(30, 700))
    study = make_study(rng, first + datetime.timedelta(days=later), job.postoperative)
    return anatomy, patient, study


def _plan(job: _Job, anatomy: Anatomy) -> tuple[FilmPlan, np.random.Generator, str]:
    """The film's geometry, the generator that goes on to draw its grey values, and its UID."""
    rng = _rng(job, _FILM)
    uid = make_uid(rng)
    shape, spacing = choose_format(rng, job.scale)
    return plan_film(rng, anatomy, job.postoperative, shape, spacing, job.view), rng, uid


def _make_object(storage: Path, job: _Job) -> None:
    anatomy, patient, study = _people(job)
    plan, rng, uid = _plan(job, anatomy)
    ds = make_dx(render_film(plan, rng), patient, study, _rng(job, _OBJECT), sop_instance_uid=uid)
    with atomic_path(_object_path(storage, job)) as temporary:
        save(ds, temporary)


def _describe(job: _Job) -> tuple[dict[str, Any], set[str]]:
    """An object's entry in truth.json and its identifying strings, without drawing the film."""
    anatomy, patient, study = _people(job)
    plan, _, uid = _plan(job, anatomy)
    image = {
        "sop_instance_uid": uid,
        "file": f"objects/{job.number:05d}.dcm",
        "rows": plan.shape[0],
        "columns": plan.shape[1],
        "view": plan.view,
        "postoperative": job.postoperative,
        "pixel_spacing_mm": plan.pixel_spacing_mm,
        "structures": plan.structures,
    }
    return image, identifiers(patient, study)
