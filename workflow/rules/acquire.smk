"""Acquire: films from a DICOM archive or a folder, de-identified, as PNG and in the manifest."""

EMBEDDED = has_synthetic_annotations(config)


rule synthetic_cohort:
    """Make the films of the embedded archive; outside the results, as they carry names."""
    output:
        truth=f"{config['archive']['storage']}/truth.json",
    log:
        "<logs>/synthetic_cohort.log",
    benchmark:
        "<benchmarks>/synthetic_cohort.tsv"
    params:
        cohort=config["synthetic"],
        code=code("synthetic_cohort.py"),
    threads: 8
    resources:
        mem_mb=4000,
        runtime=60,
    conda:
        "../../envs/acquire.yaml"
    script:
        "../scripts/synthetic_cohort.py"


rule retrieve:
    """Query the archive (started here if embedded), fetch what is new, de-identify and render."""
    input:
        truth=f"{config['archive']['storage']}/truth.json" if EMBEDDED else [],
    output:
        manifest=update("<results>/images/manifest.parquet"),
    log:
        "<logs>/retrieve.log",
    benchmark:
        "<benchmarks>/retrieve.tsv"
    params:
        archive=config["archive"],
        key_file=config["privacy"]["key_file"],
        code=code("retrieve.py"),
    resources:
        mem_mb=4000,
        runtime=240,
    conda:
        "../../envs/acquire.yaml"
    script:
        "../scripts/retrieve.py"


rule import_folder:
    """Take the films of a folder, by the same rules."""
    input:
        folder=config["folder"]["path"] or [],
    output:
        manifest=update("<results>/images/manifest.parquet"),
    log:
        "<logs>/import_folder.log",
    benchmark:
        "<benchmarks>/import_folder.tsv"
    params:
        folder=config["folder"],
        views=config["archive"]["views"],
        key_file=config["privacy"]["key_file"],
        code=code("import_folder.py"),
    resources:
        mem_mb=4000,
        runtime=120,
    conda:
        "../../envs/acquire.yaml"
    script:
        "../scripts/import_folder.py"


if config["source"] == "archive":

    ruleorder: retrieve > import_folder

else:

    ruleorder: import_folder > retrieve
