from pathlib import Path

import pandas as pd

from lumbarflow.annotate.exporting import write_via_project
from lumbarflow.annotate.simulated import draw
from lumbarflow.deidentify import pseudonyms
from lumbarflow.files import read_json
from lumbarflow.jobs import job

with job(snakemake) as log:
    manifest = Path(snakemake.input.manifest)
    images = draw(
        read_json(snakemake.input.truth),
        pd.read_parquet(manifest),
        pseudonyms.load(snakemake.params.key_file, snakemake.params.results),
        manifest.parent / "png",
    )
    write_via_project(
        snakemake.output.via,
        images,
        classes=snakemake.params.classes,
        class_attribute=snakemake.params.annotations["class_attribute"],
        level_attribute=snakemake.params.annotations["level_attribute"],
    )
    log.info("%d films annotated", len(images))
