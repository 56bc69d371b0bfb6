import pandas as pd

from lumbarflow.evaluate.measurements import error_sds
from lumbarflow.files import write_table
from lumbarflow.jobs import job
from lumbarflow.measure.changes import changes

with job(snakemake) as log:
    compared = snakemake.input.get("compared")
    known = {}
    if compared:
        table = pd.read_parquet(compared)
        # Of real films nothing but the annotation is known, and so of synthetic ones.
        own = (table["model"] == snakemake.wildcards.source) & (table["against"] == "annotation")
        known = error_sds(table[own])
    found = changes(
        pd.read_parquet(snakemake.input.measurements),
        pd.read_parquet(snakemake.input.manifest),
        known,
    )
    write_table(snakemake.output.changes, found)
    log.info("%d changes looked at", len(found))
