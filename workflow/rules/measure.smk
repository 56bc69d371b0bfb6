"""Measure: levels, endplates, angles, heights and slip, of every network and of the annotations."""


rule tune_labelling:
    """Choose on the validation films how a network's bodies are separated, and how sure it is."""
    input:
        predictions="<results>/predictions/validation/{model}.parquet",
        splits=ancient("<results>/splits.parquet"),
        manifest=ancient("<results>/images/manifest.parquet"),
        records=ancient(published_records),
        digests=ancient(lambda wildcards: prepared("digests")),
    output:
        tuning="<results>/models/{model}/labelling.json",
    log:
        "<logs>/tune_labelling/{model}.log",
    benchmark:
        "<benchmarks>/tune_labelling/{model}.tsv"
    conda:
        "../../envs/prepare.yaml"
    params:
        films=lambda wildcards: films_in("val"),
        vertebrae=config["evaluation"]["foreground"],
        settings=config["measure"],
        code=code("tune_labelling.py"),
    script:
        "../scripts/tune_labelling.py"


rule label:
    """Separate, label and measure the vertebrae that a network saw on the test films."""
    input:
        predictions="<results>/predictions/networks/{model}.parquet",
        tuning="<results>/models/{model}/labelling.json",
        splits=ancient("<results>/splits.parquet"),
        manifest=ancient("<results>/images/manifest.parquet"),
        digests=ancient(lambda wildcards: prepared("digests")),
    output:
        labelled="<results>/predictions/{model}.parquet",
        unrepaired="<results>/predictions/unrepaired/{model}.parquet",
        measurements="<results>/measurements/{model}.parquet",
        vertebrae="<results>/measurements/vertebrae/{model}.parquet",
        overlays=directory("<results>/measurements/overlays/{model}"),
    log:
        "<logs>/label/{model}.log",
    benchmark:
        "<benchmarks>/label/{model}.tsv"
    conda:
        "../../envs/prepare.yaml"
    threads: 4
    params:
        vertebrae=config["evaluation"]["foreground"],
        settings=config["measure"],
        films=lambda wildcards: films_in("test", drawn=False),
        title=lambda wildcards: title(wildcards.model),
        code=code("label.py"),
    script:
        "../scripts/label.py"


rule measure_annotation:
    """Measure what the annotators drew."""
    input:
        splits=ancient("<results>/splits.parquet"),
        manifest=ancient("<results>/images/manifest.parquet"),
        records=ancient(published_records),
        digests=ancient(lambda wildcards: prepared("digests")),
    output:
        measurements="<results>/measurements/annotation.parquet",
        vertebrae="<results>/measurements/vertebrae/annotation.parquet",
    log:
        "<logs>/measure_annotation.log",
    benchmark:
        "<benchmarks>/measure_annotation.tsv"
    conda:
        "../../envs/prepare.yaml"
    threads: 4
    params:
        films=lambda wildcards: films_in("train", "val", "test"),
        vertebrae=config["evaluation"]["foreground"],
        settings=config["measure"],
        code=code("measure_annotation.py"),
    script:
        "../scripts/measure_annotation.py"


rule changes:
    """Compare the studies of each patient."""
    input:
        measurements="<results>/measurements/{source}.parquet",
        manifest=ancient("<results>/images/manifest.parquet"),
        # The annotators' own error is not known from one cohort.
        compared=lambda wildcards: (
            []
            if wildcards.source == "annotation"
            else "<results>/metrics/measurements.parquet"
        ),
        digests=ancient(lambda wildcards: prepared("digests")),
    output:
        changes="<results>/measurements/changes/{source}.parquet",
    log:
        "<logs>/changes/{source}.log",
    conda:
        "../../envs/prepare.yaml"
    params:
        films=lambda wildcards: films_in("train", "val", "test"),
        code=code("changes.py"),
    script:
        "../scripts/changes.py"
