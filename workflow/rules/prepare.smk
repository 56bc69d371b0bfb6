"""Prepare: patient-grouped splits, COCO files and bit-coded masks."""


rule split:
    """Divide the annotated films by patient, or as the split file says."""
    input:
        manifest="<results>/images/manifest.parquet",
        records="<results>/annotations/records",
        file=config["splits"]["file"] or [],
    output:
        splits="<results>/incoming/splits.parquet",
    log:
        "<logs>/split.log",
    conda:
        "../../envs/acquire.yaml"
    params:
        splits=config["splits"],
        folder=config["folder"]["path"] if config["source"] == "folder" else None,
        key_file=config["privacy"]["key_file"],
        results=subpath(input.manifest, ancestor=2),
        code=code("split.py"),
    script:
        "../scripts/split.py"


rule prepare:
    """Turn polygons into COCO files and masks at full resolution."""
    input:
        records="<results>/annotations/records",
        splits="<results>/splits.parquet",
    output:
        coco=expand(
            "<results>/prepared/coco/{subset}.json", subset=["train", "val", "test"]
        ),
        masks=directory("<results>/prepared/masks"),
    log:
        "<logs>/prepare.log",
    benchmark:
        "<benchmarks>/prepare.tsv"
    conda:
        "../../envs/prepare.yaml"
    params:
        classes=config["classes"],
        code=code("prepare.py"),
    script:
        "../scripts/prepare.py"
