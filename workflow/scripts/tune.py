from pathlib import Path

from lumbarflow import gpu
from lumbarflow.files import read_json, write_table
from lumbarflow.jobs import job
from lumbarflow.train.tuning import tune, write_winner

with job(snakemake) as log:
    gpu.use(snakemake.resources.get("gpu", 0))
    parameters = dict(snakemake.params.items())
    tuning = parameters.pop("tuning")
    coco, masks = Path(snakemake.input.coco[0]).parent, Path(snakemake.input.masks)
    settings = Path(snakemake.output.settings)
    trials = tune(
        snakemake.wildcards.model,
        coco,
        masks,
        masks.parent.parent / "images" / "png",
        parameters,
        tuning,
        snakemake.threads,
        settings.with_suffix(""),
        log,
    )
    write_table(snakemake.output.trials, trials)
    films = len(read_json(coco / "val.json")["images"])
    write_winner(settings, trials, parameters["network"], films)
    log.info("the best settings: %s", settings)
