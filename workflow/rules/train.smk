"""Train: one network a job, resumable, with the best epoch's weights kept."""


rule train:
    """Train a network; an interrupted training goes on from its last checkpoint."""
    input:
        coco=ancient(lambda wildcards: prepared("coco")),
        masks=ancient(lambda wildcards: prepared("masks")),
        digests=ancient(lambda wildcards: prepared("digests")),
    output:
        weights="<results>/models/{model}/model.pth",
        history="<results>/models/{model}/history.jsonl",
        record="<results>/models/{model}/run.json",
    log:
        "<logs>/train/{model}.log",
    benchmark:
        "<benchmarks>/train/{model}.tsv"
    conda:
        "../../envs/train.yaml"
    threads: 8
    resources:
        gpu=gpus_of_a_training,
        mem_mb=12000,
        runtime=2880,
    params:
        network=lambda wildcards: network_settings(wildcards.model),
        training=lambda wildcards: training_settings(wildcards.model),
        classes=config["classes"],
        films=lambda wildcards: training_films(wildcards.model),
        foreground=config["evaluation"]["foreground"],
        # A function of the input is not recorded: the wish alone is no reason to train.
        continue_from_previous=lambda wildcards, input: config["training"][
            "continue_from_previous"
        ],
        code=lambda wildcards: code("train.py", f"networks/{wildcards.model}.py"),
    script:
        "../scripts/train.py"
