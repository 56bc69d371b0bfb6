from pathlib import Path

import pandas as pd

from lumbarflow.annotate.records import read_records
from lumbarflow.files import write_json
from lumbarflow.jobs import job
from lumbarflow.linking import link_files
from lumbarflow.prepare.coco import coco_dataset, subset_digests
from lumbarflow.prepare.masks import write_masks
from lumbarflow.train.films import full_size

with job(snakemake) as log:
    classes = snakemake.params.classes
    results = Path(snakemake.params.results)
    splits = pd.read_parquet(snakemake.input.splits)
    records = read_records(snakemake.input.records)
    folders = Path(snakemake.input.records), results / "images" / "png"
    digests = {}
    for path in map(Path, snakemake.output.coco):
        films = splits[splits["subset"] == path.stem]
        dataset = coco_dataset(records, films, classes)
        write_json(path, dataset)
        ids = films["image_id"].tolist()
        digests[path.stem] = subset_digests(path.stem, dataset, ids, *folders)
    kept = results / "incoming" / "prepared" / "masks"
    changed = write_masks(kept, records, classes)
    link_files(kept, snakemake.output.masks, "*.png")
    digests["canvas"] = full_size(results / "prepared" / "coco", ("train", "val", "test"))
    write_json(snakemake.output.digests, digests)
    log.info("%d masks, %d of them new or changed", len(records), changed)
