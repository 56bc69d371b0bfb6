"""The search for better settings: what is tried, interruptions, failures, the winner's file."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest
import tiny_films
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbarflow import files, networks
from lumbarflow.config import maxima, overlay, resolve
from lumbarflow.errors import InputError
from lumbarflow.files import read_json
from lumbarflow.networks.semantic import SemanticNetwork
from lumbarflow.train import tuning
from lumbarflow.train.strength import strengthened

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "workflow/schemas/config.schema.yaml"
PRESETS = ROOT / "config/presets"
SEARCH = {
    "learning_rate": [0.2, 5],
    "weight_decay": [0.1, 10],
    "moving_average": [0, 0.9995],
    "augmentation": [0.25, 2],
    "batch_size": [1, 2, 4],
}
TUNING = {"trials": 9, "iterations": 16, "seed": 1, "search": SEARCH}
BEST_RATE = 0.003
MAXIMA = maxima(SCHEMA, "training.augmentation")

log = logging.getLogger("lumbarflow.test")


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folders of COCO files, masks and pictures, without any test film."""
    prepared, pictures = tiny_films.write(tmp_path_factory.mktemp("data"))
    (prepared / "coco" / "test.json").write_text("not to be read")
    for folder in (prepared / "masks", pictures):
        (folder / "test0.png").unlink()
    return prepared / "coco", prepared / "masks", pictures


def parameters(**network):
    found = tiny_films.parameters(
        weight_decay=0.01, moving_average=0.99, augmentation=1, iterations=32, epoch_iterations=4
    )
    found["network"] |= network
    return found | {"maxima": MAXIMA}


class StandIn:
    """A training whose Dice is known: best at the rate `BEST_RATE`, rising epoch by epoch.

    Like the real one it goes on after its last epoch. Before the `interrupted`th epoch of a
    process it is interrupted as by Ctrl-C, or, with `kill`, killed.
    """

    def __init__(self, interrupted: int | None = None, kill: bool = False):
        self.left, self.kill = interrupted, kill
        self.trained: list[dict] = []

    def __call__(self, model, coco, masks, pictures, parameters, threads, outputs, work, log, stop):
        assert read_json(coco / "test.json")["images"] == []
        network = parameters["network"]
        self.trained.append(network)
        state = work / "checkpoint.json"
        rows = json.loads(state.read_text()) if state.exists() else []
        epochs = round(network["iterations"] / network["epoch_iterations"])
        for epoch in range(len(rows) + 1, epochs + 1):
            if self.left == 0:
                if self.kill:
                    os.kill(os.getpid(), signal.SIGKILL)
                raise KeyboardInterrupt
            self.left = self.left and self.left - 1
            rows.append(
                0.9 - 0.1 * abs(math.log(network["learning_rate"] / BEST_RATE)) - 0.3 / epoch
            )
            files.write_json(state, rows)
            if stop(epoch, rows[-1]):
                break
        return {"seconds": float(len(rows)), "best_validation_dice": round(max(rows), 6)}


def tune(data, work, monkeypatch, train=None, own=None, **changed):
    monkeypatch.setattr(tuning, "train", train or StandIn())
    search = overlay(TUNING, changed)
    return tuning.tune("unet", *data, own or parameters(), search, 1, work, log)


def same(first, second):
    """Whether two tables of trials are equal, times aside."""
    return first.drop(columns="seconds").equals(second.drop(columns="seconds"))


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """The trials of a search, and the folder that it worked in."""
    work = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        return tune(data, work, patch), work


# What is tried ---------------------------------------------------------------------------------

quick = settings(deadline=None)
positive = st.floats(1e-6, 1e3)
factors = st.none() | st.lists(st.floats(0.01, 100), min_size=2, max_size=2)
searches = st.fixed_dictionaries(
    {
        "learning_rate": factors,
        "weight_decay": factors,
        "augmentation": factors,
        "moving_average": st.none() | st.lists(st.floats(0, 0.999), min_size=1, max_size=4),
        "batch_size": st.none() | st.lists(st.integers(1, 64), min_size=1, max_size=4),
    }
)
own_settings = st.fixed_dictionaries(
    {
        "learning_rate": positive,
        "weight_decay": positive | st.just(0),
        "augmentation": positive | st.just(0),
        "moving_average": st.floats(0, 0.999),
        "batch_size": st.none() | st.integers(1, 64),
    }
)


@quick
@given(own_settings, searches, st.none() | st.integers(1, 4))
def test_the_own_value_is_always_among_what_is_searched(network, search, smallest_batch):
    space = tuning.search_space(network, search, smallest_batch)
    for name, distribution in space.items():
        assert search[name] is not None
        assert not distribution.single()
        assert distribution._contains(distribution.to_internal_repr(network[name]))
    if "batch_size" in space:
        others = {*space["batch_size"].choices} - {network["batch_size"]}
        assert others == {n for n in search["batch_size"] if n >= smallest_batch} - {
            network["batch_size"]
        }
    for name, wanted in search.items():
        if wanted is not None and network[name] and name != "batch_size":
            neutral = (
                1 if name in ("learning_rate", "weight_decay", "augmentation") else network[name]
            )
            assert (name in space) == any(value != neutral for value in wanted)


@quick
@given(st.integers(1, 500), st.integers(1, 64), st.integers(1, 64), st.integers(1, 300))
def test_trials_see_equally_many_films_whatever_their_batch(steps, own, drawn, films):
    before = parameters(batch_size=own, epoch_iterations=None)
    search = TUNING | {"iterations": steps}
    values = {"batch_size": drawn, "learning_rate": 0.5, "augmentation": 1}
    network = tuning.trial_parameters(before, values, search, films)["network"]
    assert abs(network["iterations"] * drawn - steps * own) <= max(drawn, drawn / 2)
    assert network["learning_rate"] == 0.5
    assert "augmentation" not in network
    epochs = round(network["iterations"] / network["epoch_iterations"])
    assert epochs >= min(8, network["iterations"])
    assert network["epoch_iterations"] >= 1


def test_a_trial_is_half_a_training_where_nothing_is_said():
    search = TUNING | {"iterations": None}
    network = tuning.trial_parameters(parameters(iterations=41), {}, search, 3)["network"]
    assert network["iterations"] == 21
    found = tuning.trial_parameters(parameters(batch_size=None), {"batch_size": None}, search, 3)
    assert found["network"]["iterations"] == 16


def test_nothing_but_settings_and_augmentation_changes():
    before = parameters() | {"films": "abc", "code": "def"}
    after = tuning.trial_parameters(before, {"augmentation": 2}, TUNING, 3)
    assert set(after) == set(before) - {"maxima"}
    assert {key: after[key] for key in ("classes", "foreground", "films", "code")} == {
        key: before[key] for key in ("classes", "foreground", "films", "code")
    }
    limits = after["training"]["augmentation"]
    assert limits["rotation_degrees"] == 2 * tiny_films.AUGMENTATION["rotation_degrees"]
    assert limits["flip_probability"] == tiny_films.AUGMENTATION["flip_probability"]
    assert before["training"]["augmentation"] == tiny_films.AUGMENTATION


@quick
@given(
    st.dictionaries(st.sampled_from("abc"), st.floats(0, 10)),
    st.floats(0, 5),
    st.dictionaries(st.sampled_from("abc"), st.floats(10, 20)),
)
def test_strength(limits, factor, highest):
    result = strengthened(limits, factor, highest)
    assert list(result) == list(limits)
    for name, limit in limits.items():
        assert result[name] == min(limit * factor, highest.get(name, math.inf))
    assert strengthened(limits, 1, highest) == limits


def test_maxima_are_those_of_the_schema():
    assert MAXIMA["rotation_degrees"] == 45
    assert MAXIMA["flip_probability"] == 1


# The search ------------------------------------------------------------------------------------


def test_the_search_finds_the_planted_optimum_and_ends_the_worse_early(undisturbed):
    trials, work = undisturbed
    assert trials["trial"].tolist() == list(range(1, TUNING["trials"] + 1))
    first, best = trials.iloc[0], trials[trials["winner"]].iloc[0]
    own = parameters()["network"]
    assert {name: first[name] for name in tuning.SEARCHED} == {
        name: own[name] for name in tuning.SEARCHED
    }
    assert trials["winner"].sum() == 1
    assert best["validation_dice"] == trials["validation_dice"].max() > first["validation_dice"]
    assert abs(math.log(best["learning_rate"] / BEST_RATE)) < abs(
        math.log(own["learning_rate"] / BEST_RATE)
    )
    stopped = trials[trials["state"] == "stopped"]
    assert len(stopped)
    assert not stopped["winner"].any()
    assert (stopped["epochs"] >= 2).all() and (stopped["epochs"] < 8).all()
    assert (trials.loc[trials["state"] == "complete", "epochs"] == 8).all()
    assert set(trials["state"]) == {"complete", "stopped"}
    assert trials["batch_size"].nunique() > 1
    assert set(trials["moving_average"]) == {0, 0.99, 0.9995}
    assert not list((work / "trials").iterdir())  # weights of trials are not kept


def test_columns(undisturbed):
    trials, _ = undisturbed
    assert trials.dtypes.astype(str).to_dict() == tuning.COLUMNS
    text = (ROOT / "docs/reference/results.md").read_text()
    section = re.search(r"^#+ tuning/trials\.parquet.*?\n(.*?)(?=^#|\Z)", text, re.M | re.S)
    assert re.findall(r"^\| `(\w+)` \|", section[1], re.MULTILINE) == list(tuning.COLUMNS)


def test_a_search_interrupted_again_and_again_ends_as_one_that_was_not(
    undisturbed, data, tmp_path, monkeypatch
):
    interruptions = 0
    while True:
        try:
            trials = tune(data, tmp_path, monkeypatch, StandIn(interrupted=5))
            break
        except KeyboardInterrupt:
            interruptions += 1
    assert interruptions > 5
    assert same(trials, undisturbed[0])


def test_a_killed_search_goes_on(undisturbed, data, tmp_path, monkeypatch):
    child = os.fork()
    if child == 0:
        try:
            tune(data, tmp_path, monkeypatch, StandIn(interrupted=20, kill=True))
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    # Killed while it wrote, it leaves half a line and a lock as well.
    journal = tmp_path / "study.journal"
    with journal.open("ab") as handle:
        handle.write(b'{"op_code": 4, "worker')
    (tmp_path / "study.journal.lock").touch()
    stand_in = StandIn()
    trials = tune(data, tmp_path, monkeypatch, stand_in)
    assert same(trials, undisturbed[0])
    assert 0 < len(stand_in.trained) < TUNING["trials"]


def test_a_trial_killed_after_its_last_report_is_not_trained_on(
    undisturbed, data, tmp_path, monkeypatch
):
    tell = tuning.optuna.Study.tell

    def killed(study, trial, values=None, state=None):
        if state is not None:
            raise KeyboardInterrupt
        return tell(study, trial, values)

    with monkeypatch.context() as patch:
        patch.setattr(tuning.optuna.Study, "tell", killed)
        with pytest.raises(KeyboardInterrupt):
            tune(data, tmp_path, monkeypatch)
    stand_in = StandIn()
    assert same(tune(data, tmp_path, monkeypatch, stand_in), undisturbed[0])
    ended = (undisturbed[0]["state"] == "stopped").idxmax()
    assert len(stand_in.trained) == TUNING["trials"] - ended - 1


def test_more_trials_go_on_and_a_finished_search_has_nothing_to_do(
    undisturbed, data, tmp_path, monkeypatch
):
    few = tune(data, tmp_path, monkeypatch, trials=4)
    whole = tune(data, tmp_path, monkeypatch)
    assert same(few.drop(columns="winner"), whole.drop(columns="winner").iloc[:4])
    assert same(whole, undisturbed[0])
    stand_in = StandIn()
    assert same(tune(data, tmp_path, monkeypatch, stand_in), whole)
    assert not stand_in.trained


@pytest.mark.parametrize("change", ["settings", "search", "films", "seed"])
def test_a_changed_search_starts_anew(change, data, tmp_path, monkeypatch):
    coco = shutil.copytree(data[0], tmp_path / "coco")
    data = (coco, *data[1:])
    tune(data, tmp_path, monkeypatch, trials=2)
    own, changed = None, {}
    if change == "settings":
        own = parameters(width=9)
    elif change == "search":
        changed = {"search": {"moving_average": None}}
    elif change == "seed":
        changed = {"seed": 2}
    else:
        content = read_json(coco / "val.json")
        content["annotations"][0]["segmentation"][0][0] += 1
        files.write_json(coco / "val.json", content)
    stand_in = StandIn()
    trials = tune(data, tmp_path, monkeypatch, stand_in, own, trials=2, **changed)
    assert len(trials) == len(stand_in.trained) == 2
    again = StandIn()
    tune(data, tmp_path, monkeypatch, again, own, trials=2, **changed)
    assert not again.trained


class Failing(StandIn):
    """A training that fails in its `at`th run."""

    def __init__(self, at: int, cause: Exception | None = None):
        super().__init__()
        self.at, self.cause = at, cause

    def __call__(self, *arguments):
        if len(self.trained) == self.at:
            self.trained.append({})
            raise InputError("The loss is no number: lower the rate.") from self.cause
        return super().__call__(*arguments)


def test_a_trial_that_fails_is_passed_over(data, tmp_path, monkeypatch):
    trials = tune(data, tmp_path, monkeypatch, Failing(at=2), trials=4)
    assert trials["state"].tolist()[2] == "failed"
    assert trials["reason"].tolist()[2] == "The loss is no number: lower the rate."
    assert trials["reason"].isna().sum() == 3
    assert not trials["winner"][2]
    tuning.write_winner(tmp_path / "unet.yaml", trials, parameters()["network"], 2)
    assert "1 failed" in (tmp_path / "unet.yaml").read_text()


@pytest.mark.parametrize(("at", "cause"), [(0, None), (2, OSError("full"))])
def test_bad_input_and_a_full_disk_end_the_search(at, cause, data, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="no number"):
        tune(data, tmp_path, monkeypatch, Failing(at, cause), trials=4)
    stand_in = StandIn()
    trials = tune(data, tmp_path, monkeypatch, stand_in, trials=4)
    assert len(stand_in.trained) == 4 - at
    assert "failed" not in set(trials["state"])


def test_a_damaged_journal_is_told(data, tmp_path, monkeypatch):
    tune(data, tmp_path, monkeypatch, trials=1)
    journal = tmp_path / "study.journal"
    journal.write_bytes(b"\x00\xff broken\n" + journal.read_bytes())
    with pytest.raises(InputError, match=r"study\.journal is damaged: remove it"):
        tune(data, tmp_path, monkeypatch, trials=1)


def test_nothing_to_search_is_told(data, tmp_path, monkeypatch):
    nothing = dict.fromkeys(tuning.SEARCHED)
    with pytest.raises(InputError, match=r"tuning\.search: leaves nothing .* networks\.unet"):
        tune(data, tmp_path, monkeypatch, search=nothing)


def test_batch_sizes_of_detectors_stay(data, tmp_path, monkeypatch):
    monkeypatch.setattr(networks, "load", lambda name: object())
    trials = tune(data, tmp_path, monkeypatch, trials=6)
    assert set(trials["batch_size"]) == {parameters()["network"]["batch_size"]}


def test_a_real_training_reads_no_test_film(data, tmp_path, monkeypatch):
    """`data` has none, and its test.json is unreadable."""
    network = SemanticNetwork(
        lambda settings: torch.nn.Conv2d(1, len(settings.classes), 3, padding="same")
    )
    monkeypatch.setattr(networks, "load", lambda name: network)
    own = tiny_films.parameters(augmentation=1) | {"maxima": {}}
    search = TUNING | {"trials": 2, "iterations": 2}
    before = torch.get_num_threads()
    trials = tuning.tune("unet", *data, own, search, 1, tmp_path, log)
    torch.set_num_threads(before)
    assert trials["validation_dice"].between(0, 1).all()
    assert (trials["epochs"] == trials["iterations"]).all()
    assert trials["seconds"].notna().all()  # in tenths: 0.0 is as good as any


# The winner ------------------------------------------------------------------------------------


def test_the_winner_is_a_configuration_to_lay_over(undisturbed, tmp_path):
    trials, _ = undisturbed
    best = trials[trials["winner"]].iloc[0]
    own = parameters()["network"]
    tuning.write_winner(tmp_path / "unet.yaml", trials, own, 2)
    text = (tmp_path / "unet.yaml").read_text()
    found = yaml.safe_load(text)
    assert list(found) == ["networks"] and list(found["networks"]) == ["unet"]
    winner = found["networks"]["unet"]
    for name in tuning.SEARCHED:
        assert winner[name] == best[name]
    assert f"{best['validation_dice']:.4f} in trial {best['trial']}" in text
    assert f"{trials['validation_dice'][0]:.4f} with the settings before" in text
    assert "mean over 2 films" in text
    known = yaml.safe_load(SCHEMA.read_text())["$defs"]["network"]["properties"]
    user = {"networks": {"unet": {name: value for name, value in winner.items() if name in known}}}
    before = resolve({}, SCHEMA, PRESETS, networks.available())
    after = resolve(user, SCHEMA, PRESETS, networks.available())
    assert after == overlay(before, user) != before


def test_present_settings_that_win_are_written_as_they_stand(data, tmp_path, monkeypatch):
    own = parameters(learning_rate=BEST_RATE)
    trials = tune(data, tmp_path, monkeypatch, own=own, trials=3)
    assert trials["winner"][0]
    tuning.write_winner(tmp_path / "unet.yaml", trials, own["network"], 1)
    winner = yaml.safe_load((tmp_path / "unet.yaml").read_text())["networks"]["unet"]
    assert set(winner) <= set(tuning.SEARCHED)
    assert repr(winner) == repr({name: own["network"][name] for name in winner})


def test_a_winner_with_larger_batches_sees_as_many_films(tmp_path):
    own = parameters(batch_size=2, iterations=32, epoch_iterations=4)["network"]
    row = dict.fromkeys(tuning.COLUMNS, 1) | {"model": "unet", "state": "complete"}
    trials = pd.DataFrame(
        [row | {"winner": False, "batch_size": 2}, row | {"winner": True, "batch_size": 4}]
    )
    for epoch, expected in ((4, {"epoch_iterations": 2}), (None, {})):
        path = tmp_path / "unet.yaml"
        tuning.write_winner(path, trials, own | {"epoch_iterations": epoch}, 1)
        winner = yaml.safe_load(path.read_text())["networks"]["unet"]
        assert winner == {"batch_size": 4, "iterations": 16} | expected
