"""What every script shares: a log on screen and in the rule's log file, and clear failures."""

from __future__ import annotations

import errno
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import InputError

ERROR_PREFIX = "lumbarflow: error: "


@contextmanager
def job(snakemake: Any) -> Iterator[logging.Logger]:
    """Run a script's body: log to stderr and `snakemake.log[0]`, turn bad input into a sentence.

    An :class:`InputError` or a full disk ends the process with status 1 and one line that starts
    with :data:`ERROR_PREFIX`, which the Snakefile's `onerror` repeats at the end of the run.
    """
    log_file = Path(snakemake.log[0])
    log_file.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        handlers=[logging.StreamHandler(), logging.FileHandler(log_file, mode="w")],
        force=True,
    )
    # DICOM libraries quote what they meet, names included.
    for name in ("pynetdicom", "pydicom"):
        logging.getLogger(name).handlers = [logging.NullHandler()]
        logging.getLogger(name).propagate = False
    warnings.filterwarnings("ignore", module=r"py(net)?dicom(\.|$)")
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")  # mmengine
    try:
        yield logging.getLogger(f"lumbarflow.{snakemake.rule}")
    except InputError as error:
        _stop(str(error), log_file)
    except KeyboardInterrupt:
        logging.getLogger("lumbarflow").info("stopped: the same command goes on from here")
        raise SystemExit(130) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        _stop(
            f"The disk is full{f' while writing {error.filename}' if error.filename else ''}: "
            "free some space (or set `results` to a folder on a larger disk) and start the same "
            "command again.",
            log_file,
        )


def _stop(sentence: str, log_file: Path) -> None:
    line = ERROR_PREFIX + " ".join(sentence.split())
    print(line, file=sys.stderr, flush=True)
    try:
        with log_file.open("a", encoding="utf-8") as handle:
            handle.write(line + "\n")
    except OSError:
        pass  # the disk may be full: the sentence is on stderr already
    raise SystemExit(1)


def sentences(logs: str | Path, since: float) -> list[str]:
    """The error sentences in the log files that changed after `since` (seconds of the epoch)."""
    found = []
    for path in sorted(Path(logs).rglob("*.log")):
        if path.stat().st_mtime >= since:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            found += [line for line in lines if line.startswith(ERROR_PREFIX)]
    return found
