import yaml

from lumbarflow.files import write_text
from lumbarflow.jobs import job

with job(snakemake):
    text = yaml.safe_dump(snakemake.params.config, sort_keys=False, allow_unicode=True)
    write_text(snakemake.output[0], text)
