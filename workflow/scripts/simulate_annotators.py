from pathlib import Path

import pandas as pd

from lumbarflow.annotate.exporting import write_via_project
from lumbarflow.annotate.mapping import SUBSET
from lumbarflow.annotate.simulated import draw
from lumbarflow.deidentify import pseudonyms
from lumbarflow.files import read_json
from lumbarflow.jobs import job

with job(snakemake) as log:
    manifest = Path(snakemake.input.manifest)
    truth, table = read_json(snakemake.input.truth), pd.read_parquet(manifest)
    keyed = pseudonyms.load(snakemake.params.key_file, snakemake.params.results)
    for annotator, project in enumerate(snakemake.output.via):
        films = draw(truth, table, keyed, manifest.parent / "png", snakemake.params.seed, annotator)
        write_via_project(
            project,
            films,
            classes=snakemake.params.classes,
            class_attribute=snakemake.params.annotations["class_attribute"],
            level_attribute=snakemake.params.annotations["level_attribute"],
            file_attributes=[SUBSET],
        )
        log.info("annotator %d: %d films", annotator + 1, len(films))
