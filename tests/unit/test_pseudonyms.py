"""Pseudonyms: keyed, stable, of the promised form; where the key comes from and how it fails."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lumbarflow.deidentify.pseudonyms import FINGERPRINT, KEY_VARIABLE, Pseudonyms, load, make_key
from lumbarflow.errors import InputError

KEY = b"a key for these tests only"
FORMS = {
    "patient": r"pat-[0-9a-f]{16}",
    "study": r"std-[0-9a-f]{16}",
    "image": r"img-[0-9a-f]{16}",
    "uid": r"2\.25\.(0|[1-9][0-9]*)",
}
kinds = st.sampled_from(sorted(FORMS))


@pytest.fixture(autouse=True)
def no_key_in_the_environment(monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


def expected(kind: str, text: str) -> str:
    return hmac.new(KEY, kind.encode() + b"\0" + text.encode(), hashlib.sha256).hexdigest()


def test_values_are_the_hmac_of_kind_and_identifier():
    keyed = Pseudonyms(KEY)
    assert keyed.patient("PID1") == "pat-" + expected("patient", "PID1")[:16]
    assert keyed.study("1.2.3") == "std-" + expected("study", "1.2.3")[:16]
    assert keyed.image("1.2.3") == "img-" + expected("image", "1.2.3")[:16]
    assert keyed.uid("1.2.3") == f"2.25.{int(expected('uid', '1.2.3')[:32], 16)}"


def test_values_do_not_change_between_releases():
    """Films that were retrieved last year must keep their names: computed once with openssl."""
    keyed = Pseudonyms(b"0123456789abcdef")
    assert keyed.patient("PID1") == "pat-993782cefcbde9a3"
    assert keyed.image("1.2.3") == "img-22081efb75d30020"


@given(kinds, st.text(), st.binary(min_size=16, max_size=40))
def test_form_and_determinism(kind, text, key):
    value = getattr(Pseudonyms(key), kind)(text)
    assert re.fullmatch(FORMS[kind], value)
    assert len(value) <= 64  # UIDs, DICOM PS3.5 9
    assert getattr(Pseudonyms(key), kind)(text) == value


@given(kinds, st.text(), st.text(), st.binary(min_size=16), st.binary(min_size=16))
def test_another_identifier_or_key_gives_another_value(kind, text, other, key, other_key):
    value = getattr(Pseudonyms(key), kind)(text)
    if other != text:
        assert getattr(Pseudonyms(key), kind)(other) != value
    # HMAC pads short keys with zeros: those that differ in nothing else are the same key.
    if (
        len(key) <= 64
        and len(other_key) <= 64
        and key.ljust(64, b"\0") != other_key.ljust(64, b"\0")
    ):
        assert getattr(Pseudonyms(other_key), kind)(text) != value


def key_file(path, content: bytes = KEY):
    path.write_bytes(content)
    path.chmod(0o600)
    return path


@given(st.text(), st.text(), st.binary(min_size=16))
def test_days_are_secret_and_the_same_for_a_patient(patient, other, key):
    keyed = Pseudonyms(key)
    assert keyed.days(patient) == Pseudonyms(key).days(patient)
    assert 1 <= keyed.days(patient) <= 3650
    assert len({keyed.days(f"{patient}{number}") for number in range(50)}) > 40


def test_the_environment_comes_first(tmp_path, monkeypatch):
    file = key_file(tmp_path / "key", b"another key in the file")
    monkeypatch.setenv(KEY_VARIABLE, KEY.decode())
    assert load(file).patient("x") == Pseudonyms(KEY).patient("x")
    assert load(tmp_path / "absent").patient("x") == Pseudonyms(KEY).patient("x")
    assert not (tmp_path / "absent").exists()


def test_the_file_is_read_without_blanks_at_its_ends(tmp_path):
    file = key_file(tmp_path / "key", KEY + b"\n")
    assert load(str(file)).patient("x") == Pseudonyms(KEY).patient("x")


def test_a_key_is_made_once_for_its_owner_only(tmp_path):
    file = tmp_path / "deep" / "pseudonym.key"
    before = os.umask(0)
    try:
        first = load(file, make=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert re.fullmatch(rb"[0-9a-f]{64}\n", file.read_bytes())
    assert load(file).patient("x") == first.patient("x")
    second = load(tmp_path / "other.key", make=True)
    assert second.patient("x") != first.patient("x")


@pytest.mark.parametrize("key", ["", "fifteen letters"])
def test_short_keys_are_refused_wherever_they_come_from(tmp_path, monkeypatch, key):
    file = key_file(tmp_path / "key", key.encode())
    with pytest.raises(InputError, match="shorter than 16 bytes") as caught:
        load(file)
    assert str(file) in str(caught.value)
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(InputError, match=f"{KEY_VARIABLE}.* shorter than 16 bytes") as caught:
        load(tmp_path / "unused")
    assert not key or key not in str(caught.value)


def test_an_unusable_file_is_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"cannot be used .*privacy\.key_file"):
        load(tmp_path)  # a folder
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be used .*privacy\.key_file"):
        load(tmp_path / "file" / "key")  # below a file


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_is_a_sentence(tmp_path):
    file = key_file(tmp_path / "key")
    file.chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        load(file)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o777])
def test_a_key_that_others_may_read_is_refused(tmp_path, mode):
    file = key_file(tmp_path / "key")
    file.chmod(mode)
    with pytest.raises(InputError, match=r"Others than its owner .*chmod 600") as caught:
        load(file)
    assert str(file) in str(caught.value)


def test_a_key_is_made_on_request_and_never_over_another(tmp_path):
    file = tmp_path / "deep" / "key"
    with pytest.raises(InputError, match=r"`make key` makes a new one"):
        load(file)
    make_key(file)
    content = file.read_bytes()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and load(file)
    with pytest.raises(InputError, match="left as it is"):
        make_key(file)
    assert file.read_bytes() == content


def test_a_lost_and_a_changed_key_are_told_apart(tmp_path, monkeypatch):
    file, results = tmp_path / "key", tmp_path / "results"
    first = load(file, results, make=True)
    assert first.fingerprint in (results / FINGERPRINT).read_text()
    assert load(file, results, make=True).patient("x") == first.patient("x")
    assert load(file, results).fingerprint == first.fingerprint
    content = file.read_bytes()
    assert content.strip() not in (results / FINGERPRINT).read_bytes()

    file.unlink()
    for make in (True, False):
        with pytest.raises(InputError, match=r"is lost: put it back .*" + first.fingerprint):
            load(file, results, make)
        assert not file.exists()

    key_file(file, b"quite another key of another day")
    for make in (True, False):
        with pytest.raises(InputError, match=r"is another one than .*" + first.fingerprint):
            load(file, results, make)
    monkeypatch.setenv(KEY_VARIABLE, "yet another key, of the environment")
    with pytest.raises(InputError, match=rf"{KEY_VARIABLE} is another one"):
        load(file, results)
    monkeypatch.delenv(KEY_VARIABLE)
    key_file(file, content)
    assert load(file, results, make=True).patient("x") == first.patient("x")
