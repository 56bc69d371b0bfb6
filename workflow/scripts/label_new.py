from pathlib import Path

import pandas as pd

from lumbarflow.annotate.ranking import unannotated
from lumbarflow.files import empty_folder, write_table, write_text
from lumbarflow.jobs import job
from lumbarflow.measure.cohort import films_of, label_films, read_tuning

with job(snakemake) as log:
    manifest = pd.read_parquet(snakemake.input.manifest)
    overlays = empty_folder(snakemake.output.overlays)
    films = films_of(manifest, unannotated(manifest, snakemake.input.get("records")))
    tables = label_films(
        films,
        pd.read_parquet(snakemake.input.predictions),
        snakemake.params.vertebrae,
        read_tuning(snakemake.params.tuning),
        snakemake.params.settings,
        snakemake.threads,
        log,
        Path(snakemake.input.manifest).parent / "png",
        overlays,
        snakemake.params.title,
    )
    for name in ("labelled", "measurements", "vertebrae"):
        write_table(snakemake.output[name], tables[name])
    write_text(snakemake.output.csv, tables["measurements"].to_csv(index=False))
    if not films:
        log.info("every accepted film has an annotation: there is none to predict")
    log.info("%d films, %d measurements", len(films), len(tables["measurements"]))
