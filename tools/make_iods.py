"""Write deidentify/iods.json: which attributes the CR and DX image objects have, and their types.

The tables of PS3.3 A.2 and A.26 and of the modules that they name, at every depth, and the terms of
Body Part Examined (PS3.16 annex L) come from the machine-readable copy of the standard that
highdicom carries; it is needed here only:

    python -m pip download --no-deps --dest FOLDER highdicom==0.28.2
    .venv/bin/python tools/make_iods.py FOLDER/highdicom-0.28.2-py3-none-any.whl
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

from pydicom.datadict import tag_for_keyword

OUTPUT = Path(__file__).parents[1] / "workflow/scripts/lumbarflow/deidentify/iods.json"
IODS = {"CR": "computed-radiography-image", "DX": "digital-x-ray-image"}
# Of no use to a film of the spine, and of identifiers more than of anything else.
NOT_TAKEN = (
    "specimen",
    "clinical-trial-subject",
    "clinical-trial-study",
    "clinical-trial-series",
    "overlay-plane",
)


def attributes(modules: list[dict], table: dict[str, list[dict]]) -> dict:
    """The tree of an object: keyword -> [type, tree of its items where it is a sequence].

    Where several modules define an attribute the strictest type counts.
    """
    tree: dict = {}
    for module in modules:
        if module["key"] in NOT_TAKEN:
            continue
        for attribute in table[module["key"]]:
            node = tree
            for parent in attribute["path"]:
                node = node.setdefault(parent, ["3", {}])[1]
            if tag_for_keyword(attribute["keyword"]) is None:
                continue  # newer than pydicom's dictionary
            entry = node.setdefault(attribute["keyword"], [attribute["type"], {}])
            entry[0] = min(entry[0], attribute["type"])
    return tree


def shared(trees: dict[str, dict]) -> dict:
    """The trees with every part that recurs (code sequences, for example) written once, by number.

    Returns:
        `{"parts": [...], "CR": part, "DX": part}`; a part maps each keyword to `type` or, for a
        sequence, to `type number` of the part of its items.
    """
    numbers: dict[str, int] = {}
    parts: list[dict] = []

    def part(tree: dict) -> dict:
        return {
            keyword: f"{kind} {number(items)}" if items else kind
            for keyword, (kind, items) in sorted(tree.items())
        }

    def number(tree: dict) -> int:
        content = part(tree)
        key = json.dumps(content)
        if key not in numbers:
            numbers[key] = len(parts)
            parts.append(content)
        return numbers[key]

    tops = {name: part(tree) for name, tree in trees.items()}
    return {"parts": parts, **tops}


def main(wheel: str) -> None:
    with zipfile.ZipFile(wheel) as archive:
        read = lambda name: json.loads(archive.read(f"highdicom/_standard/{name}.json"))  # noqa: E731
        modules, table = read("iod_module_map"), read("module_attribute_map")
        parts = sorted(read("anatomic_regions"))
    trees = {name: attributes(modules[key], table) for name, key in IODS.items()}
    content = {"body_parts": parts} | shared(trees)
    OUTPUT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    sizes = ", ".join(f"{name} {len(tree)}" for name, tree in trees.items())
    print(f"{OUTPUT}: attributes at the top: {sizes}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
