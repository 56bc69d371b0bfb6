from importlib.metadata import version
from pathlib import Path

import yaml

from lumbarflow.jobs import job
from lumbarflow.report.paper import write_paper

PACKAGES = ("numpy", "opencv-python", "pandas", "pycocotools", "scipy")

with job(snakemake) as log:
    out = Path(snakemake.output[0]).parent
    write_paper(
        Path(snakemake.params.results),
        snakemake.params.models,
        snakemake.params.titles,
        yaml.safe_load(Path(snakemake.input.config).read_text(encoding="utf-8")),
        {package: version(package) for package in PACKAGES}
        | {"snakemake": snakemake.params.snakemake},
        out,
    )
    log.info("written to %s", out)
