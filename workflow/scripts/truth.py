import pandas as pd

from lumbarflow.deidentify import pseudonyms
from lumbarflow.evaluate.truth import truth_table
from lumbarflow.files import read_json, write_table
from lumbarflow.jobs import job

with job(snakemake) as log:
    table = truth_table(
        read_json(snakemake.input.truth),
        pd.read_parquet(snakemake.input.manifest),
        pseudonyms.load(snakemake.params.key_file, snakemake.params.results),
    )
    write_table(snakemake.output.truth, table)
    log.info("%d measurements of %d films", len(table), table["image_id"].nunique())
