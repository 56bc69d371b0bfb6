"""Lumbarflow: lateral lumbar radiographs from an archive to a comparison of five networks."""

from snakemake.utils import min_version

min_version("9.27")


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"


pathvars:
    results=config["results"],
    logs=f"{config['results']}/logs",
    benchmarks=f"{config['results']}/benchmarks",


include: "workflow/rules/acquire.smk"
include: "workflow/rules/annotate.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/tune.smk"
include: "workflow/rules/predict.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/replicates.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/new.smk"


rule all:
    default_target: True
    input:
        get_final_output(),


onerror:
    print_sentences(f"{config['results']}/logs")
