"""Tune: a search for better settings of each network, on the validation films alone."""


rule tune_network:
    """Try settings of a network; an interrupted search goes on within its last trial."""
    input:
        coco=ancient(
            lambda wildcards: [
                path for path in prepared("coco") if Path(path).stem != "test"
            ]
        ),
        masks=ancient(lambda wildcards: prepared("masks")),
        digests=ancient(lambda wildcards: prepared("digests")),
    output:
        settings="<results>/tuning/{model}.yaml",
        trials="<results>/tuning/trials/{model}.parquet",
    log:
        "<logs>/tune/{model}.log",
    benchmark:
        "<benchmarks>/tune/{model}.tsv"
    conda:
        "../../envs/train.yaml"
    threads: 8
    resources:
        gpu=gpu_request,
        mem_mb=12000,
        runtime=10080,
    params:
        network=lambda wildcards: {
            key: value
            for key, value in config["networks"][wildcards.model].items()
            if key != "title"
        },
        weights_file=lambda wildcards: weights_stamp(wildcards.model),
        training={key: config["training"][key] for key in ("seed", "augmentation")},
        maxima=AUGMENTATION_MAXIMA,
        classes=config["classes"],
        films=lambda wildcards: training_films(wildcards.model),
        foreground=config["evaluation"]["foreground"],
        tuning=config["tuning"],
        code=lambda wildcards: code("tune.py", f"networks/{wildcards.model}.py"),
    script:
        "../scripts/tune.py"


rule tuning_trials:
    """Put the trials of all networks into one table."""
    input:
        trials=expand("<results>/tuning/trials/{model}.parquet", model=config["models"]),
    output:
        trials="<results>/tuning/trials.parquet",
    log:
        "<logs>/tuning_trials.log",
    conda:
        "../../envs/prepare.yaml"
    params:
        code=code("tuning_trials.py"),
    script:
        "../scripts/tuning_trials.py"


rule tune:
    """The best settings found for every network, each as a configuration to lay over this one."""
    input:
        expand("<results>/tuning/{model}.yaml", model=config["models"]),
        "<results>/tuning/trials.parquet",
    localrule: True
