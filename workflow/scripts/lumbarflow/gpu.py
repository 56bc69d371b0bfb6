"""GPUs, without importing torch."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

# Open lock files of the GPUs that this process has claimed; the system frees them when it ends.
_claims: list[int] = []


def _nvidia_smi(*options: str) -> str:
    """What the NVIDIA driver's tool prints; empty where it or the driver is absent or broken."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    try:
        done = subprocess.run([tool, *options], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else done.stdout


def present() -> bool:
    """Whether the NVIDIA driver lists a GPU here."""
    return "GPU" in _nvidia_smi("-L")


def visible() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; all without it."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    return re.findall(r"^GPU \d+:.*\(UUID: (\S+)\)", _nvidia_smi("-L"), re.MULTILINE)


def use(granted: int) -> None:
    """Show torch as many GPUs as the job was granted; call it before torch's first use.

    Snakemake counts GPUs, but does not say which. Where more are visible than were granted (a
    workstation with several; a cluster shows a job its own only), this process claims free ones by
    locking a file for each until it ends, so that jobs that run at a time have different GPUs.
    Where too few are free, as another workflow uses them, those that are visible stay so.
    """
    if not granted:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return
    names = visible()
    if len(names) <= granted:
        return
    folder = Path(tempfile.gettempdir()) / f"lumbarflow-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    claimed = []
    for name in names:
        lock = os.open(folder / re.sub(r"\W", "_", name), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        _claims.append(lock)
        claimed.append(name)
        if len(claimed) == granted:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(claimed)
            return
