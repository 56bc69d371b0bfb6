"""Annotate: VIA files into one canonical record a film, with findings."""

VIA_FILES = config["annotations"]["via"] or [
    "<results>/annotations/simulated_via_project.json"
]


rule simulate_annotators:
    """Write the VIA project that annotators of the synthetic films would have drawn."""
    input:
        manifest="<results>/images/manifest.parquet",
        truth=f"{config['archive']['storage']}/truth.json",
    output:
        via="<results>/annotations/simulated_via_project.json",
    log:
        "<logs>/simulate_annotators.log",
    conda:
        "../../envs/acquire.yaml"
    params:
        classes=config["classes"],
        annotations=config["annotations"],
        key_file=config["privacy"]["key_file"],
        results=subpath(input.manifest, ancestor=2),
        code=code("simulate_annotators.py"),
    script:
        "../scripts/simulate_annotators.py"


rule read_annotations:
    """Read VIA files, match them to films, and sort sound structures from findings."""
    input:
        manifest="<results>/images/manifest.parquet",
        via=VIA_FILES,
    output:
        records=directory("<results>/incoming/annotations/records"),
        qc="<results>/incoming/annotations/qc.parquet",
    log:
        "<logs>/read_annotations.log",
    benchmark:
        "<benchmarks>/read_annotations.tsv"
    conda:
        "../../envs/acquire.yaml"
    params:
        classes=config["classes"],
        annotations=config["annotations"],
        folder=config["folder"]["path"] if config["source"] == "folder" else None,
        key_file=config["privacy"]["key_file"],
        results=subpath(input.manifest, ancestor=2),
        code=code("read_annotations.py"),
    script:
        "../scripts/read_annotations.py"


rule publish_records:
    """Put sound records in place; see `publish`."""
    input:
        "<results>/incoming/annotations/records",
    output:
        directory("<results>/annotations/records"),
    log:
        "<logs>/publish_records.log",
    localrule: True
    conda:
        "../../envs/acquire.yaml"
    shell:
        "cp -r {input:q} {output:q} 2> {log:q}"
