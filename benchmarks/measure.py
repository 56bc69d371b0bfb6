"""Labels and measurements: how fast, and how right.

- `speed`: 100 films at full size, whose instances are what a network at a fifth of their resolution
  would draw around the true outlines, labelled and measured on two processes; no pictures drawn.
- `outlines`: measurements on the exact outlines of the same films, diseased and operated ones
  included, against the truth that the simulation knows.
- `network`: 100 other synthetic films through a trained network: the U-Net of
  `synthetic_to_real.py` (trained first where that has not been done), whose masks are taken apart
  into connected parts as those of every semantic network; against the truth.
- `real`: the same network, which has seen no real film, on the 26 real ones of LUMBARFLOW_DATA,
  against corners and endplates that were marked on them.

`--quick` leaves the trained network out and takes 20 films.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "workflow" / "scripts"))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from lumbarflow.evaluate import levels as levels_of  # noqa: E402
from lumbarflow.evaluate.measurements import (  # noqa: E402
    calibration_error,
    compare,
    reliability,
    summarise,
)
from lumbarflow.measure.anatomy import LabelledSpine  # noqa: E402
from lumbarflow.measure.bodies import encode, of_record  # noqa: E402
from lumbarflow.measure.cohort import Film, label_films  # noqa: E402
from lumbarflow.measure.confidence import Calibration  # noqa: E402
from lumbarflow.measure.film import (  # noqa: E402
    MEASUREMENTS,
    Tuning,
    measure,
    measurement_rows,
    spine_of_network,
    spine_of_record,
)
from lumbarflow.prepare.masks import rasterise_window  # noqa: E402
from lumbarflow.synthetic.alignment import draw_build  # noqa: E402
from lumbarflow.synthetic.film import (  # noqa: E402
    FilmPlan,
    choose_format,
    plan_film,
    render_film,
)
from lumbarflow.synthetic.spine import make_spine  # noqa: E402
from lumbarflow.synthetic.surgery import make_surgery  # noqa: E402

VERTEBRAE = ["lumbar_vertebra", "sacral_vertebra"]
SETTINGS = {"cobb": [], "uncertain_below": 0.5}
OPERATED = 0.7
COARSE = 5  # times coarser than a film is what the drawn-up network saw
#: Mean absolute errors that are aimed at, by a network's masks; half of each by outlines.
ERRORS = {
    "lordosis": 2.5,
    "segmental_angle": 2.0,
    "disc_height_anterior": 0.7,
    "disc_height_posterior": 0.7,
    "slip": 1.5,
}
TARGETS = {
    "seconds_100_films": "at most 30",
    **{f"outlines_{name}_mae": f"at most {value / 2:g}" for name, value in ERRORS.items()},
}
NETWORK_TARGETS = {
    "network_levels_right": "at least 0.98",
    "network_shifted_by_one": "at most 0.01",
    "network_share_measurable": "at least 0.95",
    **{f"network_{name}_mae": f"at most {value:g}" for name, value in ERRORS.items()},
    "real_levels_right": "at least 0.97",
    "real_lordosis_mae": "at most 3.6",
}


# --- Films -----------------------------------------------------------------------------------


def plan(seed: int, index: int, scale: float = 1.0) -> FilmPlan:
    """Where everything lies on a film of a stranger."""
    rng = np.random.default_rng([seed, index])
    shape, spacing = choose_format(rng, scale)
    spine = make_spine(rng, draw_build(rng))
    implants = make_surgery(rng, spine) if rng.random() < OPERATED else ()
    return plan_film(rng, spine, implants, shape, spacing)


def film_of(name: str, planned: FilmPlan) -> Film:
    """The film with its true spacing in the patient."""
    spacing = planned.pixel_spacing_mm / planned.magnification
    return Film(name, *planned.shape, spacing)


def truth_of(name: str, planned: FilmPlan) -> pd.DataFrame:
    """What is known of a film, as in `truth.parquet`."""
    return pd.DataFrame(planned.measurements).assign(image_id=name)


def record_of(planned: FilmPlan) -> dict[str, Any]:
    """The exact outlines as a record."""
    structures = [
        structure | {"structure_id": f"s{number}"}
        for number, structure in enumerate(planned.structures)
    ]
    return {"rows": planned.shape[0], "columns": planned.shape[1], "structures": structures}


def coarse_instances(name: str, planned: FilmPlan) -> pd.DataFrame:
    """The outlines as a network that sees a fifth of the resolution draws them: instances."""
    rows, columns = planned.shape
    small = -(-rows // COARSE), -(-columns // COARSE)
    found = []
    for class_name in VERTEBRAE:
        plane = np.zeros(small, np.float32)
        for structure in planned.structures:
            if structure["class_name"] == class_name:
                polygon = np.array(structure["polygon"]) / COARSE
                x, y, window = rasterise_window(polygon, *small)
                plane[y : y + window.shape[0], x : x + window.shape[1]] += window
        plane = cv2.GaussianBlur(np.minimum(plane, 1), (0, 0), 0.8)
        found += parts(name, class_name, plane, (rows, columns))
    return pd.DataFrame(found)


def parts(
    name: str, class_name: str, plane: np.ndarray, shape: tuple[int, int]
) -> list[dict[str, Any]]:
    """Connected parts of a probability (rows x columns, 0 to 1) as rows of predictions."""
    whole = cv2.resize(plane, shape[::-1], interpolation=cv2.INTER_LINEAR)
    mask = (whole > 0.5).astype(np.uint8)
    count, labels, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    rows = []
    for label in range(1, count):
        x, y, width, height, area = (int(v) for v in statistics[label])
        if area < 0.0002 * mask.size:
            continue
        window = labels[y : y + height, x : x + width] == label
        score = float(whole[y : y + height, x : x + width][window].mean())
        rows.append(
            row_of(name, class_name, f"{class_name[0]}{label}", score, (x, y), window, shape)
        )
    return rows


def row_of(name, class_name, instance, score, origin, window, shape) -> dict[str, Any]:
    """A row of predictions."""
    from lumbarflow.measure.anatomy import Body

    body = Body(f"{name}-{instance}", class_name, score, origin, window)
    return encode(body, name, *shape) | {"level": None}


# --- Scores ----------------------------------------------------------------------------------


def errors(
    prefix: str, measured: pd.DataFrame, reference: pd.DataFrame, drawn: dict[str, set[str]],
    wrong: dict[str, set[str]] | None = None,
) -> dict[str, float]:  # fmt: skip
    """Mean absolute errors, shares and calibration of measurements against a reference."""
    compared = compare(measured, reference, levels=drawn, wrong_levels=wrong)
    table = summarise(compared, n_boot=2).set_index(["name", "metric"])["value"]
    figures = {
        f"{prefix}_{name}_mae": float(table[name, "mae"])
        for name in ERRORS
        if (name, "mae") in table.index
    }
    expected = compared[compared["name"].isin(list(ERRORS))]
    figures[f"{prefix}_share_measurable"] = float(expected["value"].notna().mean())
    figures[f"{prefix}_share_measured"] = float((expected["status"] == "measured").mean())
    figures[f"{prefix}_calibration_error"] = calibration_error(reliability(compared))
    return figures


def drawn_levels(records: dict[str, dict]) -> dict[str, set[str]]:
    """Levels outlined on each film."""
    return {
        name: {s["level"] for s in record["structures"] if s["level"]}
        for name, record in records.items()
    }


def on_outlines(indices: Sequence[int], seed: int) -> dict[str, float]:
    """Errors on exact outlines."""
    plans = {f"film{index}": plan(seed, index) for index in indices}
    records = {name: record_of(planned) for name, planned in plans.items()}
    rows = []
    for name, planned in plans.items():
        spine = spine_of_record(records[name], VERTEBRAE)
        found = measure(spine, film_of(name, planned).spacing_mm, SETTINGS, Calibration())
        rows += measurement_rows(name, found)
    measured = pd.DataFrame(rows, columns=list(MEASUREMENTS)).astype(MEASUREMENTS)
    reference = pd.concat([truth_of(name, planned) for name, planned in plans.items()])
    return errors("outlines", measured, reference, drawn_levels(records))


def speed(indices: Sequence[int], seed: int) -> dict[str, float]:
    """Seconds for 100 films."""
    with ProcessPoolExecutor(2) as pool:
        plans = list(pool.map(partial(plan, seed), indices))
        names = [f"film{index}" for index in indices]
        instances = pd.concat(pool.map(coarse_instances, names, plans), ignore_index=True)
    films = [film_of(name, planned) for name, planned in zip(names, plans, strict=True)]
    started = time.perf_counter()
    label_films(films, instances, VERTEBRAE, Tuning(), SETTINGS, 2, logging.getLogger())
    seconds = time.perf_counter() - started
    return {"seconds_100_films": seconds * 100 / len(films)}


# --- A trained network -----------------------------------------------------------------------


def network_instances(model: Any, name: str, picture: np.ndarray, size: tuple[int, int]):
    """What the U-Net of `synthetic_to_real.py` sees on a film, as instances of a semantic network."""
    import torch
    from synthetic_to_real import BODY, SACRUM, inputs

    from lumbarflow.train.films import fit, place

    box = fit(picture.shape, size)
    seen = inputs(place(picture, size, cv2.INTER_AREA).astype(np.float32) / 255)
    both = torch.from_numpy(np.stack([seen, seen[:, :, ::-1].copy()]))
    with torch.no_grad():
        model.eval()
        shares = torch.sigmoid(model(both.to(memory_format=torch.channels_last))).numpy()
    shares = (shares[0] + shares[1][:, :, ::-1])[:, : box.rows, : box.columns] / 2
    body = np.where(shares[BODY] > shares[SACRUM], shares[BODY], 0)
    sacrum = np.where(shares[BODY] > shares[SACRUM], 0, shares[SACRUM])
    rows = [
        row
        for class_name, plane in zip(VERTEBRAE, (body, sacrum), strict=True)
        for row in parts(name, class_name, plane, picture.shape)
    ]
    return pd.DataFrame(rows)


def spines_of_network(
    model: Any, pictures: Iterable[tuple[str, np.ndarray]], size: tuple[int, int], tuning: Tuning
) -> tuple[dict[str, LabelledSpine], dict[str, LabelledSpine]]:
    """The labelled spines of films by name: separated, and as the network drew them."""
    spines, plain = {}, {}
    for name, picture in pictures:
        instances = network_instances(model, name, picture, size)
        arguments = (instances, *picture.shape, VERTEBRAE)
        spines[name] = spine_of_network(*arguments, tuning.separation)
        plain[name] = spine_of_network(*arguments, None)
    return spines, plain


def level_figures(
    prefix: str, spines: dict[str, LabelledSpine], records: dict[str, dict], levels: Sequence[str]
) -> tuple[dict[str, float], dict[str, set[str]]]:
    """Shares of levels right, and by film the levels that wrong bodies were given."""
    tables = []
    for name, spine in spines.items():
        drawn = [s for s in records[name]["structures"] if s["level"] in levels]
        reference = of_record(drawn, spine.rows, spine.columns)
        tables.append(levels_of.level_table(prefix, name, reference, spine.vertebrae))
    table = pd.concat(tables)
    summary = levels_of.summarise(levels_of.film_table(table)).iloc[0]
    figures = {
        f"{prefix}_found": float(summary["share_matched"]),
        f"{prefix}_levels_right": float(summary["share_correct"]),
        f"{prefix}_recognised": float(summary["recognition_rate"]),
        f"{prefix}_shifted_by_one": float(summary["share_shifted_by_one"]),
    }
    off = table[
        table["matched"] & table["predicted_level"].notna() & ~table["correct"].fillna(True)
    ]
    return figures, off.groupby("image_id")["predicted_level"].agg(set).to_dict()


def measured_by(
    spines: dict[str, LabelledSpine], spacings: dict[str, float | None], tuning: Tuning
) -> pd.DataFrame:
    """The measurements of all spines."""
    rows = [
        row
        for name, spine in spines.items()
        for row in measurement_rows(
            name, measure(spine, spacings[name], SETTINGS, tuning.calibration)
        )
    ]
    return pd.DataFrame(rows, columns=list(MEASUREMENTS)).astype(MEASUREMENTS)


def through_network(model: Any, size: tuple[int, int], count: int, seed: int) -> dict[str, float]:
    """Figures on synthetic films that the network has not seen.

    How bodies are separated and how sure measurements are is learned on other films than those
    scored: the first third of them.
    """
    names = {f"film{index}": index for index in range(count)}
    with ProcessPoolExecutor(2) as pool:
        drawn = list(pool.map(partial(picture_of, seed), names.values()))
    plans = {name: planned for name, (planned, _) in zip(names, drawn, strict=True)}
    pictures = {name: picture for name, (_, picture) in zip(names, drawn, strict=True)}
    records = {name: record_of(planned) for name, planned in plans.items()}
    learned, scored = list(names)[: count // 3], list(names)[count // 3 :]
    tuning = tuned(model, size, pictures, plans, records, learned)
    spines, plain = spines_of_network(model, [(n, pictures[n]) for n in scored], size, tuning)
    figures, wrong = level_figures("network", spines, records, LEVELS)
    before, _ = level_figures("unseparated", plain, records, LEVELS)
    spacings = {name: film_of(name, plans[name]).spacing_mm for name in scored}
    measured = measured_by(spines, spacings, tuning)
    reference = pd.concat([truth_of(name, plans[name]) for name in scored])
    figures |= {"unseparated_recognised": before["unseparated_recognised"]}
    return figures | errors(
        "network", measured, reference, drawn_levels({n: records[n] for n in scored}), wrong
    )


LEVELS = ("T11", "T12", "T13", "L1", "L2", "L3", "L4", "L5", "L6", "S1")


def picture_of(seed: int, index: int) -> tuple[FilmPlan, np.ndarray]:
    """A film at a quarter of its size: its plan and its picture."""
    cv2.setNumThreads(1)
    planned = plan(seed, index, 0.25)
    film = render_film(planned, np.random.default_rng([seed, index, 1]))
    return planned, np.rint(film.pixels * 255).astype(np.uint8)


def tuned(
    model: Any,
    size: tuple[int, int],
    pictures: dict[str, np.ndarray],
    plans: dict[str, FilmPlan],
    records: dict[str, dict],
    names: Sequence[str],
) -> Tuning:
    """Separation and calibration as the workflow chooses them on validation films."""
    instances = [network_instances(model, name, pictures[name], size) for name in names]
    films = [film_of(name, plans[name]) for name in names]
    return tune_on(films, instances, [records[name] for name in names])


def on_real_films(model: Any, size: tuple[int, int], tuning: Tuning) -> dict[str, float]:
    """Figures on the real films; their spacing is not known, so that only angles are compared."""
