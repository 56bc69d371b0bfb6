"""Shared by all stages: the resolved configuration, the targets and small helpers."""

import sys
import time
from importlib.metadata import version
from pathlib import Path

SCRIPTS = Path(workflow.basedir) / "workflow" / "scripts"
sys.path.insert(0, str(SCRIPTS))

import pandas as pd

from lumbarflow import jobs, networks
from lumbarflow.annotate.ranking import best_model
from lumbarflow.annotate.watching import (
    annotated_films,
    annotation_digest,
    digest as value_digest,
    missing_files,
    pictures_stamp,
    reserved_films,
    structures_digest,
)
from lumbarflow.code import digest, folder_digest
from lumbarflow.config import (
    check_annotations,
    check_paths,
    has_synthetic_annotations,
    maxima,
    resolve,
)
from lumbarflow.errors import InputError
from lumbarflow.files import read_json
from lumbarflow.gpu import present as gpu_present
from lumbarflow.prepare.folds import replicate_names
from lumbarflow.train.strength import strengthened

SCHEMA = Path(workflow.basedir) / "workflow" / "schemas" / "config.schema.yaml"
STARTED = time.time()

try:
    resolved = resolve(
        config,
        SCHEMA,
        Path(workflow.basedir) / "config" / "presets",
        networks.available(),
    )
    check_paths(resolved)
    REPLICATES = replicate_names(resolved["training"])
except InputError as error:
    # A WorkflowError would add the place in this file, which is not where the mistake is.
    sys.exit(f"{jobs.ERROR_PREFIX}{error}")
config.clear()
config.update(resolved)
RESULTS = config["results"]
AUGMENTATION_MAXIMA = maxima(SCHEMA, "training.augmentation")
# Tables of the rule `evaluate`.
SCORED = [
    "counts",
    "boundaries",
    "detections",
    "per_image",
    "per_class",
    "instances",
    "summary",
    "class_summary",
    "score_reliability",
]
# Tables of the rule `evaluate_measurements`.
MEASURED = [
    "measurements",
    "measurement_summary",
    "reliability",
    "levels",
    "level_summary",
    "level_confusion",
]
# Tables of the rule `compare`.
COMPARED = ["comparisons", "strata", "errors", "film_ranking"]
SEEDS = [name for name in REPLICATES if name.startswith("seed")]
FOLDS = [name for name in REPLICATES if name.startswith("fold")]
# Files of the rule `paper`.
PAPER = [
    "table1.md",
    "table1.tex",
    "table2.md",
    "table2.tex",
    "comparisons.md",
    "comparisons.tex",
    "methods.md",
    "checklist.md",
]
# Tables of the rule `evaluate_replicates`.
SPREAD = ["replicates", "replicate_summary", "replicate_differences"]


wildcard_constraints:
    model="|".join(config["networks"]),
    replicate="|".join(REPLICATES) or "none",
    source="|".join([*config["networks"], "annotation"]),
    table="images/manifest|images/deidentification|annotations/qc|annotations/agreement|splits",


def get_final_output():
    """Everything that a complete run leaves behind.

    Files that others are made from are named too: Snakemake would not miss what a failed job took
    away as long as the files made from it are still there.
    """
    tables = [
        "images/manifest",
        "images/deidentification",
        "annotations/qc",
        "annotations/agreement",
        "splits",
    ]
    metrics = [*SCORED, *MEASURED]
    sources = [*config["models"], "annotation"]
    return [
        "<results>/config.yaml",
        expand(
            "<results>/{place}{table}.parquet", place=["", "incoming/"], table=tables
        ),
        expand("<results>/{place}annotations/records", place=["", "incoming/"]),
        expand(
            "<results>/prepared/coco/{subset}.json", subset=["train", "val", "test"]
        ),
        "<results>/prepared/masks",
        "<results>/prepared/digests.json",
        expand(
            "<results>/models/{model}/{file}",
            model=config["models"],
            file=["model.pth", "history.jsonl", "run.json"],
        ),
        expand(
            "<results>/predictions/{place}{model}.parquet",
            place=["", "networks/", "validation/"],
            model=config["models"],
        ),
        expand(
            "<results>/measurements/{table}{source}.parquet",
            table=["", "vertebrae/", "changes/"],
            source=sources,
        ),
        expand("<results>/metrics/{table}.parquet", table=[*metrics, *COMPARED]),
        "<results>/metrics/table1.csv",
        "<results>/report/index.html",
        expand("<results>/report/paper/{file}", file=PAPER),
        *(["<results>/truth.parquet"] if has_synthetic_annotations(config) else []),
        *replicate_output(),
    ]


def replicate_output():
    """What the further trainings leave behind; nothing where none is asked for."""
    if not REPLICATES:
        return []
    return [
        expand(
            "<results>/replicates/{model}/{replicate}/{file}",
            model=config["models"],
            replicate=REPLICATES,
            file=["model.pth", "history.jsonl", "run.json", "predictions.parquet"],
        ),
        expand(
            "<results>/prepared/folds/{fold}/coco/{subset}.json",
            fold=FOLDS,
            subset=["train", "val", "test"],
        ),
        expand("<results>/metrics/{table}.parquet", table=SPREAD),
    ]


def code(script, *modules):
    """Digest of the package code behind a script: as a parameter it reruns the rule on a change."""
    return digest(SCRIPTS / script, *modules)


def file_stamp(path):
    """Size and time of a file whose content must not be kept in Snakemake's records; None without."""
    return None if path is None else list(Path(path).stat()[6:9:2])


def gpu_request(wildcards=None):
    """1 where there is a GPU to ask for, otherwise 0 (`training.gpu` in the configuration)."""
    wish = config["training"]["gpu"]
    named = "gpu" in workflow.global_resources
    return int(wish == "always" or (wish == "auto" and (named or gpu_present())))


def gpus_of_a_training(wildcards=None):
    """As many as share each batch, where there is one to ask for."""
    return gpu_request() * config["training"]["gpus_per_network"]


def network_settings(model):
    """What the weights of a network depend on, beside :func:`training_settings`."""
    return {
        key: value
        for key, value in config["networks"][model].items()
        if key not in ("title", "augmentation")
    }


def weights_stamp(model):
    """Of the file that a network starts from; None where that is none."""
    weights = config["networks"][model]["weights"]
    return file_stamp(None if weights == "imagenet" else weights)


def training_settings(model):
    """Seed and augmentation of a network's training."""
    training = config["training"]
    factor = config["networks"][model]["augmentation"]
    limits = strengthened(training["augmentation"], factor, AUGMENTATION_MAXIMA)
    return {"seed": training["seed"], "augmentation": limits}


# After the checkpoints `publish_records` and `prepare` Snakemake plans anew. What is behind them
# takes their outputs as ancient and has as parameters the digests of just those parts that it
# depends on: it runs again where these have changed, and not because something else has.


def via_digest():
    """Digest of the annotators' files; None where annotators are simulated."""
    files = config["annotations"]["via"]
    return annotation_digest(files) if files else None


def published_records(wildcards):
    """The folder of records, once they are sound."""
    return checkpoints.publish_records.get().output.records


def behind_records(function):
    """A parameter: what `function` tells of the folder of records, once they are sound."""
    return lambda wildcards: function(published_records(wildcards))


def annotated_patients(records):
    """Digest of the annotated films with their patients, and of those reserved for testing."""
    manifest = pd.read_parquet(
        f"{RESULTS}/images/manifest.parquet", columns=["image_id", "patient_id"]
    )
    annotated = manifest[manifest["image_id"].isin(annotated_films(records))]
    films = sorted(annotated.astype(str).values.tolist())
    return value_digest([films, reserved_films(records)])


def prepared(name):
    """An output of `prepare`, once it is made."""
    return checkpoints.prepare.get().output[name]


def digests():
    """Digests of the prepared films, by subset; see `prepare.py`."""
    return read_json(prepared("digests"))


def training_films(model):
    """Digest of what a network's weights depend on, of all that is prepared."""
    found = digests()
    canvas = None if config["networks"][model]["size"] else found["canvas"]
    seen = [
        [found[subset][key] for key in ("pictures", "annotations")]
        for subset in ("train", "val")
    ]
    return value_digest([canvas, seen])


def folds(name):
    """An output of `make_folds`, once it is made."""
    return checkpoints.make_folds.get().output[name]


def replicate_coco(wildcards):
    """The COCO files of a replicate: the cohort's own for a seed, its own for a fold."""
    if wildcards.replicate in SEEDS:
        return prepared("coco")
    return [
        path for path in folds("coco") if Path(path).parts[-3] == wildcards.replicate
    ]


def replicate_seed(replicate):
    """The seed of a replicate's training."""
    if replicate in SEEDS:
        return int(replicate.removeprefix("seed"))
    return config["training"]["seed"]


def replicate_films(wildcards):
    """Digest of what a replicate's weights depend on, of all that is prepared."""
    if wildcards.replicate in SEEDS:
        return training_films(wildcards.model)
    found = read_json(folds("digests"))[wildcards.replicate]
    sides = None if config["networks"][wildcards.model]["size"] else found["sides"]
    return value_digest([sides, found["training"]])


def replicate_pictures(wildcards):
    """Digest of the films that a replicate is scored on."""
    if wildcards.replicate in SEEDS:
        return digests()["test"]["pictures"]
    return read_json(folds("digests"))[wildcards.replicate]["scored"]


def replicate_structures():
    """Digests of what was drawn on the films that replicates are scored on."""
    subsets = [*(["test"] if SEEDS else []), *(["train", "val"] if FOLDS else [])]
    return [digests()[subset]["structures"] for subset in subsets]


def films_in(*subsets, drawn=True):
    """Digest of what the manifest says of the films of these subsets, and of what is drawn on them."""
    found = digests()
    splits = pd.read_parquet(f"{RESULTS}/splits.parquet")
    chosen = splits.loc[splits["subset"].isin(subsets), "image_id"]
    columns = [
        *("image_id", "rows", "columns", "pixel_spacing_mm"),
        *("patient_id", "study_id", "study_day"),
    ]
    manifest = pd.read_parquet(f"{RESULTS}/images/manifest.parquet", columns=columns)
    rows = manifest[manifest["image_id"].isin(chosen)].sort_values("image_id")
    structures = [found[subset]["structures"] for subset in subsets if drawn]
    return value_digest([structures, rows.astype(str).values.tolist()])


def title(model):
    """A network's name in tables and figures."""
    return config["networks"][model]["title"] or model


def refuse_without_annotations(wildcards):
    """What needs annotations where there are none: the sentence, once and before any work."""
    try:
        check_annotations(config)
    except InputError as error:
        sys.exit(f"{jobs.ERROR_PREFIX}{error}")


def trained_models():
    """The networks whose weights are there.

    They are no inputs of `preannotate` and `via_project`: whoever asks for a VIA project wants it with what is
    there, not to wait for trainings.
    """
    files = ["model.pth", "run.json"]
    return [
        model
        for model in config["models"]
        if all(model_file(model, file).is_file() for file in files)
    ]


def model_file(model, file):
    trained = config["new_studies"]["trained"] or RESULTS
    return Path(trained) / "models" / model / file


def new_model():
    """The network for new studies: the one asked for, or the best one on its validation films."""
    wanted = config["new_studies"]["model"]
    ready = [
        model
        for model in trained_models()
        if model_file(model, "labelling.json").is_file()
    ]
    if wanted in ready:
        return wanted
    if wanted is None and ready:
        return best_model({model: model_file(model, "run.json") for model in ready})
    place = config["new_studies"]["trained"] or RESULTS
    sys.exit(
        f"{jobs.ERROR_PREFIX}There is no trained network{f' {wanted}' if wanted else ''} in {place}: run the "
        "workflow on annotated films first, or set new_studies.trained to its results folder."
    )


def print_sentences(logs):
    """Repeat the sentences of failed jobs at the very end, where users look."""
    for sentence in jobs.sentences(logs, STARTED):
        print(sentence, file=sys.stderr)
