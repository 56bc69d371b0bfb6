"""Train: one network a job, resumable, with the best epoch's weights kept."""


rule train:
    """Train a network; an interrupted training goes on from its last checkpoint."""
    input:
        coco=expand("<results>/prepared/coco/{subset}.json", subset=["train", "val"]),
        masks="<results>/prepared/masks",
    output:
        weights=update("<results>/models/{model}/model.pth"),
        history=update("<results>/models/{model}/history.jsonl"),
        record=update("<results>/models/{model}/run.json"),
    log:
        "<logs>/train/{model}.log",
    benchmark:
        "<benchmarks>/train/{model}.tsv"
    params:
        network=lambda wildcards: config["networks"][wildcards.model],
        training={key: config["training"][key] for key in ("seed", "augmentation")},
        classes=config["classes"],
        foreground=config["evaluation"]["foreground"],
        code=lambda wildcards: code("train.py", f"networks/{wildcards.model}.py"),
    threads: 8
    resources:
        gpu=gpu_request,
        mem_mb=12000,
        runtime=2880,
    conda:
        "../../envs/train.yaml"
    script:
        "../scripts/train.py"
