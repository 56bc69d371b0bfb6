from pathlib import Path

import pandas as pd

from lumbarflow.acquire.folder import with_file_names
from lumbarflow.annotate.watching import annotated_films, reserved_films
from lumbarflow.deidentify import pseudonyms
from lumbarflow.files import write_table
from lumbarflow.jobs import job
from lumbarflow.prepare.splits import keep_splits

with job(snakemake) as log:
    settings = snakemake.params.splits
    keyed = pseudonyms.load(snakemake.params.key_file, snakemake.params.results)
    manifest = pd.read_parquet(snakemake.input.manifest)
    images = with_file_names(manifest, snakemake.params.folder, keyed)
    annotated = annotated_films(snakemake.input.records)
    images["annotated"] = images["image_id"].isin(annotated)
    images["reserved"] = images["image_id"].isin(reserved_films(snakemake.input.records))
    splits = keep_splits(
        images,
        settings,
        Path(snakemake.params.results) / "split_ledger.json",
        snakemake.params.allow_moves,
    )
    write_table(snakemake.output.splits, splits)
    log.info("films: %s", splits["subset"].value_counts().to_dict())
