"""Weights that a network starts from: ImageNet's by name, or those of a local file.

Files are state dicts (torch.save or safetensors) of a ResNet as torchvision and timm name its
tensors, or of a whole network: a `model.pth` of this workflow, of which all tensors that fit are
taken, and its backbone alone where it is of another network.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import logging
import pickle
import re
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torchvision

from ..errors import InputError
from .base import Settings

IMAGENET = "imagenet"

_FIRST_BLOCK = "layer1.0.conv1.weight"  # after what stands before every name of a backbone
_FIRST = "conv1.weight"  # the convolution that takes the picture's channels
_COUNTER = "num_batches_tracked"  # files of early versions of PyTorch lack it
_KEY = "networks.<name>.weights"
_SCRATCH = "null to train from scratch, which takes about three times the iterations"
_DEPTHS = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}


def begin(module: torch.nn.Module, settings: Settings, log: logging.Logger) -> int:
    """Load `settings.weights` into a network that was built without weights.

    The first convolution is fitted to the network's channels: summed over the file's channels and
    divided evenly, which answers to a grey picture as the whole one does.

    Args:
        module: the network, with a ResNet anywhere inside.
        settings: `weights` (None, `imagenet` or a path, relative to the working directory) and
            `backbone` are read.
        log: where the number of tensors taken is told.

    Returns:
        How many tensors were taken: 0 without weights.

    Raises:
        InputError: the weights cannot be fetched or read, are those of another backbone, or none
            of them fits.
    """
    if settings.weights is None:
        return 0
    if settings.weights == IMAGENET:
        source, given = f"ImageNet ({settings.backbone})", _imagenet(settings.backbone)
    else:
        source, given = settings.weights, _tensors(_content(settings.weights))
    own = module.state_dict()
    same = {name for name in own if name in given and given[name].shape == own[name].shape}
    taken = {name: given[name] for name in same} | _backbone(own, given, settings)
    if not taken:
        raise InputError(
            f"{_KEY}: {settings.weights} holds no tensor that fits the network: give weights of "
            f"{settings.backbone}, or {_SCRATCH}."
        )
    module.load_state_dict(own | taken)
    log.info("starting from %s: %d of %d tensors taken", source, len(taken), len(own))
    return len(taken)


def digest(weights: str | None) -> str | None:
    """What the weights are, for the key of a training: the content of a file, or the name.

    Raises:
        InputError: the file is missing.
    """
    if weights in (None, IMAGENET):
        return weights
    with _existing(weights).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seen(weights: str | None) -> dict[str, list[str]]:
    """Films and patients that a `model.pth` was trained on (`train`) and chosen by (`val`).

    Empty for weights from elsewhere.

    Raises:
        InputError: the file is missing or cannot be read.
    """
    content = {} if weights in (None, IMAGENET) else _content(weights)
    known = content.get("seen") or {}
    return {subset: list(known.get(subset, ())) for subset in ("train", "val")}


def refuse_seen(weights: str | None, subsets: Mapping[str, Collection[str]]) -> None:
    """Refuse weights that have seen the films that a training is chosen by or scored on.

    Args:
        weights: of the settings.
        subsets: films and patients of `val` and `test`.

    Raises:
        InputError: the weights have seen a film or patient of the test subset, or were trained on
            one of the validation subset.
    """
    before = seen(weights)
    trained, chosen = set(before["train"]), set(before["val"])
    for subset, known in (("test", trained | chosen), ("val", trained)):
        if not known.isdisjoint(subsets[subset]):
            raise InputError(
                f"{_KEY}: {weights} has seen films or patients of the present {subset} subset: "
                "give weights of other films, or set it to null."
            )


def anchors(weights: str | None) -> dict[str, Any] | None:
    """The anchors that a detector's `model.pth` was trained with; None for all others.

    Raises:
        InputError: the file is missing or cannot be read.
    """
    content = {} if weights in (None, IMAGENET) else _content(weights)
    return (content.get("settings") or {}).get("anchors")


def _backbone(
    own: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor], settings: Settings
) -> dict[str, torch.Tensor]:
    """The backbone's tensors under the network's names; none where either has no ResNet."""
    theirs, ours = _prefix(given), _prefix(own)
    if theirs is None or ours is None:
        return {}
    found = _architecture(given, theirs)
    taken, fits = {}, found == _architecture(own, ours)
    for name, value in own.items():
        inner = name.removeprefix(ours)
        if not name.startswith(ours) or not re.match(r"(conv1|bn1|layer\d)\.", inner):
            continue
        tensor = given.get(theirs + inner)
        if tensor is not None and inner == _FIRST:
            tensor = _fit_channels(tensor, value.shape[1])
        if tensor is not None and tensor.shape == value.shape:
            taken[name] = tensor
        else:
            fits &= inner.endswith(_COUNTER)
    if not fits:
        raise InputError(
            f"{_KEY}: {settings.weights} holds the weights of {found}, but "
            f"networks.<name>.backbone is {settings.backbone}: make them the same, or set the "
            f"weights to {_SCRATCH}."
        )
    return taken


def _prefix(state: Mapping[str, torch.Tensor]) -> str | None:
    """What stands before every name of the ResNet in a state dict; None where there is none."""
    found = [name.removesuffix(_FIRST_BLOCK) for name in state if name.endswith(_FIRST_BLOCK)]
    return min(found, key=len, default=None)


def _fit_channels(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """A first convolution (out x in x rows x columns) for so many channels of a grey picture."""
    if weight.ndim != 4 or weight.shape[1] == channels:
        return weight
    return weight.sum(dim=1, keepdim=True).repeat(1, channels, 1, 1) / channels


def _architecture(state: Mapping[str, torch.Tensor], prefix: str) -> str:
    """Name of the ResNet in a state dict, as far as it is known."""
    blocks = [
        len({match[1] for name in state if (match := re.match(rf"{pattern}(\d+)\.", name))})
        for pattern in (re.escape(f"{prefix}layer{stage}.") for stage in (1, 2, 3, 4))
    ]
    name = _DEPTHS.get((tuple(blocks), f"{prefix}layer1.0.conv3.weight" in state))
    # Wide and grouped ResNets, and those with another stem, have the same blocks.
    second = state.get(f"{prefix}layer1.0.conv2.weight")
    plain = f"{prefix}{_FIRST}" in state and second is not None and second.shape[:2] == (64, 64)
    if name is None:
        return f"a ResNet of {' + '.join(map(str, blocks))} blocks"
    return name if plain else f"a variant of {name}"


def _imagenet(backbone: str) -> dict[str, torch.Tensor]:
    """Torchvision's weights of ImageNet-1K, the first version, fetched once and then kept."""
    weights = torchvision.models.get_model_weights(backbone)["IMAGENET1K_V1"]
    try:
        return weights.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"{_KEY}: the imagenet weights of {backbone} cannot be fetched "
            f"({type(error).__name__}): connect to the network once, or give a local file, or set "
            f"the weights to {_SCRATCH}."
        ) from None
    except Exception:  # PyTorch raises all kinds for a damaged file
        kept = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[1]
        raise InputError(
            f"{_KEY}: the imagenet weights of {backbone} are damaged: remove {kept} and run again."
        ) from None


def _existing(weights: str) -> Path:
    path = Path(weights)
    if not path.is_file():
        raise InputError(
            f"{_KEY}: there is no file {weights}: give the path of one, or `imagenet`, or "
            f"{_SCRATCH}."
        )
    return path


def _content(weights: str) -> dict[str, Any]:
    """What a file of weights holds, its tensors on the CPU."""
    path = _existing(weights)
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        # PyTorch does not look at the checksums of its archives.
        if zipfile.is_zipfile(path) and zipfile.ZipFile(path).testzip() is not None:
            raise _unreadable(weights)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except PermissionError:
        raise InputError(f"{_KEY}: {weights} may not be read: change its permissions.") from None
    except Exception as error:  # PyTorch raises all kinds, according to where the damage lies
        if isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(path):
            raise InputError(
                f"{_KEY}: {weights} holds more than tensors and may run any code when it is read: "
                "where you trust it, load it and save its state_dict() alone."
            ) from None
        raise _unreadable(weights) from None
    if not isinstance(content, Mapping):
        raise _unreadable(weights)
    return dict(content)


def _unreadable(weights: str) -> InputError:
    return InputError(
        f"{_KEY}: {weights} is not readable as weights: give a state dict written by torch.save or "
        "a .safetensors file, or fetch the file again where it is damaged."
    )


def _tensors(content: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a state dict, which may lie one layer down."""
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
            break
    return {str(name): value for name, value in content.items() if torch.is_tensor(value)}
