from pathlib import Path

import yaml

from lumbarflow.jobs import job
from lumbarflow.report.page import build_report

with job(snakemake) as log:
    build_report(
        Path(snakemake.params.results),
        snakemake.params.models,
        snakemake.params.titles,
        snakemake.params.classes,
        snakemake.params.films,
        yaml.safe_load(Path(snakemake.input.config).read_text(encoding="utf-8")),
        Path(snakemake.output.page),
    )
    log.info("open %s", snakemake.output.page)
