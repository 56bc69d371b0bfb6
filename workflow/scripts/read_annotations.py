from pathlib import Path

import pandas as pd

from lumbarflow.acquire.folder import with_file_names
from lumbarflow.annotate.agreement import agreement_table
from lumbarflow.annotate.records import build_records, write_records
from lumbarflow.deidentify import pseudonyms
from lumbarflow.files import write_table
from lumbarflow.jobs import job
from lumbarflow.linking import link_files

with job(snakemake) as log:
    keyed = pseudonyms.load(snakemake.params.key_file, snakemake.params.results)
    folder, png = snakemake.params.folder, Path(snakemake.input.manifest).parent / "png"
    images = with_file_names(pd.read_parquet(snakemake.input.manifest), folder, keyed)
    # Films of other names are found by the size and content of the pictures that annotators see.
    images["pictures"] = [
        [png / f"{image_id}.png", *([Path(folder) / name] if folder else [])]
        for image_id, name in zip(images["image_id"], images["file_name"], strict=True)
    ]
    records, findings = build_records(
        list(snakemake.input.via),
        images,
        snakemake.params.classes,
        snakemake.params.annotations,
    )
    # Those in place, so that only changed ones are written.
    link_files(
        Path(snakemake.params.results) / "annotations" / "records",
        snakemake.output.records,
        "*.json",
    )
    write_records(snakemake.output.records, records)
    write_table(snakemake.output.qc, findings)
    spacings = images.set_index("image_id")["pixel_spacing_mm"].to_dict()
    agreement = agreement_table(records, spacings, snakemake.params.vertebrae)
    write_table(snakemake.output.agreement, agreement)
    log.info("%d films annotated, %d findings", len(records), len(findings))
