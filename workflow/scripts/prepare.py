from pathlib import Path

import pandas as pd

from lumbarflow.annotate.records import read_records
from lumbarflow.files import write_json, write_png
from lumbarflow.jobs import job
from lumbarflow.prepare.coco import coco_dataset
from lumbarflow.prepare.masks import bit_mask

with job(snakemake) as log:
    classes = snakemake.params.classes
    splits = pd.read_parquet(snakemake.input.splits)
    records = read_records(snakemake.input.records)
    for path in map(Path, snakemake.output.coco):
        films = splits[splits["subset"] == path.stem]
        write_json(path, coco_dataset(records, films, classes))
    masks = Path(snakemake.output.masks)
    for record in records:
        mask = bit_mask(record["structures"], classes, record["rows"], record["columns"])
        write_png(masks / f"{record['image_id']}.png", mask)
    log.info("%d masks", len(records))
