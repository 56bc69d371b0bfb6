"""What a folder of films holds: pictures, DICOM files, discs with a DICOMDIR, and everything else.

Names of pictures are the user's, and annotations use them: sentences name them. Names of DICOM
files come from whoever exported them and often hold the patient's: they are never told. A sentence
gives the size of such a file instead, and the command that finds it.
"""

from __future__ import annotations

import os
import shlex
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pydicom

from ..errors import InputError
from .dicomdir import Listed, file_key, read_dicomdir

_PICTURES = {".png", ".jpg", ".jpeg"}
_DICOM = {".dcm", ".dicom", ".dic", ".ima"}  # files of any suffix may be DICOM, these must be
_OTHERS = {
    "programs": "app bat class cmd com cfg dll dylib exe inf ini jar lnk ocx sh so sys",
    "web pages": "css htm html js xml xsl xslt",
    "documents": "csv doc docx json log md pdf rtf txt",
    "thumbnails": "bmp db gif ico",
}
_KIND = {f".{suffix}": kind for kind, text in _OTHERS.items() for suffix in text.split()}


class File(NamedTuple):
    """A file of the folder; `name` is its path below the folder, with slashes."""

    path: Path
    name: str
    size: int
    mtime_ns: int


@dataclass
class Survey:
    """What a folder holds.

    Attributes:
        pictures: PNG and JPEG films, sorted.
        objects: DICOM files to open, sorted.
        listed: objects that a DICOMDIR lists and that are no CR or DX films.
        passed_over: how many files of each other kind there are.
        warnings: sentences without names.
    """

    pictures: list[File] = field(default_factory=list)
    objects: list[File] = field(default_factory=list)
    listed: list[Listed] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    warnings: list[str] = field(default_factory=list)

    def others(self) -> str:
        """The files that are passed over, in words."""
        return ", ".join(f"{count} {kind}" for kind, count in sorted(self.passed_over.items()))


def survey(folder: str | Path) -> Survey:
    """Look through a folder and the folders below it.

    A folder with a DICOMDIR is a disc: of all below it, what the DICOMDIR lists is taken, and
    pictures are the viewer's. Elsewhere every picture and every DICOM file is a film; DICOM files
    are recognised by their content. Hidden files and folders are passed over.

    Raises:
        InputError: the folder is missing, holds no film, or something in it cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"The folder {folder} does not exist: check folder.path.")
    result = Survey()
    discs, loose = _walk(folder, result.passed_over)
    for directory, files in discs:
        _look_at_disc(folder, directory, files, result)
    _look_at_files(folder, loose, result)
    result.pictures.sort()
    result.objects.sort()
    if not (result.pictures or result.objects or result.listed):
        seen = f" (it holds {result.others()})" if result.passed_over else ""
        raise InputError(
            f"The folder {folder} holds no PNG, JPEG or DICOM film: check folder.path{seen}."
        )
    return result


def name_below(path: Path, folder: str | Path) -> str:
    """Path below the folder; bytes that are no UTF-8, from old discs, are written out."""
    return os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "backslashreplace")


def find_command(folder: str | Path, file: File) -> str:
    """The command that finds a file whose name must not be told."""
    return f"`find -L {shlex.quote(str(folder))} -type f -size {file.size}c`"


def unreadable(folder: str | Path, error: OSError, file: File | None = None) -> InputError:
    """The sentence for a file, or something else, that the system does not let be read."""
    if isinstance(error, PermissionError):
        return InputError(
            f"A file or folder in {folder} cannot be read (permission denied): make it readable "
            f"(`find -L {shlex.quote(str(folder))} ! -readable` finds it)."
        )
    where = f"A file of {file.size} bytes in {folder}" if file else f"Something in {folder}"
    reason = os.strerror(error.errno) if error.errno else "input/output error"
    hint = f" ({find_command(folder, file)} finds it)" if file else ""
    return InputError(f"{where} cannot be read ({reason}): copy it again or remove it{hint}.")


def _walk(
    folder: Path, passed_over: Counter[str]
) -> tuple[list[tuple[File, list[File]]], list[File]]:
    """Each DICOMDIR with the files of its disc, and the files of no disc."""
    discs: list[tuple[File, list[File]]] = []
    loose: list[File] = []
    belongs: dict[Path, list[File]] = {folder.parent: loose}  # by folder: where its files go

    def stop(error: OSError) -> None:
        raise unreadable(folder, error)

    for text, folders, names in os.walk(folder, onerror=stop):
        place = Path(text)
        hidden = {name for name in (*folders, *names) if name.startswith(".")}
        if hidden:
            passed_over["hidden"] += len(hidden)
        folders[:] = sorted(set(folders) - hidden)
        here = [_file(place / name, folder) for name in sorted(set(names) - hidden)]
        files = [file for file in here if file is not None]
        directories = [file for file in files if file_key(file.path.name) == "dicomdir"]
        group = belongs[place.parent]
        if directories:
            group = []
            discs.append((directories[0], group))
        belongs[place] = group
        group += [file for file in files if file not in directories]
    return discs, loose


def _file(path: Path, folder: Path) -> File | None:
    try:
        if not path.is_file():  # a pipe, or a link to nothing
            return None
        state = path.stat()
    except OSError as error:
        raise unreadable(folder, error) from None
    return File(path, name_below(path, folder), state.st_size, state.st_mtime_ns)


def _look_at_disc(folder: Path, directory: File, files: list[File], result: Survey) -> None:
    """Sort the files of a disc by its DICOMDIR; if that is of no use, by their content."""
    place = f"a DICOMDIR of {directory.size} bytes ({find_command(folder, directory)} finds it)"
    try:
        listed = read_dicomdir(directory.path)
    except ValueError:
        listed = []
    here: dict[str, File] = {}
    for file in files:
        name = name_below(file.path, directory.path.parent)
        here.setdefault("/".join(map(file_key, name.split("/"))), file)
    known = {here[entry.file] for entry in listed if entry.file in here}
    rest = Survey()
    _look_at_files(folder, [file for file in files if file not in known], rest, disc=True)
    result.passed_over += rest.passed_over
    if not known:
        result.objects += rest.objects
        result.warnings.append(
            f"In {folder} lies {place} that is broken or lists nothing that is there: every DICOM "
            "file beside it is looked at instead."
        )
        return
    films = [entry for entry in listed if entry.film]
    result.objects += {here[entry.file] for entry in films if entry.file in here}
    result.listed += [entry for entry in listed if not entry.film]
    if missing := sum(entry.file not in here for entry in films):
        result.warnings.append(
            f"{missing} of {len(films)} films are missing that {place} lists: copy that disc again."
        )
    if rest.objects:
        result.passed_over["DICOM files that no DICOMDIR lists"] += len(rest.objects)
        result.warnings.append(
            f"{len(rest.objects)} DICOM files are passed over, as {place} lies above them and does "
            "not list them: move them to a folder of their own if they are films."
        )


def _look_at_files(folder: Path, files: list[File], result: Survey, disc: bool = False) -> None:
    """Sort files by their content and suffix; pictures on a `disc` are the viewer's."""
    for file in files:
        suffix = file.path.suffix.lower()
        try:
            is_object = _is_object(file.path)
        except OSError as error:
            raise unreadable(folder, error, file) from None
        if is_object or suffix in _DICOM:
            result.objects.append(file)
        elif suffix not in _PICTURES:
            result.passed_over[_KIND.get(suffix, "other files")] += 1
        elif disc:
            result.passed_over["pictures beside a DICOMDIR"] += 1
        else:
            result.pictures.append(file)


def _is_object(path: Path) -> bool:
    """Whether a file is DICOM: by its prefix (PS3.10 7.1), or, without one, by what it holds."""
    with path.open("rb") as stream:
        head = stream.read(132)
    if head[128:] == b"DICM":
        return True
    # A data set without preamble starts with an element of group 2 or 8, in either byte order.
    if head[:2] not in (b"\x02\x00", b"\x08\x00", b"\x00\x08"):
        return False
    try:
        tags = ["SOPClassUID", "SOPInstanceUID"]
        dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=tags)
        storage = str(dataset.get("SOPClassUID", "")).startswith("1.2.840.10008.5.1.4.")
        return storage and bool(dataset.get("SOPInstanceUID"))
    except OSError:
        raise
    except Exception:  # any bytes may follow
        return False
