from pathlib import Path

import pandas as pd

from lumbarflow.annotate.ranking import unannotated
from lumbarflow.clinic.export import write_objects
from lumbarflow.jobs import job
from lumbarflow.measure.cohort import films_of, read_tuning

with job(snakemake) as log:
    manifest = pd.read_parquet(snakemake.input.manifest)
    written = write_objects(
        films_of(manifest, unannotated(manifest, snakemake.input.get("records"))),
        pd.read_parquet(snakemake.input.predictions),
        Path(snakemake.input.manifest).parent / "dicom",
        Path(snakemake.output.objects),
        snakemake.params.vertebrae,
        read_tuning(snakemake.params.tuning),
        snakemake.params.settings,
        snakemake.params.title,
        Path(snakemake.params.weights),
        log,
    )
    log.info("%d objects in %s", written, snakemake.output.objects)
