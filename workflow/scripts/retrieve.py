from pathlib import Path

from lumbarflow.acquire.embedded_archive import serving
from lumbarflow.acquire.films import read_decisions
from lumbarflow.acquire.retrieve import retrieve
from lumbarflow.acquire.selection import Selection
from lumbarflow.deidentify.audit import conclude
from lumbarflow.deidentify.deidentifier import Deidentifier
from lumbarflow.jobs import job

with job(snakemake) as log:
    settings, privacy = snakemake.params.archive, snakemake.params.privacy
    results = Path(snakemake.params.results)
    deidentifier = Deidentifier.of(privacy, results)
    with serving(snakemake.input.get("truth"), settings) as archive:
        rows = retrieve(
            archive,
            Selection.of(settings),
            deidentifier,
            results / "images",
            Path(snakemake.output.manifest),
            read_decisions(snakemake.params.decisions),
            log,
            settings["allow_missing"],
        )
    audit, given = Path(snakemake.output.audit), str(snakemake.config)
    conclude(rows, deidentifier, privacy["verify"], results, audit, given, log)
