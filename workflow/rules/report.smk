"""Report: one HTML page that opens from disk, and the resolved configuration beside it."""


rule resolved_config:
    """Write the complete configuration with the results."""
    output:
        "<results>/config.yaml",
    log:
        "<logs>/resolved_config.log",
    localrule: True
    conda:
        "../../envs/report.yaml"
    params:
        config=config,
    script:
        "../scripts/resolved_config.py"


rule report:
    """Put tables, curves and films onto one page."""
    input:
        table1="<results>/metrics/table1.csv",
        scored=expand("<results>/metrics/{table}.parquet", table=SCORED),
        config="<results>/config.yaml",
        qc="<results>/annotations/qc.parquet",
        agreement="<results>/annotations/agreement.parquet",
        manifest="<results>/images/manifest.parquet",
        audit="<results>/images/deidentification.parquet",
        measured=expand("<results>/metrics/{table}.parquet", table=MEASURED),
        compared=expand("<results>/metrics/{table}.parquet", table=COMPARED),
        measurements=expand(
            "<results>/measurements/{source}.parquet",
            source=[*config["models"], "annotation"],
        ),
        changes=expand(
            "<results>/measurements/changes/{source}.parquet",
            source=[*config["models"], "annotation"],
        ),
        overlays=expand(
            "<results>/measurements/overlays/{model}", model=config["models"]
        ),
        runs=expand("<results>/models/{model}/run.json", model=config["models"]),
        spread=expand(
            "<results>/metrics/{table}.parquet", table=SPREAD if REPLICATES else []
        ),
        records=published_records,
        # The page waits for the decision what of the rest has to run.
        digests=ancient(lambda wildcards: prepared("digests")),
    output:
        page=report(
            "<results>/report/index.html",
            caption="../report/index.rst",
            category="Comparison",
        ),
    log:
        "<logs>/report.log",
    conda:
        "../../envs/report.yaml"
    params:
        results=subpath(output.page, ancestor=2),
        models=config["models"],
        titles={name: title(name) for name in config["models"]},
        classes=config["classes"],
        films=config["report"]["films"],
        code=code("report.py"),
    script:
        "../scripts/report.py"


rule paper:
    """Write tables, methods and reporting checklists for a paper."""
    input:
        config="<results>/config.yaml",
        manifest="<results>/images/manifest.parquet",
        audit="<results>/images/deidentification.parquet",
        splits="<results>/splits.parquet",
        qc="<results>/annotations/qc.parquet",
        agreement="<results>/annotations/agreement.parquet",
        runs=expand("<results>/models/{model}/run.json", model=config["models"]),
        metrics=expand(
            "<results>/metrics/{table}.parquet",
            table=["summary", "class_summary", "comparisons", "errors"],
        ),
        spread="<results>/metrics/replicate_summary.parquet" if REPLICATES else [],
        records=published_records,
        # They wait for the decision what of the rest has to run.
        digests=ancient(lambda wildcards: prepared("digests")),
    output:
        expand("<results>/report/paper/{file}", file=PAPER),
    log:
        "<logs>/paper.log",
    conda:
        "../../envs/report.yaml"
    params:
        results=subpath(output[0], ancestor=3),
        models=config["models"],
        titles={name: title(name) for name in config["models"]},
        snakemake=version("snakemake"),
        code=code("paper.py"),
    script:
        "../scripts/paper.py"
