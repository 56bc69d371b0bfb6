"""Annotate: VIA files into one canonical record a film, with findings."""

VIA_FILES = config["annotations"]["via"] or ["<results>/annotations/simulated_via_project.json"]


rule simulate_annotators:
    """Write the VIA project that annotators of the synthetic films would have drawn."""
    input:
        manifest="<results>/images/manifest.parquet",
        truth=f"{config['archive']['storage']}/truth.json",
    output:
        via="<results>/annotations/simulated_via_project.json",
    log:
        "<logs>/simulate_annotators.log",
    params:
        classes=config["classes"],
        annotations=config["annotations"],
        key_file=config["privacy"]["key_file"],
        code=code("simulate_annotators.py"),
    conda:
        "../../envs/acquire.yaml"
    script:
        "../scripts/simulate_annotators.py"


rule read_annotations:
    """Read VIA files, match them to films, and sort sound structures from findings."""
    input:
        manifest="<results>/images/manifest.parquet",
        via=VIA_FILES,
    output:
        records=update(directory("<results>/annotations/records")),
        qc=update("<results>/annotations/qc.parquet"),
    log:
        "<logs>/read_annotations.log",
    benchmark:
        "<benchmarks>/read_annotations.tsv"
    params:
        classes=config["classes"],
        annotations=config["annotations"],
        folder=config["folder"]["path"] if config["source"] == "folder" else None,
        key_file=config["privacy"]["key_file"],
        code=code("read_annotations.py"),
    conda:
        "../../envs/acquire.yaml"
    script:
        "../scripts/read_annotations.py"
