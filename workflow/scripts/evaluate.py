from pathlib import Path

import pandas as pd

from lumbarflow.evaluate.tables import score_all
from lumbarflow.files import write_table, write_text
from lumbarflow.jobs import job

TABLES = ("networks", "unrepaired", "labelled")

with job(snakemake) as log:
    splits = pd.read_parquet(snakemake.input.splits)
    manifest = pd.read_parquet(snakemake.input.manifest, columns=["image_id", "pixel_spacing_mm"])
    tables = score_all(
        {
            model: {name: snakemake.input[name][k] for name in TABLES}
            for k, model in enumerate(snakemake.params.models)
        },
        splits[splits["subset"] == "test"].merge(manifest, on="image_id", validate="1:1"),
        Path(snakemake.input.masks),
        Path(snakemake.input.records),
        snakemake.params.classes,
        snakemake.params.evaluation,
        snakemake.params.titles,
        snakemake.threads,
        log,
    )
    write_text(
        snakemake.output.table1, tables.pop("table1").to_csv(index=False, float_format="%.2f")
    )
    for name, table in tables.items():
        write_table(snakemake.output[name], table)
