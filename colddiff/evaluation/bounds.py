"""How much an evaluation may ask for: no more images, severities or calls than there are."""

from __future__ import annotations

from typing import Any, Protocol

from colddiff.degradations import Degradation
from colddiff.errors import SpecError
from colddiff.evaluation.calls import Evaluates
from colddiff.sampling import falling

TEST_IMAGES = "test images"
SAMPLED_IMAGES = "samples"


class Bounded(Evaluates, Protocol):
    """What an evaluation asks for, as a job of that verb and a training's have it."""

    @property
    def num_images(self) -> int | None:
        """Images that are evaluated; None for all."""


def refuse_beyond(
    asked: Bounded,
    D: Degradation[Any],
    count: int | None = None,
    *,
    section: str = "",
    images: str = TEST_IMAGES,
) -> None:
    """Raises SpecError where ``asked`` is more than there is.

    ``count``: the number of test images, None where it is not known; ``section``: what precedes
    the names of the fields, such as ``evaluation.``; ``images``: what they are called.
    """
    try:
        start = falling(asked.severities, D.num_timesteps)[0]
        D.check_start(start)
    except SpecError as error:
        raise SpecError([(f"{section}{path}", what) for path, what in error.problems]) from None
    if count is not None:
        refuse_more_images(asked.num_images, count, f"{section}num_images", images)
    calls = asked.curve or ()
    if (asked.curve is not None and len(set(calls)) != len(calls)) or asked.curve == ():
        raise SpecError([(f"{section}curve", "needs numbers of calls, each of them once")])
    if max(calls, default=0) > start:
        what = f"{max(calls)} calls need as many severities; there are {start}"
        raise SpecError([(f"{section}curve", what)])


def refuse_more_images(wanted: int | None, count: int, field: str, images: str) -> None:
    """Raises SpecError naming ``field`` where more than ``count`` are wanted, or there are none."""
    wanted = count if wanted is None else wanted
    if not 1 <= wanted <= count:
        raise SpecError([(field, f"{wanted} of {count} {images}; use at most {count}")])
