"""Searches of a tiny checkpoint's severities on a few digits: a trial takes a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from colddiff.data.open import pack_source
from colddiff.verbs.search.severities.journal import ListTrial, read_list_trials
from colddiff.verbs.search.severities.lists import ListSpace, SeverityList, bands_of
from tests.tiny_checkpoint import BLUR, tiny_checkpoint
from tests.unit.search.tiny_search import folder_of

T = 8
EVALUATION: dict[str, Any] = {"num_images": 40, "batch_size": 24}
QUIET = {"system_every_s": None}


def list_checkpoint(folder: Path, **fields: Any) -> str:
    """A checkpoint of T = 8 whose job names digits as its images; its reference."""
    given = {
        "data": "digits",
        "test_data": "digits",
        "degradation": {**BLUR, "num_timesteps": T},
        "evaluation": EVALUATION,
    }
    return tiny_checkpoint(folder, **{**given, **fields})


def packed_lists(place: Path) -> str:
    """A checkpoint at ``place`` whose job names packed digits as its images; its reference."""
    sets = {"data": f"{place}/train", "test_data": f"{place}/test"}
    for uri in sets.values():
        split = uri.rpartition("/")[2]
        pack_source("digits", uri, split=split, channels=1, image_size=16)
    return list_checkpoint(place / "checkpoint", **sets)


def list_search(checkpoint: str, **fields: Any) -> dict[str, Any]:
    """Fields of a search of a checkpoint's severities and samplers."""
    base = {"checkpoint": checkpoint, **fields.pop("base", {})}
    given = {"base": base, "calls": [2, 4, 8], "num_trials": 12, "max_concurrent": 1}
    return {**given, "searcher": "random", "metric": "fd_lenet", "tracking": QUIET, **fields}


def list_space(**fields: Any) -> ListSpace:
    """The space of such a search."""
    base = SeverityList(tuple(range(T, -1, -1)), "improved")
    given: dict[str, Any] = {
        "base": base,
        "samplers": ("naive", "improved"),
        "bands": bands_of([2, 4, 8]),
        "spaced": True,
    }
    return ListSpace(**{**given, **fields})


def list_trials_of(storage: Path) -> list[ListTrial]:
    """The records of the one search in a storage."""
    return read_list_trials(folder_of(storage))
