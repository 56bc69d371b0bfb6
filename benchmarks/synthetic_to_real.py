"""Networks trained on synthetic films, tested on 26 real ones: alone, and before real films.

The network is a U-Net (Ronneberger et al. 2015) on a ResNet-18, from random weights. Per pixel it
tells whether a lumbar body is there, the middle of one, and S1. Middles separate bodies that touch;
the six lowest bodies are L5 to T12.

- `synthetic_only`: trained on films of the simulation and nothing else, tested on all real films.
  The mean Dice coefficient is of T12 to L5 taken together; a level is found in a film if a body has
  an intersection over union of 0.5 or more with its outline.
- `gain`: on random divisions into 18 real films and 8 others, the mean Dice coefficient on the
  others of that network trained further on the 18, less that of a new network trained on the 18
  with the very same steps. The interval holds 95% of the means of bootstrap samples of films.

Two cores take about an hour and a half; what was trained on synthetic films is kept, too.
The real films lie in the folder `lumbar_films` of LUMBARFLOW_DATA; synthetic ones are made once and
kept in the user's cache folder.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

import _films  # noqa: E402
import cv2  # noqa: E402
import numpy as np  # noqa: E402
import segmentation_models_pytorch as smp  # noqa: E402
import torch  # noqa: E402
from _films import (  # noqa: E402
    LEVELS,
    Labelled,
    bootstrap,
    change_greys,
    cut,
    division,
    kept_folder,
    real_films,
    smooth,
    synthetic_films,
)
from scipy import ndimage  # noqa: E402
from torch import nn  # noqa: E402

from lumbarflow.annotate.spine import RANK  # noqa: E402
from lumbarflow.files import atomic_path  # noqa: E402
from lumbarflow.prepare.masks import rasterise  # noqa: E402
from lumbarflow.train.batches import dice  # noqa: E402
from lumbarflow.train.films import fit, place  # noqa: E402
from lumbarflow.train.schedule import learning_rate_factor  # noqa: E402

TARGETS = {
    "synthetic_only_dice": "at least 0.80",
    "found_worst_level": "at least 0.90",
    "gain_low": "above 0",
}
FOUND_IOU = 0.5

# The training. None of this was chosen by its score on real films.
DECODER = (128, 64, 32, 16, 16)
BATCH = 8
RATE, REAL_RATE = 2e-3, 1e-3
WEIGHT_DECAY = 1e-2
LARGEST_GRADIENT = 5.0
CORE = 0.55  # size of a body's middle, relative to the body
BODY, MIDDLE, SACRUM = range(3)


# --- What the network sees -------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """One training example: inputs, targets and weights, each planes x rows x columns, float32."""

    inputs: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


def example(film: Labelled, size: tuple[int, int], rng: np.random.Generator) -> Example:
    """A random window about the spine, its grey levels changed at random."""
    picture, lit, outlines = cut(film, size, rng)
    picture = change_greys(picture.astype(np.float32) / 255, lit, rng)
    return Example(inputs(picture), *_targets(outlines, size))


def _targets(
    outlines: dict[str, np.ndarray], size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    targets, weights = np.zeros((3, *size), np.float32), np.ones((3, *size), np.float32)
    centres = {level: points.mean(axis=0) for level, points in outlines.items()}
    for level, points in outlines.items():
        if level == "S1":
            targets[SACRUM][rasterise(points, *size)] = 1
        else:
            middle = centres[level] + CORE * (points - centres[level])
            targets[BODY][rasterise(points, *size)] = 1
            targets[MIDDLE][rasterise(middle, *size)] = 1
    if "S1" not in outlines:
        weights[SACRUM] = 0
    # Bodies above the uppermost outlined one may be seen: nothing is learned there.
    top, below = sorted(outlines, key=RANK.__getitem__)[:2]
    upwards = centres[top] - centres[below]
    heights = (outlines[top] - centres[top]) @ upwards
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    height = (x - centres[top][0]) * upwards[0] + (y - centres[top][1]) * upwards[1]
    weights[:2, height > heights[heights > 0].mean()] = 0
    return targets, weights


def inputs(picture: np.ndarray) -> np.ndarray:
    """The network's input (2 x rows x columns, float32) of a picture (rows x columns, 0 to 1).

    The grey levels, and the same less their local mean and over their local deviation: consoles
    process films in ways that change the one far more than the other.
    """
    deviation = picture - smooth(picture, picture.shape[0] / 24)
    spread = smooth(deviation**2, picture.shape[0] / 16)
    local = deviation / np.sqrt(spread + 4e-4)
    return np.stack([(picture - picture.mean()) * 2, np.clip(local, -3, 3)]).astype(np.float32)


# --- Training --------------------------------------------------------------------------------


def new_network(seed: int) -> nn.Module:
    """The network with random weights."""
    torch.manual_seed(seed)
    model = smp.Unet(
        "resnet18", encoder_weights=None, in_channels=2, classes=3, decoder_channels=DECODER
    )
    return model.to(memory_format=torch.channels_last)


def train(
    model: nn.Module,
    films: Sequence[Labelled],
    steps: int,
    rate: float,
    size: tuple[int, int],
    seed: Sequence[int],
) -> nn.Module:
    """Train in place; equal seeds and films give the same batches whatever the network."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=WEIGHT_DECAY)
    model.train()
    started, losses = time.perf_counter(), []
    for step, batch in enumerate(_batches(films, steps, size, seed)):
        for group in optimizer.param_groups:
            group["lr"] = rate * learning_rate_factor(step, steps)
        pictures, targets, weights = (torch.from_numpy(planes) for planes in batch)
        loss = _loss(model(pictures.to(memory_format=torch.channels_last)), targets, weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        losses.append(float(loss.detach()))
        if (step + 1) % max(1, steps // 5) == 0:
            passed = time.perf_counter() - started
            recent = np.mean(losses[-max(1, steps // 5) :])
            print(f"  step {step + 1} of {steps}, loss {recent:.3f}, {passed:.0f} s", flush=True)
    return model


def trained_on_synthetic(
    folder: Path, films: Sequence[Labelled], steps: int, size: tuple[int, int], seed: int
) -> nn.Module:
    """The network trained on synthetic films, or the one that an earlier run trained like that."""
    code = hashlib.sha256(Path(__file__).read_bytes())
    code.update(Path(_films.__file__).read_bytes())
    path = folder / f"network-{len(films)}-{steps}-{size[0]}-{code.hexdigest()[:8]}.pt"
    model = new_network(seed)
    if path.is_file():
        print(f"The network of an earlier run: {path}", flush=True)
        model.load_state_dict(torch.load(path, weights_only=True))
        return model
    print(f"Training on {len(films)} synthetic films at {size[0]} x {size[1]} pixels", flush=True)
    train(model, films, steps, RATE, size, [seed, 1])
    with atomic_path(path) as temporary:
        torch.save(model.state_dict(), temporary)
    return model


def _batches(
    films: Sequence[Labelled], steps: int, size: tuple[int, int], seed: Sequence[int]
) -> Iterator[tuple[np.ndarray, ...]]:
    """Inputs, targets and weights of each step, made while the network computes the one before."""

    def make(step: int) -> tuple[np.ndarray, ...]:
        examples = []
        for position in range(step * BATCH, (step + 1) * BATCH):
            passed, place_ = divmod(position, len(films))
            order = np.random.default_rng([*seed, 0, passed]).permutation(len(films))
            rng = np.random.default_rng([*seed, 1, position])
            examples.append(example(films[order[place_]], size, rng))
        return tuple(
            np.stack([getattr(one, name) for one in examples])
            for name in ("inputs", "targets", "weights")
        )

    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(make, 0)
        for step in range(steps):
            batch = coming.result()
            if step + 1 < steps:
                coming = pool.submit(make, step + 1)
            yield batch


def _loss(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus soft Dice, both where the weights are not 0."""
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, targets, weights)
    shares = torch.sigmoid(logits) * weights
    reference = targets * weights
    shared = (shares * reference).sum(dim=(0, 2, 3))
    total = (shares + reference).sum(dim=(0, 2, 3))
    overlap = (2 * shared + 1) / (total + 1)
    return entropy + (1 - overlap).mean()


# --- Testing ---------------------------------------------------------------------------------


@torch.no_grad()
def bodies(model: nn.Module, picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Numbers of the bodies from the lowest (1) upwards, 0 elsewhere: rows x columns of the film.

    Args:
        model: the trained network.
        picture: rows x columns, uint8.
        size: of the network's input.
    """
    model.eval()
    box = fit(picture.shape, size)
    seen = inputs(place(picture, size, cv2.INTER_AREA).astype(np.float32) / 255)
    both = torch.from_numpy(np.stack([seen, seen[:, :, ::-1].copy()]))
    shares = torch.sigmoid(model(both.to(memory_format=torch.channels_last))).numpy()
    shares = (shares[0] + shares[1][:, :, ::-1])[:, : box.rows, : box.columns] / 2
    nearest = _nearest_body(shares)
    body = np.where(shares[BODY] > shares[SACRUM], shares[BODY], 0)
    body[nearest == 0] = 0
    whole = picture.shape[::-1]
    smooth = cv2.resize(body, whole, interpolation=cv2.INTER_LINEAR)
    numbers = cv2.resize(nearest, whole, interpolation=cv2.INTER_NEAREST_EXACT)
    return np.where(smooth > 0.5, numbers, 0)


def _nearest_body(shares: np.ndarray) -> np.ndarray:
    """The number of the body whose middle is nearest to each pixel (int16), 0 where it is far."""
    middles, count = ndimage.label((shares[MIDDLE] > 0.5) & (shares[BODY] > shares[SACRUM]))
    if not count:
        return np.zeros(middles.shape, np.int16)
    area = np.bincount(middles.ravel())[1:]
    typical = np.median(area)
    kept = np.flatnonzero(area > 0.25 * typical) + 1
    heights = [np.nonzero(middles == label)[0].mean() for label in kept]
    numbers = np.zeros(count + 1, np.int16)
    numbers[kept[np.argsort(heights)[::-1]]] = np.arange(1, len(kept) + 1)
    middles = numbers[middles]
    distance, nearest = ndimage.distance_transform_edt(middles == 0, return_indices=True)
    return np.where(distance < np.sqrt(typical), middles[tuple(nearest)], 0).astype(np.int16)


@dataclass(frozen=True)
class Score:
    """Of one film: Dice of T12 to L5 together, and the best overlap of any body by level."""

    film: str
    dice: float
    overlaps: dict[str, float]


def score(model: nn.Module, film: Labelled, size: tuple[int, int]) -> Score:
    """Compare the network's bodies with a real film's outlines, at the film's full size."""
    numbers = bodies(model, film.picture, size)
    masks = {
        level: rasterise(points, *film.picture.shape) for level, points in film.outlines.items()
    }
    areas = np.bincount(numbers.ravel(), minlength=1)
    overlaps = {}
    for level, mask in masks.items():
        shared = np.bincount(numbers[mask], minlength=len(areas))
        union = areas + mask.sum() - shared
        overlaps[level] = float((shared / union)[1:].max(initial=0.0))
    named = (numbers >= 1) & (numbers <= len(LEVELS))
    return Score(film.name, dice(np.logical_or.reduce(list(masks.values())), named), overlaps)


def reduced(film: Labelled, rows: int) -> Labelled:
    """The film at about `rows` rows, so that windows of it need no further smoothing."""
    scale = min(1.0, rows / film.picture.shape[0])
    size = [max(1, round(side * scale)) for side in film.picture.shape[::-1]]
    picture = cv2.resize(film.picture, size, interpolation=cv2.INTER_AREA)
    ratio = np.array(size) / film.picture.shape[::-1]
    outlines = {level: points * ratio for level, points in film.outlines.items()}
    return Labelled(film.name, picture, outlines)


# --- The comparisons -------------------------------------------------------------------------


def test_synthetic_only(model: nn.Module, real: Sequence[Labelled], size: tuple[int, int]) -> dict:
    """Figures of the network that has seen no real film."""
    scores = [score(model, film, size) for film in real]
    found = {
        f"found_{level}": float(np.mean([s.overlaps[level] >= FOUND_IOU for s in scores]))
        for level in LEVELS
    }
    for one in sorted(scores, key=lambda s: s.dice):
        overlaps = " ".join(f"{one.overlaps[level]:.2f}" for level in LEVELS)
        print(f"  {one.film}: Dice {one.dice:.3f}, IoU {overlaps}", flush=True)
    return {
        "synthetic_only_dice": float(np.mean([s.dice for s in scores])),
        **found,
        "found_worst_level": min(found.values()),
    }


def compare(
    pretrained: nn.Module,
    real: Sequence[Labelled],
    count: int,
    steps: int,
    size: tuple[int, int],
    seed: int,
) -> dict:
    """Figures of synthetic films before 18 real ones against the 18 alone."""
    makers: dict[str, Callable[[int], nn.Module]] = {
        "synthetic_first": lambda _: copy.deepcopy(pretrained),
        "real_alone": lambda number: new_network(seed + 1 + number),
    }
    of_film: dict[str, dict[str, list[float]]] = {name: {} for name in makers}
    for number in range(count):
        tested = division(real, number, seed)
        names = {film.name for film in tested}
        seen = [reduced(film, size[0] * 3 // 2) for film in real if film.name not in names]
        for name, make in makers.items():
            print(f"Division {number + 1} of {count}, {name}", flush=True)
            model = train(make(number), seen, steps, REAL_RATE, size, [seed, 2, number])
            for film in tested:
                result = score(model, film, size).dice
                of_film[name].setdefault(film.name, []).append(result)
            recent = np.mean([of_film[name][film.name][-1] for film in tested])
            print(f"  Dice on the other {len(tested)}: {recent:.3f}", flush=True)
    gains = [
        np.mean(np.subtract(values, of_film["real_alone"][film]))
        for film, values in of_film["synthetic_first"].items()
    ]
    gain, low, high = bootstrap(gains, seed)
    means = {
        f"{name}_dice": float(np.mean([np.mean(values) for values in films.values()]))
        for name, films in of_film.items()
    }
    return {**means, "gain": gain, "gain_low": low, "gain_high": high, "gain_films": len(gains)}


def main() -> None:
    """Train, test and print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--films", type=int, help="synthetic films (600)")
    parser.add_argument("--steps", type=int, help="steps on synthetic films (1200)")
    parser.add_argument("--real-steps", type=int, help="steps on 18 real films (200)")
    parser.add_argument("--divisions", type=int, help="divisions of the real films (3); 0 for none")
    parser.add_argument("--size", type=int, help="rows of the network's input (256)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="about a minute: far fewer steps")
    options = parser.parse_args()
    usual = (24, 60, 20, 1, 192) if options.quick else (600, 1200, 200, 3, 256)
    asked = (options.films, options.steps, options.real_steps, options.divisions, options.size)
    films, steps, real_steps, count, rows = (
        value if given is None else given for given, value in zip(asked, usual, strict=True)
    )
    size = tuple(32 * math.ceil(side / 32) for side in (rows, 0.68 * rows))
    real = real_films()
    started = time.perf_counter()
    folder = kept_folder(options.seed)
    synthetic = synthetic_films(folder, films, options.seed)
    model = trained_on_synthetic(folder, synthetic, steps, size, options.seed)
    figures = {"synthetic_films": films, "steps": steps, "real_films": len(real)}
    figures |= test_synthetic_only(model, real, size)
    print(json.dumps(figures), flush=True)
    met = figures["synthetic_only_dice"] >= 0.80 and figures["found_worst_level"] >= 0.90
    if count:
        figures |= compare(model, real, count, real_steps, size, options.seed)
        met = met and figures["gain_low"] > 0
    figures["seconds"] = round(time.perf_counter() - started)
    result = {"name": "synthetic_to_real", "figures": figures, "targets": TARGETS, "met": met}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
