"""Ranks of a process group, each a fresh process, from a server that has imported torch once."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch.multiprocessing

# A rank that is spawned anew imports for several seconds; one that is forked from here for none.
PRELOADED = [
    "colddiff.verbs.train.trainer",
    "torch._dynamo",  # an optimizer imports it
    "tests.unit.test_train",
    "tests.unit.test_resume",
]


def run_ranks(rank: Callable[..., None], world_size: int, *arguments: Any) -> None:
    """``rank(number, world_size, *arguments)`` in ``world_size`` processes, to their end.

    Raises what torch does where one of them fails, with that rank's traceback.
    """
    multiprocessing.set_forkserver_preload(PRELOADED)
    torch.multiprocessing.start_processes(  # type: ignore[attr-defined,no-untyped-call]
        rank, args=(world_size, *arguments), nprocs=world_size, start_method="forkserver"
    )
