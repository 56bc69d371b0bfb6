from pathlib import Path

from lumbarflow import gpu
from lumbarflow.jobs import job
from lumbarflow.train.run import train

with job(snakemake) as log:
    gpu.use(snakemake.resources.get("gpu", 0))
    masks = Path(snakemake.input.masks)
    weights = Path(snakemake.output.weights)
    train(
        snakemake.wildcards.model,
        Path(snakemake.input.coco[0]).parent,
        masks,
        masks.parent.parent / "images" / "png",
        dict(snakemake.params.items()),
        snakemake.threads,
        {key: Path(path) for key, path in snakemake.output.items()},
        weights.parent / "checkpoints",
        log,
    )
