"""New studies: trained networks on films without annotations, and back to the clinic."""


rule label_new:
    """Label and measure the films without annotation, with the best trained network."""
    input:
        predictions=lambda wildcards: f"<results>/predictions/unannotated/{new_model()}.parquet",
        manifest="<results>/images/manifest.parquet",
        records=RECORDS,
    output:
        labelled="<results>/new/predictions.parquet",
        measurements="<results>/new/measurements.parquet",
        csv="<results>/new/measurements.csv",
        vertebrae="<results>/new/vertebrae.parquet",
        overlays=directory("<results>/new/overlays"),
    log:
        "<logs>/label_new.log",
    benchmark:
        "<benchmarks>/label_new.tsv"
    conda:
        "../../envs/prepare.yaml"
    threads: 4
    params:
        tuning=lambda wildcards: str(model_file(new_model(), "labelling.json")),
        stamp=lambda wildcards: file_stamp(model_file(new_model(), "labelling.json")),
        title=lambda wildcards: title(new_model()),
        vertebrae=config["evaluation"]["foreground"],
        settings=config["measure"],
        code=code("label_new.py"),
    script:
        "../scripts/label_new.py"


rule dicom_new:
    """Write what was found on each film as a DICOM Segmentation and a structured report."""
    input:
        predictions=lambda wildcards: f"<results>/predictions/unannotated/{new_model()}.parquet",
        manifest="<results>/images/manifest.parquet",
        records=RECORDS,
    output:
        objects=directory("<results>/new/dicom"),
    log:
        "<logs>/dicom_new.log",
    benchmark:
        "<benchmarks>/dicom_new.tsv"
    conda:
        "../../envs/clinic.yaml"
    params:
        tuning=lambda wildcards: str(model_file(new_model(), "labelling.json")),
        weights=lambda wildcards: str(model_file(new_model(), "model.pth")),
        stamp=lambda wildcards: file_stamp(model_file(new_model(), "labelling.json")),
        title=lambda wildcards: title(new_model()),
        vertebrae=config["evaluation"]["foreground"],
        settings=config["measure"],
        code=code("dicom_new.py"),
    script:
        "../scripts/dicom_new.py"


rule store_new:
    """Store these objects and their de-identified films in an archive."""
    input:
        objects="<results>/new/dicom",
        manifest="<results>/images/manifest.parquet",
    output:
        receipt="<results>/new/stored.json",
    log:
        "<logs>/store_new.log",
    conda:
        "../../envs/clinic.yaml"
    params:
        archive=config["new_studies"]["store_in"],
        code=code("store_new.py"),
    script:
        "../scripts/store_new.py"


rule predict_new:
    """Overlays, tables and DICOM objects of the films without annotation."""
    input:
        "<results>/new/measurements.parquet",
        "<results>/new/dicom",
        ["<results>/new/stored.json"]
        if config["new_studies"]["store_in"]["host"]
        else [],
    localrule: True
