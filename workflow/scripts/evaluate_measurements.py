import pandas as pd

from lumbarflow.evaluate.labelling import score_labels
from lumbarflow.files import write_table
from lumbarflow.jobs import job

with job(snakemake) as log:
    models = dict(zip(snakemake.params.models, snakemake.input.measurements, strict=True))
    truth = snakemake.input.get("truth")
    references = {"annotation": snakemake.input.annotation} | ({"truth": truth} if truth else {})
    tables = score_labels(
        pd.read_parquet(snakemake.input.instances),
        {model: pd.read_parquet(path) for model, path in models.items()},
        {name: pd.read_parquet(path) for name, path in references.items()},
        pd.read_parquet(snakemake.input.splits),
        snakemake.params.evaluation,
    )
    for name, table in tables.items():
        write_table(snakemake.output[name], table)
    for row in tables["level_summary"].itertuples():
        log.info(
            "%s: %d of %d vertebrae with the right level", *row[1:2], row.n_correct, row.n_reference
        )
