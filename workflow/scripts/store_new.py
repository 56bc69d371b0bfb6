from pathlib import Path

from lumbarflow.clinic.store import store_files
from lumbarflow.files import write_json
from lumbarflow.jobs import job

with job(snakemake) as log:
    count = store_files(
        Path(snakemake.input.objects),
        Path(snakemake.input.manifest).parent / "dicom",
        snakemake.params.archive,
        log,
    )
    write_json(snakemake.output.receipt, {"archive": snakemake.params.archive, "objects": count})
