"""Digests of annotations: blind to layout and settings, not to anything drawn."""

from __future__ import annotations

import copy
import json
import os

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumbarflow.annotate.watching import (
    annotated_films,
    annotation_digest,
    missing_files,
    pictures_digest,
    pictures_stamp,
    structures_digest,
)
from lumbarflow.errors import InputError
from lumbarflow.files import write_json
from lumbarflow.linking import link_files
from lumbarflow.prepare.coco import coco_dataset, training_digest

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)

PROJECT = {
    "_via_settings": {"ui": 1},
    "_via_img_metadata": {"a.png7": {"filename": "a.png", "regions": [{"x": 1.5}]}},
    "_via_attributes": {"region": {"level": {"options": {"l5": "L5"}}}},
    "_via_image_id_list": ["a.png7"],
}


def record(image_id: str = "img-1", **changes) -> dict:
    structure = {
        "structure_id": f"{image_id}-001",
        "class_name": "screw",
        "level": None,
        "polygon": [[1.0, 2.0], [9.0, 2.0], [5.0, 8.0]],
        "annotator": "a",
    }
    return {
        "image_id": image_id,
        "rows": 12,
        "columns": 14,
        "structures": [structure | changes],
        "lines": [],
        "rejected": [],
    }


@pytest.fixture
def digest_of(tmp_path):
    """The digest of a file with the given content."""
    count = iter(range(1000))

    def digest(content) -> str:
        path = tmp_path / f"{next(count)}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return annotation_digest([path])

    return digest


def test_layout_and_settings_are_not_seen(digest_of):
    found = {
        digest_of(json.dumps(PROJECT)),
        digest_of("\ufeff" + json.dumps(PROJECT, indent=2, sort_keys=True)),
        digest_of(json.dumps(PROJECT | {"_via_settings": {"ui": 2}})),
    }
    assert len(found) == 1


def test_the_day_of_an_export_is_not_seen(digest_of):
    coco = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": []}
    first, later = (digest_of(json.dumps(coco | {"info": {"date_created": d}})) for d in "12")
    assert first == later
    assert first != digest_of(json.dumps(coco | {"annotations": [{"image_id": 1}]}))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["_via_img_metadata", "a.png7", "regions", 0, "x"], 1.25),
        (["_via_img_metadata", "a.png7", "regions"], []),
        (["_via_attributes", "region", "level", "options", "l5"], "L4"),
    ],
)
def test_what_is_drawn_is_seen(digest_of, path, value):
    changed = copy.deepcopy(PROJECT)
    place = changed
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    assert digest_of(json.dumps(changed)) != digest_of(json.dumps(PROJECT))


@settings(deadline=None, max_examples=50)
@given(values, values)
def test_equal_digests_mean_equal_values(tmp_path_factory, first, second):
    folder = tmp_path_factory.mktemp("values")
    digests = []
    for number, value in enumerate((first, second)):
        (folder / str(number)).write_text(json.dumps([value], indent=number))
        digests.append(annotation_digest([folder / str(number)]))
    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert (digests[0] == digests[1]) == same


def test_tables_are_compared_by_lines(digest_of):
    assert digest_of("a,b\r\n1,2\r\n\r\n") == digest_of("a,b\n1,2")
    assert digest_of("a,b\n1,2") != digest_of("a,b\n1,3")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b'{"a": 1, "a": 2}', b'{"a": 2}'),  # a key twice hides what came first
        (b'{"a": 1', b'{"a": 12'),
        (b"\xff\xfe", b"\xff\xfd"),
        (b"", b"0"),
        (b"[" * 100_000, b"[" * 100_001),
    ],
)
def test_damaged_files_have_digests_too(digest_of, first, second):
    assert digest_of(first) != digest_of(second)


def test_a_file_changed_within_a_run_is_read_again(tmp_path):
    path = tmp_path / "via.json"
    path.write_text("[1]")
    before = annotation_digest([path])
    path.write_text("[2]")
    os.utime(path, ns=(0, 0))
    assert annotation_digest([path]) != before


def test_structures_are_seen_and_annotators_are_not(tmp_path):
    def digest(content) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        write_json(folder / "img-1.json", content)
        return structures_digest(folder)

    plain = digest(record())
    assert digest(record(annotator="b") | {"rejected": [{"class_name": "cage"}]}) == plain
    for change in ({"level": "L5"}, {"class_name": "cage"}, {"polygon": [[0, 0], [1, 1], [0, 2]]}):
        assert digest(record(**change)) != plain
    assert digest(record() | {"rows": 13}) != plain


def test_films_of_a_subset_only(tmp_path):
    write_json(tmp_path / "img-1.json", record())
    write_json(tmp_path / "img-2.json", record("img-2") | {"structures": []})
    before = structures_digest(tmp_path, ["img-1"])
    assert annotated_films(tmp_path) == ["img-1"]
    write_json(tmp_path / "img-2.json", record("img-2"))
    assert structures_digest(tmp_path, ["img-1"]) == before
    assert annotated_films(tmp_path) == ["img-1", "img-2"]
    with pytest.raises(InputError, match=r"img-3\.json is missing"):
        structures_digest(tmp_path, ["img-3"])


def test_pictures(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    stamp, content = pictures_stamp(tmp_path, ["a"]), pictures_digest(tmp_path, ["a"])
    os.utime(path, ns=(5, 5))
    assert pictures_stamp(tmp_path, ["a"]) != stamp
    assert pictures_digest(tmp_path, ["a"]) == content
    path.write_bytes(b"two")
    assert pictures_digest(tmp_path, ["a"]) != content


def test_networks_see_no_levels():
    films = pd.DataFrame({"image_id": ["img-1"], "patient_id": ["pat-1"]})

    def digest(**changes) -> str:
        return training_digest(coco_dataset([record(**changes)], films, ["screw", "cage"]))

    assert digest(level="L5") == digest()
    assert digest(class_name="cage") != digest()
    assert digest(polygon=[[1, 2], [9, 2], [5, 9]]) != digest()


def test_linked_folders_keep_what_is_equal(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    for name in "abc":
        write_json(source / f"{name}.json", name)
    link_files(source, target, "*.json")
    (target / "note.txt").write_text("not ours")
    kept = (target / "a.json").stat()
    write_json(source / "b.json", "changed")
    (source / "c.json").unlink()
    link_files(source, target, "*.json")
    assert (target / "a.json").stat() == kept
    assert json.loads((target / "b.json").read_text()) == "changed"
    assert sorted(path.name for path in target.iterdir()) == ["a.json", "b.json", "note.txt"]
    (target / "a.json").unlink()
    assert missing_files(target, source, "*.json") == ["a.json"]
    assert missing_files(tmp_path / "nowhere", source, "*.json") == []


def test_folders_without_hard_links_are_copied(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    write_json(tmp_path / "source" / "a.json", 1)
    link_files(tmp_path / "source", tmp_path / "target", "*.json")
    assert (tmp_path / "target" / "a.json").read_text() == "1\n"
