from pathlib import Path

from lumbarflow.acquire import pseudonyms
from lumbarflow.acquire.folder import import_folder
from lumbarflow.jobs import job

with job(snakemake) as log:
    settings = snakemake.params.folder
    manifest = Path(snakemake.output.manifest)
    import_folder(
        settings["path"],
        pseudonyms.load(snakemake.params.key_file),
        manifest.parent,
        manifest,
        settings["view"],
        snakemake.params.views,
        settings["patient_pattern"],
        log,
    )
