"""Weights to start from: files of several kinds, ImageNet by name, and what cannot be used."""

from __future__ import annotations

import errno
import logging
import urllib.error
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import segmentation_models_pytorch as smp
import torch
import torchvision

from lumbarflow.errors import InputError
from lumbarflow.networks import pretrained

log = logging.getLogger("lumbarflow.test")


def settings(weights, backbone="resnet18"):
    return SimpleNamespace(weights=None if weights is None else str(weights), backbone=backbone)


def resnet(backbone="resnet18"):
    """State dict of a classifier, as torchvision and timm write it; each tensor of one value.

    One stored value each: real ones are 45 MB and more.
    """
    with torch.device("meta"):
        shapes = torchvision.models.get_model(backbone, weights=None).state_dict()
    torch.manual_seed(1)
    return {
        name: torch.rand(()).to(value.dtype).expand(value.shape) for name, value in shapes.items()
    }


@pytest.fixture(scope="module")
def classifier():
    return resnet() | {"conv1.weight": torch.randn(64, 3, 7, 7)}


@pytest.fixture(scope="module")
def semantic_module():
    torch.manual_seed(2)
    return smp.Unet("resnet18", encoder_weights=None, in_channels=1, decoder_channels=[16] * 5)


@pytest.fixture
def semantic(semantic_module):
    """A U-Net of one channel, as it was before any test."""
    before = {name: value.clone() for name, value in semantic_module.state_dict().items()}
    yield semantic_module
    semantic_module.load_state_dict(before)


class Detector(torch.nn.Module):
    """A ResNet of three channels and a head, named as MMDetection does."""

    def __init__(self):
        super().__init__()
        self.backbone = torchvision.models.resnet18(weights=None)
        del self.backbone.fc
        self.head = torch.nn.Conv2d(512, 8, 1)


@pytest.fixture
def folder(tmp_path):
    """Files of weights are 45 MB each, and pytest keeps folders of three runs."""
    yield tmp_path
    for file in tmp_path.iterdir():
        file.unlink()


def test_without_weights_nothing_changes(semantic):
    before = {name: value.clone() for name, value in semantic.state_dict().items()}
    assert pretrained.begin(semantic, settings(None), log) == 0
    assert all(torch.equal(value, before[name]) for name, value in semantic.state_dict().items())


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_a_classifier_gives_the_encoder(semantic, classifier, folder, suffix, caplog):
    path = folder / f"resnet18{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file({k: v.contiguous() for k, v in classifier.items()}, path)
    else:
        torch.save(classifier, path)
    with caplog.at_level(logging.INFO):
        count = pretrained.begin(semantic, settings(path), log)
    own = semantic.state_dict()
    encoder = {name for name in own if name.startswith("encoder.")}
    assert count == len(encoder) == len(classifier) - 2  # without the classifier's last layer
    assert f"{count} of {len(own)} tensors taken" in caplog.text
    for name in encoder - {"encoder.conv1.weight"}:
        assert torch.equal(own[name], classifier[name.removeprefix("encoder.")])


def test_one_channel_answers_to_a_grey_picture_as_three_do(semantic, classifier, folder):
    torch.save(classifier, folder / "resnet18.pth")
    pretrained.begin(semantic, settings(folder / "resnet18.pth"), log)
    detector = Detector()
    torch.save(semantic.state_dict(), folder / "unet.pth")  # and back to three channels
    pretrained.begin(detector, settings(folder / "unet.pth"), log)
    grey = torch.rand(1, 1, 32, 32)
    colour = torch.nn.functional.conv2d(
        grey.repeat(1, 3, 1, 1), classifier["conv1.weight"], stride=2, padding=3
    )
    assert torch.allclose(semantic.encoder.conv1(grey), colour, atol=1e-5)
    assert torch.allclose(detector.backbone.conv1(grey.repeat(1, 3, 1, 1)), colour, atol=1e-5)


def test_a_detector_takes_the_three_channels_as_they_are(classifier, folder):
    torch.save({"state_dict": classifier, "epoch": 3}, folder / "checkpoint.pth")
    detector = Detector()
    pretrained.begin(detector, settings(folder / "checkpoint.pth"), log)
    assert torch.equal(detector.backbone.conv1.weight, classifier["conv1.weight"])


def test_files_without_counters_of_batches_fit(semantic, classifier, folder):
    old = {name: v for name, v in classifier.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, folder / "old.pth")
    assert pretrained.begin(semantic, settings(folder / "old.pth"), log) == len(old) - 2


def test_half_precision_is_taken(semantic, classifier, folder):
    half = {name: v.half() if v.is_floating_point() else v for name, v in classifier.items()}
    torch.save(half, folder / "half.pth")
    pretrained.begin(semantic, settings(folder / "half.pth"), log)
    assert semantic.encoder.bn1.weight.dtype == torch.float32


def test_of_the_same_network_all_that_fits_is_taken(semantic, folder):
    others = {name: value + 1 for name, value in semantic.state_dict().items()}
    head = "segmentation_head.0.weight", "segmentation_head.0.bias"
    others |= {name: torch.zeros(4, *others[name].shape[1:]) for name in head}
    torch.save({"settings": {}, "state_dict": others}, folder / "model.pth")
    count = pretrained.begin(semantic, settings(folder / "model.pth"), log)
    own = semantic.state_dict()
    assert count == len(own) - 2  # the head is of other classes
    for name in own:
        assert torch.equal(own[name], others[name]) == (name not in head)


def test_of_another_network_the_backbone_is_taken(semantic, folder):
    torch.save({"state_dict": semantic.state_dict()}, folder / "model.pth")
    detector = Detector()
    head = detector.head.weight.clone()
    count = pretrained.begin(detector, settings(folder / "model.pth"), log)
    assert count == len(detector.backbone.state_dict())
    assert torch.equal(
        detector.backbone.layer3[0].conv1.weight, semantic.encoder.layer3[0].conv1.weight
    )
    assert torch.equal(detector.head.weight, head)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("resnet34", "resnet34"),
        ("resnet50", "resnet50"),
        ("wide_resnet50_2", "a variant of resnet50"),
        ("resnext50_32x4d", "a variant of resnet50"),
    ],
)
def test_another_backbone_is_a_sentence(semantic, folder, given, named):
    torch.save(resnet(given), folder / "other.pth")
    before = semantic.encoder.bn1.weight.clone()
    with pytest.raises(InputError, match=rf"holds the weights of {named}, but .* is resnet18: "):
        pretrained.begin(semantic, settings(folder / "other.pth"), log)
    assert torch.equal(semantic.encoder.bn1.weight, before)


def test_other_stems_are_a_sentence(semantic, classifier, folder):
    deep = {
        name.replace("conv1.weight", "conv1.0.weight", 1) if name == "conv1.weight" else name: v
        for name, v in classifier.items()
    }
    torch.save(deep, folder / "deep.pth")
    with pytest.raises(InputError, match="a variant of resnet18"):
        pretrained.begin(semantic, settings(folder / "deep.pth"), log)


def test_a_file_without_a_fitting_tensor_is_a_sentence(semantic, folder):
    torch.save({"features.0.weight": torch.zeros(3, 3)}, folder / "vgg.pth")
    with pytest.raises(
        InputError, match="no tensor that fits the network: give weights of resnet18"
    ):
        pretrained.begin(semantic, settings(folder / "vgg.pth"), log)


def test_a_missing_file_is_a_sentence(semantic, folder):
    for function in (
        lambda path: pretrained.begin(semantic, settings(path), log),
        pretrained.digest,
        pretrained.seen,
        pretrained.anchors,
    ):
        with pytest.raises(InputError, match=r"no file .*none\.pth: .*about three times"):
            function(str(folder / "none.pth"))


DAMAGES = ["cut", "text", "empty", "list"]


def spoil(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [
        *((suffix, damage) for suffix in (".pth", ".safetensors") for damage in DAMAGES),
        (".pth", "bit"),  # safetensors has no checksum
    ],
)
def test_an_unreadable_file_is_a_sentence(semantic, folder, damage, suffix):
    path = folder / f"weights{suffix}"
    tensors = {"layer1.0.conv1.weight": torch.arange(3000.0)}
    (safetensors.torch.save_file if suffix == ".safetensors" else torch.save)(tensors, path)
    whole = path.read_bytes()
    if damage == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "bit":
        spoil(path, whole.index(tensors["layer1.0.conv1.weight"].numpy().tobytes()) + 50)
    elif damage == "text":
        path.write_text("<html>not found</html>")
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "list":
        torch.save([1, 2], path)
    with pytest.raises(InputError, match=r"weights\S+ is not readable as weights"):
        pretrained.begin(semantic, settings(path), log)


class Surprise:
    """Would create a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_file_is_not_run(semantic, folder):
    torch.save({"layer1.0.conv1.weight": Surprise(folder / "created")}, folder / "evil.pth")
    with pytest.raises(InputError, match="holds more than tensors"):
        pretrained.begin(semantic, settings(folder / "evil.pth"), log)
    assert not (folder / "created").exists()


# ImageNet by name -------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch, folder):
    """An empty cache of weights; give a function that says what a download does."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder / "hub"))

    def set_download(download):
        monkeypatch.setattr(torch.hub, "download_url_to_file", download)

    yield set_download
    for file in (folder / "hub" / "checkpoints").glob("*"):
        file.unlink()
    (folder / "hub" / "checkpoints").rmdir()
    (folder / "hub").rmdir()


def test_imagenet_by_name(semantic, classifier, hub):
    hub(lambda url, path, *rest, **options: torch.save(classifier, path))
    count = pretrained.begin(semantic, settings("imagenet"), log)
    assert count == len(classifier) - 2
    hub(None)  # not fetched again
    assert pretrained.begin(semantic, settings("imagenet"), log) == count


@pytest.mark.parametrize(
    "error", [urllib.error.URLError("no route"), TimeoutError(), ConnectionResetError()]
)
def test_without_a_network_there_is_a_sentence(semantic, hub, error):
    def fail(*_, **__):
        raise error

    hub(fail)
    with pytest.raises(
        InputError, match=r"of resnet18 cannot be fetched .*connect .*local file.*three times"
    ):
        pretrained.begin(semantic, settings("imagenet"), log)


def test_a_full_disk_is_not_a_missing_network(semantic, hub):
    def fail(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    hub(fail)
    with pytest.raises(OSError, match="No space"):
        pretrained.begin(semantic, settings("imagenet"), log)


def test_a_damaged_download_is_a_sentence(semantic, hub, folder):
    hub(lambda url, path, *rest, **options: Path(path).write_bytes(b"half a file"))
    with pytest.raises(InputError, match=r"are damaged: remove \S+hub/checkpoints/resnet18"):
        pretrained.begin(semantic, settings("imagenet"), log)


# What the weights are ---------------------------------------------------------------------------


def test_the_digest_is_of_the_content(folder):
    assert pretrained.digest(None) is None
    assert pretrained.digest("imagenet") == "imagenet"
    path, copy = folder / "one.pth", folder / "two.pth"
    path.write_bytes(b"1")
    copy.write_bytes(b"1")
    first = pretrained.digest(str(path))
    assert first == pretrained.digest(str(copy))
    path.write_bytes(b"2")
    assert pretrained.digest(str(path)) != first


def model(folder, **seen):
    path = folder / "model.pth"
    anchors = {"strides": [4], "shapes": [[[3.0, 4.0]]], "coverage": 1.0, "objects": 2}
    torch.save({"settings": {"anchors": anchors}, "state_dict": {}, "seen": seen}, path)
    return str(path), anchors


def test_what_a_model_knows_comes_along(folder):
    path, anchors = model(folder, train=["a", "b"], val=["c"])
    assert pretrained.seen(path) == {"train": ["a", "b"], "val": ["c"]}
    assert pretrained.anchors(path) == anchors
    torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, folder / "other.pth")
    for weights in (None, "imagenet", str(folder / "other.pth")):
        assert pretrained.seen(weights) == {"train": [], "val": []}
        assert pretrained.anchors(weights) is None


@pytest.mark.parametrize(
    ("subsets", "said"),
    [
        ({"val": ["x"], "test": ["y"]}, None),
        ({"val": ["c"], "test": ["y"]}, None),  # chosen by, as it is again
        ({"val": ["x"], "test": ["y", "a"]}, "present test subset"),
        ({"val": ["x"], "test": ["c"]}, "present test subset"),
        ({"val": ["b"], "test": ["y"]}, "present val subset"),
    ],
)
def test_weights_that_have_seen_the_films_are_refused(folder, subsets, said):
    path, _ = model(folder, train=["a", "b"], val=["c"])
    if said is None:
        pretrained.refuse_seen(path, subsets)
    else:
        with pytest.raises(InputError, match=said):
            pretrained.refuse_seen(path, subsets)
