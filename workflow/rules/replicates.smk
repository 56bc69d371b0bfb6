"""Replicates: every network trained again with other seeds and on folds, to see its spread.

Only `training.seeds` and `training.folds` ask for them; helpers are in common.smk.
"""

if FOLDS:

    checkpoint make_folds:
        """Divide the films outside the test subset into folds, each with COCO files of its own."""
        input:
            coco=ancient(lambda wildcards: prepared("coco")),
            splits=ancient("<results>/splits.parquet"),
            digests=ancient(lambda wildcards: prepared("digests")),
        output:
            coco=expand(
                "<results>/prepared/folds/{fold}/coco/{subset}.json",
                fold=FOLDS,
                subset=["train", "val", "test"],
            ),
            films="<results>/prepared/folds/films.parquet",
            digests="<results>/prepared/folds/digests.json",
        log:
            "<logs>/make_folds.log",
        conda:
            "../../envs/prepare.yaml"
        params:
            folds=config["training"]["folds"],
            seed=config["splits"]["seed"],
            films=lambda wildcards: [digests()[s] for s in ("train", "val")],
            patients=lambda wildcards: films_in("train", "val", drawn=False),
            code=code("make_folds.py"),
        script:
            "../scripts/make_folds.py"


use rule train as train_replicate with:
    input:
        coco=ancient(replicate_coco),
        masks=ancient(lambda wildcards: prepared("masks")),
        digests=ancient(lambda wildcards: prepared("digests")),
    output:
        weights="<results>/replicates/{model}/{replicate}/model.pth",
        history="<results>/replicates/{model}/{replicate}/history.jsonl",
        record="<results>/replicates/{model}/{replicate}/run.json",
    log:
        "<logs>/train_replicate/{model}-{replicate}.log",
    benchmark:
        "<benchmarks>/train_replicate/{model}-{replicate}.tsv"
    params:
        training=lambda wildcards: training_settings(wildcards.model)
        | {"seed": replicate_seed(wildcards.replicate)},
        films=replicate_films,


use rule predict as predict_replicate with:
    input:
        weights="<results>/replicates/{model}/{replicate}/model.pth",
        coco=ancient(replicate_coco),
        digests=ancient(lambda wildcards: prepared("digests")),
    output:
        test="<results>/replicates/{model}/{replicate}/predictions.parquet",
    log:
        "<logs>/predict_replicate/{model}-{replicate}.log",
    benchmark:
        "<benchmarks>/predict_replicate/{model}-{replicate}.tsv"
    params:
        films=replicate_pictures,


rule evaluate_replicates:
    """Score every replicate on the films that it has not seen, and tell the spread."""
    input:
        predictions=expand(
            "<results>/replicates/{model}/{replicate}/predictions.parquet",
            model=config["models"],
            replicate=REPLICATES,
        ),
        # The main training is one of the seeds.
        main="<results>/metrics/per_image.parquet" if SEEDS else [],
        splits=ancient("<results>/splits.parquet"),
        folds=ancient(lambda wildcards: folds("films") if FOLDS else []),
        masks=ancient(lambda wildcards: prepared("masks")),
    output:
        replicates="<results>/metrics/replicates.parquet",
        replicate_summary="<results>/metrics/replicate_summary.parquet",
        replicate_differences="<results>/metrics/replicate_differences.parquet",
    log:
        "<logs>/evaluate_replicates.log",
    benchmark:
        "<benchmarks>/evaluate_replicates.tsv"
    conda:
        "../../envs/prepare.yaml"
    params:
        films=lambda wildcards: replicate_structures(),
        models=config["models"],
        replicates=REPLICATES,
        seed=config["training"]["seed"],
        classes=config["classes"],
        foreground=config["evaluation"]["foreground"],
        code=code("evaluate_replicates.py"),
    script:
        "../scripts/evaluate_replicates.py"
