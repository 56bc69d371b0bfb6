from contextlib import nullcontext
from pathlib import Path

from lumbarflow.acquire import pseudonyms
from lumbarflow.acquire.dimse import Archive
from lumbarflow.acquire.embedded_archive import running
from lumbarflow.acquire.retrieve import retrieve
from lumbarflow.jobs import job

with job(snakemake) as log:
    settings = snakemake.params.archive
    host, port, title = (settings[key] for key in ("host", "port", "ae_title"))
    truth = snakemake.input.get("truth")
    server = running(Path(truth).parent, host, port, title) if truth else nullcontext(port)
    with server as port:
        retrieve(
            Archive(host, port, title, settings["calling_ae_title"], settings["timeout_seconds"]),
            pseudonyms.load(snakemake.params.key_file),
            Path(snakemake.params.images),
            Path(snakemake.output.manifest),
            settings["modalities"],
            settings["study_dates"],
            settings["views"],
            log,
        )
