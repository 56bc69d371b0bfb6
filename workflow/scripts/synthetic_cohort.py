from pathlib import Path

from lumbarflow.jobs import job
from lumbarflow.synthetic.cohort import generate_cohort

with job(snakemake) as log:
    storage = Path(snakemake.output.truth).parent
    generate_cohort(storage, **snakemake.params.cohort, workers=snakemake.threads, log=log.info)
