"""Annotate: annotation files into one canonical record a film, with findings; VIA projects out."""

# The files give the annotators their names.
SIMULATED = [
    f"<results>/annotations/simulated_via_project{number}.json"
    for number in ["", "_2"][: config["synthetic"]["annotators"]]
]
if config["annotations"]["via"]:
    VIA_FILES = config["annotations"]["via"]
elif has_synthetic_annotations(config):
    VIA_FILES = SIMULATED
else:
    VIA_FILES = refuse_without_annotations

# At the very start there are none, and a VIA project of all films is wanted first.
RECORDS = [] if callable(VIA_FILES) else "<results>/annotations/records"


rule simulate_annotators:
    """Write the VIA projects that annotators of the synthetic films would have drawn."""
    input:
        manifest="<results>/images/manifest.parquet",
        truth=f"{config['archive']['storage']}/truth.json",
    output:
        via=SIMULATED,
    log:
        "<logs>/simulate_annotators.log",
    conda:
        "../../envs/prepare.yaml"
    params:
        classes=config["classes"],
        annotations=config["annotations"],
        key_file=config["privacy"]["key_file"],
        results=subpath(input.manifest, ancestor=2),
        seed=config["synthetic"]["seed"],
        code=code("simulate_annotators.py"),
    script:
        "../scripts/simulate_annotators.py"


rule read_annotations:
    """Read annotation files, match them to films, and sort sound structures from findings."""
    input:
        manifest="<results>/images/manifest.parquet",
        via=ancient(VIA_FILES) if config["annotations"]["via"] else VIA_FILES,
    output:
        records=directory("<results>/incoming/annotations/records"),
        qc="<results>/incoming/annotations/qc.parquet",
        agreement="<results>/incoming/annotations/agreement.parquet",
    log:
        "<logs>/read_annotations.log",
    benchmark:
        "<benchmarks>/read_annotations.tsv"
    conda:
        "../../envs/acquire.yaml"
    params:
        classes=config["classes"],
        annotations=config["annotations"],
        # Files of annotators are watched by content: they save again what has not changed.
        via=lambda wildcards: via_digest(),
        vertebrae=config["evaluation"]["foreground"],
        folder=config["folder"]["path"] if config["source"] == "folder" else None,
        key_file=config["privacy"]["key_file"],
        results=subpath(input.manifest, ancestor=2),
        code=code("read_annotations.py"),
    script:
        "../scripts/read_annotations.py"


checkpoint publish_records:
    """Put sound records in place; see `publish`. What is behind looks at what has changed in them."""
    input:
        "<results>/incoming/annotations/records",
    output:
        records=directory("<results>/annotations/records"),
    log:
        "<logs>/publish_records.log",
    localrule: True
    conda:
        "../../envs/prepare.yaml"
    params:
        missing=lambda wildcards: missing_files(
            f"{RESULTS}/annotations/records",
            f"{RESULTS}/incoming/annotations/records",
            "*.json",
        ),
    script:
        "../scripts/publish_records.py"


rule preannotate:
    """Predict the films that have no annotation with a network that is trained already."""
    input:
        manifest="<results>/images/manifest.parquet",
        records=RECORDS,
    output:
        predictions="<results>/predictions/unannotated/{model}.parquet",
    log:
        "<logs>/preannotate/{model}.log",
    benchmark:
        "<benchmarks>/preannotate/{model}.tsv"
    conda:
        "../../envs/train.yaml"
    threads: 8
    resources:
        gpu=gpu_request,
        mem_mb=12000,
        runtime=240,
    params:
        weights=lambda wildcards: str(model_file(wildcards.model, "model.pth")),
        stamp=lambda wildcards: file_stamp(model_file(wildcards.model, "model.pth")),
        thresholds=config["predict"],
        code=lambda wildcards: code("preannotate.py", f"networks/{wildcards.model}.py"),
    script:
        "../scripts/preannotate.py"


rule via_project:
    """Write a VIA project: films to annotate first, most useful ones first, with predictions."""
    input:
        manifest="<results>/images/manifest.parquet",
        records=RECORDS,
        predictions=lambda wildcards: expand(
            "<results>/predictions/unannotated/{model}.parquet", model=trained_models()
        ),
    output:
        via="<results>/annotations/via_project.json",
        ranking="<results>/annotations/ranking.parquet",
    log:
        "<logs>/via_project.log",
    benchmark:
        "<benchmarks>/via_project.tsv"
    conda:
        "../../envs/prepare.yaml"
    params:
        runs=lambda wildcards: {
            model: str(model_file(model, "run.json")) for model in trained_models()
        },
        classes=config["classes"],
        foreground=config["evaluation"]["foreground"],
        annotations={
            key: config["annotations"][key]
            for key in ("class_attribute", "level_attribute")
        },
        settings=config["via_project"],
        code=code("via_project.py"),
    script:
        "../scripts/via_project.py"
