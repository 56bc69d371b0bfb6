import pandas as pd

from lumbarflow.acquire.folder import with_file_names
from lumbarflow.annotate.records import read_records
from lumbarflow.deidentify import pseudonyms
from lumbarflow.files import write_table
from lumbarflow.jobs import job
from lumbarflow.prepare.splits import make_splits

with job(snakemake) as log:
    settings = snakemake.params.splits
    keyed = pseudonyms.load(snakemake.params.key_file, snakemake.params.results)
    manifest = pd.read_parquet(snakemake.input.manifest)
    images = with_file_names(manifest, snakemake.params.folder, keyed)
    records = read_records(snakemake.input.records)
    # A film whose every outline was rejected must not train as mere background.
    annotated = {record["image_id"] for record in records if record["structures"]}
    images["annotated"] = images["image_id"].isin(annotated)
    splits = make_splits(
        images, settings["test"], settings["validation"], settings["seed"], settings["file"]
    )
    write_table(snakemake.output.splits, splits)
    log.info("films: %s", splits["subset"].value_counts().to_dict())
