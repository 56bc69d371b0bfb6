"""Prepare: patient-grouped splits, COCO files and bit-coded masks."""


rule split:
    """Divide the annotated films by patient, or as the split file says."""
    input:
        manifest=ancient("<results>/images/manifest.parquet"),
        records=ancient(published_records),
        file=config["splits"]["file"] or [],
    output:
        splits="<results>/incoming/splits.parquet",
    log:
        "<logs>/split.log",
    conda:
        "../../envs/acquire.yaml"
    params:
        splits={
            key: value
            for key, value in config["splits"].items()
            if key != "allow_moves"
        },
        films=behind_records(annotated_patients),
        # A function of the input is not recorded: permission alone is no reason to run.
        allow_moves=lambda wildcards, input: config["splits"]["allow_moves"],
        folder=config["folder"]["path"] if config["source"] == "folder" else None,
        key_file=config["privacy"]["key_file"],
        results=subpath(input.manifest, ancestor=2),
        code=code("split.py"),
    script:
        "../scripts/split.py"


checkpoint prepare:
    """Turn polygons into COCO files and masks at full resolution."""
    input:
        records=ancient(published_records),
        splits="<results>/splits.parquet",
    output:
        coco=expand(
            "<results>/prepared/coco/{subset}.json", subset=["train", "val", "test"]
        ),
        masks=directory("<results>/prepared/masks"),
        digests="<results>/prepared/digests.json",
    log:
        "<logs>/prepare.log",
    benchmark:
        "<benchmarks>/prepare.tsv"
    conda:
        "../../envs/prepare.yaml"
    params:
        classes=config["classes"],
        structures=behind_records(structures_digest),
        pictures=behind_records(
            lambda records: pictures_stamp(
                f"{RESULTS}/images/png", annotated_films(records)
            )
        ),
        missing=lambda wildcards: missing_files(
            f"{RESULTS}/prepared/masks", f"{RESULTS}/incoming/prepared/masks", "*.png"
        ),
        results=subpath(output.masks, ancestor=2),
        code=code("prepare.py"),
    script:
        "../scripts/prepare.py"
