from pathlib import Path

import pandas as pd

from lumbarflow import gpu
from lumbarflow.annotate.ranking import unannotated
from lumbarflow.errors import InputError
from lumbarflow.files import write_table
from lumbarflow.jobs import job
from lumbarflow.predict.table import predict

with job(snakemake) as log:
    gpu.use(snakemake.resources.get("gpu", 0))
    weights = Path(snakemake.params.weights)
    if not weights.is_file():
        raise InputError(f"{weights} is missing: start the same command again.")
    manifest = Path(snakemake.input.manifest)
    predictions = predict(
        snakemake.wildcards.model,
        weights,
        unannotated(pd.read_parquet(manifest), snakemake.input.get("records")),
        manifest.parent / "png",
        snakemake.params.thresholds,
        snakemake.threads,
        log,
    )
    write_table(snakemake.output.predictions, predictions)
    log.info("%d instances", len(predictions))
