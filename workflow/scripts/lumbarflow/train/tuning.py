"""A search for better settings of one network, on its validation films alone.

Each trial trains the network with other settings and counts the highest validation Dice of its
foreground. What is tried next is drawn by a tree-structured Parzen estimator (Bergstra et al.,
NeurIPS 2011; Optuna, Akiba et al., KDD 2019). After a third of its epochs, a trial that is worse
than the median of the earlier ones at the same epoch ends (Golovin et al., KDD 2017).
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import Trial, TrialState

from .. import networks
from ..errors import InputError
from ..files import read_json, write_bytes, write_json, write_text
from ..networks.base import Network
from ..networks.semantic import SemanticNetwork
from ..prepare.coco import training_digest
from .run import train
from .strength import strengthened

COLUMNS = {
    "model": "str",
    "trial": "int64",
    "state": "str",
    "validation_dice": "float64",
    "epochs": "int64",
    "seconds": "float64",
    "learning_rate": "float64",
    "weight_decay": "float64",
    "moving_average": "float64",
    "augmentation": "float64",
    "batch_size": "Int64",
    "iterations": "int64",
    "winner": "bool",
    "reason": "str",
}
"""Columns of `tuning/trials.parquet` with their types."""

SEARCHED = ("learning_rate", "weight_decay", "moving_average", "augmentation", "batch_size")
"""Settings of a network that may be searched; also keys of `tuning.search`."""

_FACTORS = ("learning_rate", "weight_decay", "augmentation")
_STARTUP = 5  # trials before the estimator, and the median, know enough
_EPOCHS = 8  # at least so many chances to end a trial early
_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "stopped"}


def tune(
    model: str,
    coco: Path,
    masks: Path,
    pictures: Path,
    parameters: Mapping[str, Any],
    tuning: Mapping[str, Any],
    threads: int,
    work: Path,
    log: logging.Logger,
) -> pd.DataFrame:
    """Search for better settings of `model` and return its trials.

    The first trial has the settings as they stand. Everything tried is kept in `work`: a search
    that was interrupted, also by SIGKILL, goes on within the trial, and on a CPU it ends with the
    trials of one that was not; one whose films, settings or code have changed starts anew.
    Trainings get the training and validation films alone, in a folder of their own: no test film is
    named there.

    Args:
        model: name of the network.
        coco: folder with `train.json` and `val.json`; nothing else in it is read.
        masks: folder with `{image_id}.png`.
        pictures: folder with `{image_id}.png`.
        parameters: as of :func:`lumbarflow.train.run.train`, `network` together with
            `augmentation`, the factor of the limits in `training`; and `maxima` of these limits.
        tuning: `tuning` of the configuration.
        threads: CPU threads.
        work: folder of the search.
        log: where progress is told.

    Returns:
        A row a trial, with the columns of :data:`COLUMNS`.

    Raises:
        InputError: nothing is to be searched, the first trial fails, or what earlier runs kept is
            not readable.
    """
    subsets = {name: read_json(coco / f"{name}.json") for name in ("train", "val")}
    network = parameters["network"]
    distributions = search_space(network, tuning["search"], _smallest_batch(networks.load(model)))
    if not distributions:
        raise InputError(
            f"tuning.search: leaves nothing to be searched for networks.{model}: give one of "
            f"{', '.join(SEARCHED)} more than one value."
        )
    data = _without_test_films(subsets, work / "data" / "coco")
    study = _open(work / "study.journal", _key(parameters, tuning, subsets))
    if not study.trials:
        study.enqueue_trial({name: network[name] for name in distributions})
    _remove_others(work / "trials", study)
    seconds: list[float] = []
    while (number := _finished(study)) < tuning["trials"]:
        # Seeded trial by trial: what is drawn does not depend on where an earlier run stopped.
        study.sampler = TPESampler(n_startup_trials=_STARTUP, seed=_seed(tuning["seed"], number))
        trial = _interrupted(study) or study.ask()
        values = _draw(trial, distributions, network)
        count = f"trial {number + 1} of {tuning['trials']}"
        log.info("%s: %s", count, ", ".join(f"{key} {value:g}" for key, value in values.items()))
        place = work / "trials" / _name(study, number)
        outputs = {name: place / name for name in ("weights", "history", "record")}
        own = trial_parameters(parameters, values, tuning, len(subsets["train"]["images"]))
        trial.set_user_attr("iterations", own["network"]["iterations"])
        study.pruner = MedianPruner(_STARTUP, n_warmup_steps=_epochs(own["network"]) // 3)
        stop = _Stop(study, trial)
        try:
            if stop.stopped:  # an earlier run was killed after the trial's last epoch
                dice = stop.best
            else:
                kept = place / "checkpoints"
                record = train(model, data, masks, pictures, own, threads, outputs, kept, log, stop)
                dice = record["best_validation_dice"]
                trial.set_user_attr("seconds", record["seconds"])
                seconds.append(record["seconds"])
        except InputError as error:
            # The first trial has shown that the films are sound: it is the settings, unless the
            # disk is full.
            if number == 0 or isinstance(error.__cause__, OSError):
                raise
            trial.set_user_attr("failed", str(error))
            study.tell(trial, state=TrialState.PRUNED)
            log.info("%s failed: %s", count, error)
        else:
            trial.set_user_attr("dice", dice)
            if stop.stopped:
                study.tell(trial, state=TrialState.PRUNED)
            else:
                study.tell(trial, dice)
            left = np.mean(seconds or [0]) * (tuning["trials"] - number - 1)
            log.info(
                "%s: validation Dice %.4f%s; best %.4f in trial %d; about %d min %02d s left",
                count,
                dice,
                ", ended early" if stop.stopped else "",
                study.best_value,
                study.best_trial.number + 1,
                left // 60,
                left % 60,
            )
        shutil.rmtree(place, ignore_errors=True)
    return _table(model, study, network)


def search_space(
    network: Mapping[str, Any], search: Mapping[str, Any], smallest_batch: int | None
) -> dict[str, BaseDistribution]:
    """What is searched, by setting: the network's own value is always among what may be drawn.

    Args:
        network: the network's settings; a factor of 0 changes nothing, and a batch size that is
            null is found by the training.
        search: `tuning.search` of the configuration.
        smallest_batch: films that the network needs at a time; None leaves its batch size.
    """
    found: dict[str, BaseDistribution] = {}
    for name in SEARCHED:
        own, wanted = network[name], search[name]
        if wanted is None or own is None:
            continue
        if name == "batch_size":
            wanted = [size for size in wanted if smallest_batch and size >= smallest_batch]
        if name in _FACTORS:
            factors = [*wanted, 1]
            if own > 0 and min(factors) < max(factors):
                found[name] = FloatDistribution(own * min(factors), own * max(factors), log=True)
        elif len(choices := sorted({*wanted, own})) > 1:
            found[name] = CategoricalDistribution(choices)
    return found


def trial_parameters(
    parameters: Mapping[str, Any], values: Mapping[str, Any], tuning: Mapping[str, Any], films: int
) -> dict[str, Any]:
    """Parameters of a trial's training.

    Args:
        parameters: see :func:`tune`.
        values: what was drawn.
        tuning: `tuning` of the configuration.
        films: number of training films.

    Returns:
        As :func:`lumbarflow.train.run.train` takes them. Trials see equally many films, whatever
        their batch size, and are validated at least eight times where they have as many steps.
    """
    own = parameters["network"]
    network = own | values
    strength = network.pop("augmentation")
    steps = tuning["iterations"] or -(-own["iterations"] // 2)
    epoch = own["epoch_iterations"] or (
        max(1, films // own["batch_size"]) if own["batch_size"] else None
    )
    network["iterations"] = iterations = _rescaled(steps, own, network)
    if epoch is not None:
        epoch = _rescaled(epoch, own, network)
        network["epoch_iterations"] = min(epoch, max(1, iterations // _EPOCHS))
    training = dict(parameters["training"])
    training["augmentation"] = strengthened(
        training["augmentation"], strength, parameters["maxima"]
    )
    others = {name: value for name, value in parameters.items() if name != "maxima"}
    return others | {"network": network, "training": training}


def write_winner(path: Path, trials: pd.DataFrame, network: Mapping[str, Any], films: int) -> None:
    """Write the winner's settings as a configuration that is laid over the present one.

    Args:
        path: of the YAML file.
        trials: of one network, as :func:`tune` returns them.
        network: the network's settings as they stand.
        films: number of validation films.
    """
    model = trials["model"].iloc[0]
    best = trials[trials["winner"]].iloc[0]
    # Kept as they stand, 1 not as 1.0, or Snakemake would take them for changed.
    settings = {
        name: network[name] if best[name] == network[name] else best[name].item()
        for name in SEARCHED
        if trials[name].nunique() > 1
    }
    if settings.get("batch_size", network["batch_size"]) != network["batch_size"]:
        for name in ("iterations", "epoch_iterations"):
            if network[name]:
                settings[name] = _rescaled(network[name], network, settings)
    counts = trials["state"].value_counts()
    told = [
        f"The best settings of {model} that `snakemake tune` found.",
        f"Trials: {len(trials)}, the first of {trials['iterations'].iloc[0]} steps; "
        f"{counts.get('stopped', 0)} ended early, {counts.get('failed', 0)} failed.",
        f"Validation Dice, mean over {films} film{'' if films == 1 else 's'}: "
        f"{best['validation_dice']:.4f} in trial {best['trial']}; "
        f"{trials['validation_dice'].iloc[0]:.4f} with the settings before (trial 1).",
        "No test film was read. All trials: trials.parquet in this folder.",
    ]
    text = "".join(f"# {line}\n" for line in told)
    write_text(path, text + yaml.safe_dump({"networks": {model: settings}}, sort_keys=False))


class _Stop:
    """Tells a trial its validation Dice, epoch by epoch, and asks whether it is to end.

    What was told in an earlier run counts: `stopped` may hold from the beginning.
    """

    def __init__(self, study: optuna.Study, trial: Trial):
        self._trial = trial
        self._told = dict(study.trials[trial.number].intermediate_values)
        self.stopped = trial.should_prune()

    @property
    def best(self) -> float:
        """The highest Dice told."""
        return max(self._told.values())

    def __call__(self, epoch: int, dice: float) -> bool:
        if epoch not in self._told:
            self._told[epoch] = round(dice, 6)
            self._trial.report(self._told[epoch], epoch)
        self.stopped = self._trial.should_prune()
        return self.stopped


def _smallest_batch(network: Network) -> int | None:
    """Of semantic networks; detectors learn from hundreds of regions of each film."""
    return network.smallest_batch if isinstance(network, SemanticNetwork) else None


def _without_test_films(subsets: Mapping[str, Any], folder: Path) -> Path:
    """Write the subsets beside an empty `test.json` and return the folder."""
    nothing = {"images": [], "annotations": []}
    for name, dataset in {**subsets, "test": subsets["val"] | nothing}.items():
        write_json(folder / f"{name}.json", dataset)
    return folder


def _open(path: Path, name: str) -> optuna.Study:
    """The study called `name` in a journal, made where it is not there.

    Raises:
        InputError: the journal is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    path.parent.mkdir(parents=True, exist_ok=True)
    # What a killed process leaves: half a line, and the lock. Snakemake runs one job a network.
    if path.exists():
        whole = path.read_bytes().rpartition(b"\n")
        if whole[2]:
            write_bytes(path, whole[0] + whole[1])
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    try:
        return optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path)))),
            study_name=name,
            direction="maximize",
            load_if_exists=True,
        )
    except (ValueError, KeyError):
        raise InputError(
            f"{path} is damaged: remove it, which begins the search anew, and run again."
        ) from None


def _key(parameters: Mapping[str, Any], tuning: Mapping[str, Any], subsets: Any) -> str:
    """A digest of all that trials depend on; how many there are is not among it."""
    search = {name: value for name, value in tuning.items() if name != "trials"}
    films = [training_digest(subset) for subset in subsets.values()]
    text = json.dumps([parameters, search, films], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _seed(seed: int, trial: int) -> int:
    return int(np.random.SeedSequence((seed, trial)).generate_state(1)[0])


def _name(study: optuna.Study, number: int) -> str:
    return f"{study.study_name}-{number + 1}"


def _remove_others(folder: Path, study: optuna.Study) -> None:
    """Remove what is left of trials other than the one to go on with."""
    for path in folder.glob("*"):
        if path.name != _name(study, _finished(study)):
            shutil.rmtree(path)


def _finished(study: optuna.Study) -> int:
    return sum(trial.state.is_finished() for trial in study.trials)


def _interrupted(study: optuna.Study) -> Trial | None:
    """The trial that an earlier run did not finish."""
    last = study.trials[-1]
    return Trial(study, last._trial_id) if last.state == TrialState.RUNNING else None


def _draw(
    trial: Trial, distributions: Mapping[str, BaseDistribution], network: Mapping[str, Any]
) -> dict[str, Any]:
    """The trial's settings, drawn where that was not done before it was interrupted."""
    for name, distribution in distributions.items():
        if isinstance(distribution, FloatDistribution):
            trial.suggest_float(name, distribution.low, distribution.high, log=True)
        else:
            trial.suggest_categorical(name, distribution.choices)
    return _drawn(trial.params, network)


def _drawn(values: Mapping[str, Any], network: Mapping[str, Any]) -> dict[str, Any]:
    """What was drawn, with three digits where it is not the network's own value."""
    return {
        name: float(f"{value:.3g}") if name in _FACTORS and value != network[name] else value
        for name, value in values.items()
    }


def _rescaled(steps: int, own: Mapping[str, Any], changed: Mapping[str, Any]) -> int:
    """As many steps as see equally many films with the changed batch size."""
    if own["batch_size"] is None:
        return steps
    return max(1, round(steps * own["batch_size"] / changed["batch_size"]))


def _epochs(network: Mapping[str, Any]) -> int:
    if network["epoch_iterations"] is None:
        return _EPOCHS  # known to the training alone
    return round(network["iterations"] / network["epoch_iterations"])


def _table(model: str, study: optuna.Study, network: Mapping[str, Any]) -> pd.DataFrame:
    rows = []
    for trial in study.trials:
        if not trial.state.is_finished():
            continue
        failed = trial.user_attrs.get("failed")
        values = {name: network[name] for name in SEARCHED}
        values |= _drawn(trial.params, network)
        row = {
            "model": model,
            "trial": trial.number + 1,
            "state": "failed" if failed else _STATES[trial.state],
            "validation_dice": trial.user_attrs.get("dice"),
            "epochs": len(trial.intermediate_values),
            "seconds": trial.user_attrs.get("seconds"),
            "iterations": trial.user_attrs["iterations"],
            "winner": trial.number == study.best_trial.number,
            "reason": failed,
        }
        rows.append(row | values)
    return pd.DataFrame(rows)[list(COLUMNS)].astype(COLUMNS)
