from pathlib import Path

from lumbarflow.acquire.films import read_decisions
from lumbarflow.acquire.folder import import_folder
from lumbarflow.deidentify.audit import conclude
from lumbarflow.deidentify.deidentifier import Deidentifier
from lumbarflow.jobs import job

with job(snakemake) as log:
    settings, privacy = snakemake.params.folder, snakemake.params.privacy
    results = Path(snakemake.params.results)
    deidentifier = Deidentifier.of(privacy, results)
    rows = import_folder(
        settings["path"],
        deidentifier,
        results / "images",
        Path(snakemake.output.manifest),
        settings["view"],
        read_decisions(snakemake.params.decisions),
        settings["patient_pattern"],
        log,
        snakemake.threads,
    )
    audit, given = Path(snakemake.output.audit), str(snakemake.config)
    conclude(rows, deidentifier, privacy["verify"], results, audit, given, log)
