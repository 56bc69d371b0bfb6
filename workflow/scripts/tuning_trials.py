import pandas as pd

from lumbarflow.files import write_table
from lumbarflow.jobs import job

with job(snakemake) as log:
    trials = pd.concat(map(pd.read_parquet, snakemake.input.trials), ignore_index=True)
    write_table(snakemake.output.trials, trials)
    log.info("%d trials", len(trials))
