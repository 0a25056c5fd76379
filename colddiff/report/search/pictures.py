"""All pictures of a search, each drawn by itself: one that fails leaves the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
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


def search_pictures(results: SearchResults) -> list[SearchPicture]:
    """What can be drawn of ``results``; logs a warning that names a picture which failed."""
    found = []
    for name, draw in DRAWINGS.items():
        try:
            picture = draw(results)
        except Exception as error:
            # Pictures come last: they must not lose the result of hours of training.
            log.warning("%s.png was not drawn: %s: %s", name, type(error).__name__, error)
            continue
        if picture is not None:
            found.append(picture)
    return found
