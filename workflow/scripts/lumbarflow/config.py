"""The configuration: defaults, preset and user's values in one, validated with clear sentences."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from .errors import InputError

_TYPES = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a group of keys",
    "null": "null",
}


def resolve(
    user: Mapping[str, Any],
    schema_file: str | Path,
    presets: str | Path,
    known_networks: Iterable[str],
) -> dict[str, Any]:
    """Return the complete configuration: defaults, overlaid by the preset, overlaid by `user`.

    Args:
        user: what the configuration files and --config hold.
        schema_file: JSON Schema (YAML) with descriptions and defaults.
        presets: folder of `{preset}.yaml`.
        known_networks: names of the networks that exist as code.

    Raises:
        InputError: a key, type or value is wrong; the sentence names the key, what was expected
            and the nearest valid name.
    """
    schema = yaml.safe_load(Path(schema_file).read_text(encoding="utf-8"))
    _check(user, schema)
    preset = user.get("preset", schema["properties"]["preset"]["default"])
    preset_values = yaml.safe_load((Path(presets) / f"{preset}.yaml").read_text(encoding="utf-8"))
    merged = overlay(preset_values, user)
    _check(merged, schema)
    config = _with_defaults(merged, schema, schema)
    known = sorted(known_networks)
    for name in config["networks"]:
        if name not in known:
            raise InputError(
                f"networks.{name}: no such network{nearest(name, known)}; "
                f"the networks are {', '.join(known)}."
            )
    config["models"] = config["models"] or list(config["networks"])
    for name in config["models"]:
        if name not in config["networks"]:
            raise InputError(
                f"models: unknown model name {name!r}{nearest(name, config['networks'])}; "
                f"the configured networks are {', '.join(config['networks'])}."
            )
    for name in config["evaluation"]["foreground"]:
        if name not in config["classes"]:
            raise InputError(
                f"evaluation.foreground: {name!r} is not one of the classes"
                f"{nearest(name, config['classes'])}; the classes are "
                f"{', '.join(config['classes'])}."
            )
    if config["source"] == "folder" and config["folder"]["path"] is None:
        raise InputError("folder.path: missing; set it to the folder that holds the films.")
    written = Path(config["results"]) / "annotations" / "via_project.json"
    listed: set[Path] = set()
    for path in config["annotations"]["via"] or []:
        if Path(path).resolve() in listed:
            raise InputError(
                f"annotations.via: {path} is listed twice and would count as two annotators; "
                "remove one of the two."
            )
        listed.add(Path(path).resolve())
        if Path(path).resolve() == written.resolve():
            raise InputError(
                f"annotations.via: {path} is what the target via_project writes, and writes over; "
                "save your work in VIA under another name, outside the results, and list that."
            )
    return config


def has_synthetic_annotations(config: Mapping[str, Any]) -> bool:
    """Whether simulated annotators can draw on this cohort's films."""
    return config["source"] == "archive" and config["archive"]["embedded"]


def check_annotations(config: Mapping[str, Any]) -> None:
    """Check that a resolved configuration names annotations, as all but the first steps need.

    Raises:
        InputError: it does not; the sentence tells how to begin.
    """
    if not config["annotations"]["via"] and not has_synthetic_annotations(config):
        raise InputError(
            "annotations.via: missing; list the annotation files of the films here. To begin, "
            "make a VIA project of all films with the target via_project (snakemake via_project, "
            "then the same options), annotate films in it, save it and list it."
        )


def check_paths(config: Mapping[str, Any]) -> None:
    """Check that the files and folders of a resolved configuration exist.

    Raises:
        InputError: one does not; the sentence names the key and where it was looked for.
    """
    wanted = [("annotations.via", "file", path) for path in config["annotations"]["via"] or []]
    for group, key in (("splits", "file"), ("films", "view_decisions")):
        if config[group][key] is not None:
            wanted.append((f"{group}.{key}", "file", config[group][key]))
    if config["source"] == "folder":
        wanted.append(("folder.path", "folder", config["folder"]["path"]))
    else:
        archive = config["archive"]
        files = {"cohort": archive["cohort"]}
        if archive["tls"]["enabled"]:
            files |= {f"tls.{key}": value for key, value in archive["tls"].items()}
        wanted += [
            (f"archive.{key}", "file", path) for key, path in files.items() if isinstance(path, str)
        ]
    for key, kind, path in wanted:
        exists = Path(path).is_dir() if kind == "folder" else Path(path).is_file()
        if not exists:
            raise InputError(
                f"{key}: there is no {kind} {path} (looked for in {Path.cwd()}): correct the path."
            )


def overlay(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `top` laid over it, group by group; lists and values are replaced."""
    merged = copy.deepcopy(dict(base))
    for key, value in top.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = overlay(merged[key], value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def maxima(schema_file: str | Path, group: str) -> dict[str, float]:
    """The highest values that the keys of a group may have, of those that have one.

    Args:
        schema_file: as of :func:`resolve`.
        group: its dotted path, such as `training.augmentation`.
    """
    entry = yaml.safe_load(Path(schema_file).read_text(encoding="utf-8"))
    for name in group.split("."):
        entry = entry["properties"][name]
    return {
        name: inner["maximum"] for name, inner in entry["properties"].items() if "maximum" in inner
    }


def nearest(name: str, names: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" with the name nearest to `name`, or an empty text."""
    found = difflib.get_close_matches(str(name), list(names), n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""


def _with_defaults(values: Any, schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    schema = _dereference(schema, root)
    if not isinstance(values, Mapping):
        return values
    result = dict(values)
    for key, entry in schema.get("properties", {}).items():
        if key not in result:
            result[key] = copy.deepcopy(entry.get("default", {}))
        result[key] = _with_defaults(result[key], entry, root)
    other = schema.get("additionalProperties")
    if isinstance(other, Mapping):
        for key in set(result) - set(schema.get("properties", {})):
            result[key] = _with_defaults(result[key], other, root)
    return result


def _dereference(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    return root["$defs"][reference.rsplit("/", 1)[1]] if reference else schema


def _check(values: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    errors = sorted(Draft202012Validator(schema).iter_errors(values), key=lambda e: list(e.path))
    if errors:
        raise InputError(_sentence(errors[0]))


def _sentence(error: ValidationError) -> str:
    key = ".".join(str(part) for part in error.absolute_path)
    where = f"{key}: " if key else ""
    schema, value, rule = error.schema, error.instance, error.validator_value
    if error.validator == "additionalProperties":
        valid = list(schema["properties"])
        unknown = next(name for name in value if name not in valid)
        return (
            f"{where}{unknown}: no such key in the configuration{nearest(unknown, valid)}; "
            f"the keys here are {', '.join(valid)}."
        )
    if error.validator == "type":
        types = [rule] if isinstance(rule, str) else rule
        expected = " or ".join(_TYPES[name] for name in types)
        return f"{where}expected {expected}, found {_shown(value)}."
    if error.validator == "enum":
        return (
            f"{where}expected one of {', '.join(map(str, rule))}, found {_shown(value)}"
            f"{nearest(str(value), map(str, rule))}."
        )
    meaning = " ".join(schema.get("description", "").split())
    limit = {
        "minimum": f"at least {rule}",
        "maximum": f"at most {rule}",
        "exclusiveMinimum": f"more than {rule}",
        "exclusiveMaximum": f"less than {rule}",
        "minItems": f"at least {rule} entries",
        "maxItems": f"at most {rule} entries",
        "minLength": f"at least {rule} characters",
        "maxLength": f"at most {rule} characters",
        "multipleOf": f"a multiple of {rule}",
        "uniqueItems": "no entry twice",
    }.get(error.validator, f"a value that fits the pattern {rule}")
    return f"{where}expected {limit}, found {_shown(value)}{f' ({meaning})' if meaning else ''}."


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
