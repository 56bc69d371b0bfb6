"""The five networks as Lumbarflow trains them: beside stock recipes, on real films, when killed.

- `stock`: each network trained by its library's stock recipe (see `_stock.py`) and by Lumbarflow's
  (its settings of config/presets/demo.yaml, and of config/films.yaml for real films), for the same
  time, on the same films of the same division: synthetic ones as annotators outline them, and the
  real ones. Both have a ResNet-18 without pretrained weights, for the time is short; Lumbarflow's
  decoders and heads are slimmer than the stock ones, which is a part of its recipe. Reported are
  the mean IoU of the vertebrae on the test films, the gain over stock, and how many times as many
  images a second the training sees.
- `real`: trained on synthetic films, then on 18 real ones (3 of them for choosing the epoch), and
  tested on the 8 others, which the seed fixed before any training. References are boxes of four
  corners; reported is the mean Dice of T12 to L5 with an interval that holds 95% of the means of
  bootstrap samples of films. With --output the worst film of each network is drawn, the reference
  in blue.
- `paper`: seconds of a step of each network at full resolution on a ResNet-50, measured on three
  films (smaller ones where the memory asks for it), and the hours that the trainings of
  config/presets/paper.yaml would take here.
- `kill`: a short training that is killed at random moments, from its start on, and goes on each
  time; how many tensors of its weights then differ, in any bit, from those of an undisturbed one.

The time of a training is --minutes; the trial before it, which tells how many steps they are, is
not counted. Real films lie in the folder `lumbar_films` of LUMBARFLOW_DATA.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import _stock
import cv2
import numpy as np
import torch
from _films import (
    Annotated,
    annotated_films,
    bootstrap,
    division,
    kept_folder,
    real_films,
    synthetic_films,
)
from _targets import meets_all
from _training import (
    FORK,
    LOG,
    Cohort,
    Trained,
    apart,
    bodies,
    configuration,
    found_by,
    outputs_in,
    parameters,
    score,
    train_in,
    train_within,
    windows,
    write_cohort,
)

from lumbarflow import networks
from lumbarflow.files import read_grey, write_png
from lumbarflow.train.films import full_size

PARTS = ("stock", "real", "paper", "kill")
NETWORKS = ("unet", "pspnet", "deeplabv3", "mask_rcnn", "yolact")
QUICK_NETWORKS = ("unet", "yolact")
MINUTES = {"stock": 8.0, "real": 50.0}
FILMS = {"stock": 96, "real": 600}
SCALE = 0.4  # of the synthetic films that are compared on, relative to a full radiograph
WINDOW_ROWS = 512
REAL_VALIDATION = 3  # of the 18 real films that are not tested on
SYNTHETIC_SHARE = 0.7  # of the time, for training on synthetic films first
FINE_RATE = 0.5  # learning rate on real films after synthetic ones, relative to the usual one
PAPER_SCALES = (1.0, 0.7, 0.5)  # of films: the next one where the memory is too small
PAPER_BATCH = 2  # where config/presets/paper.yaml leaves it open
PAPER_FILMS = {"train": 657, "val": 73}  # of config/presets/paper.yaml
SPEED = {"cpu": 1.5, "cuda": 2.0}  # times stock's images per second


# --- Beside stock recipes --------------------------------------------------------------------


def stock(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Figures and targets of the comparison with stock recipes."""
    device = "cuda" if apart(torch.cuda.is_available) else "cpu"
    cohorts = {"synthetic": (synthetic_cohort, ())}
    if not options.quick:
        cohorts["real"] = real_cohort, ("films.yaml",)
    figures, targets = {}, {}
    for kind, (make, files) in cohorts.items():
        config = configuration(*files, preset="demo")
        cohort = make(options, folder / kind, config)
        for network in options.networks:
            both = _both_recipes(options, folder / kind, network, cohort, config)
            shutil.rmtree(folder / kind / network, ignore_errors=True)  # checkpoints are large
            for recipe, trained in both.items():
                if trained is None:
                    continue
                print(
                    f"  {kind}, {network}, {recipe}: mean IoU {trained.mean('mean_iou'):.4f}, "
                    f"{1 / trained.seconds_per_image:.2f} images a second, {trained.iterations} "
                    f"steps, {trained.seconds:.0f} s",
                    flush=True,
                )
            name = f"{kind}_{network}"
            targets |= {
                f"{name}_gain": "above 0",
                f"{name}_speed_ratio": f"at least {SPEED[device]}",
            }
            if None in both.values():
                continue
            theirs, own = both["stock"], both["Lumbarflow"]
            figures |= {
                f"{name}_stock_mean_iou": theirs.mean("mean_iou"),
                f"{name}_mean_iou": own.mean("mean_iou"),
                f"{name}_gain": own.mean("mean_iou") - theirs.mean("mean_iou"),
                f"{name}_stock_images_per_second": 1 / theirs.seconds_per_image,
                f"{name}_images_per_second": 1 / own.seconds_per_image,
                f"{name}_speed_ratio": theirs.seconds_per_image / own.seconds_per_image,
            }
    return figures, targets


def synthetic_cohort(options: argparse.Namespace, folder: Path, config: dict[str, Any]) -> Cohort:
    """Films of the simulation: a quarter tested on, a twelfth for choosing the epoch."""
    count = options.films or (12 if options.quick else FILMS["stock"])
    scale = 0.1 if options.quick else SCALE
    films = annotated_films(kept_folder(options.seed), count, options.seed, scale)
    tested, chosen = count // 4, max(1, count // 12)
    subsets = {
        "test": films[:tested],
        "val": films[tested : tested + chosen],
        "train": films[tested + chosen :],
    }
    return write_cohort(folder, subsets, config["classes"], config["evaluation"]["foreground"])


def real_cohort(options: argparse.Namespace, folder: Path, config: dict[str, Any]) -> Cohort:
    """The real films: 8 tested on, 3 for choosing the epoch, 15 trained on."""
    films = real_films()
    tested = division(films, 0, options.seed)
    names = {film.name for film in tested}
    others = [film for film in films if film.name not in names]
    order = np.random.default_rng([options.seed, 1]).permutation(len(others))
    seen = [others[index] for index in order]
    divided = {
        "test": tested,
        "val": seen[:REAL_VALIDATION],
        "train": seen[REAL_VALIDATION:],
    }
    subsets = {
        subset: [
            Annotated(Path(film.name).stem, film.picture, bodies(film.outlines)) for film in chosen
        ]
        for subset, chosen in divided.items()
    }
    return write_cohort(folder, subsets, config["classes"], config["evaluation"]["foreground"])


def _both_recipes(
    options: argparse.Namespace,
    folder: Path,
    network: str,
    cohort: Cohort,
    config: dict[str, Any],
) -> dict[str, Trained | None]:
    """One network trained by both recipes, one after the other; None where one breaks off."""
    seconds = _seconds(options, "stock")
    settings = _settings(options, config, network)
    size = tuple(settings["network"]["size"])
    threads, place = options.threads, folder / network
    theirs = apart(_stock.train_stock, seconds, place / "stock", network, cohort, size, threads)
    own = apart(
        _train_and_score, seconds, place / "own", network, cohort, settings, config, threads
    )
    return {"stock": theirs, "Lumbarflow": own}


def _train_and_score(
    seconds: float,
    folder: Path,
    network: str,
    cohort: Cohort,
    settings: dict[str, Any],
    config: dict[str, Any],
    threads: int,
) -> Trained:
    trained = train_within(seconds, folder, network, cohort, settings, threads)
    weights = outputs_in(folder)["weights"]
    found = found_by(network, weights, cohort, config["predict"], threads)
    return replace(trained, scores=score(cohort, found))


# --- Real films ------------------------------------------------------------------------------


def real(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Figures and targets of networks trained on synthetic films, then on real ones."""
    config = configuration("films.yaml", preset="demo")
    count = options.films or (12 if options.quick else FILMS["real"])
    films = synthetic_films(kept_folder(options.seed), count, options.seed)
    found = windows(films, WINDOW_ROWS, options.seed)
    chosen = max(2, min(24, count // 20))
    pretraining = write_cohort(
        folder / "synthetic",
        {"train": found[chosen:], "val": found[:chosen], "test": []},
        config["classes"],
        config["evaluation"]["foreground"],
    )
    del films, found
    cohort = real_cohort(options, folder / "real", config)
    figures, targets, means = {}, {}, []
    for network in options.networks:
        targets[f"real_{network}_dice"] = "at least 0.90"
        trained = apart(_pretrain_and_train, options, folder, network, pretraining, cohort, config)
        shutil.rmtree(folder / network, ignore_errors=True)
        if trained is None:
            continue
        dice = {name: score["dice"] for name, score in trained.scores.items()}
        mean, low, high = bootstrap(list(dice.values()), options.seed)
        print(f"  {network}: Dice {mean:.3f} ({low:.3f} to {high:.3f}), {trained.seconds:.0f} s")
        for name in sorted(dice, key=dice.__getitem__):
            print(f"    {name}: {dice[name]:.3f}", flush=True)
        means.append(mean)
        figures |= {
            f"real_{network}_dice": mean,
            f"real_{network}_dice_low": low,
            f"real_{network}_dice_high": high,
            f"real_{network}_minutes": trained.seconds / 60,
        }
    minutes = [value for name, value in figures.items() if name.endswith("_minutes")]
    if means:
        figures |= {"real_best_dice": max(means), "real_longest_minutes": max(minutes)}
    targets |= {"real_best_dice": "at least 0.93", "real_longest_minutes": "at most 60"}
    return figures, targets


def _pretrain_and_train(
    options: argparse.Namespace,
    folder: Path,
    network: str,
    pretraining: Cohort,
    cohort: Cohort,
    config: dict[str, Any],
) -> Trained:
    """Train on synthetic films, on real ones from there on, and score."""
    seconds = _seconds(options, "real")
    settings = _settings(options, config, network)
    first = folder / network / "synthetic"
    before = train_within(
        seconds * SYNTHETIC_SHARE, first, network, pretraining, settings, options.threads
    )
    settings["network"] |= {
        "weights": str(outputs_in(first)["weights"]),
        "learning_rate": FINE_RATE * settings["network"]["learning_rate"],
    }
    place = folder / network / "real"
    trained = train_within(
        seconds - before.seconds, place, network, cohort, settings, options.threads
    )
    weights = outputs_in(place)["weights"]
    found = dict(found_by(network, weights, cohort, config["predict"], options.threads))
    scores = score(cohort, found.items())
    if options.output:
        worst = min(scores, key=lambda name: scores[name]["dice"])
        drawn = draw(
            read_grey(cohort.pictures / f"{worst}.png"), cohort.reference(worst), found[worst]
        )
        write_png(options.output / f"{network}-{worst}-{scores[worst]['dice']:.3f}.png", drawn)
    return replace(trained, scores=scores, seconds=before.seconds + trained.seconds)


def draw(film: np.ndarray, reference: np.ndarray, found: np.ndarray) -> np.ndarray:
    """A film with two masks (rows x columns, bool) outlined: blue and orange; in OpenCV's BGR."""
    drawn = cv2.cvtColor(film, cv2.COLOR_GRAY2BGR)
    for mask, colour in ((reference, (233, 180, 86)), (found, (0, 94, 213))):
        outlines, _ = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
        )
        cv2.drawContours(drawn, outlines, -1, colour, max(1, film.shape[0] // 500))
    return drawn


# --- The paper's size ------------------------------------------------------------------------


def paper(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Seconds of a step at full resolution, and the forecast for the preset; no targets."""
    config = configuration(preset="paper")
    cohorts = {
        scale: _paper_films(options, folder / f"films-{scale}", config, scale)
        for scale in ((0.2, 0.1) if options.quick else PAPER_SCALES)
    }
    figures = {}
    for network in options.networks:
        measured = _paper_seconds(options, folder / network, network, config, cohorts)
        if measured is None:
            continue
        scale, training, validation = measured
        preset = config["networks"][network]
        batch = preset["batch_size"] or PAPER_BATCH
        seen = preset["iterations"] * batch
        passes = seen / PAPER_FILMS["train"]  # each followed by a validation
        hours = (seen * training + passes * PAPER_FILMS["val"] * validation) / 3600
        print(
            f"  {network}: {training:.1f} s a film in training, {validation:.1f} s in validation "
            f"(measured on films of {scale} of the full size), {hours:.0f} hours",
            flush=True,
        )
        figures |= {
            f"paper_{network}_measured_at": scale,
            f"paper_{network}_step_seconds": training * batch,
            f"paper_{network}_forecast_hours": hours,
        }
    return figures, {}


def _paper_seconds(
    options: argparse.Namespace,
    folder: Path,
    network: str,
    config: dict[str, Any],
    cohorts: dict[float, Cohort],
) -> tuple[float, float, float] | None:
    """The scale that fits the memory, and seconds a film of full size in training and validation.

    Args:
        options: of the program.
        folder: for checkpoints.
        network: name.
        config: with the preset.
        cohorts: the same films by scale, the full size first.
    """
    batch = networks.load(network).smallest_batch
    settings = parameters(
        config, network, weights=None, iterations=3, epoch_iterations=1, batch_size=batch
    )
    full = _pixels(next(iter(cohorts.values())))
    for scale, cohort in cohorts.items():
        rows = apart(_train_in_memory, folder, network, cohort, settings, options.threads)
        shutil.rmtree(folder, ignore_errors=True)
        if rows is None:
            continue
        # The first epoch warms up. Convolutions take time as there are pixels.
        step, validation = (
            full / _pixels(cohort) * np.median([r["seconds"] for r in rows[2:] if r["split"] == s])
            for s in ("train", "val")
        )
        return scale, float(step) / batch, float(validation)
    return None


def _paper_films(
    options: argparse.Namespace, folder: Path, config: dict[str, Any], scale: float
) -> Cohort:
    films = annotated_films(kept_folder(options.seed), 3, options.seed, scale)
    subsets = {"train": films[:2], "val": films[2:], "test": []}
    return write_cohort(folder, subsets, config["classes"], config["evaluation"]["foreground"])


def _pixels(cohort: Cohort) -> int:
    """Of the canvas that holds all films of a cohort."""
    return int(np.prod(full_size(cohort.coco, ("train", "val"))))


def _train_in_memory(*arguments: Any) -> list[dict[str, Any]]:
    """:func:`train_in`, which fails rather than take memory from other programs."""
    if not torch.cuda.is_available():
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        available = int(text.split("MemAvailable:")[1].split()[0]) * 1024
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (available, hard))
    return train_in(*arguments)


# --- Killed trainings ------------------------------------------------------------------------


def kill(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """How many tensors differ after a training that was killed again and again."""
    kills = 2 if options.quick else options.kills
    config = configuration(preset="demo")
    films = annotated_films(kept_folder(options.seed), 12, options.seed, 0.1)
    subsets = {"train": films[:8], "val": films[8:], "test": []}
    classes, foreground = config["classes"], config["evaluation"]["foreground"]
    cohort = write_cohort(folder / "films", subsets, classes, foreground)
    rng = np.random.default_rng([options.seed, 2])
    figures, targets = {}, {}
    for network in options.networks:
        name = f"kill_{network}"
        # An attempt is killed before it ends its second epoch: so many epochs outlast the kills.
        epoch = 4 if options.quick else 20
        short = {"epoch_iterations": epoch, "iterations": 2 * kills * epoch}
        short |= {"size": [64, 32], "width": 8}
        settings = parameters(config, network, **short)
        arguments = (network, cohort, settings, options.threads)
        started = time.monotonic()
        rows = apart(train_in, folder / network / "undisturbed", *arguments)
        passed = time.monotonic() - started
        targets |= {
            f"{name}_differing_tensors": "at most 0",
            f"{name}_differing_rows": "at most 0",
            f"{name}_kills": f"at least {kills}",
        }
        if rows is None:
            continue
        in_epochs = sum(row["seconds"] for row in rows)
        longest = passed - in_epochs + in_epochs / kills
        killed = folder / network / "killed"
        moments = rng.uniform(0, longest, kills)
        struck = sum(_struck(moment, killed, arguments) for moment in moments)
        rows_after = apart(train_in, killed, *arguments)
        if rows_after is None:
            continue
        pairs = zip(_untimed(rows), _untimed(rows_after), strict=True)
        figures |= {
            f"{name}_kills": struck,
            f"{name}_differing_tensors": _differing(folder / network / "undisturbed", killed),
            f"{name}_differing_rows": sum(one != other for one, other in pairs),
        }
        shutil.rmtree(folder / network)
        print(
            f"  {network}: killed {struck} times at {', '.join(f'{m:.1f}' for m in moments)} s, "
            f"{figures[f'{name}_differing_tensors']} tensors differ",
            flush=True,
        )
    return figures, targets


def _struck(moment: float, folder: Path, arguments: Sequence[Any]) -> bool:
    """Train until `moment` (seconds), then kill; whether it was still training."""
    process = FORK.Process(target=train_in, args=(folder, *arguments))
    process.start()
    process.join(moment)
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def _untimed(rows: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(row["epoch"], row["split"], row["loss"], row["metrics"]) for row in rows]


def _differing(one: Path, other: Path) -> int:
    """How many tensors of two trainings' weights are not the same, bit for bit."""
    states = [
        torch.load(outputs_in(folder)["weights"], weights_only=True)["state_dict"]
        for folder in (one, other)
    ]
    if states[0].keys() != states[1].keys():
        return len(states[0].keys() ^ states[1].keys())
    return sum(
        value.numpy().tobytes() != states[1][name].numpy().tobytes()
        for name, value in states[0].items()
    )


# --- All ---------------------------------------------------------------------------------------


def _seconds(options: argparse.Namespace, part: str) -> float:
    """The time of one training."""
    if options.minutes:
        return 60 * options.minutes
    return 4.0 if options.quick else 60 * MINUTES[part]


def _settings(options: argparse.Namespace, config: dict[str, Any], network: str) -> dict[str, Any]:
    """A network's settings; small films with --quick."""
    return parameters(config, network, **({"size": [96, 64]} if options.quick else {}))


def main() -> None:
    """Run the parts that are asked for and print their figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=("all", *PARTS), default="all")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, help="all five")
    parser.add_argument(
        "--minutes", type=float, help="of each training (stock 8; real 50 of a network)"
    )
    parser.add_argument("--films", type=int, help="synthetic films (stock 96, real 600)")
    parser.add_argument("--kills", type=int, default=10, help="of each network's training")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    parser.add_argument("--output", type=Path, help="folder for pictures of the worst real films")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--quick", action="store_true", help="two networks, seconds a training, tiny films"
    )
    options = parser.parse_args()
    options.networks = options.networks or (QUICK_NETWORKS if options.quick else NETWORKS)
    logging.basicConfig(format="    %(message)s", level=logging.WARNING)
    LOG.setLevel(logging.WARNING if options.quick else logging.INFO)
    warnings.filterwarnings("ignore", module="mmengine|mmdet|mmcv|torch|importlib")
    cv2.setNumThreads(1)  # a process that has computed on several threads cannot be forked safely
    figures: dict[str, Any] = {}
    targets: dict[str, str] = {}
    started = time.perf_counter()
    for part in PARTS if options.part == "all" else (options.part,):
        print(f"{part}:", flush=True)
        with tempfile.TemporaryDirectory(prefix="lumbarflow-training-") as folder:
            found, wanted = getattr(sys.modules[__name__], part)(options, Path(folder))
        figures |= found
        targets |= wanted
        print(json.dumps(figures), flush=True)
    figures["seconds"] = round(time.perf_counter() - started)
    met = meets_all(figures, targets)
    print(json.dumps({"name": "training", "figures": figures, "targets": targets, "met": met}))


if __name__ == "__main__":
    main()
