"""What all rule files share: the resolved configuration, targets, and helpers of rules."""

import sys
import time
from pathlib import Path

SCRIPTS = Path(workflow.basedir) / "workflow" / "scripts"
sys.path.insert(0, str(SCRIPTS))

from lumbarflow import jobs, networks
from lumbarflow.code import digest
from lumbarflow.config import has_synthetic_annotations, resolve
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
except InputError as error:
    # A WorkflowError would add the place in this file, which is not where the mistake is.
    sys.exit(f"{jobs.ERROR_PREFIX}{error}")
config.clear()
config.update(resolved)


wildcard_constraints:
    model="|".join(config["networks"]),


def get_final_output():
    """Everything that a complete run leaves behind."""
    return [
        "<results>/config.yaml",
        "<results>/metrics/table1.csv",
        "<results>/report/index.html",
    ]


def code(script, *modules):
    """Digest of the package code behind a script: as a parameter it reruns the rule on a change."""
    return digest(SCRIPTS / script, *modules)


def gpu_request(wildcards=None):
    """1 where there is a GPU to ask for, otherwise 0 (`training.gpu` in the configuration)."""
    wish = config["training"]["gpu"]
    named = "gpu" in workflow.global_resources
    return int(wish == "always" or (wish == "auto" and (named or gpu_present())))


def print_sentences(logs):
    """Repeat the sentences of failed jobs at the very end, where users look."""
    for sentence in jobs.sentences(logs, STARTED):
        print(sentence, file=sys.stderr)
