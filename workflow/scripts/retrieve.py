from pathlib import Path

from lumbarflow.acquire import pseudonyms
from lumbarflow.acquire.embedded_archive import serving
from lumbarflow.acquire.films import read_decisions
from lumbarflow.acquire.retrieve import retrieve
from lumbarflow.acquire.selection import Selection
from lumbarflow.jobs import job

with job(snakemake) as log:
    settings = snakemake.params.archive
    selection = Selection.of(settings)
    with serving(snakemake.input.get("truth"), settings) as archive:
        retrieve(
            archive,
            selection,
            pseudonyms.load(snakemake.params.key_file),
            Path(snakemake.params.images),
            Path(snakemake.output.manifest),
            read_decisions(snakemake.params.decisions),
            log,
            settings["allow_missing"],
        )
