"""The five networks: training, resumption, damaged checkpoints, prediction, a sixth one."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import hypothesis
import numpy as np
import pytest
import tiny_films
import torch
import yaml
from hypothesis import strategies
from mmdet.models.dense_heads import YOLACTProtonet
from mmengine.structures import InstanceData

from lumbarflow import files, networks
from lumbarflow.config import resolve
from lumbarflow.errors import InputError
from lumbarflow.files import read_grey
from lumbarflow.networks import detection, mask_rcnn, semantic
from lumbarflow.networks.base import Settings
from lumbarflow.predict.table import predict
from lumbarflow.train import checkpoints, loop, run
from lumbarflow.train.films import Polygon, load, scale_points
from lumbarflow.train.history import History

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "workflow" / "scripts" / "lumbarflow"
SEMANTIC = ["deeplabv3", "pspnet", "unet"]
DETECTION = ["mask_rcnn", "yolact"]
ALL = sorted(SEMANTIC + DETECTION)
THREADS = 1  # more cost more than they bring where films are this small
THRESHOLDS = {"probability_threshold": 0.3, "minimum_area": 0.0, "score_threshold": 0.0}
# A backbone of 18 layers, four epochs of two steps.
FOUR_EPOCHS = {"iterations": 8}

log = logging.getLogger("lumbarflow.test")


class Interrupted(History):
    """A history that is interrupted, as by Ctrl+C, when it is given the row named `at`."""

    at = 3, "train"

    def add(self, epoch, split, *rest, **named):
        if (epoch, split) == self.at:
            raise KeyboardInterrupt
        super().add(epoch, split, *rest, **named)


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.os, "fsync", lambda handle: None)
        yield


@pytest.fixture(autouse=True)
def no_checkpoints_left(tmp_path):
    """Checkpoints of real backbones are 180 MB each, and pytest keeps folders of three runs."""
    yield
    shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)


@pytest.fixture(autouse=True, scope="module")
def threads_of_the_others():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def small(monkeypatch):
    """A semantic network of one layer, `small`, for what all of them share."""
    network = semantic.SemanticNetwork(
        lambda settings: torch.nn.Conv2d(1, len(settings.classes), 3, padding="same")
    )
    load_network = networks.load
    monkeypatch.setattr(
        networks, "load", lambda name: network if name == "small" else load_network(name)
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return folders(tmp_path_factory.mktemp("data"))


def folders(folder, **films):
    """Folders of COCO files, masks and pictures of tiny films."""
    prepared, pictures = tiny_films.write(folder, **films)
    return prepared / "coco", prepared / "masks", pictures


def train(model, data, folder, **network):
    """Train in `folder`; return the rows of the history."""
    return train_with(tiny_films.parameters(**network), model, data, folder)


def train_with(parameters, model, data, folder):
    outputs = {
        "weights": folder / "model.pth",
        "history": folder / "history.jsonl",
        "record": folder / "run.json",
    }
    run.train(model, *data, parameters, THREADS, outputs, folder / "checkpoints", log)
    return rows(outputs["history"])


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def untimed(history):
    return [(row["epoch"], row["split"], row["loss"], row["metrics"]) for row in history]


def interrupt(model, data, folder, monkeypatch, at=(3, "train"), **network):
    """Train until `at` in the history, then stop; return the folder with the checkpoints."""
    with monkeypatch.context() as patch:
        patch.setattr(run, "History", type("Stopped", (Interrupted,), {"at": at}))
        with pytest.raises(KeyboardInterrupt):
            train(model, data, folder, **network)
    return max((folder / "checkpoints").iterdir(), key=lambda path: path.stat().st_mtime_ns)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A function that gives the folder of a network trained for four epochs, made once."""
    folders = {}

    def folder_of(model):
        if model not in folders:
            folder = tmp_path_factory.mktemp(model)
            train(model, data, folder, **FOUR_EPOCHS)
            shutil.rmtree(folder / "checkpoints")
            folders[model] = folder
        return folders[model]

    return folder_of


def test_the_five_networks_are_there():
    assert networks.available() == ALL


@pytest.mark.parametrize("model", ALL)
def test_training(model, trained):
    folder = trained(model)
    history = rows(folder / "history.jsonl")
    assert [(row["epoch"], row["split"]) for row in history] == [
        (epoch, split) for epoch in (1, 2, 3, 4) for split in ("train", "val")
    ]
    for row in history:
        assert row["seconds"] > 0
        assert row["images_per_second"] > 0
        if row["split"] == "train":
            assert np.isfinite(row["loss"])
            assert row["metrics"] == {}
        else:
            assert row["loss"] is None or np.isfinite(row["loss"])
            assert 0 <= row["metrics"]["dice"] <= 1
    record = json.loads((folder / "run.json").read_text())
    scores = {row["epoch"]: row["metrics"]["dice"] for row in history if row["split"] == "val"}
    assert record["best_validation_dice"] == scores[record["best_epoch"]] == max(scores.values())
    assert record["epochs"] == 4
    assert record["iterations"] == 8
    assert sorted(file.name for file in folder.iterdir()) == [
        "history.jsonl",
        "model.pth",
        "run.json",
        "tensorboard",
    ]


@pytest.mark.parametrize("model", ALL)
def test_weights_are_read_back(model, trained):
    settings, state, _ = run.read_weights(trained(model) / "model.pth")
    assert settings == Settings(
        classes=tiny_films.CLASSES,
        foreground=["lumbar_vertebra", "sacral_vertebra"],
        backbone="resnet18",
        width=8,
        weights=None,
        size=(96, 64),
        iterations=8,
        epoch_iterations=2,
        batch_size=2,
        learning_rate=0.001,
        weight_decay=0.01,
        moving_average=0.9,
        seed=3,
        augmentation=tiny_films.AUGMENTATION,
        normalisation=settings.normalisation,
        anchors=settings.anchors,
    )
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    assert all(torch.isfinite(value).all() for value in state.values())
    record = json.loads((trained(model) / "run.json").read_text())
    assert record["parameters"] > 100_000


@pytest.mark.parametrize("model", ALL)
def test_prediction(model, trained, data):
    settings, state, _ = run.read_weights(trained(model) / "model.pth")
    film = read_grey(data[2] / "test0.png")
    films = [("test0", film), ("wide", np.ascontiguousarray(film.T)), ("black", film * 0)]
    found = dict(networks.load(model).predict(state, iter(films), settings, THRESHOLDS))
    assert list(found) == ["test0", "wide", "black"]
    assert found["test0"]  # at thresholds this low, even a network that has learnt little
    for image_id, film in films:
        for instance in found[image_id]:
            assert instance.mask.shape == film.shape
            assert instance.mask.dtype == bool
            assert instance.mask.any()
            assert 0 <= instance.score <= 1
            assert instance.class_name in tiny_films.CLASSES


def test_prediction_as_a_table(trained, data):
    table = predict(
        "unet", trained("unet") / "model.pth", ["test0"], data[2], THRESHOLDS, THREADS, log
    )
    assert len(table) > 0
    assert set(table["rle_height"]) == {tiny_films.FILM[0]}
    assert set(table["rle_width"]) == {tiny_films.FILM[1]}


@pytest.mark.parametrize("model", ALL)
def test_a_network_computes_in_a_memory_format_that_it_can(model, data, tmp_path):
    """RoIAlign, for one, reads a tensor in channels-last order as if it were another."""
    network = networks.load(model)
    films = load(*data, "train", (96, 64), tmp_path)
    settings = run.make_settings(tiny_films.parameters(), (96, 64), films)
    settings = replace(settings, anchors=network.anchors(films, settings, None))
    examples = [network.example(films, index, None, settings=settings) for index in (0, 1)]
    found = []
    for memory_format in (torch.contiguous_format, network.memory_format):
        torch.manual_seed(1)
        module = network.build(settings, initialise=True).to(memory_format=memory_format).train()
        for part in module.modules():
            if isinstance(part, torch.nn.modules.dropout._DropoutNd):
                part.eval()  # drawn in the order of the memory
        with torch.no_grad():
            losses = network.losses(module, network.collate(examples), settings)
        found.append({name: float(value) for name, value in losses.items()})
    assert found[0] == pytest.approx(found[1], rel=1e-3)


@pytest.mark.usefixtures("small")
def test_the_seed_alone_decides(data, tmp_path):
    def history(name, seed):
        parameters = tiny_films.parameters()
        parameters["training"]["seed"] = seed
        return untimed(train_with(parameters, "small", data, tmp_path / name))

    assert history("first", 3) == history("again", 3) != history("other", 4)


# The uninterrupted training is another one: that both agree shows that the seed decides, too.
@pytest.mark.parametrize("model", ALL)
def test_an_interrupted_training_goes_on(model, trained, data, tmp_path, monkeypatch, caplog):
    interrupt(model, data, tmp_path, monkeypatch, **FOUR_EPOCHS)
    with caplog.at_level(logging.INFO):
        history = train(model, data, tmp_path, **FOUR_EPOCHS)
    assert "going on after epoch 2 of 4" in caplog.messages
    assert untimed(history) == untimed(rows(trained(model) / "history.jsonl"))
    resumed, straight = (
        run.read_weights(folder / "model.pth")[1] for folder in (tmp_path, trained(model))
    )
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("model", ["small", "yolact"])
def test_an_epoch_that_was_not_validated_is_done_again(model, data, tmp_path, monkeypatch):
    interrupt(model, data, tmp_path, monkeypatch, at=(2, "val"))
    history = train(model, data, tmp_path)
    assert [(row["epoch"], row["split"]) for row in history] == [
        (epoch, split) for epoch in (1, 2) for split in ("train", "val")
    ]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("model", ["small", "yolact"])
def test_the_best_epoch_may_lie_before_the_interruption(model, data, tmp_path, monkeypatch):
    scores = iter([0.3, 0.9, 0.2, 0.1])
    for family in (semantic.SemanticNetwork, detection.DetectionNetwork):
        monkeypatch.setattr(family, "validate", lambda *_: (1.0, next(scores)))
    kept = interrupt(model, data, tmp_path, monkeypatch, **FOUR_EPOCHS)
    second = torch.load(kept / "last.pth", weights_only=True)["average"]
    train(model, data, tmp_path, **FOUR_EPOCHS)
    record = json.loads((tmp_path / "run.json").read_text())
    assert (record["best_epoch"], record["best_validation_dice"]) == (2, 0.9)
    state = run.read_weights(tmp_path / "model.pth")[1]
    assert all(torch.equal(state[name], second[f"module.{name}"]) for name in state)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("model", ["small", "yolact"])
def test_a_finished_training_is_taken_from_its_checkpoint(model, data, tmp_path):
    first = train(model, data, tmp_path)
    weights = run.read_weights(tmp_path / "model.pth")[1]
    (tmp_path / "model.pth").unlink()
    assert train(model, data, tmp_path) == first  # to the second
    again = run.read_weights(tmp_path / "model.pth")[1]
    assert all(torch.equal(again[name], weights[name]) for name in weights)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("model", ["small", "yolact"])
def test_a_damaged_checkpoint_is_passed_over(model, data, tmp_path, monkeypatch, caplog):
    last = interrupt(model, data, tmp_path, monkeypatch, at=(2, "train")) / "last.pth"
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    history = train(model, data, tmp_path)
    assert f"the checkpoint {last} is not readable: doing without it" in caplog.messages
    assert [row["epoch"] for row in history] == [1, 1, 2, 2]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "last.pth"
    checkpoints.save(path, {"model": {"weight": torch.arange(300.0)}, "epoch": 2})
    return path


def test_a_checkpoint_comes_back(checkpoint, tmp_path):
    content = checkpoints.load(checkpoint)
    assert content["epoch"] == 2
    assert torch.equal(content["model"]["weight"], torch.arange(300.0))
    assert checkpoints.load(tmp_path / "none.pth") is None


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(strategies.data())
def test_no_damage_to_a_checkpoint_is_an_error(checkpoint, tmp_path_factory, data):
    whole = checkpoint.read_bytes()
    length = data.draw(strategies.integers(0, len(whole) - 1))
    place = whole.index(torch.arange(300.0).numpy().tobytes()) + length % 1200
    for damaged in (
        whole[:length],
        whole[length + 1 :],
        data.draw(strategies.binary(max_size=40)),
        whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
    ):
        path = tmp_path_factory.getbasetemp() / "damaged.pth"
        path.write_bytes(damaged)
        assert checkpoints.load(path) is None


@pytest.mark.usefixtures("small")
def test_a_changed_parameter_starts_anew(data, tmp_path, monkeypatch, caplog):
    old = interrupt("small", data, tmp_path, monkeypatch, at=(2, "train"))
    with caplog.at_level(logging.INFO):
        train("small", data, tmp_path, learning_rate=0.002)
        assert not any("going on" in message for message in caplog.messages)
        assert old.exists()  # the latest of the others: the change may be taken back
        train("small", data, tmp_path, learning_rate=0.003)
        assert not any("going on" in message for message in caplog.messages)
    assert not old.exists()
    assert len(list((tmp_path / "checkpoints").glob("*/"))) == 2


@pytest.mark.usefixtures("small")
def test_changed_annotations_start_anew(tmp_path, monkeypatch):
    data = folders(tmp_path / "data")
    old = interrupt("small", data, tmp_path, monkeypatch, at=(2, "train"))
    data = folders(tmp_path / "data", train=4)
    assert interrupt("small", data, tmp_path, monkeypatch, at=(1, "train")) != old


@pytest.mark.parametrize("model", DETECTION)
def test_films_without_a_structure_train_as_well(model, tmp_path):
    data = folders(tmp_path / "data", train=2, bare=True)
    assert len(train(model, data, tmp_path, iterations=2)) == 2


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("model", ["small", "mask_rcnn"])
def test_a_loss_that_is_no_number_is_a_sentence(model, data, tmp_path):
    with pytest.raises(InputError, match=r"no longer a number: lower networks\.<name>"):
        train(model, data, tmp_path, learning_rate=1e30, iterations=40)


def test_a_batch_of_one_is_a_sentence_where_it_cannot_be_normalised(data, tmp_path):
    with pytest.raises(InputError, match=r"deeplabv3\.batch_size: expected at least 2"):
        train("deeplabv3", data, tmp_path, batch_size=1)


@pytest.mark.parametrize("model", ["pspnet", "unet"])
def test_a_batch_of_one_trains(model, data, tmp_path):
    assert len(train(model, data, tmp_path, batch_size=1, iterations=2)) == 2


@pytest.mark.usefixtures("small")
def test_the_canvas_and_the_epoch_are_chosen_where_none_is_given(data, tmp_path):
    history = train("small", data, tmp_path, size=None, epoch_iterations=None, iterations=2)
    settings, *_ = run.read_weights(tmp_path / "model.pth")
    assert settings.size == (160, 96)
    assert settings.epoch_iterations == 1  # three films, two a step
    assert [row["epoch"] for row in history] == [1, 1, 2, 2]


@pytest.mark.usefixtures("small")
def test_the_batch_is_chosen_once_where_none_is_given(data, tmp_path, monkeypatch):
    def resume(found):
        monkeypatch.setattr(loop, "largest_batch", lambda *_: found)
        return interrupt("small", data, tmp_path, monkeypatch, at, batch_size=None, iterations=6)

    at = 2, "train"
    resume(3)
    at = 3, "train"
    resume(2)  # another machine: what was begun goes on
    train("small", data, tmp_path, batch_size=None, iterations=6)
    assert run.read_weights(tmp_path / "model.pth").settings.batch_size == 3


def test_the_losses_of_yolact_are_of_full_precision(monkeypatch):
    seen = []

    def loss_by_feat(self, mask_preds, segm_preds, **others):
        types = {tensor.dtype for tensor in (*mask_preds, segm_preds)}
        seen.append((types, torch.is_autocast_enabled("cpu"), others))
        return {}

    monkeypatch.setattr(YOLACTProtonet, "loss_by_feat", loss_by_feat)
    settings = Settings(
        classes=["a", "b"],
        foreground=["a"],
        seed=1,
        augmentation={},
        normalisation=(128.0, 64.0),
        **tiny_films.parameters()["network"],
    )
    head = networks.load("yolact").build(settings).mask_head
    half = torch.ones(1, 2, 4, 4, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        head.loss_by_feat([half[0]], half, batch_img_metas=[])
    assert seen == [({torch.float32}, False, {"batch_img_metas": []})]


def test_operators_for_the_cpu_alone_are_a_sentence_on_a_gpu(data, tmp_path, monkeypatch):
    monkeypatch.setattr(mask_rcnn, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(mask_rcnn, "get_compiling_cuda_version", lambda: "not available")
    with pytest.raises(InputError, match="mmcv was built for the CPU alone"):
        train("mask_rcnn", data, tmp_path)


def test_targets_of_a_detector_cover_what_the_masks_do(data, tmp_path):
    films = load(*data, "train", (160, 96), tmp_path)
    for bits, polygons in zip(films.bits, films.polygons, strict=True):
        contours = [(polygon.class_index, polygon.points) for polygon in polygons]
        truth = detection._truth(contours, bits.shape)
        assert truth.labels.tolist() == [polygon.class_index for polygon in polygons]
        drawn = np.zeros_like(bits)
        for label, mask in zip(truth.labels.tolist(), truth.masks.masks, strict=True):
            drawn |= mask << label
        assert (drawn == bits).mean() > 0.99
        for box, mask in zip(truth.bboxes.tolist(), truth.masks.masks, strict=True):
            x, y, width, height = cv2.boundingRect(mask)
            assert box == [x, y, x + width, y + height]


def test_a_detector_gets_a_threshold_for_each_class(data, tmp_path, monkeypatch):
    films = load(*data, "val", (160, 96), tmp_path)
    settings = run.make_settings(tiny_films.parameters(), (160, 96), films)
    bits = torch.from_numpy(np.array(films.bits))
    first, second = (bits & 1).bool(), (bits >> 1 & 1).bool()

    def found(self, module, films, settings):
        """Of the first class what is wrong scores 0.4; of the second what is right scores 0.2."""
        return [
            InstanceData(
                labels=torch.tensor([0, 0, 1]),
                scores=torch.tensor([0.9, 0.4, 0.2]),
                masks=torch.stack([first[k], ~first[k], second[k]]),
            )
            for k in range(len(films))
        ]

    monkeypatch.setattr(detection.DetectionNetwork, "_found", found)
    chosen = networks.load("yolact").choose(torch.nn.Identity(), films, settings)
    one, two, three = chosen["score_threshold"]
    assert 0.4 < one <= 0.9
    assert two <= 0.2
    assert three == 0.3  # nothing was found of it, at any score


def test_targets_of_a_detector_without_thin_objects():
    line = Polygon(0, scale_points(np.array([[3.0, 3], [30, 3], [30, 4], [3, 4]]), 1))
    outside = Polygon(1, np.array([[-9.0, -9], [-3, -9], [-3, -3]]))
    hidden = Polygon(1, np.zeros((0, 2)))  # behind a shutter
    drawn = [(p.class_index, p.points) for p in (line, outside, hidden)]
    truth = detection._truth(drawn, (32, 64))
    assert truth.bboxes.shape == (0, 4)
    assert truth.masks.masks.shape == (0, 32, 64)


def annotations_changed(data, folder):
    """A copy of the prepared films of which one training film is annotated otherwise."""
    coco = folder / "changed"
    shutil.copytree(data[0], coco)
    path = coco / "train.json"
    content = files.read_json(path)
    content["annotations"][0]["segmentation"][0][0] += 2
    files.write_json(path, content)
    return coco, *data[1:]


CONTINUING = tiny_films.parameters() | {"continue_from_previous": True}


def test_a_changed_training_continues_from_the_previous_weights(
    small, data, tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.INFO)
    plain = train("small", data, tmp_path)
    first = run.read_weights(tmp_path / "model.pth")[1]
    assert train_with(CONTINUING, "small", data, tmp_path) == plain  # nothing has changed
    assert "starting from the previous weights" not in caplog.text
    begun = []
    keep = torch.nn.Module.load_state_dict
    monkeypatch.setattr(
        torch.nn.Module,
        "load_state_dict",
        lambda module, state: (begun.append(state), keep(module, state))[1],
    )
    changed = annotations_changed(data, tmp_path)
    train_with(CONTINUING, "small", changed, tmp_path)
    assert "starting from the previous weights" in caplog.text
    assert all(torch.equal(begun[0][name], value) for name, value in first.items())
    assert json.loads((tmp_path / "run.json").read_text())["continued_from_previous"]
    second = (tmp_path / "history.jsonl").read_text()
    # As after a stop between the end of the training and that of its job.
    train_with(CONTINUING, "small", changed, tmp_path)
    assert (tmp_path / "history.jsonl").read_text() == second


def test_without_the_wish_a_changed_training_starts_anew(small, data, tmp_path):
    train("small", data, tmp_path / "one")
    changed = annotations_changed(data, tmp_path)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "checkpoints")

    def losses(folder):
        return [(row["split"], row["loss"]) for row in train("small", changed, folder)]

    assert losses(tmp_path / "one") == losses(tmp_path / "two")


@pytest.mark.parametrize(
    ("subset", "seen", "said"),
    [
        ("test", "train0", "present test subset"),
        ("test", "val0", "present test subset"),
        ("val", "train0", "present validation subset"),
    ],
)
def test_weights_that_have_seen_the_films_are_not_continued(
    small, data, tmp_path, caplog, subset, seen, said
):
    train("small", data, tmp_path)
    changed = annotations_changed(data, tmp_path)
    path = changed[0] / f"{subset}.json"
    content = files.read_json(path)
    content["images"][0]["patient_id"] = seen  # of the film of that patient
    files.write_json(path, content)
    train_with(CONTINUING, "small", changed, tmp_path)
    assert said in caplog.text
    assert not json.loads((tmp_path / "run.json").read_text())["continued_from_previous"]


def test_films_stay_seen_over_several_trainings(small, data, tmp_path, caplog):
    train("small", data, tmp_path)
    changed = annotations_changed(data, tmp_path)
    path = changed[0] / "train.json"
    content = files.read_json(path)
    content["images"] = content["images"][1:]  # the first film has no annotation any more
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    files.write_json(path, content)
    train_with(CONTINUING, "small", changed, tmp_path)
    assert not caplog.text.count("not continuing")
    test = files.read_json(changed[0] / "test.json")
    test["images"][0]["image_id"] = "train0"
    files.write_json(changed[0] / "test.json", test)
    content["annotations"][0]["segmentation"][0][0] += 1
    files.write_json(path, content)
    train_with(CONTINUING, "small", changed, tmp_path)
    assert "present test subset" in caplog.text


def test_weights_of_another_shape_are_not_continued(data, tmp_path, caplog, monkeypatch):
    def set_side(side):
        network = semantic.SemanticNetwork(
            lambda settings: torch.nn.Conv2d(1, len(settings.classes), side, padding="same")
        )
        monkeypatch.setattr(networks, "load", lambda name: network)

    set_side(3)
    train("small", data, tmp_path)
    set_side(5)
    train_with(CONTINUING, "small", annotations_changed(data, tmp_path), tmp_path)
    assert "do not fit the network" in caplog.text


SIXTH = '''"""A sixth network: one layer."""

from torch import nn

from .base import Settings
from .semantic import SemanticNetwork


def _build(settings: Settings) -> nn.Module:
    return nn.Conv2d(1, len(settings.classes), settings.width | 1, padding="same")


NETWORK = SemanticNetwork(_build)
'''

TRAIN_SIXTH = """
import logging, sys
from pathlib import Path
import tiny_films
from lumbarflow import networks
from lumbarflow.train.run import train

assert Path(networks.__file__).is_relative_to(sys.argv[1])
folder = Path(sys.argv[2])
outputs = {name: folder / name for name in ("weights", "history", "record")}
prepared, pictures = tiny_films.write(folder)
train("one_layer", prepared / "coco", prepared / "masks", pictures, tiny_films.parameters(), 1,
      outputs, folder / "checkpoints", logging.getLogger())
print(",".join(networks.available()))
"""


def test_a_sixth_network_is_one_file_and_one_entry(tmp_path):
    scripts = tmp_path / "scripts"
    shutil.copytree(PACKAGE, scripts / "lumbarflow")
    (scripts / "lumbarflow" / "networks" / "one_layer.py").write_text(SIXTH)
    environment = {"PYTHONPATH": f"{scripts}:{ROOT / 'tests'}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", TRAIN_SIXTH, str(scripts), str(tmp_path / "results")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    known = done.stdout.strip().split(",")
    assert known == sorted([*ALL, "one_layer"])
    assert len(rows(tmp_path / "results" / "history")) == 4
    entry = yaml.safe_load("networks: {one_layer: {width: 9, size: [96, 64]}}")
    schema = ROOT / "workflow" / "schemas" / "config.schema.yaml"
    config = resolve(entry, schema, ROOT / "config" / "presets", known)
    assert config["models"][-1] == "one_layer"
    assert config["networks"]["one_layer"]["width"] == 9
    with pytest.raises(InputError, match=r"networks\.one_layer: no such network"):
        resolve(entry, schema, ROOT / "config" / "presets", ALL)
