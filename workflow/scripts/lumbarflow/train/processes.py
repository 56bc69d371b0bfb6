"""Training by several processes, one a GPU, started by PyTorch's own launcher."""

from __future__ import annotations

import logging
import os
import tempfile
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ..errors import InputError

_ERROR = "error.txt"


def run(count: int, work: Callable[[], Any]) -> Any:
    """Call `work` in `count` processes that compute together; the value of the first comes back.

    One process is this one. Several are started like torchrun's: each finds its place by
    :func:`rank` and has a GPU of its own where there are any. They share this one's CPU threads and
    log to where it logs. They import the main module anew: a script does its work only where it is
    `__main__`.

    Args:
        count: number of processes.
        work: must be picklable, and its value too.

    Raises:
        InputError: one of the processes raised it.
    """
    if count == 1:
        return work()
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=str(uuid.uuid4()),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=0,
            start_method="spawn",
        )
        try:
            threads = max(1, torch.get_num_threads() // count)
            return elastic_launch(config, _worker)(work, _log_files(), Path(folder), threads)[0]
        except ChildFailedError:
            said = Path(folder) / _ERROR
            if not said.exists():
                raise
            raise InputError(said.read_text(encoding="utf-8")) from None


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes compute together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def agree(value: float, how: dist.ReduceOp.RedOpType = dist.ReduceOp.MIN) -> float:
    """The least (or what `how` says) of the processes' values."""
    if world() == 1:
        return value
    shared = torch.tensor(float(value), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(shared, how)
    return float(shared)


def _log_files() -> list[str]:
    handlers = logging.getLogger().handlers
    return [h.baseFilename for h in handlers if isinstance(h, logging.FileHandler)]


def _worker(work: Callable[[], Any], log_files: list[str], folder: Path, threads: int) -> Any:
    number = int(os.environ["RANK"])
    torch.set_num_threads(threads)
    # The first one tells of the progress.
    handlers = [logging.StreamHandler(), *map(partial(logging.FileHandler, mode="a"), log_files)]
    logging.basicConfig(
        level=logging.WARNING if number else logging.INFO,
        format="%(asctime)s %(message)s",
        datefmt="%H:%M:%S",
        handlers=handlers if not number else [logging.NullHandler()],
        force=True,
    )
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(number)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    try:
        return work()
    except InputError as error:
        (folder / _ERROR).write_text(str(error), encoding="utf-8")
        raise
    finally:
        dist.destroy_process_group()
