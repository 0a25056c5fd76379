"""A progress bar (tqdm) for loops that a person waits for, such as the steps of a sampler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from colddiff.types import ProgressCallback

DELAY_S = 0.5
"""What is done by then needs no bar."""


@contextmanager
def reported(
    progress: bool | ProgressCallback, total: int, what: str, unit: str = "step"
) -> Iterator[ProgressCallback]:
    """Within ``with``, what to call with (done, total) after each of ``total`` steps.

    ``progress``: True shows a bar labelled ``what`` where there is more than one step, in a
    notebook as a widget; False shows nothing; a function is called itself.
    """
    if callable(progress):
        yield progress
        return
    if not progress or total < 2:
        yield lambda done, total: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=what, unit=unit, delay=DELAY_S) as bar:

        def report(done: int, total: int) -> None:
            bar.update(done - bar.n)

        yield report
