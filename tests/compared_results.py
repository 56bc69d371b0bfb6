"""Tables of the comparison between networks, made up, as a run leaves them for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lumbarflow.evaluate.failures import ERRORS, KINDS, STAGES, rank_films
from lumbarflow.evaluate.statistics import SCORES, compare_networks, strata_means
from lumbarflow.evaluate.strata import COLUMNS, STRATA
from lumbarflow.files import write_table

FAMILIES = {
    **{"unet": "semantic", "mask_rcnn": "instance", "pspnet": "semantic"},
    **{"deeplabv3": "semantic", "yolact": "instance"},
}


def write_compared(
    results: Path, models: Sequence[str], films: Mapping[str, str], seed: int = 0
) -> None:
    """Write what the report reads of the comparison.

    Args:
        results: the results folder.
        models: instance networks do better on severe degeneration, semantic ones without any.
        films: patient_id of each test film; the strata of films take turns.
        seed: of the scores.
    """
    rng = np.random.default_rng(seed)
    families = {model: FAMILIES[model] for model in models}
    strata = pd.DataFrame({"image_id": list(films), "patient_id": list(films.values())})
    for place, (stratum, values) in enumerate(STRATA.items()):
        strata[stratum] = [values[(n + place) % len(values)] for n in range(len(films))]
    strata = strata.astype(COLUMNS)
    lead = strata["degeneration"].map({"none": -0.05, "mild": 0.0, "severe": 0.05}).to_numpy(float)
    scores = []
    for model in models:
        table = pd.DataFrame({"model": model, "image_id": list(films)})
        for metric in SCORES:
            own = rng.normal(0.85, 0.02, len(films))
            table[metric] = own + lead * (families[model] == "instance")
        scores.append(table)
    scores = pd.concat(scores, ignore_index=True)
    errors = pd.DataFrame(
        [
            *([model, film, stage, rng.choice(KINDS), "L3", "p0", 1.0] for model in models
              for film in films for stage in STAGES for _ in range(rng.integers(0, 4)))
        ],
        columns=list(ERRORS),
    ).astype(ERRORS)  # fmt: skip
    disagreement = {film: rng.uniform(0, 0.4) if len(models) > 1 else np.nan for film in films}
    chosen = {"seed": 0, "n_boot": 100}
    tables = {
        "comparisons": compare_networks(scores, strata, families, **chosen),
        "strata": strata_means(scores, strata, **chosen),
        "errors": errors,
        "film_ranking": rank_films(scores, errors, disagreement, strata, families),
    }
    for name, table in tables.items():
        write_table(results / f"metrics/{name}.parquet", table)
