from pathlib import Path

from lumbarflow.jobs import job
from lumbarflow.train.run import train

with job(snakemake) as log:
    masks = Path(snakemake.input.masks)
    weights = Path(snakemake.output.weights)
    train(
        snakemake.wildcards.model,
        masks.parent,
        masks.parent.parent / "images" / "png",
        {key: snakemake.params[key] for key in ("network", "training", "classes", "foreground")},
        snakemake.threads,
        {key: Path(path) for key, path in snakemake.output.items()},
        weights.parent / "checkpoints",
        log,
    )
