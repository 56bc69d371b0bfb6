"""Pseudonyms and replacement UIDs from a secret key (HMAC-SHA-256, RFC 2104).

A new key by hand: `python -m lumbarflow.deidentify.pseudonyms FILE`, or `make key`.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import sys
from contextlib import suppress
from pathlib import Path

from ..errors import InputError
from ..files import read_json, write_json

KEY_VARIABLE = "LUMBARFLOW_KEY"
#: Within the results: which key they were made with.
FINGERPRINT = "images/pseudonym_key.json"
_SHORTEST_KEY = 16


class Pseudonyms:
    """Maps identifiers to pseudonyms: the same key gives the same ones on every machine."""

    def __init__(self, key: bytes, origin: str = "memory"):
        """Keep the key; `origin`, where it comes from, is for sentences."""
        if len(key) < _SHORTEST_KEY:
            raise InputError(
                f"The pseudonym key in {origin} is shorter than {_SHORTEST_KEY} bytes: use a "
                "longer random one."
            )
        self._key, self.origin = key, origin

    @property
    def fingerprint(self) -> str:
        """What the key is told from others by, 12 hexadecimal digits; not a secret."""
        return self._digest("fingerprint", "").hex()[:12]

    def _digest(self, kind: str, identifier: str) -> bytes:
        return hmac.new(self._key, f"{kind}\0{identifier}".encode(), hashlib.sha256).digest()

    def patient(self, identifier: str) -> str:
        """Pseudonym of a patient, `pat-` and 16 hexadecimal digits."""
        return f"pat-{self._digest('patient', identifier).hex()[:16]}"

    def study(self, uid: str) -> str:
        """Pseudonym of a study, `std-` and 16 hexadecimal digits."""
        return f"std-{self._digest('study', uid).hex()[:16]}"

    def image(self, uid: str) -> str:
        """Pseudonym of an image, `img-` and 16 hexadecimal digits."""
        return f"img-{self._digest('image', uid).hex()[:16]}"

    def days(self, identifier: str) -> int:
        """Days, 1 to 3650, by which all dates of a patient are moved back."""
        return int.from_bytes(self._digest("days", identifier)[:8], "big") % 3650 + 1

    def uid(self, uid: str) -> str:
        """Replacement of a UID under the 2.25 root (DICOM PS3.5 B.2), from 128 bits of the HMAC."""
        return f"2.25.{int.from_bytes(self._digest('uid', uid)[:16], 'big')}"


def load(key_file: str | Path, results: str | Path | None = None, make: bool = False) -> Pseudonyms:
    """Read the secret key.

    The environment variable LUMBARFLOW_KEY holds the key itself and comes first. Which key the
    results were made with is kept there as a fingerprint, from which the key cannot be had, so that
    a lost or changed one is noticed before it gives known patients new pseudonyms.

    Args:
        key_file: the file with the key, readable by its owner only.
        results: the folder of the results; None to compare with nothing.
        make: whether to make a key where results have none yet, and to note its fingerprint; for
            the acquisition only.

    Raises:
        InputError: the key is lost, changed, too short, or its file may be read by others, or
            cannot be read or written.
    """
    mark = Path(results) / FINGERPRINT if results is not None else None
    known = read_json(mark)["fingerprint"] if mark and mark.exists() else None
    pseudonyms = _from_environment() or _from_file(Path(key_file), known, make)
    if known is None and make and mark:
        write_json(mark, {"fingerprint": pseudonyms.fingerprint})
    elif known not in (None, pseudonyms.fingerprint):
        raise InputError(
            f"The pseudonym key in {pseudonyms.origin} is another one than that of {results} "
            f"(fingerprint {pseudonyms.fingerprint}, there {known}): put the former key back, or "
            "set `results` to another folder to begin anew with this one; the two must not be "
            "mixed, as a patient would count as two."
        )
    return pseudonyms


def make_key(path: str | Path) -> None:
    """Write a new secret key, readable by its owner only.

    Raises:
        InputError: there is one already, which is left as it is, or the file cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # O_EXCL: two jobs that start together must not end with two keys.
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as stream:
            stream.write(secrets.token_hex(32) + "\n")
    except FileExistsError:
        raise InputError(
            f"There is a pseudonym key in {path} already, and it is left as it is: whoever wants "
            "another one moves it away first."
        ) from None
    except OSError as error:
        raise _unusable(path, error) from None


def _from_environment() -> Pseudonyms | None:
    value = os.environ.get(KEY_VARIABLE)
    origin = f"the environment variable {KEY_VARIABLE}"
    return None if value is None else Pseudonyms(value.encode(), origin)


def _from_file(path: Path, known: str | None, make: bool) -> Pseudonyms:
    """Read the key, or make one where that is due."""
    if not path.exists() and known is not None:
        raise InputError(
            f"The pseudonym key {path} is lost: put it back from your copy (fingerprint {known}). "
            "Without it new films of known patients cannot be told to be theirs; if there is no "
            "copy, set `results` to another folder and fetch everything anew with a new key."
        )
    if not path.exists() and make:
        with suppress(InputError):  # another job may have been quicker
            make_key(path)
    try:
        with path.open("rb") as stream:
            if os.fstat(stream.fileno()).st_mode & 0o077:
                raise InputError(
                    f"Others than its owner may read or write the pseudonym key {path}: "
                    f"`chmod 600 {path}`; if they have read it, make a new one."
                )
            return Pseudonyms(stream.read().strip(), str(path))
    except OSError as error:
        raise _unusable(path, error) from None


def _unusable(path: Path, error: OSError) -> InputError:
    return InputError(
        f"The pseudonym key {path} cannot be used ({error.strerror}): make it readable or set "
        f"privacy.key_file or the environment variable {KEY_VARIABLE}; `make key` makes a new one."
    )


if __name__ == "__main__":
    try:
        make_key(sys.argv[1])
    except InputError as error:
        sys.exit(f"lumbarflow: error: {error}")
    print(
        f"A new pseudonym key is in {sys.argv[1]} (fingerprint {load(sys.argv[1]).fingerprint}). "
        "Keep it secret, and a copy of it in a safe place: without it, new films of known patients "
        "cannot be told to be theirs."
    )
