"""Evaluate: the paper's four metrics and more, on the test films alone."""


rule truth:
    """Put the known measurements of the synthetic films under their pseudonyms."""
    input:
        manifest="<results>/images/manifest.parquet",
        truth=f"{config['archive']['storage']}/truth.json",
    output:
        truth="<results>/truth.parquet",
    log:
        "<logs>/truth.log",
    conda:
        "../../envs/prepare.yaml"
    params:
        key_file=config["privacy"]["key_file"],
        results=subpath(output.truth, parent=True),
        code=code("truth.py"),
    script:
        "../scripts/truth.py"


rule evaluate:
    """Score every network on the test films."""
    input:
        networks=expand(
            "<results>/predictions/networks/{model}.parquet", model=config["models"]
        ),
        unrepaired=expand(
            "<results>/predictions/unrepaired/{model}.parquet", model=config["models"]
        ),
        labelled=expand("<results>/predictions/{model}.parquet", model=config["models"]),
        splits=ancient("<results>/splits.parquet"),
        manifest=ancient("<results>/images/manifest.parquet"),
        masks=ancient(lambda wildcards: prepared("masks")),
        records=ancient(published_records),
    output:
        **{name: f"<results>/metrics/{name}.parquet" for name in SCORED},
        table1=report(
            "<results>/metrics/table1.csv",
            caption="../report/table1.rst",
            category="Comparison",
        ),
    log:
        "<logs>/evaluate.log",
    benchmark:
        "<benchmarks>/evaluate.tsv"
    conda:
        "../../envs/prepare.yaml"
    threads: 4
    params:
        films=lambda wildcards: films_in("test"),
        models=config["models"],
        titles={name: title(name) for name in config["models"]},
        classes=config["classes"],
        evaluation=config["evaluation"],
        code=code("evaluate.py"),
    script:
        "../scripts/evaluate.py"


rule evaluate_measurements:
    """Score the levels and measurements of every network, on the test films."""
    input:
        instances="<results>/metrics/instances.parquet",
        measurements=expand(
            "<results>/measurements/{model}.parquet", model=config["models"]
        ),
        annotation="<results>/measurements/annotation.parquet",
        truth=(["<results>/truth.parquet"] if has_synthetic_annotations(config) else []),
        splits=ancient("<results>/splits.parquet"),
    output:
        **{name: f"<results>/metrics/{name}.parquet" for name in MEASURED},
    log:
        "<logs>/evaluate_measurements.log",
    benchmark:
        "<benchmarks>/evaluate_measurements.tsv"
    conda:
        "../../envs/prepare.yaml"
    params:
        models=config["models"],
        evaluation=config["evaluation"],
        code=code("evaluate_measurements.py"),
    script:
        "../scripts/evaluate_measurements.py"


rule compare:
    """Compare the networks with each other, by film and stratum, and count their errors."""
    input:
        per_image="<results>/metrics/per_image.parquet",
        instances="<results>/metrics/instances.parquet",
        network=expand(
            "<results>/predictions/networks/{model}.parquet", model=config["models"]
        ),
        labelled=expand("<results>/predictions/{model}.parquet", model=config["models"]),
        measurements="<results>/measurements/annotation.parquet",
        replicates="<results>/metrics/replicates.parquet" if SEEDS else [],
        splits=ancient("<results>/splits.parquet"),
        records=ancient(published_records),
        digests=ancient(lambda wildcards: prepared("digests")),
    output:
        **{name: f"<results>/metrics/{name}.parquet" for name in COMPARED},
    log:
        "<logs>/compare.log",
    benchmark:
        "<benchmarks>/compare.tsv"
    conda:
        "../../envs/prepare.yaml"
    params:
        films=lambda wildcards: digests()["test"]["structures"],
        families={name: networks.family(name) for name in config["models"]},
        evaluation=config["evaluation"],
        code=code("compare.py"),
    script:
        "../scripts/compare.py"
