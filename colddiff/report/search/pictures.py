"""All pictures of a search, each drawn by itself: one that fails leaves the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from colddiff.report.search.calls import calls_picture
from colddiff.report.search.figures import SearchPicture
from colddiff.report.search.parallel import parallel_picture
from colddiff.report.search.paths import paths_picture
from colddiff.report.search.points_map import map_picture
from colddiff.report.search.results import SearchResults
from colddiff.report.search.rungs import rungs_picture
from colddiff.report.search.strips import strips_picture

log = logging.getLogger(__name__)

DRAWINGS: Mapping[str, Callable[[SearchResults], SearchPicture | None]] = MappingProxyType(
    {
        "paths": paths_picture,
        "map": map_picture,
        "calls": calls_picture,
        "strips": strips_picture,
        "rungs": rungs_picture,
        "parallel": parallel_picture,
    }
)
"""In the order of the page; None where there is nothing to draw."""


Drawn = tuple[SearchResults, list[SearchPicture]]


def search_pictures(results: SearchResults, earlier: Drawn | None = None) -> list[SearchPicture]:
    """What can be drawn of ``results``; logs a warning that names a picture which failed.

    Of what was drawn ``earlier``, that stays which the confirmation of the same trials leaves as it
    is: all but quality against calls.
    """
    kept: dict[str, SearchPicture] = {}
    if earlier is not None and _same_trials(earlier[0], results):
        kept = {picture.name: picture for picture in earlier[1] if picture.name != "calls.png"}
    found = []
    for name, draw in DRAWINGS.items():
        try:
            picture = kept.get(f"{name}.png") or draw(results)
        except Exception as error:
            # Pictures come last: they must not lose the result of hours of training.
            log.warning("%s.png was not drawn: %s: %s", name, type(error).__name__, error)
            continue
        if picture is not None:
            found.append(picture)
    return found


def _same_trials(one: SearchResults, other: SearchResults) -> bool:
    # Strips hold arrays, which have no single truth; those of the same trials are measured once.
    return one.strips is other.strips and _of_trials(one) == _of_trials(other)


def _of_trials(results: SearchResults) -> SearchResults:
    """Without what is found of the finalists once the trials are done."""
    trials = tuple(replace(trial, skipped={}) for trial in results.trials)
    return replace(results, trials=trials, base_seeds=(), strips=None)
