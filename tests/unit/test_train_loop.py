"""The training loop: memory, losses that are no numbers, moving averages, an early end."""

from __future__ import annotations

import logging
import re
from functools import partial

import numpy as np
import pytest
import tiny_films
import torch
from hypothesis import given, strategies

from lumbarflow import files
from lumbarflow.errors import InputError
from lumbarflow.networks.semantic import SemanticNetwork
from lumbarflow.train import checkpoints, films, loop, processes, run
from lumbarflow.train.history import History

SIZE = 96, 64
log = logging.getLogger("lumbarflow.test")


def one_layer(settings):
    return torch.nn.Conv2d(1, 3, 3, padding="same")


class Small(SemanticNetwork):
    """One layer, no normalisation; `fails(step, films)` may raise in the place of a loss."""

    def __init__(self, fails=None):
        super().__init__(one_layer)
        self.fails, self.steps, self.seen = fails or never, 0, []

    def losses(self, module, batch, settings):
        self.steps += 1
        self.seen.append(len(batch[0]))
        self.fails(self.steps, len(batch[0]))
        # The Dice of a whole batch is not the mean of its parts'.
        return {"cross_entropy": super().losses(module, batch, settings)["cross_entropy"]}


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="module")
def subsets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    prepared, pictures = tiny_films.write(folder, train=4)
    return [
        films.load(prepared / "coco", prepared / "masks", pictures, name, SIZE, folder / "cache")
        for name in ("train", "val")
    ]


def fit(network, subsets, work, stop=None, **network_settings):
    """The best weights and the history of a training in `work`."""
    asked = {"iterations": 6, "batch_size": 4} | network_settings
    settings = run.make_settings(tiny_films.parameters(**asked), SIZE, subsets[0])
    work.mkdir(exist_ok=True)
    history = History(work / "history.jsonl", settings.epochs, log)
    return loop.fit(network, *subsets, settings, work, history, stop), history


def full(after, most):
    """A memory that holds `most` films, from the step `after` on."""

    def fails(step, count):
        if step > after and count > most:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    return fails


def equal(one, other, tolerance=0.0):
    return all(torch.allclose(one[name], other[name], atol=tolerance) for name in one)


@pytest.mark.parametrize("after", [0, 3])
def test_a_full_memory_makes_parts_with_the_gradient_of_the_whole(after, subsets, tmp_path, caplog):
    whole, history = fit(Small(), subsets, tmp_path / "whole")
    network = Small(full(after, 1))
    parts, in_parts = fit(network, subsets, tmp_path / "parts")
    assert "going on with 2 film(s) at a time" in caplog.text
    assert "going on with 1 film(s) at a time" in caplog.text
    assert set(network.seen[-8:]) == {1}
    assert equal(whole, parts, 1e-5)
    assert [row["loss"] for row in in_parts.rows] == pytest.approx(
        [row["loss"] for row in history.rows], abs=1e-4
    )


def test_a_resumed_training_remembers_what_fits(subsets, tmp_path):
    fit(Small(full(0, 2)), subsets, tmp_path, stop=lambda epoch, score: epoch == 1)
    network = Small(full(0, 2))
    fit(network, subsets, tmp_path)
    assert set(network.seen) == {2}


def test_a_film_that_does_not_fit_is_a_sentence(subsets, tmp_path):
    with pytest.raises(InputError, match=r"Not even 1 film\(s\) of 96 x 64 pixels fit the memory"):
        fit(Small(full(0, 0)), subsets, tmp_path)


def test_a_network_that_needs_two_films_gets_them(subsets, tmp_path):
    network = Small()
    network.smallest_batch = 2
    fit(network, subsets, tmp_path / "odd", batch_size=3)
    assert set(network.seen) == {3}
    network = Small(full(0, 2))
    network.smallest_batch = 2
    fit(network, subsets, tmp_path / "parts")
    assert set(network.seen[1:]) == {2}
    with pytest.raises(InputError, match="Not even 2"):
        network = Small(full(0, 1))
        network.smallest_batch = 2
        fit(network, subsets, tmp_path / "none")


def test_another_error_is_not_taken_for_a_full_memory(subsets, tmp_path):
    def fails(step, count):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        fit(Small(fails), subsets, tmp_path)


def test_a_loss_that_is_no_number_once_costs_an_epoch(subsets, tmp_path, caplog):
    def fails(step, count):
        if step == 4:  # in the second epoch
            raise FloatingPointError

    network = Small(fails)
    _, history = fit(network, subsets, tmp_path)
    assert "with 0.5 times the learning rate" in caplog.text
    assert [(row["epoch"], row["split"]) for row in history.rows] == [
        (epoch, split) for epoch in (1, 2, 3) for split in ("train", "val")
    ]
    assert network.steps == 2 + 2 + 2 + 2
    rates = [row["learning_rate"] for row in history.rows if row["split"] == "train"]
    _, plain = fit(Small(), subsets, tmp_path / "plain")
    usual = [row["learning_rate"] for row in plain.rows if row["split"] == "train"]
    assert np.divide(rates, usual) == pytest.approx([1, 0.5, 0.5], rel=1e-4)


def test_a_loss_that_stays_no_number_is_a_sentence(subsets, tmp_path, caplog):
    def fails(step, count):
        raise FloatingPointError

    network = Small(fails)
    with pytest.raises(InputError, match=r"no longer a number: lower networks\.<name>"):
        fit(network, subsets, tmp_path)
    assert network.steps == 4
    assert re.findall(r"with (\S+) times", caplog.text) == ["0.5", "0.25", "0.125"]


class Steep(Small):
    """The gradient of its second step is no number, though its loss is one."""

    def losses(self, module, batch, settings):
        found = super().losses(module, batch, settings)
        if self.steps == 2:
            found["steep"] = (0 * module.weight.sum()).sqrt()
        return found


def test_a_gradient_that_is_no_number_reaches_no_weights(subsets, tmp_path, caplog):
    weights, history = fit(Steep(), subsets, tmp_path)  # a checkpoint follows the second step
    assert "with 0.5 times the learning rate" in caplog.text
    assert all(value.isfinite().all() for value in weights.values())
    assert len(history.rows) == 6


def test_of_two_checkpoints_the_readable_one_counts(subsets, tmp_path, caplog):
    straight, whole = fit(Small(), subsets, tmp_path / "straight")
    work = tmp_path / "damaged"
    fit(Small(), subsets, work, stop=lambda epoch, score: epoch == 2)
    last = work / checkpoints.LAST
    last.write_bytes(last.read_bytes()[:1000])
    network = Small()
    again, history = fit(network, subsets, work)
    assert "is not readable" in caplog.text
    assert network.steps == 4  # the second epoch and the third
    assert equal(straight, again)
    assert [row["loss"] for row in history.rows] == [row["loss"] for row in whole.rows]


def test_a_training_can_be_stopped_early(subsets, tmp_path):
    asked = []
    _, history = fit(
        Small(), subsets, tmp_path, stop=lambda *said: asked.append(said) or len(asked) == 2
    )
    assert [epoch for epoch, _ in asked] == [1, 2]
    scores = [row["metrics"]["dice"] for row in history.rows if row["split"] == "val"]
    assert [score for _, score in asked] == pytest.approx(scores, abs=1e-6)


def test_the_average_is_kept_where_there_is_one(subsets, tmp_path):
    averaged, _ = fit(Small(), subsets, tmp_path / "average", moving_average=0.99)
    saved = checkpoints.latest(tmp_path / "average")
    present = saved["model"]
    assert not equal(averaged, present, 1e-6)
    plain, _ = fit(
        Small(), subsets, tmp_path / "plain", moving_average=0.0, stop=lambda epoch, score: True
    )
    assert equal(plain, checkpoints.latest(tmp_path / "plain")["model"])


@given(strategies.lists(strategies.floats(-10, 10), min_size=1, max_size=30))
def test_a_moving_average_stays_within_what_it_averages(values):
    average, count = [torch.tensor(values[0]), torch.tensor(0)], torch.tensor(0)
    for number, value in enumerate(values):
        loop._move(0.99, average, [torch.tensor(value), torch.tensor(number)], count + number)
        assert min(values[: number + 1]) - 1e-4 <= float(average[0]) <= max(values) + 1e-4
    assert int(average[1]) == len(values) - 1  # whole numbers are not averaged


@given(strategies.integers(1, 9), strategies.integers(1, 9), strategies.integers(1, 3))
def test_parts_hold_every_film_once(count, size, smallest):
    network = Small()
    network.smallest_batch = smallest
    network.collate = list
    parts = loop._in_parts(network, max(size, smallest), list(range(count)))
    assert [film for part, _ in parts for film in part] == list(range(count))
    assert sum(share for _, share in parts) == pytest.approx(1)
    assert all(len(part) >= min(smallest, count) for part, _ in parts)


def shared(data, work, count, **network_settings):
    """Train `Small` in `count` processes; the weights, and the rows of the history."""
    asked = tiny_films.parameters(iterations=6, batch_size=4, **network_settings)
    settings = run.make_settings(asked, SIZE, data()[0])
    work.mkdir()
    history = History(work / "history.jsonl", settings.epochs, log)
    job = partial(run._fit, Small(never), data, settings, work, history, None)
    return processes.run(count, job), checkpoints.latest(work)["history"]


def never(step, count):
    """Nothing fails."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    prepared, pictures = tiny_films.write(folder, train=4)
    return partial(run._subsets, prepared / "coco", prepared / "masks", pictures, SIZE, 1)


def test_two_processes_train_what_one_does(data, tmp_path):
    alone, history = shared(data, tmp_path / "one", 1)
    together, rows = shared(data, tmp_path / "two", 2)
    assert equal(alone, together, 1e-5)
    assert [(row["epoch"], row["split"]) for row in rows] == [
        (row["epoch"], row["split"]) for row in history
    ]
    assert [row["metrics"] for row in rows] == [row["metrics"] for row in history]


def test_a_batch_that_cannot_be_shared_is_a_sentence_from_the_processes(data, tmp_path):
    with pytest.raises(InputError, match="expected a multiple of 2, the number of GPUs, found 3"):
        processes.run(2, partial(shared_of_three, data, tmp_path))


def shared_of_three(data, work):
    settings = run.make_settings(tiny_films.parameters(batch_size=3), SIZE, data()[0])
    history = History(work / "history.jsonl", settings.epochs, log)
    return run._fit(Small(never), data, settings, work, history, None)


def test_a_full_memory_is_a_sentence_from_the_processes(data, tmp_path):
    with pytest.raises(InputError, match=r"2 film\(s\) of 96 x 64 pixels, the share of one GPU"):
        processes.run(2, partial(shared_without_memory, data, tmp_path))


def shared_without_memory(data, work):
    settings = run.make_settings(tiny_films.parameters(batch_size=4), SIZE, data()[0])
    history = History(work / "history.jsonl", settings.epochs, log)
    return run._fit(Small(full(0, 0)), data, settings, work, history, None)


def test_a_batch_that_is_found_can_be_shared(tmp_path, monkeypatch):
    monkeypatch.setattr(run.loop, "largest_batch", lambda *rest: 8)
    assert run._batch_size(tmp_path, None, None, None, 3) == 9
    assert run._batch_size(tmp_path, None, None, None, 2) == 9  # of the earlier run
