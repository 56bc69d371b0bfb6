"""De-identification beside dicom-anonymizer and gdcmanon: objects a second, and what is left.

All three are given the same corpus of CR and DX objects with identifying values planted in many
kinds of place (tests/planted.py), in one run:

- `header`: our header engine and dicom-anonymizer's `anonymize_dataset` (with the table of 2026c,
  made once) on data sets in memory, in turns. Data sets are read anew for each turn, outside the
  timing, so that neither finds values that are decoded already. Objects at which dicom-anonymizer
  fails are in neither timing.
- `file`: ours from file to file, pixels decoded and stored anew, beside `gdcmanon -e` (the Basic
  Profile; a throw-away certificate) on a folder in one process. Objects at which gdcmanon fails are
  in neither timing.
- `left`: how many of the planted values a plain search of bytes still finds in an object's file,
  by kind of place. Ours is the whole de-identification, with the search of burned-in text, which
  the two others do not have; a word in the pixels is left where it can still be seen. An object at
  which a tool fails, or that is rejected, leaves nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "workflow" / "scripts")]

import numpy as np  # noqa: E402
import pydicom  # noqa: E402
from byte_search import Search, inflated  # noqa: E402
from dicomanonymizer.simpledicomanonymizer import (  # noqa: E402
    anonymize_dataset,
    initialize_actions,
)
from judging import hidden  # noqa: E402
from planted import BURNED_IN, FILE_NAMES, Planted, corpus, unvalidated  # noqa: E402
from pydicom.dataset import Dataset  # noqa: E402

from lumbarflow.deidentify.burned_in import TextFinder  # noqa: E402
from lumbarflow.deidentify.deidentifier import Deidentifier  # noqa: E402
from lumbarflow.deidentify.engine import deidentify, header  # noqa: E402
from lumbarflow.deidentify.pseudonyms import Pseudonyms  # noqa: E402
from lumbarflow.errors import InputError  # noqa: E402

TOOLS = ("ours", "dicom-anonymizer", "gdcmanon")
TARGETS = {"header_to_dicom_anonymizer": "at least 1.0", "left_ours": "0"}
KEYED = Pseudonyms(b"a key for this benchmark only")
# Made once, in favour of dicom-anonymizer, which by default makes it for each object.
RULES = initialize_actions("dicomfields_2026c")


def read(planted: Planted) -> Dataset:
    return pydicom.dcmread(io.BytesIO(planted.data))


def written(dataset: Dataset) -> bytes:
    encoded = io.BytesIO()
    dataset.save_as(encoded)
    return encoded.getvalue()


def anonymized(dataset: Dataset) -> Dataset:
    """What dicom-anonymizer makes of a data set, in place."""
    anonymize_dataset(dataset, base_rules_gen=lambda: dict(RULES))
    return dataset


# What each leaves --------------------------------------------------------------------------------


def with_ours(objects: Iterable[Planted]) -> dict[str, bytes]:
    """Files by SOP Instance UID; without those that are rejected."""
    deidentifier, found = Deidentifier(KEYED, finder=TextFinder()), {}
    for planted in objects:
        try:
            cleaned = deidentifier.film(read(planted))
        except InputError:
            continue
        if not cleaned.uncertain:
            found[planted.uid] = written(cleaned.dataset)
    return found


def with_dicom_anonymizer(objects: Iterable[Planted]) -> dict[str, bytes]:
    """Files by SOP Instance UID; without those at which it or the writing of its result fails."""
    found = {}
    for planted in objects:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
            found[planted.uid] = written(anonymized(read(planted)))
    return found


def with_gdcmanon(objects: Iterable[Planted], folder: Path) -> dict[str, bytes]:
    """Files by SOP Instance UID; without those at which it fails."""
    certificate = folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=nobody"]
    command += ["-keyout", folder / "key.pem", "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    found = {}
    before, after = folder / "before.dcm", folder / "after.dcm"
    for planted in objects:
        before.write_bytes(planted.data)
        after.unlink(missing_ok=True)
        run = gdcmanon(folder, before, after)
        if run == 0 and after.exists():
            found[planted.uid] = after.read_bytes()
    return found


def gdcmanon(folder: Path, source: Path, target: Path) -> int:
    """De-identify a file, or a folder up to the first file at which it fails; the exit status."""
    command = ["gdcmanon", "-e", "-c", folder / "certificate.pem", "-i", source, "-o", target]
    return subprocess.run(command, capture_output=True).returncode


def left(objects: list[Planted], files: dict[str, bytes]) -> Counter[str]:
    """How many planted values are still in the files, by kind of place."""
    search = Search(secret for planted in objects for secret in planted.secrets)
    counts: Counter[str] = Counter()
    for planted in objects:
        if (data := files.get(planted.uid)) is None:
            continue
        found = set().union(*map(search.found, (data, *inflated(data))))
        counts.update(secret.place for secret in set(planted.secrets) & found)
        del counts[FILE_NAMES]  # the caller chooses the names
        if planted.words:
            values = pixels(data)
            seen = [not hidden(values, word) for word in planted.words]
            counts[BURNED_IN] += any(seen)
    return +counts


def pixels(data: bytes) -> np.ndarray:
    dataset = pydicom.dcmread(io.BytesIO(data))
    return dataset.pixel_array & (2**dataset.BitsStored - 1)


# Objects a second --------------------------------------------------------------------------------


def seconds(work: Callable[[Dataset], object], objects: Iterable[Planted]) -> float:
    """Time on data sets that were read from their bytes just before."""
    datasets = [read(planted) for planted in objects]
    gc.collect()
    started = time.perf_counter()
    for dataset in datasets:
        work(dataset)
    return time.perf_counter() - started


def compare(ways: dict[str, Callable[[], float]], count: int, times: int) -> dict[str, float]:
    """Take turns; return the median objects a second of each way."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(times):
        order = list(ways)[number % len(ways) :] + list(ways)[: number % len(ways)]
        for name in order:
            rates[name].append(count / ways[name]())
        turn = ", ".join(f"{name} {values[-1]:.0f}" for name, values in rates.items())
        print(f"{number + 1}. objects/s: {turn}", flush=True)
    return {name: statistics.median(values) for name, values in rates.items()}


def header_rates(objects: list[Planted], times: int) -> dict[str, float]:
    def ours() -> float:
        return seconds(lambda dataset: header(dataset, KEYED), objects)

    def theirs() -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            return seconds(anonymized, objects)

    return compare({"header": ours, "dicom_anonymizer": theirs}, len(objects), times)


def file_rates(objects: list[Planted], folder: Path, times: int) -> dict[str, float]:
    source, target = folder / "in", folder / "out"
    source.mkdir()
    for number, planted in enumerate(objects):
        (source / f"{number}.dcm").write_bytes(planted.data)

    def ours() -> float:
        started = time.perf_counter()
        for path in source.iterdir():
            deidentify(pydicom.dcmread(path), KEYED).save_as(target / path.name)
        return time.perf_counter() - started

    def theirs() -> float:
        started = time.perf_counter()
        status = gdcmanon(folder, source, target)
        took = time.perf_counter() - started
        if status:
            sys.exit("gdcmanon failed at an object that it took before.")
        return took

    def afresh(work: Callable[[], float]) -> Callable[[], float]:
        def run() -> float:
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            took = work()
            if sum(1 for _ in target.iterdir()) != len(objects):
                sys.exit("Not all objects were written.")
            return took

        return run

    return compare({"file": afresh(ours), "gdcmanon": afresh(theirs)}, len(objects), times)


def main() -> None:
    """Run the comparison and print the table and the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="160 objects in place of 520")
    count, times = (160, 3) if parser.parse_args().quick else (520, 7)
    missing = [name for name in ("gdcmanon", "openssl") if shutil.which(name) is None]
    if missing:
        sys.exit(f"{' and '.join(missing)} not found: install gdcm-tools (libgdcm-tools), openssl.")
    pydicom.config.logger.setLevel("CRITICAL")
    with tempfile.TemporaryDirectory(prefix="deidentify-") as name, unvalidated():
        folder = Path(name)
        objects = corpus(count)
        print(f"{count} objects, {sum(len(o.secrets) for o in objects)} planted values", flush=True)
        files = dict(
            zip(
                TOOLS,
                (
                    with_ours(objects),
                    with_dicom_anonymizer(objects),
                    with_gdcmanon(objects, folder),
                ),
                strict=True,
            )
        )
        taken = {tool: [o for o in objects if o.uid in made] for tool, made in files.items()}
        made = ", ".join(f"{tool} {len(found)}" for tool, found in taken.items())
        print(f"Objects that were de-identified: {made}", flush=True)
        print("Header engines, data sets in memory", flush=True)
        rates = header_rates(taken["dicom-anonymizer"], times)
        print("File to file", flush=True)
        both = [o for o in taken["gdcmanon"] if o.uid in files["ours"]]
        rates |= file_rates(both, folder, times)
        counts = {tool: left(objects, made) for tool, made in files.items()}
    figures = {f"{name}_objects_per_second": rate for name, rate in rates.items()}
    figures |= {
        "header_to_dicom_anonymizer": rates["header"] / rates["dicom_anonymizer"],
        "file_to_gdcmanon": rates["file"] / rates["gdcmanon"],
    }
    for tool in TOOLS:
        key = tool.replace("-", "_")
        figures[f"objects_{key}"] = len(taken[tool])
        figures[f"left_{key}"] = sum(counts[tool].values())
        figures[f"kinds_left_{key}"] = len(counts[tool])
    figures |= table(objects, counts)
    met = figures["header_to_dicom_anonymizer"] >= 1.0 and figures["left_ours"] == 0
    print(json.dumps({"name": "deidentify", "figures": figures, "targets": TARGETS, "met": met}))


def table(objects: list[Planted], counts: dict[str, Counter[str]]) -> dict[str, str]:
    """Print and return what each tool leaves of each kind of place."""
    planted = Counter(secret.place for o in objects for secret in set(o.secrets))
    planted[BURNED_IN] = sum(bool(o.words) for o in objects)
    del planted[FILE_NAMES]
    print("An object at which a tool fails leaves nothing.", flush=True)
    width = max(map(len, planted))
    print(f"{'left in':{width}}  planted  {'  '.join(f'{tool:>16}' for tool in TOOLS)}")
    rows = {}
    for place in sorted(planted):
        numbers = [counts[tool][place] for tool in TOOLS]
        print(f"{place:{width}}  {planted[place]:7}  {'  '.join(f'{n:16}' for n in numbers)}")
        rows[f"left ({', '.join(TOOLS)}) of {planted[place]}: {place}"] = ", ".join(
            map(str, numbers)
        )
    return rows


if __name__ == "__main__":
    main()
