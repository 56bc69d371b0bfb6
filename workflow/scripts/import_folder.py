from pathlib import Path

from lumbarflow.acquire import pseudonyms
from lumbarflow.acquire.films import read_decisions
from lumbarflow.acquire.folder import import_folder
from lumbarflow.jobs import job

with job(snakemake) as log:
    settings = snakemake.params.folder
    import_folder(
        settings["path"],
        pseudonyms.load(snakemake.params.key_file),
        Path(snakemake.params.images),
        Path(snakemake.output.manifest),
        settings["view"],
        read_decisions(snakemake.params.decisions),
        settings["patient_pattern"],
        log,
        snakemake.threads,
    )
