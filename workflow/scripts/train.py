from pathlib import Path

from lumbarflow import gpu
from lumbarflow.jobs import job
from lumbarflow.train.run import train

# The processes of several GPUs import this file: they must not begin the job again.
if __name__ == "__main__":
    with job(snakemake) as log:
        gpus = snakemake.resources.get("gpu", 0)
        gpu.use(gpus)
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
            gpus=gpus,
        )
