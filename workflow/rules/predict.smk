"""Predict: the instances of every network in one common table."""


rule predict:
    """Predict the validation and test films with a trained network."""
    input:
        weights="<results>/models/{model}/model.pth",
        coco=ancient(lambda wildcards: prepared("coco")),
        digests=ancient(lambda wildcards: prepared("digests")),
    output:
        test="<results>/predictions/networks/{model}.parquet",
        val="<results>/predictions/validation/{model}.parquet",
    log:
        "<logs>/predict/{model}.log",
    benchmark:
        "<benchmarks>/predict/{model}.tsv"
    conda:
        "../../envs/train.yaml"
    threads: 8
    resources:
        gpu=gpu_request,
        mem_mb=12000,
        runtime=240,
    params:
        films=lambda wildcards: [digests()[s]["pictures"] for s in ("test", "val")],
        thresholds=config["predict"],
        code=lambda wildcards: code("predict.py", f"networks/{wildcards.model}.py"),
    script:
        "../scripts/predict.py"
