from pathlib import Path

from lumbarflow import gpu
from lumbarflow.files import read_json, write_table
from lumbarflow.jobs import job
from lumbarflow.predict.table import predict

with job(snakemake) as log:
    gpu.use(snakemake.resources.get("gpu", 0))
    coco = {Path(path).stem: path for path in snakemake.input.coco}
    # The outputs are named after the subsets that they hold.
    films = {
        subset: [image["image_id"] for image in read_json(coco[subset])["images"]]
        for subset, _ in snakemake.output.items()
    }
    predictions = predict(
        snakemake.wildcards.model,
        Path(snakemake.input.weights),
        [image_id for image_ids in films.values() for image_id in image_ids],
        Path(snakemake.input.digests).parent.parent / "images" / "png",
        snakemake.params.thresholds,
        snakemake.threads,
        log,
    )
    for subset, image_ids in films.items():
        chosen = predictions[predictions["image_id"].isin(image_ids)]
        write_table(snakemake.output[subset], chosen.reset_index(drop=True))
        log.info("%d instances on films of the subset %s", len(chosen), subset)
