from pathlib import Path

import pandas as pd

from lumbarflow import gpu
from lumbarflow.files import write_table
from lumbarflow.jobs import job
from lumbarflow.predict.table import predict

with job(snakemake) as log:
    gpu.use(snakemake.resources.get("gpu", 0))
    splits = pd.read_parquet(snakemake.input.splits)
    subset_of = splits.set_index("image_id")["subset"]
    predictions = predict(
        snakemake.wildcards.model,
        Path(snakemake.input.weights),
        splits.loc[splits["subset"] != "train", "image_id"].tolist(),
        Path(snakemake.input.splits).parent / "images" / "png",
        snakemake.params.thresholds,
        snakemake.threads,
        log,
    )
    for subset in ("test", "val"):
        chosen = predictions[predictions["image_id"].map(subset_of) == subset]
        write_table(snakemake.output[subset], chosen.reset_index(drop=True))
        log.info("%d instances on films of the subset %s", len(chosen), subset)
