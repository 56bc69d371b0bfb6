from pathlib import Path

from lumbarflow.acquire.embedded_archive import serve
from lumbarflow.jobs import job

with job(snakemake) as log:
    archive = snakemake.params.archive
    serve(
        Path(snakemake.input.truth).parent,
        archive["host"],
        archive["port"],
        archive["ae_title"],
        Path(snakemake.output.address),
    )
