"""Ranks of a process group, each a fresh process, from a server that has imported torch once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch.multiprocessing

from tests.forked import IMPORTED


def run_ranks(rank: Callable[..., None], world_size: int, *arguments: Any) -> None:
    """``rank(number, world_size, *arguments)`` in ``world_size`` processes, to their end.

    Raises what torch does where one of them fails, with that rank's traceback.
    """
    multiprocessing.set_forkserver_preload(IMPORTED)
    torch.multiprocessing.start_processes(  # type: ignore[attr-defined,no-untyped-call]
        rank, args=(world_size, *arguments), nprocs=world_size, start_method="forkserver"
    )
