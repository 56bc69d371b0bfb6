from pathlib import Path

import pandas as pd

from lumbarflow.evaluate.replicates import (
    main_training,
    replicate_differences,
    score_replicates,
    summarise_replicates,
)
from lumbarflow.files import write_table
from lumbarflow.jobs import job

with job(snakemake) as log:
    params = snakemake.params
    splits = pd.read_parquet(snakemake.input.splits)
    test = splits[splits["subset"] == "test"]
    names = [(model, name) for model in params.models for name in params.replicates]
    table = score_replicates(
        dict(zip(names, snakemake.input.predictions, strict=True)),
        test,
        pd.read_parquet(snakemake.input.folds) if snakemake.input.folds else None,
        Path(snakemake.input.masks),
        params.classes,
        params.foreground,
        params.seed,
        log,
    )
    if snakemake.input.main:
        main = main_training(pd.read_parquet(snakemake.input.main), test, params.seed)
        table = pd.concat([main, table], ignore_index=True)
    write_table(snakemake.output.replicates, table)
    write_table(snakemake.output.replicate_summary, summarise_replicates(table))
    write_table(snakemake.output.replicate_differences, replicate_differences(table, params.models))
