"""One film of a cohort alone: `python -m lumbarflow.synthetic --index 17 --out folder`.

With `--truth archive/truth.json` it is a film of that archive; otherwise options give the cohort.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..acquire.render import render
from ..errors import InputError
from ..files import read_json, write_json, write_png
from .cohort import cohort_parameters, make_job, plan_jobs
from .dicom import save


def main(arguments: list[str] | None = None) -> None:
    """Write `{index}.dcm`, `{index}.json` (its truth) and, of films, `{index}.png`.

    Raises:
        InputError: the cohort has no such film, or an option is out of range.
    """
    parser = argparse.ArgumentParser(prog="python -m lumbarflow.synthetic", description=__doc__)
    parser.add_argument("--index", type=int, required=True, help="number of the object")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--truth", type=Path, help="truth.json of the cohort")
    parser.add_argument("--seed", type=int, default=2022)
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--postoperative-fraction", type=float, default=0.72)
    parser.add_argument("--follow-up-fraction", type=float, default=0.4)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--side-marker-fraction", type=float, default=0.6)
    parser.add_argument("--burned-in-text-fraction", type=float, default=0.05)
    options = vars(parser.parse_args(arguments))
    index, out, truth = (options.pop(name) for name in ("index", "out", "truth"))
    if truth is None:
        parameters = cohort_parameters(**options, distractors=None, test_only=())
    else:
        try:
            parameters = read_json(truth)["cohort"]
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(f"{truth} is no truth.json of a synthetic cohort.") from None
    jobs = plan_jobs(parameters)
    if not 0 <= index < len(jobs):
        raise InputError(f"--index is {index}: the cohort has the objects 0 to {len(jobs) - 1}.")
    ds, image = make_job(jobs[index], parameters["test_only"])
    out.mkdir(parents=True, exist_ok=True)
    save(ds, out / f"{index:05d}.dcm")
    write_json(out / f"{index:05d}.json", image)
    if ds.Modality in ("CR", "DX"):
        write_png(out / f"{index:05d}.png", render(ds))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(str(error))
