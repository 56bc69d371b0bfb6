"""Acquire: films from a DICOM archive or a folder, de-identified, as PNG and in the manifest."""

EMBEDDED = has_synthetic_annotations(config)
ACQUISITION_DATA = ["acquire/view_words.toml", "deidentify/iods.json"]


rule synthetic_cohort:
    """Make the films of the embedded archive; outside the results, as they carry names."""
    output:
        truth=f"{config['archive']['storage']}/truth.json",
    log:
        "<logs>/synthetic_cohort.log",
    benchmark:
        "<benchmarks>/synthetic_cohort.tsv"
    conda:
        "../../envs/acquire.yaml"
    threads: 8
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        cohort={
            key: value
            for key, value in config["synthetic"].items()
            if key != "annotators"
        },
        code=code("synthetic_cohort.py"),
    script:
        "../scripts/synthetic_cohort.py"


if config["source"] == "archive":

    rule retrieve:
        """Query the archive (started here if embedded), fetch what is new, de-identify and render."""
        input:
            truth=f"{config['archive']['storage']}/truth.json" if EMBEDDED else [],
            decisions=config["films"]["view_decisions"] or [],
        output:
            manifest="<results>/incoming/images/manifest.parquet",
            audit="<results>/incoming/images/deidentification.parquet",
        log:
            "<logs>/retrieve.log",
        benchmark:
            "<benchmarks>/retrieve.tsv"
        conda:
            "../../envs/acquire.yaml"
        threads: config["archive"]["associations"]
        resources:
            mem_mb=4000,
            runtime=240,
        params:
            archive=config["archive"],
            cohort=file_stamp(config["archive"]["cohort"]),
            results=subpath(output.manifest, ancestor=3),
            privacy=config["privacy"],
            decisions=config["films"]["view_decisions"],
            code=code("retrieve.py", *ACQUISITION_DATA),
        script:
            "../scripts/retrieve.py"

    rule query:
        """Tell what `retrieve` would fetch, by modality, year and reason for exclusion."""
        input:
            truth=f"{config['archive']['storage']}/truth.json" if EMBEDDED else [],
        log:
            "<logs>/query.log",
        conda:
            "../../envs/acquire.yaml"
        resources:
            mem_mb=2000,
            runtime=60,
        params:
            archive=config["archive"],
        script:
            "../scripts/query.py"

else:

    rule import_folder:
        """Take the films of a folder, by the same rules."""
        input:
            decisions=config["films"]["view_decisions"] or [],
        output:
            manifest="<results>/incoming/images/manifest.parquet",
            audit="<results>/incoming/images/deidentification.parquet",
        log:
            "<logs>/import_folder.log",
        benchmark:
            "<benchmarks>/import_folder.tsv"
        conda:
            "../../envs/acquire.yaml"
        threads: 4
        resources:
            mem_mb=4000,
            runtime=120,
        params:
            folder=config["folder"],
            films=folder_digest(config["folder"]["path"]),
            results=subpath(output.manifest, ancestor=3),
            privacy=config["privacy"],
            decisions=config["films"]["view_decisions"],
            code=code("import_folder.py", *ACQUISITION_DATA),
        script:
            "../scripts/import_folder.py"


rule publish:
    """Put a sound table in place.

    Snakemake deletes the outputs of a job that starts or fails. Rules that read users' files write to
    `incoming`, so that a bad file never takes a finished table away.
    """
    input:
        "<results>/incoming/{table}.parquet",
    output:
        "<results>/{table}.parquet",
    log:
        "<logs>/publish/{table}.log",
    localrule: True
    conda:
        "../../envs/prepare.yaml"
    shell:
        "cp {input:q} {output:q} 2> {log:q}"
