import pandas as pd

from lumbarflow.acquire.folder import with_file_names
from lumbarflow.annotate.records import build_records, write_records
from lumbarflow.deidentify import pseudonyms
from lumbarflow.files import write_table
from lumbarflow.jobs import job

with job(snakemake) as log:
    keyed = pseudonyms.load(snakemake.params.key_file, snakemake.params.results)
    manifest = pd.read_parquet(snakemake.input.manifest)
    records, findings = build_records(
        list(snakemake.input.via),
        with_file_names(manifest, snakemake.params.folder, keyed),
        snakemake.params.classes,
        snakemake.params.annotations,
    )
    write_records(snakemake.output.records, records)
    write_table(snakemake.output.qc, findings)
    log.info("%d films annotated, %d findings", len(records), len(findings))
