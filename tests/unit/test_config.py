"""The configuration: a complete schema, laws of overlaying, and sentences for every mistake."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from lumbarflow import networks
from lumbarflow.config import check_annotations, nearest, overlay, resolve
from lumbarflow.errors import InputError

ROOT = Path(__file__).parents[2]
SCHEMA_FILE = ROOT / "workflow/schemas/config.schema.yaml"
PRESETS = ROOT / "config/presets"
SCHEMA = yaml.safe_load(SCHEMA_FILE.read_text())
NETWORKS = networks.available()


def resolved(user: dict) -> dict:
    return resolve(user, SCHEMA_FILE, PRESETS, NETWORKS)


def sentence(user: dict) -> str:
    with pytest.raises(InputError) as caught:
        resolved(user)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".")
    return text


def keys(schema: dict, prefix: str = ""):
    """Every key of a schema: its dotted path and its entry."""
    for name, entry in schema.get("properties", {}).items():
        yield f"{prefix}{name}", entry
        yield from keys(entry, f"{prefix}{name}.")


KEYS = dict([*keys(SCHEMA), *keys(SCHEMA["$defs"]["network"], "network.")])
LEAVES = {path: entry for path, entry in KEYS.items() if "properties" not in entry}


# Schema ----------------------------------------------------------------------------------------


def test_the_schema_is_one():
    Draft202012Validator.check_schema(SCHEMA)
    for name, entry in SCHEMA["$defs"].items():
        assert entry["description"], name


@pytest.mark.parametrize("path", KEYS)
def test_every_key_is_described_and_has_a_valid_default(path):
    entry = KEYS[path]
    description = entry["description"]
    assert description[0].isupper() and description.endswith(".") and len(description) > 5
    assert "type" in entry
    if path in LEAVES:
        validator = Draft202012Validator(entry | {"$defs": SCHEMA["$defs"]})
        validator.validate(entry["default"])
    else:
        assert entry["additionalProperties"] is False  # or a mistyped key would go unseen


def test_the_default_is_complete():
    config = resolved({})
    for path in LEAVES:
        if not path.startswith("network."):
            value = config
            for part in path.split("."):
                value = value[part]
    for settings_ in config["networks"].values():
        assert set(settings_) == set(SCHEMA["$defs"]["network"]["properties"])


@pytest.mark.parametrize("file", sorted(ROOT.glob("config/*.yaml")), ids=lambda path: path.name)
def test_every_configuration_resolves(file):
    config = resolved(yaml.safe_load(file.read_text()))
    Draft202012Validator(SCHEMA).validate(config)
    json.dumps(config)  # Snakemake keeps it as JSON
    assert resolved(config) == config


@pytest.mark.parametrize("preset", sorted(PRESETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_preset_sets_every_network(preset):
    config = resolved({"preset": preset.stem})
    assert sorted(config["networks"]) == sorted(NETWORKS) == sorted(config["models"])
    titles = [settings_["title"] for settings_ in config["networks"].values()]
    assert len(set(titles)) == len(titles) and all(titles)


def test_presets_are_those_that_the_schema_names():
    assert {path.stem for path in PRESETS.glob("*.yaml")} == set(KEYS["preset"]["enum"])


def test_the_default_file_says_what_the_schema_says():
    """Values that config.yaml repeats for the reader are the defaults."""
    assert resolved(yaml.safe_load((ROOT / "config/config.yaml").read_text())) == resolved({})


# Precedence ------------------------------------------------------------------------------------

values = st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3),
                   st.lists(st.integers(), max_size=3))  # fmt: skip
groups = st.recursive(
    st.dictionaries(st.sampled_from("abc"), values, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), values | inner, max_size=3),
    max_leaves=12,
)
quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def paths(group: dict, prefix=()):
    for key, value in group.items():
        if isinstance(value, dict) and value:
            yield from paths(value, (*prefix, key))
        else:
            yield (*prefix, key), value


def at(group, path):
    for key in path:
        group = group[key]
    return group


@quick
@given(groups, groups)
def test_overlay_takes_every_value_of_the_upper_one(base, top):
    before = copy.deepcopy((base, top))
    merged = overlay(base, top)
    assert (base, top) == before
    assert overlay(base, {}) == base and overlay({}, top) == top
    assert overlay(merged, top) == merged
    for path, value in paths(top):
        found = at(merged, path)
        assert found == value or (value == {} and isinstance(found, dict))
    for key in base.keys() - top.keys():
        assert merged[key] == base[key]
    assert merged.keys() == base.keys() | top.keys()


@quick
@given(groups, groups, groups)
def test_overlay_shares_nothing_with_its_arguments(base, middle, top):
    merged = overlay(overlay(base, middle), top)
    before = copy.deepcopy((base, middle, top))
    for path, value in list(paths(merged)):
        if isinstance(value, list):
            value.append(0)
        else:
            at(merged, path[:-1])[path[-1]] = "changed"
    assert (base, middle, top) == before


def test_user_beats_preset_beats_default():
    preset = yaml.safe_load((PRESETS / "paper.yaml").read_text())
    default = KEYS["splits.test"]["default"]
    assert resolved({})["splits"]["test"] == default
    assert preset["splits"]["test"] != default
    config = resolved({"preset": "paper"})
    assert config["splits"]["test"] == preset["splits"]["test"]
    assert config["splits"]["seed"] == KEYS["splits.seed"]["default"]
    config = resolved({"preset": "paper", "splits": {"test": 7}})
    assert config["splits"]["test"] == 7
    assert config["splits"]["validation"] == preset["splits"]["validation"]


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(sorted(NETWORKS)), st.integers(1, 10**6), st.sampled_from(["demo", "paper"]))
def test_one_setting_of_one_network_changes_nothing_else(name, batch_size, preset):
    config = resolved({"preset": preset, "networks": {name: {"batch_size": batch_size}}})
    expected = resolved({"preset": preset})
    expected["networks"][name]["batch_size"] = batch_size
    assert config == expected


def test_the_users_values_are_not_changed():
    user = {"models": ["unet"], "splits": {"test": 9}}
    before = copy.deepcopy(user)
    resolved(user)["splits"]["test"] = 1
    assert user == before


def test_a_subset_of_the_networks():
    assert resolved({"models": ["yolact", "unet"]})["models"] == ["yolact", "unet"]


# Mistakes --------------------------------------------------------------------------------------


def nested(path: str, value) -> dict:
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"modles": ["unet"]}, ["modles: no such key", "did you mean 'models'?"]),
        ({"archive": {"prot": 104}}, ["archive: prot", "did you mean 'port'?", "ae_title"]),
        (
            {"networks": {"unet": {"batchsize": 2}}},
            ["networks.unet: batchsize", "did you mean 'batch_size'?"],
        ),
        ({"networks": {"u_net": {"width": 64}}}, ["networks.u_net", "did you mean 'unet'?"]),
        ({"archive": {"port": "11112"}}, ["archive.port", "a whole number", "'11112'"]),
        ({"archive": {"port": 99999}}, ["archive.port", "at most 65535", "99999", "TCP port"]),
        ({"archive": {"embedded": "yes"}}, ["archive.embedded", "true or false", "'yes'"]),
        ({"archive": {"timeout_seconds": 0}}, ["archive.timeout_seconds", "more than 0"]),
        ({"archive": {"modalities": ["DR"]}}, ["archive.modalities.0", "DX, CR", "'DR'"]),
        ({"archive": {"modalities": []}}, ["archive.modalities", "at least 1"]),
        (
            {"archive": {"study_dates": "2015-2019"}},
            ["archive.study_dates", "'2015-2019'", "DICOM"],
        ),
        ({"archive": {"ae_title": "A" * 17}}, ["archive.ae_title", "at most 16 characters"]),
        ({"archive": None}, ["archive", "a group of keys", "None"]),
        ({"source": "archiv"}, ["source", "archive, folder", "did you mean 'archive'?"]),
        ({"preset": "papr"}, ["preset", "demo, paper", "did you mean 'paper'?"]),
        ({"classes": ["a", "a"]}, ["classes", "no entry twice"]),
        ({"classes": [f"c{n}" for n in range(9)]}, ["classes", "at most 8 entries"]),
        ({"splits": {"validation": 1}}, ["splits.validation", "less than 1"]),
        ({"networks": {"unet": {"size": [100, 64]}}}, ["networks.unet.size.0", "multiple of 32"]),
        ({"networks": {"unet": {"size": 64}}}, ["networks.unet.size", "a list or null", "64"]),
        ({"models": ["unit"]}, ["models", "'unit'", "did you mean 'unet'?", "yolact"]),
        ({"models": []}, ["models", "at least 1"]),
        ({"models": ["unet", "unet"]}, ["models", "no entry twice"]),
        (
            {"evaluation": {"foreground": ["lumbar_vertebrae"]}},
            ["evaluation.foreground", "'lumbar_vertebrae'", "did you mean 'lumbar_vertebra'?"],
        ),
        ({"source": "folder"}, ["folder.path", "missing"]),
        (
            {"results": "out", "annotations": {"via": ["./out/annotations/via_project.json"]}},
            ["annotations.via", "writes over", "another name"],
        ),
        (
            {"annotations": {"via": ["a.json", "b.json", "./a.json"]}},
            ["annotations.via", "./a.json is listed twice", "remove one"],
        ),
    ],
)
def test_mistakes_get_a_sentence_with_key_expectation_and_nearest_name(user, words):
    text = sentence(user)
    for word in words:
        assert word in text


@pytest.mark.parametrize("path", [path for path in LEAVES if not path.startswith("network.")])
def test_a_value_of_a_wrong_type_names_its_key(path):
    wrong = [3.5] if "string" in LEAVES[path]["type"] else "many"
    wrong = 3.5 if path in ("annotations.class_names", "networks") else wrong
    if "array" in LEAVES[path]["type"] or "object" in LEAVES[path]["type"]:
        wrong = 3.5
    text = sentence(nested(path, wrong))
    assert text.startswith(f"{path}: expected ") and "found " in text


@pytest.mark.parametrize("path", [path for path in KEYS if not path.startswith("network.")])
def test_a_slip_in_a_key_is_told_with_the_key_that_was_meant(path):
    *group, name = path.split(".")
    slip = name + "x" if len(name) > 3 else name[:-1]
    text = sentence(nested(".".join([*group, slip]), 1))
    assert f"did you mean '{name}'?" in text and f"{slip}: no such key" in text


@pytest.mark.parametrize(
    "user",
    [
        {"source": "folder", "folder": {"path": "x"}},
        {"source": "folder", "folder": {"path": "x"}, "annotations": {"via": []}},
        {"archive": {"embedded": False}},
    ],
)
def test_without_annotations_the_way_to_begin_is_told(user):
    with pytest.raises(InputError, match=r"annotations\.via: missing.*snakemake via_project"):
        check_annotations(resolved(user))


@pytest.mark.parametrize(
    "user",
    [
        {},
        {"annotations": {"via": []}},
        {"source": "folder", "folder": {"path": "x"}, "annotations": {"via": ["a.json"]}},
    ],
)
def test_with_annotations_nothing_is_told(user):
    check_annotations(resolved(user))


def test_long_values_are_cut():
    text = sentence({"source": "x" * 500})
    assert len(text) < 300


@given(st.text(max_size=8), st.lists(st.text(min_size=1, max_size=8), max_size=5))
def test_nearest_names_one_of_the_names_or_none(name, names):
    text = nearest(name, names)
    assert text == "" or any(text == f" (did you mean {known!r}?)" for known in names)
    assert not names or nearest(names[0], names)
