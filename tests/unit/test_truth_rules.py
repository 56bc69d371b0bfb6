"""Only the evaluation may read what is known of the synthetic films."""

from __future__ import annotations

import re
from pathlib import Path

RULES = Path(__file__).parents[2] / "workflow" / "rules"
# Beside them, `get_final_output` asks for the table.
READERS = {
    "truth.parquet": {"truth", "evaluate_measurements"},
    "truth.json": {"synthetic_cohort", "retrieve", "query", "simulate_annotators", "truth"},
}


def rules() -> dict[str, str]:
    """The text of every rule, by name."""
    found = {}
    for path in RULES.glob("*.smk"):
        parts = re.split(r"^ *(?:rule|checkpoint) (\w+):$", path.read_text(), flags=re.MULTILINE)
        found |= dict(zip(parts[1::2], parts[2::2], strict=True))
    return found


def test_only_the_evaluation_has_the_truth_as_input():
    bodies = rules()
    assert {"truth", "evaluate", "split", "train", "label", "changes", "report"} <= set(bodies)
    for file, readers in READERS.items():
        found = {name for name, body in bodies.items() if file in body}
        assert found <= readers and "truth" in found
