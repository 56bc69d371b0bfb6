from lumbarflow.jobs import job
from lumbarflow.linking import link_files

with job(snakemake):
    link_files(snakemake.input[0], snakemake.output.records, "*.json")
