from pathlib import Path

import pandas as pd

from lumbarflow.annotate.records import read_record
from lumbarflow.jobs import job
from lumbarflow.measure.cohort import films_of, tune, write_tuning

with job(snakemake) as log:
    splits = pd.read_parquet(snakemake.input.splits)
    chosen = splits.loc[splits["subset"] == "val", "image_id"]
    tuning = tune(
        films_of(pd.read_parquet(snakemake.input.manifest), chosen),
        pd.read_parquet(snakemake.input.predictions),
        [read_record(Path(snakemake.input.records) / f"{name}.json") for name in chosen],
        snakemake.params.vertebrae,
        snakemake.params.settings,
        log,
    )
    write_tuning(snakemake.output.tuning, tuning)
