from pathlib import Path

from lumbarflow.acquire import pseudonyms
from lumbarflow.acquire.dimse import Archive
from lumbarflow.acquire.embedded_archive import read_address
from lumbarflow.acquire.retrieve import retrieve
from lumbarflow.jobs import job

with job(snakemake) as log:
    settings = snakemake.params.archive
    host, port = settings["host"], settings["port"]
    if snakemake.input.address:
        host, port = read_address(snakemake.input.address)
    manifest = Path(snakemake.output.manifest)
    retrieve(
        Archive(
            host,
            port,
            settings["ae_title"],
            settings["calling_ae_title"],
            settings["timeout_seconds"],
        ),
        pseudonyms.load(snakemake.params.key_file),
        manifest.parent,
        manifest,
        settings["modalities"],
        settings["study_dates"],
        settings["views"],
        log,
    )
