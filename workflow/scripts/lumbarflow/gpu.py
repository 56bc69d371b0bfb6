"""Whether this machine has a GPU, without importing torch."""

from __future__ import annotations

import shutil
import subprocess


def present() -> bool:
    """Whether the NVIDIA driver lists a GPU here."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    try:
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and "GPU" in listed.stdout
