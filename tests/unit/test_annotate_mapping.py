"""Class and level from what annotators write, in several languages and by configuration."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbarflow.annotate.mapping import (
    Vocabulary,
    choices,
    find_level,
    names,
    normalised,
    origin_of,
    shown,
)
from lumbarflow.annotate.regions import Region
from lumbarflow.errors import InputError

CLASSES = ["lumbar_vertebra", "sacral_vertebra", "cage", "screw", "instrumentation"]


@pytest.mark.parametrize(
    ("text", "level", "rest"),
    [
        ("L5", "L5", ""),
        ("l 5", "L5", ""),
        ("L-5", "L5", ""),
        ("5. LWK", "L5", ""),
        ("LWK5", "L5", ""),
        ("lumbar 5", "L5", ""),
        ("5th lumbar vertebra", "L5", ""),
        ("L5 lumbar vertebra", "L5", ""),
        ("5. Lendenwirbelkörper", "L5", ""),
        ("vertèbre lombaire 3", "L3", ""),
        ("3a vértebra lumbar", "L3", ""),
        ("腰椎5", "L5", ""),
        ("Th12", "T12", ""),
        ("BWK 12", "T12", ""),
        ("D12", "T12", ""),
        ("s1_endplate", "S1", "endplate"),
        ("SWK 1", "S1", ""),
        ("L4/L5", "L4/L5", ""),
        ("L4/5", "L4/L5", ""),
        ("L5-S1", "L5/S1", ""),
        ("Th12/L1", "T12/L1", ""),
        ("screw L4 left", "L4", "screw"),
        ("L6", "L6", ""),
        ("L7", None, ""),
        ("L0", None, ""),
        ("T13", "T13", ""),
        ("T14", None, ""),
        ("5", None, ""),
        ("L", None, "l"),
        ("sacrum", None, ""),
        ("L1 L3 L5", None, ""),
        ("", None, ""),
    ],
)
def test_levels(text, level, rest):
    found = find_level(text)
    assert (found.level, found.rest) == (level, rest)


@settings(deadline=None)
@given(st.sampled_from("TLS"), st.integers(1, 5), st.sampled_from("TLS"), st.integers(1, 5))
def test_canonical_levels_stay_what_they_are(letter, number, other, below):
    assert find_level(f"{letter}{number}").level == f"{letter}{number}"
    disc = f"{letter}{number}/{other}{below}"
    assert find_level(disc).level == disc


@settings(deadline=None, max_examples=200)
@given(st.text())
def test_any_text_is_normalised_once_and_can_be_shown(text):
    assert normalised(normalised(text)) == normalised(text)
    shown(text).encode()
    assert len(shown(text)) <= 40
    assert "\n" not in shown(text)
    level = find_level(text).level
    assert level is None or find_level(level).level == level


@pytest.mark.parametrize(
    ("value", "read_as"),
    [
        (" L5 ", ["L5"]),
        ("\n", []),
        (None, []),
        (5, ["5"]),
        ({"cage ": True, "screw": False, "": True}, ["cage"]),
        (["cage", None, "screw"], ["cage", "screw"]),
        ([["cage"]], []),
    ],
)
def test_values_of_attributes(value, read_as):
    assert choices(value) == read_as


def mean(value, level="", classes=CLASSES, **settings):
    region = Region("polygon", [], {"structure": value, "level": level})
    found = Vocabulary(classes, settings).meaning(region, ["structure"], ["level"])
    return found.class_name, found.level, [note.check for note in found.notes]


@pytest.mark.parametrize(
    ("value", "level", "found"),
    [
        ("lumbar_vertebra", "L5", ("lumbar_vertebra", "L5", [])),
        ("Lumbar Vertebra", "5. LWK", ("lumbar_vertebra", "L5", [])),
        ("Wirbelkörper", "L3", ("lumbar_vertebra", "L3", [])),
        ("Wirbelkörper", "S1", ("sacral_vertebra", "S1", [])),
        ("Wirbelkörper", "", (None, None, ["unknown_class"])),
        ("Kreuzbein", "", ("sacral_vertebra", None, [])),
        ("LWS-Wirbel", "", ("lumbar_vertebra", None, [])),
        ("Lumbaler Wirbel", "5. LWK", ("lumbar_vertebra", "L5", [])),
        ("T12", "", ("lumbar_vertebra", "T12", [])),
        ("Pedikelschraube LWK 4 links", "", ("screw", "L4", [])),
        ("tornillo pedicular", "L4", ("screw", "L4", [])),
        ("jaula L4/L5", "", ("cage", "L4/L5", [])),
        ("Stäbe", "", ("instrumentation", None, [])),
        ("C7", "", (None, "C7", ["unknown_class"])),
        ("L5", "L4", ("lumbar_vertebra", "L4", ["level_conflict"])),
        ("cage", "middle", ("cage", None, ["unknown_level"])),
        ("", "L4", (None, "L4", ["no_class"])),
        ({"cage": True, "screw": True}, "L4", (None, None, ["several_classes"])),
    ],
)
def test_meanings(value, level, found):
    assert mean(value, level) == found


@pytest.mark.parametrize(
    ("attributes", "origin"),
    [
        ({}, "drawn"),
        ({"origin": "", "review": "unreviewed"}, "drawn"),
        ({"origin": "predicted by unet", "review": "accepted"}, "predicted by unet"),
        ({"origin": "predicted by unet", "review": ""}, None),
        # As in COCO files of VIA, which leaves `origin` out.
        ({"review": "unreviewed"}, None),
        ({"review": "accepted"}, "predicted by a network"),
    ],
)
def test_predictions_stay_predictions_until_they_are_accepted(attributes, origin):
    assert origin_of(Region("polygon", [], attributes), {}) == origin


def test_the_configuration_goes_before_the_usual_names():
    own = {"class_names": {"Schraube": "cage", "Ding 5": "screw"}, "level_names": {"oben": "L1"}}
    assert mean("schraube", "Oben", **own) == ("cage", "L1", [])
    assert mean("ding-5", **own) == ("screw", None, [])
    assert mean("Schraube", classes=["cage"]) == (None, None, ["unknown_class"])
    assert mean("Schraube", ignore=["Schraube"]) == (None, None, ["ignored_class"])


def test_class_names_must_lead_to_a_class():
    with pytest.raises(InputError, match=r"`annotations.class_names`.*did you mean 'cage'"):
        Vocabulary(CLASSES, {"class_names": {"Ding": "cagge"}})


def test_built_in_names_mean_one_thing_each():
    classes = names()["classes"]
    for name, meaning in classes.items():
        assert mean(name)[0] == meaning
    assert not set(classes) & set(names()["lines"])
