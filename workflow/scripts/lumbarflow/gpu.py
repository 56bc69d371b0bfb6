"""GPUs, without importing torch."""

from __future__ import annotations

import os
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


def use(granted: int) -> None:
    """Hide the GPUs from torch unless the job was granted one; call it before the first use."""
    if not granted:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
