"""One film through the whole of de-identification: header, pixels, and what is noted of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileDataset

from ..acquire.pixels import stored_values
from ..acquire.render import render
from ..verify.values import Witness
from . import pseudonyms as keys
from .burned_in import BurnedIn, TextFinder, blanked
from .engine import deidentify, method_codes, patient_key, tells_of_text
from .linkage import Linkage
from .profile import SAFE, Options
from .pseudonyms import Pseudonyms

# Raise it when films that were taken before must be taken again, as something was left in them.
VERSION = 1


@dataclass
class Cleaned:
    """A film without what identifies.

    Attributes:
        picture: uint8, rows x columns.
        dataset: the object; None of a PNG or JPEG film.
        blanked: areas of text that were blanked; None where nobody looked.
        uncertain: whether the picture may hold text that was not found; it must not be used.
        audit: what became of how many attributes, by (attribute, outcome).
    """

    picture: np.ndarray
    dataset: FileDataset | None
    blanked: int | None
    uncertain: bool
    audit: Counter[tuple[str, str]]


class Deidentifier:
    """What the films of one run are de-identified with; may be used by several threads."""

    def __init__(
        self,
        pseudonyms: Pseudonyms,
        options: Options = SAFE,
        finder: TextFinder | None = None,
        witness: Witness | None = None,
        linkage: Linkage | None = None,
    ):
        """Put the parts together.

        Args:
            pseudonyms: the keyed mapping.
            options: the options of Annex E.
            finder: finds burned-in text; without one nobody looks, and the header is believed.
            witness: remembers what must not survive, for the verification at the end.
            linkage: the table of originals.
        """
        self.pseudonyms, self.options = pseudonyms, options
        self._finder, self.witness, self._linkage = finder, witness, linkage

    @classmethod
    def of(cls, privacy: Mapping[str, Any], results: Path, threads: int = 1) -> Deidentifier:
        """The one that the configuration's group `privacy` asks for.

        Args:
            privacy: the group.
            results: the folder of the results.
            threads: CPU threads for the search of burned-in text.

        Raises:
            InputError: the key is lost, changed or unsafe, or the linkage table cannot be used.
        """
        options = Options(**{field.name: privacy[field.name] for field in fields(Options)})
        return cls(
            keys.load(privacy["key_file"], results, make=True),
            options,
            TextFinder(threads) if privacy["find_burned_in_text"] else None,
            None if privacy["verify"] == "off" else Witness(options.kept),
            Linkage(privacy["linkage"], results) if privacy["linkage"] else None,
        )

    @property
    def searches_text(self) -> bool:
        """Whether text in pixels is looked for."""
        return self._finder is not None

    @property
    def rules(self) -> dict[str, Any]:
        """What a film on disk must have been de-identified by to count as here."""
        return {"version": VERSION, "find_burned_in_text": self.searches_text} | asdict(
            self.options
        )

    @property
    def statement(self) -> list[str]:
        """What is done about each option of Annex E, in words."""
        searched = (
            "Clean Pixel Data Option: text in the picture is looked for and blanked; films "
            "with text that is not certain are rejected.",
            "Text in the picture is not looked for: the header is believed.",
        )
        return [searched[not self.searches_text], *self.options.statement()]

    @property
    def takes_notes(self) -> bool:
        """Whether :meth:`note` does anything."""
        return self.witness is not None or self._linkage is not None

    def note(self, original: Dataset, path: Path | None = None) -> None:
        """Remember an original, or a C-FIND answer, for the verification and the linkage table.

        `path` is the file of an original, relative to the folder that the user gave.
        """
        if self.witness is not None:
            self.witness.see(original, path, self._ids(original))
        # An answer need not tell who issued the patient's number.
        if self._linkage is not None and "SOPInstanceUID" in original:
            self._linkage.add(original, self.pseudonyms)

    def _ids(self, original: Dataset) -> tuple[str | None, str | None, str]:
        """Pseudonyms of image and study, where the original tells them, and of the patient."""
        image, study = (
            str(original.get(keyword, "") or "")
            for keyword in ("SOPInstanceUID", "StudyInstanceUID")
        )
        return (
            self.pseudonyms.image(image) if image else None,
            self.pseudonyms.study(study) if study else None,
            self.pseudonyms.patient(patient_key(original)),
        )

    def film(self, source: Dataset) -> Cleaned:
        """De-identify an object and its picture; the source is not changed.

        Raises:
            InputError: as of :func:`.engine.deidentify`.
        """
        audit: Counter[tuple[str, str]] = Counter()
        clean = deidentify(source, self.pseudonyms, self.options, audit)
        picture = render(clean)
        if self._finder is None:
            return Cleaned(picture, clean, None, False, audit)
        found = self._finder.find(picture)
        if found.blank:
            values = blanked(stored_values(clean), picture.shape, found.blank)
            data = values.tobytes()
            clean.PixelData = data + b"\0" * (len(data) % 2)
            picture = render(clean)
        clean.BurnedInAnnotation = "NO"
        clean.DeidentificationMethodCodeSequence = method_codes(self.options, pixels_checked=True)
        # Where the header tells of text and none is found, it is text that cannot be found.
        uncertain = found.uncertain or (tells_of_text(source) and not found.blank)
        return Cleaned(picture, clean, len(found.blank), uncertain, audit)

    def picture(self, picture: np.ndarray) -> Cleaned:
        """Blank the text in a picture (uint8, rows x columns) that has no header."""
        found = self._finder.find(picture) if self._finder else BurnedIn((), (), False)
        if found.blank:
            picture = blanked(picture, picture.shape, found.blank)
        count = len(found.blank) if self._finder else None
        return Cleaned(picture, None, count, found.uncertain, Counter())
