from pathlib import Path

import pandas as pd

from lumbarflow import gpu
from lumbarflow.files import write_table
from lumbarflow.jobs import job
from lumbarflow.predict.table import predict

with job(snakemake) as log:
    gpu.use(snakemake.resources.get("gpu", 0))
    splits = pd.read_parquet(snakemake.input.splits)
    predictions = predict(
        snakemake.wildcards.model,
        Path(snakemake.input.weights),
        splits.loc[splits["subset"] == "test", "image_id"].tolist(),
        Path(snakemake.input.splits).parent / "images" / "png",
        snakemake.params.thresholds,
        snakemake.threads,
        log,
    )
    write_table(snakemake.output.predictions, predictions)
    log.info("%d instances", len(predictions))
