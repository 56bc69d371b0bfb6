from pathlib import Path

import pandas as pd

from lumbarflow.files import write_table
from lumbarflow.jobs import job
from lumbarflow.measure.cohort import films_of, measure_records

with job(snakemake) as log:
    tables = measure_records(
        films_of(
            pd.read_parquet(snakemake.input.manifest),
            pd.read_parquet(snakemake.input.splits)["image_id"],
        ),
        Path(snakemake.input.records),
        snakemake.params.vertebrae,
        snakemake.params.settings,
        snakemake.threads,
        log,
    )
    for name, table in tables.items():
        write_table(snakemake.output[name], table)
    log.info("%d measurements", len(tables["measurements"]))
