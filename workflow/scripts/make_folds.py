from pathlib import Path

import pandas as pd

from lumbarflow.files import read_json, write_json, write_table
from lumbarflow.jobs import job
from lumbarflow.prepare.folds import (
    divide,
    fold_digests,
    fold_splits,
    picture_digests,
    select_films,
)

with job(snakemake) as log:
    # Without the test films: no fold trains, chooses or is scored on them.
    coco = [read_json(path) for path in snakemake.input.coco if Path(path).stem != "test"]
    divided = divide(
        pd.read_parquet(snakemake.input.splits), snakemake.params.folds, snakemake.params.seed
    )
    images = Path(snakemake.input.splits).parent / "images" / "png"
    pictures = picture_digests(images, divided["image_id"])
    digests = {}
    for fold, films in divided.groupby("fold"):
        subsets = {
            name: select_films(coco, chosen["image_id"])
            for name, chosen in fold_splits(divided, fold).groupby("subset")
        }
        for name, dataset in subsets.items():
            path = Path(snakemake.output.digests).parent / f"fold{fold}" / "coco" / f"{name}.json"
            write_json(path, dataset)
        digests[f"fold{fold}"] = fold_digests(subsets, pictures)
        log.info(
            "fold %d: %d films of %d patients", fold, len(films), films["patient_id"].nunique()
        )
    write_table(snakemake.output.films, divided)
    write_json(snakemake.output.digests, digests)
