"""Shared by all stages: the resolved configuration, the targets and small helpers."""

import sys
import time
from pathlib import Path

SCRIPTS = Path(workflow.basedir) / "workflow" / "scripts"
sys.path.insert(0, str(SCRIPTS))

from lumbarflow import jobs, networks
from lumbarflow.code import digest, folder_digest
from lumbarflow.config import check_paths, has_synthetic_annotations, resolve
from lumbarflow.errors import InputError
from lumbarflow.gpu import present as gpu_present

STARTED = time.time()

try:
    resolved = resolve(
        config,
        Path(workflow.basedir) / "workflow" / "schemas" / "config.schema.yaml",
        Path(workflow.basedir) / "config" / "presets",
        networks.available(),
    )
    check_paths(resolved)
except InputError as error:
    # A WorkflowError would add the place in this file, which is not where the mistake is.
    sys.exit(f"{jobs.ERROR_PREFIX}{error}")
config.clear()
config.update(resolved)


wildcard_constraints:
    model="|".join(config["networks"]),
    table="images/manifest|images/deidentification|annotations/qc|splits",


def get_final_output():
    """Everything that a complete run leaves behind.

    Files that others are made from are named too: Snakemake would not miss what a failed job took
    away as long as the files made from it are still there.
    """
    tables = [
        "images/manifest",
        "images/deidentification",
        "annotations/qc",
        "splits",
    ]
    metrics = ["per_image", "per_class", "instances", "summary"]
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
        expand(
            "<results>/models/{model}/{file}",
            model=config["models"],
            file=["model.pth", "history.jsonl", "run.json"],
        ),
        expand("<results>/predictions/{model}.parquet", model=config["models"]),
        expand("<results>/metrics/{table}.parquet", table=metrics),
        "<results>/metrics/table1.csv",
        "<results>/report/index.html",
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


def network_settings(model):
    """What the weights of a network depend on; its title in tables is not among it."""
    return {
        key: value for key, value in config["networks"][model].items() if key != "title"
    }


def print_sentences(logs):
    """Repeat the sentences of failed jobs at the very end, where users look."""
    for sentence in jobs.sentences(logs, STARTED):
        print(sentence, file=sys.stderr)
