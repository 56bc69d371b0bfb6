"""De-identification of CR and DX objects: what the profile keeps is copied into a new data set.

Everything else, private elements, overlays, file-meta titles and the preamble included, is never
copied (DICOM PS3.15 Annex E). Pixels are decoded and stored anew, as comments in compressed
streams, bytes after the picture and unused high bits (retired overlays) hide text, too.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from functools import cache
from typing import Any

import numpy as np
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.uid import UID, ExplicitVRLittleEndian, UID_dictionary

from ..acquire.pixels import padding, stored_values
from ..acquire.render import Lut, modality_lut, voi_luts
from ..errors import InputError
from .profile import GEOMETRY, SAFE, TERMS, Action, Options, Rule, by_kind, rules, standard_codes
from .pseudonyms import Pseudonyms
from .vocabulary import anatomical, radiological

SOP_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.1": "Computed Radiography Image Storage",
    "1.2.840.10008.5.1.4.1.1.1.1": "Digital X-Ray Image Storage - For Presentation",
}
METHOD = "Lumbarflow: PS3.15 Annex E within an allow-list for CR and DX"
#: Rows of the audit that are no attributes.
PRIVATE, OVERLAYS, CURVES, UNDEFINED = (
    "private elements",
    "overlays",
    "curves",
    "attributes that the object's definition does not have",
)

_IODS = dict(zip(SOP_CLASSES, ("CR", "DX"), strict=True))
_CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")  # PS3.5 6.2, VR CS
_ORIENTATION = re.compile(r"[ABDEFHLMPRSTV]{1,3}|LE|RT|CR|CD|D|V|PL|PA")  # PS3.3 C.7.6.1.1.1
_SUSPECT = re.compile(r"\d{6,}|@|\b(dr|prof|mrs?|frau|herr|mme|by|for)\b", re.IGNORECASE)
_DATE = re.compile(r"(\d{4})[.-]?(\d\d)[.-]?(\d\d)")  # with dots before 1993 (PS3.5 6.2)
_OLDEST_YEARS = 89
_DAYS = {"Y": 365.25, "M": 365.25 / 12, "W": 7, "D": 1}
_DUMMIES = {"DA": "19000101", "DT": "19000101", "TM": "000000", "CS": "OTHER"}
_DUMMY_OF = {"RescaleType": "US"}  # unspecified (PS3.3 C.11.1.1.2): not any text is allowed
_CODE_KEYWORDS = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
# Identifiers whose digits and words must not come up in a text that is kept, beside people's names.
_IDENTIFIERS = (
    "PatientID",
    "IssuerOfPatientID",
    "OtherPatientIDs",
    "PatientBirthDate",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "AccessionNumber",
    "StudyID",
    "AdmissionID",
)
_INSTITUTION = ("InstitutionName", "InstitutionAddress")


def deidentify(
    source: Dataset,
    pseudonyms: Pseudonyms,
    options: Options = SAFE,
    audit: Counter[tuple[str, str]] | None = None,
) -> FileDataset:
    """Return a new object with the picture of `source`, and of its header what the profile keeps.

    Text within the picture is not looked for here: see :mod:`.burned_in`.

    Args:
        source: a CR or DX object with pixel data; not changed.
        pseudonyms: the keyed mapping.
        options: the options of Annex E.
        audit: counts what was done, by (attribute, action); added to.

    Raises:
        InputError: the SOP class is not CR or DX (its name is in the sentence), or the pixels or an
            attribute that describes them cannot be read.
        UnreadableTransferSyntax: no installed decoder reads the transfer syntax.
    """
    clean = header(source, pseudonyms, options, audit)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = clean.SOPClassUID
    meta.MediaStorageSOPInstanceUID = clean.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    result = FileDataset(None, clean, file_meta=meta, preamble=b"\0" * 128)
    try:
        _copy_pixels(source, result)
        if lut := modality_lut(source):
            result.ModalityLUTSequence = [_lut_item(lut)]
            # Unspecified (PS3.3 C.11.1.1.2): the type may be free text.
            result.ModalityLUTSequence[0].ModalityLUTType = "US"
        if luts := voi_luts(source):
            result.VOILUTSequence = [_lut_item(lut) for lut in luts]
    except InputError:
        raise
    except Exception as error:  # pydicom and its decoders raise, and quote, whatever they met
        raise InputError(f"the picture cannot be read ({type(error).__name__})") from None
    return result


def header(
    source: Dataset,
    pseudonyms: Pseudonyms,
    options: Options = SAFE,
    audit: Counter[tuple[str, str]] | None = None,
) -> Dataset:
    """The attributes that stay, without those of the picture's pixels; see :func:`deidentify`.

    Raises:
        InputError: the SOP class is not CR or DX, or an attribute that the picture is shown or
            measured by cannot be read.
    """
    sop_class = str(source.get("SOPClassUID", ""))
    if sop_class not in SOP_CLASSES:
        raise InputError(f"objects of the class {UID(sop_class).name} are not taken")
    work = _Work(source, pseudonyms, options, Counter() if audit is None else audit)
    top = rules(_IODS[sop_class], options)
    result = work.copy(source, top)
    work.complete(result, top)
    result.PatientIdentityRemoved = "YES"
    result.DeidentificationMethod = METHOD
    result.DeidentificationMethodCodeSequence = method_codes(options, pixels_checked=False)
    result.LongitudinalTemporalInformationModified = (
        "MODIFIED" if options.dates == "shifted" else "REMOVED"
    )
    # Texts were decoded by the source's character set; what is kept may still hold accents.
    result.SpecificCharacterSet = "ISO_IR 192"
    return result


def method_codes(options: Options, pixels_checked: bool) -> list[Dataset]:
    """The items of De-identification Method Code Sequence (PS3.16 CID 7050)."""
    items = []
    for value in options.codes(pixels_checked):
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator = value, "DCM"
        item.CodeMeaning = standard_codes()["DCM", value]
        items.append(item)
    return items


def patient_key(source: Dataset) -> str:
    """The identifier of the patient within the archive; kept in memory only.

    Without one nobody knows whose study it is: it counts as its patient's only one.
    """
    issuer = str(source.get("IssuerOfPatientID", "") or "")
    number = str(source.get("PatientID", "") or "").strip()
    return f"{issuer}\0{number}" if number else f"study {source.get('StudyInstanceUID', '')}"


def age_years(source: Dataset) -> int | None:
    """Age at the study in whole years, at most 89 as ages above identify; None where not told."""
    text = str(source.get("PatientAge", "") or "").strip()
    if len(text) == 4 and text[:3].isdecimal() and text[3] in _DAYS:
        return min(int(int(text[:3]) * _DAYS[text[3]] / _DAYS["Y"] + 1e-6), _OLDEST_YEARS)
    return None


def sex(source: Dataset) -> str | None:
    """Patient's Sex where it is one of the standard's values (PS3.3 C.7.1.1)."""
    value = str(source.get("PatientSex", "") or "").strip()
    return value if value in ("M", "F", "O") else None


def tells_of_text(source: Dataset) -> bool:
    """Whether Burned In Annotation is YES; a film that does not tell may have text nonetheless."""
    return str(source.get("BurnedInAnnotation", "") or "").strip().upper() == "YES"


def shifted(text: str, days: int) -> str | None:
    """A date (DA, or the date of a DT) so many days earlier, or None where it is none."""
    found = _DATE.match(text.strip())
    try:
        return (date(*map(int, found.groups())) - timedelta(days)).strftime("%Y%m%d")
    except (AttributeError, ValueError, OverflowError):
        return None


class _Work:
    """One object while it is de-identified."""

    def __init__(
        self,
        source: Dataset,
        pseudonyms: Pseudonyms,
        options: Options,
        audit: Counter[tuple[str, str]],
    ):
        self._source, self._pseudonyms, self._audit = source, pseudonyms, audit
        self._identifiers = _IDENTIFIERS + (() if options.institution else _INSTITUTION)
        patient = patient_key(source)
        self._patient = pseudonyms.patient(patient)
        self._days = pseudonyms.days(patient)
        self._found: frozenset[str] | None = None
        self._beginnings: set[str] = set()

    def copy(self, source: Dataset, table: Mapping[int, Rule]) -> Dataset:
        """A new data set with what the rules keep of one level of the source."""
        target = Dataset()
        for tag in tuple(source.keys()):  # iterating over elements would decode them all
            rule = table.get(tag)
            if rule is None:
                self._audit[_label(tag), Action.REMOVE.value] += 1
            elif rule.action is Action.WRITTEN:
                self._audit[_label(tag), Action.WRITTEN.value] += 1
            else:
                self._copy_one(source, target, tag, rule)
        return target

    def complete(self, target: Dataset, table: Mapping[int, Rule]) -> None:
        """Add what an object must have (PS3.3): the identity, and type 2 attributes."""
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            if not target.get(keyword):
                setattr(target, keyword, self._pseudonyms.uid(""))
        target.PatientID = target.PatientName = self._patient
        for keyword in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
                        "AccessionNumber", "StudyID", "ReferringPhysicianName"):  # fmt: skip
            if keyword not in target:
                setattr(target, keyword, None)

    def _copy_one(self, source: Dataset, target: Dataset, tag: int, rule: Rule) -> None:
        vr, same = rule.vr, False
        try:
            element = source[tag]
            if vr == "US or SS":
                vr = element.VR if element.VR in ("US", "SS") else "US"
            outcome, value = self._outcome(element, rule)
            same = vr == element.VR and not isinstance(value, list)
        except Exception:  # pydicom raises whatever a broken value leads to, and quotes it
            outcome, value = by_kind(rule.kind, vr), None
            if rule.action is Action.KEEP and _label(tag) in GEOMETRY:
                # Without it the picture would be another one.
                raise InputError(f"{_label(tag)} cannot be read") from None
        if outcome is Action.DUMMY:
            value = _DUMMY_OF.get(keyword_for_tag(tag)) or _DUMMIES.get(vr, "removed")
        if outcome is not Action.REMOVE:
            value = [] if value is None and vr == "SQ" else value
            target.add(DataElement(tag, vr, value, already_converted=same))
        self._audit[_label(tag), outcome.value] += 1

    def _outcome(self, element: DataElement, rule: Rule) -> tuple[Action, Any]:
        """What comes of an element, and the value that it gets.

        Returns:
            One of REMOVE, EMPTY, DUMMY, UID, PSEUDONYM, DATE and KEEP; the value, or None.
        """
        action, lost = rule.action, (by_kind(rule.kind, rule.vr), None)
        if action in (Action.REMOVE, Action.EMPTY, Action.DUMMY):
            return action, None
        if action is Action.PSEUDONYM:
            return action, self._patient
        if rule.vr == "SQ":
            items = self._items(element, rule)
            return (Action.KEEP, items) if items else lost
        if element.is_empty:
            return (Action.EMPTY, None) if rule.kind[0] != "1" else lost
        many = isinstance(element.value, MultiValue)
        values = list(element.value) if many else [element.value]
        kept = self._values(values, rule, element)
        if kept is None:
            return lost
        changed = action is Action.DATE or (action is Action.UID and kept != values)
        return action if changed else Action.KEEP, kept if many else kept[0]

    def _values(self, values: list[Any], rule: Rule, element: DataElement) -> list[Any] | None:
        """The values that an element gets; None where one of them must not stay."""
        action = rule.action
        if action is Action.UID:
            return [self._uid(str(value)) for value in values]
        if action is Action.DATE:
            dates = [shifted(str(value), self._days) for value in values]
            return None if None in dates else dates
        if action is Action.AGE:
            years = age_years(self._source)
            return None if years is None else [f"{years:03d}Y"]
        if action is Action.SEX:
            value = sex(self._source)
            return [value] if value else None
        if action is Action.KEEP:
            return _numbers(values, rule.vr)
        texts = [str(value).strip() for value in values]
        if action is Action.WORDS:
            words = " ".join(radiological(" ".join(texts)))
            return [words[:64]] if words else None
        if action is Action.BODY_PART:
            legal = all(_CODE_STRING.fullmatch(text) and anatomical(text) for text in texts)
            return texts if legal else None
        if action is Action.CODE_STRING:
            kept = [text if self._is_code(text) else "" for text in texts]
            return kept if any(kept) else None
        # Names come decoded, whatever the character set: what follows compares letters.
        suspect = any(_SUSPECT.search(text) or len(text) > 64 for text in texts)
        return None if suspect or self._names_someone(texts) else texts

    def _items(self, element: DataElement, rule: Rule) -> list[Dataset]:
        items = []
        for item in element.value:
            code = _standard_code(item) if rule.action is Action.CODES else None
            if rule.action is Action.CODES and not code:
                self._audit["items of codes that are not the standard's", "removed"] += 1
                continue
            kept = self.copy(item, rule.items)
            for keyword, value in zip(_CODE_KEYWORDS, code or (), strict=False):
                setattr(kept, keyword, value)
            if len(kept):
                items.append(kept)
        return items

    def _uid(self, uid: str) -> str:
        return uid if uid in UID_dictionary else self._pseudonyms.uid(uid)

    def _is_code(self, text: str) -> bool:
        """Whether a value is a code string that does not name anybody."""
        if not text or text in TERMS:
            return True
        return bool(_CODE_STRING.fullmatch(text)) and not self._names_someone([text])

    def _names_someone(self, texts: Iterable[str]) -> bool:
        """Whether a text holds a word of an identifying value of this very object.

        To fit into its attribute, the word may be cut off.
        """
        if self._found is None:
            self._found = frozenset(_words(self._source, self._identifiers))
            self._beginnings = {word[:n] for word in self._found for n in range(4, len(word))}
        for text in texts:
            letters = folded(text)
            words = set(re.split(r"[\W_]+", letters))
            if any(word in (words if len(word) < 4 else letters) for word in self._found):
                return True
            ends = {letters[-n:] for n in range(4, len(letters) + 1)}
            if not self._beginnings.isdisjoint(words | ends):
                return True
        return False


def folded(text: str) -> str:
    """Lower case without accents, for comparison."""
    parts = unicodedata.normalize("NFKD", text)
    return "".join(part for part in parts if not unicodedata.combining(part)).casefold()


def _words(source: Dataset, identifiers: Iterable[str]) -> Iterable[str]:
    """Words of 3 or more letters or digits of the names, at any depth, and of the identifiers."""
    values = [source.get(keyword) for keyword in identifiers]
    values += _names(source)
    for value in values:
        for text in value if isinstance(value, MultiValue) else [value]:
            if text:
                yield from (w for w in re.split(r"[\W_]+", folded(str(text))) if len(w) >= 3)


def _names(source: Dataset) -> Iterable[Any]:
    for tag in tuple(source.keys()):
        try:
            # Elements are decoded when they are asked for; most need not be.
            vr = source.get_item(tag).VR or dictionary_VR(tag)
            if vr == "PN":
                yield source[tag].value
            elif vr == "SQ":
                for item in source[tag].value:
                    yield from _names(item)
        except Exception:  # what is not in the dictionary or cannot be decoded is not kept either
            continue


def _standard_code(item: Dataset) -> tuple[str, str, str] | None:
    """Value, scheme and the standard's own meaning of a coded item; None where it is not known."""
    scheme = str(item.get("CodingSchemeDesignator", "") or "").strip()
    value = str(item.get("CodeValue") or item.get("LongCodeValue") or "").strip()
    meaning = standard_codes().get((scheme, value))
    return (value, scheme, meaning[:64]) if meaning and len(value) <= 16 else None


def _numbers(values: list[Any], vr: str) -> list[Any] | None:
    """The values if they are numbers, as text of digits where the VR is one."""
    for value in values:
        if isinstance(value, bytes) or not np.isfinite(float(value)):
            return None
    if vr in ("DS", "IS", "FL", "FD"):
        return values
    return [int(value) for value in values]


@cache
def _label(tag: int) -> str:
    """The audit's row of an attribute: its keyword, or what kind of thing it is."""
    group = tag >> 16
    if group % 2:
        return PRIVATE
    if group & 0xFF00 in (0x5000, 0x6000):
        return CURVES if group & 0xFF00 == 0x5000 else OVERLAYS
    return keyword_for_tag(tag) or UNDEFINED


def _copy_pixels(source: Dataset, target: Dataset) -> None:
    """Pixels, little endian in the lowest bits, other bits 0 or the sign; padding values."""
    pixels = stored_values(source)
    target.HighBit = target.BitsStored - 1
    data = source.PixelData
    # What is as it should be is not copied.
    if len(data) != pixels.nbytes or not np.may_share_memory(pixels, np.frombuffer(data, np.uint8)):
        data = pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()
    target.PixelData = data + b"\0" * (len(data) % 2)
    if ends := padding(source):
        vr = "SS" if source.PixelRepresentation else "US"
        # Black first: the higher value with MONOCHROME1 (PS3.3 C.7.5.1.1.2).
        first, last = ends[::-1] if source.PhotometricInterpretation == "MONOCHROME1" else ends
        target.add_new("PixelPaddingValue", vr, first)
        if first != last:
            target.add_new("PixelPaddingRangeLimit", vr, last)


def _lut_item(lut: Lut) -> Dataset:
    """A look-up table without its explanation, its numbers in little endian."""
    item = Dataset()
    count, signed = len(lut.entries), lut.first < 0
    # 65536 entries are written as 0; the descriptor has one VR for its three numbers.
    count = (count + 2**15) % 2**16 - 2**15 if signed else count % 2**16
    item.add_new("LUTDescriptor", "SS" if signed else "US", [count, lut.first, lut.bits])
    data = lut.entries.tobytes()
    item.add_new("LUTData", "OW", data + b"\0" * (len(data) % 2))
    return item
