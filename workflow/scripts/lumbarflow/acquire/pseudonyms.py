"""Pseudonyms and replacement UIDs from a secret key (HMAC-SHA-256, RFC 2104)."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from ..errors import InputError

KEY_VARIABLE = "LUMBARFLOW_KEY"
_SHORTEST_KEY = 16


class Pseudonyms:
    """Maps identifiers to pseudonyms: the same key gives the same ones on every machine."""

    def __init__(self, key: bytes, origin: str = "memory"):
        """Keep the key; `origin`, where it comes from, is for the sentence of a short one."""
        if len(key) < _SHORTEST_KEY:
            raise InputError(
                f"The pseudonym key in {origin} is shorter than {_SHORTEST_KEY} bytes: use a "
                "longer random one."
            )
        self._key = key

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

    def uid(self, uid: str) -> str:
        """Replacement of a UID under the 2.25 root (DICOM PS3.5 B.2), from 128 bits of the HMAC."""
        return f"2.25.{int.from_bytes(self._digest('uid', uid)[:16], 'big')}"


def load(key_file: str | Path) -> Pseudonyms:
    """Read the secret key, or make one where there is none yet.

    The environment variable LUMBARFLOW_KEY holds the key itself and comes first; otherwise the
    file is read, and written (mode 600) at the first use.

    Raises:
        InputError: the key is too short or its file cannot be read or written.
    """
    value = os.environ.get(KEY_VARIABLE)
    if value is not None:
        return Pseudonyms(value.encode(), f"the environment variable {KEY_VARIABLE}")
    path = Path(key_file)
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            # O_EXCL: two jobs that start together must not end with two keys.
            try:
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                pass
            else:
                with os.fdopen(handle, "w") as stream:
                    stream.write(secrets.token_hex(32) + "\n")
        return Pseudonyms(path.read_bytes().strip(), str(path))
    except OSError as error:
        raise InputError(
            f"The pseudonym key {path} cannot be used ({error.strerror}): make it readable or set "
            f"privacy.key_file or the environment variable {KEY_VARIABLE}."
        ) from None
