from pathlib import Path

import pandas as pd

from lumbarflow.evaluate.comparing import compare_all
from lumbarflow.evaluate.failures import STAGES
from lumbarflow.files import write_table
from lumbarflow.jobs import job

with job(snakemake) as log:
    replicates = snakemake.input.get("replicates")
    names = ["per_image", "instances", "measurements", "splits"]
    names += ["replicates"] if replicates else []
    tables = compare_all(
        {name: pd.read_parquet(snakemake.input[name]) for name in names},
        {
            model: {stage: pd.read_parquet(snakemake.input[stage][k]) for stage in STAGES}
            for k, model in enumerate(snakemake.params.families)
        },
        Path(snakemake.input.records),
        snakemake.params.families,
        snakemake.params.evaluation,
    )
    for name, table in tables.items():
        write_table(snakemake.output[name], table)
    found = tables["errors"]
    for model, count in found.loc[found["stage"] == "labelled", "model"].value_counts().items():
        log.info("%s: %d errors on the test films", model, count)
