from pathlib import Path

import pandas as pd

from lumbarflow.files import empty_folder, write_table
from lumbarflow.jobs import job
from lumbarflow.measure.cohort import films_of, label_films, read_tuning

with job(snakemake) as log:
    splits = pd.read_parquet(snakemake.input.splits)
    overlays = empty_folder(snakemake.output.overlays)
    tables = label_films(
        films_of(
            pd.read_parquet(snakemake.input.manifest),
            splits.loc[splits["subset"] == "test", "image_id"],
        ),
        pd.read_parquet(snakemake.input.predictions),
        snakemake.params.vertebrae,
        read_tuning(snakemake.input.tuning),
        snakemake.params.settings,
        snakemake.threads,
        log,
        Path(snakemake.input.manifest).parent / "png",
        overlays if snakemake.params.settings["overlays"] else None,
        snakemake.params.title,
    )
    for name, table in tables.items():
        write_table(snakemake.output[name], table)
    levels = tables["labelled"]["level"].notna().sum()
    log.info("%d vertebrae with a level, %d measurements", levels, len(tables["measurements"]))
