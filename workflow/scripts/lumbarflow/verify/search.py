"""Looks for the identifying values of originals in every byte of files, and in their names."""

from __future__ import annotations

import getpass
import logging
import os
import platform
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pydicom

from ..errors import InputError
from .forms import FOLD, Form, Rule, forms, identifies
from .layers import Layer, layers, without_runs
from .patterns import Patterns
from .values import DATE, SAME_ATTRIBUTE, Original, Value, Witness
from .words import background, vocabulary, words

QUARANTINE = "quarantine"
_FILMS = {".dcm", ".png"}
_SMALL = 1 << 16  # bytes; smaller pictures are searched in every sample
_PIECE = 1 << 29  # bytes of a larger file that are read at a time
_OVERLAP = 1 << 16
_NOT_OURS = {"conda", "conda-archive", "singularity"}  # software, in .snakemake
_DEFAULT_SAMPLE = 50
_SECONDS_BETWEEN_LINES = 20
_WITHHELD = "(name withheld)"
_ACROSS = "names of folder and file"
_IN_TEXT_ONLY = {Rule.DATE, Rule.SHORT_NUMBER}

# In pixels and compressed data a value is found by chance: neighbouring bytes resemble each other,
# so a step of n counts as 1.2 n bits of evidence, at most 8, and the first byte as 6.
_BITS_FIRST, _BITS_STEP, _BITS_MOST = 6, 1.2, 8
_EVIDENCE = 40
_EVIDENCE_ALONE = 56  # where it need not be a word of its own
_LONGEST_CONTEXT = 24  # characters before a number
_NEAR = 500  # bytes between a date and a pseudonym
_TOKENS = re.compile(rb"[A-Za-z0-9-]+")
_OF_PLACES = re.compile("AETitle|ApplicationEntityTitle|Station|Institution|Department")
_WIDE = re.compile(r"[\u2e80-\U0010ffff]")
_MIXED = re.compile(r"[a-z][A-Z]+[a-z]+[A-Z]|[A-Z]{2}[a-z]|^[a-z]+[A-Z]")
_NUMBER_WORD = re.compile(
    rb"(?:patients?|pat|id|ids|mrn|pid|accession|acc|case|order|number|no|nr|name|subject)"
    rb"[\"'\s:=#.\[(]{1,4}$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Finding:
    """A value of an original in what was written; never the value itself.

    `place` tells file (relative, without a name that is itself the leak), `kind` whose value it is
    (an attribute's keyword), `form` how it is written, `layer` what of the file was unwrapped to
    see it, `offset` where in that.
    """

    place: str
    kind: str
    form: str
    layer: str
    offset: int
    path: Path = field(repr=False)

    @property
    def in_name(self) -> bool:
        return self.layer.startswith("name")


@dataclass(frozen=True)
class Verification:
    """What was found, and the numbers of the audit."""

    findings: list[Finding]
    audit: dict[str, Any]


class _Entry(NamedTuple):
    """What a pattern stands for; `scope` are the pseudonyms that a date must be beside."""

    kind: str
    form: Form
    scope: frozenset[str]


def search(
    witness: Witness,
    roots: Iterable[Path],
    *,
    sample: int | Literal["all"] = _DEFAULT_SAMPLE,
    log: logging.Logger,
    given: Iterable[str] = (),
) -> Verification:
    """Search all that is below `roots` for what the witness saw.

    Args:
        witness: what must not have survived.
        roots: folders or files; links are not followed, `quarantine` in them is passed over, and
            of `.snakemake` the installed software.
        sample: number of originals whose values are looked for; of `.dcm` and larger `.png` files
            those of other originals are passed over then. All other files are always searched.
        log: told how far it is and what is found, without values.
        given: texts that the user wrote, such as the configuration: single words of these, and
            AE titles and names of places in them, are no finding.

    Raises:
        InputError: a file cannot be read, so nobody knows what it holds.
    """
    start = time.monotonic()
    roots = [Path(root) for root in roots]
    originals = witness.sample(None if sample == "all" else sample)
    given = list(given)
    common = background() | vocabulary([*given, *_surroundings(roots)])
    wanted = _Wanted(originals, common, "\n".join(given).casefold())
    log.info(
        "verification: %d values of %d of %d originals", wanted.values, len(originals), len(witness)
    )
    every = sample == "all" or len(originals) == len(witness)
    chosen = {original.ids.image for original in originals}
    findings: list[Finding] = []
    files = passed = size = 0
    by_layer: Counter[str] = Counter()
    told = time.monotonic()
    for root in roots:
        for path in _below(root):
            if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
                told = time.monotonic()
                log.info("verification: %d files, %.0f MB searched", files, size / 1e6)
            inside = path.relative_to(root) if path != root else Path(path.name)
            hits = wanted.in_name(inside)
            if path.is_symlink():
                hits += wanted.in_link(path)
            if path.is_file() and not path.is_symlink():
                if not every and _of_another(path, chosen):
                    passed += 1
                else:
                    files += 1
                    for piece, at in _pieces(path):
                        size += len(piece) if not at else len(piece) - _OVERLAP
                        hits += wanted.in_content(inside, piece, at, by_layer)
            place = _shown(inside, wanted) if hits else ""
            for hit in hits:
                findings.append(Finding(place, hit.kind, hit.form, hit.layer, hit.start, path))
    audit = {
        "originals": len(witness),
        "objects": len(originals),
        "values": wanted.values,
        "not_searchable": wanted.not_searchable,
        "patterns": wanted.patterns,
        "files": files,
        "files_passed_over": passed,
        "bytes": size,
        "bytes_by_layer": dict(sorted(by_layer.items())),
        "findings": len(findings),
        "findings_by_layer": dict(sorted(Counter(found.layer for found in findings).items())),
        "findings_by_kind": dict(sorted(Counter(found.kind for found in findings).items())),
        "seconds": round(time.monotonic() - start, 1),
    }
    for found in findings:
        log.error(
            "%s holds %s (%s; %s, byte %d)",
            found.place, found.kind, found.form, found.layer, found.offset,
        )  # fmt: skip
    log.info("verification: %d files searched, %d findings", files, len(findings))
    return Verification(findings, audit)


# Files -------------------------------------------------------------------------------------------


def _surroundings(roots: list[Path]) -> list[str]:
    """Texts of this machine that logs and records hold: paths, the user, the host."""
    texts = [str(path) for path in (Path.cwd(), Path.home(), *(root.resolve() for root in roots))]
    with suppress(OSError, KeyError):  # a user without a name
        texts.append(getpass.getuser())
    return [*texts, platform.node()]


def _below(root: Path) -> Iterator[Path]:
    """Files, links and folders below a root, in order."""
    if not root.is_dir():
        yield root
        return

    def failed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise _unreadable(Path(error.filename or root), error)

    for folder, folders, names in os.walk(root, onerror=failed):
        here = Path(folder)
        skipped = {QUARANTINE} if here == root else set()
        skipped |= _NOT_OURS if here.name == ".snakemake" else set()
        folders[:] = sorted(set(folders) - skipped)
        for name in sorted([*folders, *names]):
            yield here / name


def _unreadable(path: Path, error: OSError) -> InputError:
    folder = path.parent
    return InputError(
        f"Verification cannot read a file or folder in {folder} ({error.strerror}): make "
        "everything in it readable and start the same command again."
    )


def _of_another(path: Path, chosen: set[str | None]) -> bool:
    """Whether a file is the object or the picture of a film outside the sample."""
    if path.suffix not in _FILMS or path.stem in chosen:
        return False
    return path.suffix == ".dcm" or path.stat().st_size > _SMALL


def _pieces(path: Path) -> Iterator[tuple[bytes, int]]:
    """The content with the offset of its beginning; of a huge file in overlapping pieces."""
    try:
        with path.open("rb") as stream:
            piece, at = stream.read(_PIECE), 0
            yield piece, at
            while len(piece) == _PIECE:
                at += _PIECE - _OVERLAP
                stream.seek(at)
                piece = stream.read(_PIECE)
                yield piece, at
    except FileNotFoundError:  # gone since it was listed
        return
    except OSError as error:
        raise _unreadable(path, error) from None


def _shown(inside: Path, wanted: _Wanted) -> str:
    """A path without the parts that are themselves a leak."""
    parts = list(inside.parts)
    for at in range(len(parts)):
        hits = wanted.in_name(Path(*inside.parts[: at + 1]))
        if hits:
            parts[at] = _WITHHELD
        if any(hit.layer == _ACROSS for hit in hits):
            parts[at - 1] = _WITHHELD
    return "/".join(parts)


# Values ------------------------------------------------------------------------------------------


class _Hit(NamedTuple):
    """Where in which layer what was met."""

    layer: str
    start: int
    end: int
    kind: str
    form: str


class _Wanted:
    """Everything that is looked for."""

    def __init__(self, originals: list[Original], common: frozenset[str], given: str = ""):
        scopes: dict[Value, set[str]] = {}
        self._same_attribute: dict[str, dict[int, set[str]]] = {}
        for original in originals:
            image, study, _ = original.ids
            for value in original.values:
                if not identifies(value, common) or _is_given(value, given):
                    continue
                scope = scopes.setdefault(value, set())
                if value.sort == DATE:
                    scope.update(name for name in (image, study) if name)
                if image and value.tag:
                    attributes = self._same_attribute.setdefault(image, {})
                    attributes.setdefault(value.tag, set()).add(value.text)
        self._entries: dict[bytes, list[_Entry]] = {}
        searchable: dict[tuple[str, str], bool] = {}
        for value, scope in scopes.items():
            if value.sort == SAME_ATTRIBUTE:
                continue
            key = (value.sort, value.text)
            searchable.setdefault(key, False)
            if value.sort == DATE and not scope:
                continue
            told = frozenset(scope)
            for form in forms(value, common):
                searchable[key] = True
                self._entries.setdefault(form.pattern, []).append(_Entry(value.kind, form, told))
        self.values = len(searchable)
        self.not_searchable = sum(not each for each in searchable.values())
        self.patterns = len(self._entries)
        self._text = Patterns(self._entries)
        self._noise = Patterns(filter(self._is_strong, self._entries))

    def _is_strong(self, pattern: bytes) -> bool:
        """Whether a pattern can be told from noise."""
        if _BITS_FIRST + _BITS_MOST * (len(pattern) - 1) < _EVIDENCE:
            return False
        return any(entry.form.rule not in _IN_TEXT_ONLY for entry in self._entries[pattern])

    def in_name(self, inside: Path) -> list[_Hit]:
        """Findings in the last part of a relative path."""
        whole, own = os.fsencode(inside.as_posix()), os.fsencode(inside.name)
        found = [hit for layer in layers(own, "name") for hit in self._in_layer(layer, ())]
        # Names may also reach from a folder into the file.
        reach = len(whole) - len(own)
        across = self._in_layer(Layer(_ACROSS, whole, True), ())
        found += [hit for hit in across if hit.start < reach < hit.end]
        return _once(found)

    def in_link(self, path: Path) -> list[_Hit]:
        """Findings in what a link points to; links are not followed."""
        target = Layer("name of a link's target", os.fsencode(path.readlink()), True)
        return _once(self._in_layer(target, ()))

    def in_content(
        self, inside: Path, data: bytes, start: int, by_layer: Counter[str]
    ) -> list[_Hit]:
        """Findings in a file's content, or in the piece of it that begins at `start`."""
        ids = _tokens(os.fsencode(inside))
        found = self._in_same_attribute(inside.stem, data)
        for layer in layers(data):
            by_layer[layer.name.rpartition(" > ")[2]] += len(layer.data)
            hits = self._in_layer(layer, ids)
            if layer.name == "content":
                hits = [hit._replace(start=hit.start + start) for hit in hits]
            found += hits
        return _once(found)

    def _in_same_attribute(self, image: str, data: bytes) -> list[_Hit]:
        """Values that an object has at the attribute where its original had them.

        So dates are told from the shifted dates of others, and values found that are too short to
        be looked for anywhere.
        """
        attributes = self._same_attribute.get(image)
        if not attributes or data[128:132] != b"DICM":
            return []
        found = []
        try:
            for element in pydicom.dcmread(BytesIO(data), stop_before_pixels=True).iterall():
                values = element.value if element.VM > 1 else [element.value]
                written = {str(value)[: 8 if element.VR == "DT" else None] for value in values}
                if element.VR != "SQ" and written & attributes.get(int(element.tag), set()):
                    kind = element.keyword or f"element {element.tag}"
                    found.append(_Hit("DICOM attribute", 0, 0, kind, "the same value"))
        except Exception:  # broken: it is searched as bytes all the same
            pass
        return found

    def _in_layer(self, layer: Layer, ids: Iterable[str]) -> list[_Hit]:
        found = []
        if layer.text:
            data = without_runs(layer.data)
            for start, pattern in self._text.find(data.translate(FOLD)):
                end = start + len(pattern)
                for entry in self._entries[pattern]:
                    if _in_text(entry, layer, data, start, end, ids):
                        found.append(_Hit(layer.name, start, end, entry.kind, entry.form.label))
        # Long runs of letters and digits in a text are searched like noise.
        if not layer.text or data != layer.data:
            for start, pattern in self._noise.find(layer.data.translate(FOLD)):
                end = start + len(pattern)
                for entry in self._entries[pattern]:
                    if _in_noise(entry, layer.data, start, end):
                        found.append(_Hit(layer.name, start, end, entry.kind, entry.form.label))
        return found


def _is_given(value: Value, given: str) -> bool:
    """Whether a value is an AE title or a place that the user wrote."""
    return bool(_OF_PLACES.search(value.kind)) and value.text.casefold() in given


def _once(found: list[_Hit]) -> list[_Hit]:
    """The first hit of each layer and kind; forms contain one another."""
    first: dict[tuple[str, str], _Hit] = {}
    for hit in found:
        first.setdefault((hit.layer, hit.kind), hit)
    return list(first.values())


# Hits --------------------------------------------------------------------------------------------


def _in_text(
    entry: _Entry, layer: Layer, data: bytes, start: int, end: int, ids: Iterable[str]
) -> bool:
    rule, codec = entry.form.rule, entry.form.codec
    if rule in (Rule.JOINED, Rule.BYTES):
        return True
    before, after = _around(data, start, end, codec)
    written = data[start:end].decode(codec, "replace") if codec != "bytes" else ""
    if rule == Rule.WORD:
        return _is_word(before, written, after)
    if rule == Rule.CAPITALS:
        return _is_word(before, written, after) and _has_capitals(written)
    if rule == Rule.TOKEN:
        return not _alphanumeric(before[-1:]) and not _alphanumeric(after[:1])
    if rule == Rule.UID:
        return not after[:1].isdigit() and not re.search(r"\d\.?$", before)
    if not _is_number(before, after):
        return False
    if rule == Rule.SHORT_NUMBER:
        context = data[max(start - 2 * _LONGEST_CONTEXT, 0) : start].replace(b"\0", b"")
        in_name = layer.name.startswith("name")
        return in_name or _is_told_number(before, after, context[-_LONGEST_CONTEXT:])
    if rule == Rule.DATE:
        return not entry.scope.isdisjoint(ids) or _is_near(entry.scope, layer, data, start, end)
    return True


def _around(data: bytes, start: int, end: int, codec: str) -> tuple[str, str]:
    """A few characters before and after a hit."""
    if codec.startswith("utf-16"):
        before, after = data[max(start - 8, start % 2) : start], data[end : end + 8]
        after = after[: len(after) // 2 * 2]
        # Two bytes of an 8-bit text beside it look like a Chinese letter.
        return tuple(_WIDE.sub(" ", part.decode(codec, "replace")) for part in (before, after))
    before, after = data[max(start - 8, 0) : start], data[end : end + 8]
    return _edge(before, -1), _edge(after, 1)


def _edge(data: bytes, side: int) -> str:
    """Bytes as text, of which the outer end may be cut within a letter."""
    for cut in range(4):
        part = data[cut:] if side < 0 else data[: len(data) - cut]
        try:
            return part.decode()
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def _alphanumeric(letter: str) -> bool:
    return bool(letter) and letter.isalnum()


def _is_word(before: str, written: str, after: str) -> bool:
    """Whether letters stand alone: also within camel case, digits and underscores."""
    first, last = before[-1:], after[:1]
    starts = not first.isalpha() or (first.islower() and written[:1].isupper() and len(written) > 5)
    ends = not last.isalpha() or (last.isupper() and written[-1:].islower() and len(written) > 5)
    return starts and ends


def _has_capitals(written: str) -> bool:
    return all(word[0].isupper() for word in words(written))


def _is_number(before: str, after: str) -> bool:
    """Whether digits are a number of their own: not within a longer or decimal one or a hash."""
    if re.search(r"\d\.?$|\de-$", before) or re.match(r"\.?\d", after):
        return False
    run = re.search(r"[^\W_]*$", before)[0] + re.match(r"[^\W_]*", after)[0]
    return not run or not re.fullmatch(r"[0-9a-fA-F]+", run)


def _is_told_number(before: str, after: str, context: bytes) -> bool:
    """Whether digits are an identifier rather than a count: quoted, in a name, or told so."""
    first, last = before[-1:] or " ", after[:1] or " "
    return (
        (first in "\"'`>" and last in "\"'`<")
        or first in "_^\\"
        or last in "_^\\"
        or first.isalpha()
        or last.isalpha()
        or (first == "/" and not re.search(r"\d/$", before))
        or bool(re.match(r"\.[A-Za-z]", after))
        or bool(_NUMBER_WORD.search(context))
    )


def _is_near(scope: frozenset[str], layer: Layer, data: bytes, start: int, end: int) -> bool:
    """Whether one of the pseudonyms stands in the same row of a table, or near in another text."""
    if layer.rows:
        first, last = data.rfind(b"\n", 0, start) + 1, data.find(b"\n", end)
        last = len(data) if last < 0 else last
    else:
        first, last = max(start - _NEAR, 0), end + _NEAR
    around = data[first:last].replace(b"\0", b"")
    return not scope.isdisjoint(_tokens(around))


def _tokens(text: bytes) -> set[str]:
    """What could be pseudonyms."""
    return {token.decode() for token in _TOKENS.findall(text)}


def _in_noise(entry: _Entry, data: bytes, start: int, end: int) -> bool:
    """Whether a hit in pixels or compressed data is too unlikely to be there by chance."""
    if entry.form.rule in _IN_TEXT_ONLY:
        return False
    codec, written = entry.form.codec, data[start:end]
    wide = codec.startswith("utf-16")
    text = written.decode(codec, "replace") if wide else written.decode("latin-1")
    # In any mixture of cases it would be many patterns.
    if entry.form.rule != Rule.BYTES and _MIXED.search(text):
        return False
    if entry.form.rule == Rule.CAPITALS and not _has_capitals(text):
        return False
    steps = (abs(ord(one) - ord(other)) for one, other in pairwise(text))
    evidence = _BITS_FIRST + sum(min(_BITS_STEP * step, _BITS_MOST) for step in steps)
    if evidence < _EVIDENCE:
        return False
    around = data[max(start - 1, 0) : start] + data[end : end + 1]
    return evidence >= _EVIDENCE_ALONE or not any(
        chr(byte).isalnum() for byte in around if byte < 128
    )
