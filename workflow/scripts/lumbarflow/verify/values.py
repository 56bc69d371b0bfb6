"""What of an original must not survive: its identifying values, in memory only."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement, convert_raw_data_element
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag, Tag

NAME, NUMBER, UID, DATE, TEXT, PLACE = "name", "number", "uid", "date", "text", "place"
SAME_ATTRIBUTE = "same attribute"  # looked for nowhere else

FILE_NAME = "file name"

_TEXTS = {"AE", "LO", "SH", "LT", "ST", "UC", "UR", "UT"}
_BYTES = {"OB", "UN"}
_STANDARD_UID = "1.2.840.10008."
_LONGEST_BYTES = 65536
_PICTURE_GROUP = 0x7FE0
_OLDEST_YEARS = 89

# Words of keywords whose texts and UIDs tell of equipment, software or codes and of no person.
_TECHNICAL = {
    *("Manufacturer", "Model", "Software", "Version", "Versions", "Implementation", "Code"),
    *("Coding", "Scheme", "Type", "Material", "Explanation", "Calibration", "Units", "Mapping"),
    "Function",
}
# Within sequences about these, codes identify, too.
_PERSONAL = {"Person", "Physician", "Physicians", "Institution", "Institutional", "Service"}
_CODES = {"CodeValue", "LongCodeValue", "URNCodeValue", "CodeMeaning"}
# Of these, some repeat what the maker calls the equipment.
_EQUIPMENT = {"Station", "Device", "Detector", "Gantry", "Plate", "Cassette", "Equipment"}
# Of these, single rare words identify.
_PLACES = {
    *("Institution", "Institutional", "Address", "Station", "Department", "Organization"),
    *("Service", "Residence", "Location", "Locations", "Owner", "Site", "Sponsor"),
}
_CAMEL = re.compile(r"[A-Z][a-z]+")
_DAY = re.compile(
    r"(?<!\d)(?:(?P<y>(?:18|19|20)\d\d)(?P<s>[-/.]?)(?P<m>\d\d)(?P=s)(?P<d>\d\d)"
    r"|(?P<d2>\d\d?)[./-](?P<m2>\d\d?)[./-](?P<y2>(?:18|19|20)\d\d))(?!\d)"
)
_IDENTIFIER = re.compile(r"[\w.+-]*\d[\w.+-]*|[\w.+-]+@[\w.-]+")
_LONGEST_COUNTER = 4  # characters
_DIGITS = re.compile(r"(?<![\w.])\+?\(?\d[\d\-/. ()]{4,22}\d(?![\w.]*\d)")


class Value(NamedTuple):
    """One identifying value of an original.

    `kind` is what the report calls it (an attribute's keyword), `sort` how it is looked for,
    `codecs` are Python's names of the original's character sets, `raw` its bytes where they are not
    plain ASCII, `tag` its attribute.
    """

    kind: str
    sort: str
    text: str
    codecs: tuple[str, ...] = ()
    raw: bytes = b""
    tag: int = 0


class Ids(NamedTuple):
    """The pseudonyms that a file or a table row of an original carries."""

    image: str | None = None
    study: str | None = None
    patient: str | None = None


class Original(NamedTuple):
    """Pseudonyms and values of an original."""

    ids: Ids
    values: frozenset[Value]


class Witness:
    """Sees originals and keeps what identifies in them; in memory only, and in no representation.

    Which values identify is told by their value representation, not by a table of attributes:
    names, UIDs, dates and all free or short texts, at any depth, in public and private elements;
    bytes that are text, too. Texts about equipment, software and codes do not.
    """

    def __init__(self, kept: Iterable[str] = ()):
        """Values of the attributes `kept` (keywords) are not collected: somebody wants them."""
        self._kept = frozenset(kept)
        self._originals: list[Original] = []
        self._known: dict[Value, Value] = {}
        self._lock = threading.Lock()

    def see(
        self,
        dataset: Dataset,
        path: Path | None = None,
        ids: tuple[str | None, str | None, str | None] = (None, None, None),
    ) -> None:
        """Collect the identifying values of an original; threads may do so at a time.

        Args:
            dataset: an object as received (with file meta) or an answer of an archive, which may be
                broken anywhere; it is only read.
            path: the original's file, relative to the folder that the user gave.
            ids: pseudonyms of image, study and patient, which tell where its dates are looked for.
        """
        found: set[Value] = set()
        for part in (getattr(dataset, "file_meta", None), dataset):
            if part is not None:
                found.update(self._values(part, (), False))
        if path is not None:
            found.update(_of_path(path))
        with self._lock:
            # The same texts come thousands of times.
            values = frozenset(self._known.setdefault(value, value) for value in found)
            self._originals.append(Original(Ids(*ids), values))

    def __len__(self) -> int:
        return len(self._originals)

    def sample(self, size: int | None) -> list[Original]:
        """`size` originals (None: all), the same at every run, and the answers about their studies.

        An original without image is such an answer.
        """
        with self._lock:
            originals = list(self._originals)
        if size is None:
            return originals
        images = [original for original in originals if original.ids.image]
        chosen = sorted(images, key=lambda original: _chance(original.ids.image or ""))[:size]
        studies = {original.ids.study for original in chosen}
        answers = [original for original in originals if not original.ids.image]
        told = [original for original in answers if original.ids.study in studies]
        rest = [original for original in answers if original.ids.study not in studies]
        return chosen + told + rest[: max(size - len(chosen), 0)]

    def _values(self, dataset: Dataset, codecs: tuple[str, ...], personal: bool) -> Iterator[Value]:
        codecs = _codecs(dataset) or codecs
        of_equipment: list[Value] = []
        makers: set[str] = set()
        tags = dataset.keys()  # to go through the data set itself would decode it
        for tag in sorted(map(Tag, tags)):
            keyword = keyword_for_tag(tag)
            if tag.group == _PICTURE_GROUP or tag.is_private_creator or keyword in self._kept:
                continue
            parts = set(_CAMEL.findall(keyword))
            vr, content, raw = _content(dataset, tag, codecs)
            if vr == "SQ":
                for item in content:
                    yield from self._values(item, codecs, personal or bool(parts & _PERSONAL))
                continue
            values = [
                value._replace(
                    kind=keyword or f"element {tag}",
                    tag=int(tag),
                    sort=PLACE if value.sort == TEXT and parts & _PLACES else value.sort,
                )
                for value in _of_element(vr, content, raw, codecs)
            ]
            technical = parts & _TECHNICAL and not (personal and keyword in _CODES)
            if technical and vr not in ("PN", "DA", "DT"):
                makers.update(value.text for value in values)
            elif tag.is_private or parts & _EQUIPMENT:
                of_equipment += values
            else:
                yield from values
        for value in of_equipment:
            if value.sort not in (TEXT, PLACE, NUMBER) or value.text not in makers:
                yield value


# Elements ----------------------------------------------------------------------------------------


def _codecs(dataset: Dataset) -> tuple[str, ...]:
    try:
        named = dataset.get("SpecificCharacterSet")
        return tuple(dict.fromkeys(convert_encodings(named))) if named else ()
    except Exception:  # unknown or broken: bytes are looked for as they are
        return ()


def _content(dataset: Dataset, tag: BaseTag, codecs: tuple[str, ...]) -> tuple[str, Any, bytes]:
    """Value representation, value and, where known, bytes of an element, which may be broken."""
    try:
        element = dataset.get_item(tag)
    except Exception:
        return "UN", b"", b""
    raw = b""
    if isinstance(element, RawDataElement):
        raw = element.value if isinstance(element.value, bytes) else b""
        vr = element.VR or _dictionary_vr(tag)
        try:
            # As pydicom does at access, without changing the data set.
            encoding = list(codecs) or None
            element = convert_raw_data_element(element, encoding=encoding, ds=dataset)
            if element.VR == "PN":
                str(element.value)  # decoded only now
        except Exception:
            return (vr if vr in {*_TEXTS, "PN", "DA", "DT", "UI", "AS"} else "UN"), raw, raw
    if not isinstance(element, DataElement):
        return "UN", b"", b""
    return str(element.VR), element.value, raw


def _dictionary_vr(tag: BaseTag) -> str:
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


def _of_element(vr: str, content: Any, raw: bytes, codecs: tuple[str, ...]) -> Iterator[Value]:
    if content is None:
        return
    if isinstance(content, bytes):
        if vr not in {*_BYTES, *_TEXTS, "PN", "DA", "DT", "UI", "AS"}:
            return
        text = _decoded(content, codecs)
        if text is None:
            return
        vr, content, raw = (vr if vr not in _BYTES else "LT"), text, content
    for single in content if isinstance(content, (MultiValue, list, tuple)) else [content]:
        own = getattr(single, "original_string", raw) or raw
        strange = _not_plain(own)
        for text in dict.fromkeys([str(single).strip(" \0"), *_as_utf8(strange)]):
            for value in _sorted(vr, text) if text else ():
                plain = value.text.isascii() and not strange
                told = strange if value.sort in (NAME, TEXT) else b""
                yield value._replace(codecs=() if plain else codecs, raw=told)


def _decoded(content: bytes, codecs: tuple[str, ...]) -> str | None:
    """Bytes as text, if they are one."""
    content = content.strip(b" \0\r\n")
    if not 0 < len(content) <= _LONGEST_BYTES:
        return None
    encodings = ["utf-8", *codecs, "latin-1"]
    if content[1::2].count(0) * 4 > len(content):
        encodings = ["utf-16-le"]
        content += b"\0" * (len(content) % 2)
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
        good = sum(letter.isprintable() or letter in "\r\n\t\f" for letter in text)
        return text if good >= 0.95 * len(text) else None
    return None


def _not_plain(raw: Any) -> bytes:
    """Bytes that are not ASCII alone, or switch between character sets."""
    if (
        isinstance(raw, bytes)
        and len(raw) <= _LONGEST_BYTES
        and (not raw.isascii() or b"\x1b" in raw)
    ):
        return raw
    return b""


def _as_utf8(raw: bytes) -> Iterator[str]:
    """Text in UTF-8, which many write without declaring it."""
    try:
        if b"\x1b" not in raw and b"\\" not in raw:
            yield raw.decode().strip(" \0")
    except UnicodeDecodeError:
        pass


def _sorted(vr: str, text: str) -> Iterator[Value]:
    """The values of an element's text; `kind` is filled in by the caller."""
    if vr == "PN":
        yield Value("", NAME, text)
    elif vr == "UI":
        if not text.startswith(_STANDARD_UID):
            yield Value("", UID, text)
    elif vr == "AS":
        if text[:3].isdigit() and text.endswith("Y") and int(text[:3]) > _OLDEST_YEARS:
            yield Value("", SAME_ATTRIBUTE, text)
    elif vr in ("DA", "DT"):
        if vr == "DT" and len(re.match(r"\d*", text)[0]) >= 14:
            yield Value("", NUMBER, text[:14])
        day = text[:4] + text[5:7] + text[8:10] if text[4:5] in ".-/" else text[:8]
        if as_day(day):
            yield Value("", DATE, day)
        elif text:
            yield from _of_text(text)
    elif vr in _TEXTS:
        yield from _of_text(text)


def as_day(text: str) -> bool:
    """Whether eight digits are a date."""
    match = _DAY.fullmatch(text)
    return bool(match and match["y"] and len(text) == 8) and _calendar(match["m"], match["d"])


def _calendar(month: str, day: str) -> bool:
    return 1 <= int(month) <= 12 and 1 <= int(day) <= 31


def _of_text(text: str) -> Iterator[Value]:
    """A text as a number or a text, and the dates and numbers in it.

    Eight digits that are a date are one: as a number they would be met in other patients' dates.
    """
    digits = re.sub(r"[^\d]", "", text)
    if as_day(text):
        yield Value("", DATE, text)
        return
    # Identifiers have no blanks; telephone numbers have, and no letters.
    if digits and (not re.search(r"\s", text) or not re.search(r"[^\W\d_]", text)):
        yield Value("", NUMBER, text)
    else:
        yield Value("", TEXT, text)
    for match in _DAY.finditer(text):
        year, month, day = (match[key] or match[f"{key}2"] for key in "ymd")
        if _calendar(month, day):
            yield Value("", DATE, f"{year}{int(month):02d}{int(day):02d}")
    rest = _DAY.sub(" ; ", text)
    if rest == text and not re.search(r"\s", text):
        return
    for match in _DIGITS.finditer(rest):
        yield Value("", NUMBER, match[0].strip())
    for match in _IDENTIFIER.finditer(rest):
        word = match[0].strip(".-+")
        if "@" in word or (len(re.findall(r"\d", word)) >= 3 and len(re.sub(r"\W", "", word)) >= 5):
            yield Value("", NUMBER, word)


def _of_path(path: Path) -> Iterator[Value]:
    """The names of a file and of the folders that it is in, and the words of these."""
    for name in (*path.parent.parts, path.stem):
        if re.search(r"\d", name) and not _is_counter(name):
            yield from (value._replace(kind=FILE_NAME) for value in _of_text(name))
        for word in re.split(r"[\W_]+", name):
            if word.isalpha():
                yield Value(FILE_NAME, NAME, word)
            elif not _is_counter(word):
                yield Value(FILE_NAME, DATE if as_day(word) else NUMBER, word)
    words = [word for word in re.split(r"[\W\d_]+", path.stem) if word]
    if len(words) > 1:
        yield Value(FILE_NAME, NAME, " ".join(words))


def _is_counter(name: str) -> bool:
    """Whether a name is one of those that media count their files with, such as IM000012."""
    return len(re.sub(r"^[A-Za-z]{0,3}0*|[\W_]", "", name)) <= _LONGEST_COUNTER


def _chance(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
