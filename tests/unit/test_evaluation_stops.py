"""An evaluation that is asked to stop: it keeps no partial sums, and ends what is all but done."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from colddiff.errors import Stopped
from colddiff.verbs.evaluate import work


@pytest.mark.parametrize(("after", "stopped"), [(3, True), (5, False)])
def test_after_its_last_image_nothing_is_left_to_stop(
    after: int, stopped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting:
        done = 0

        def look(self, begun: object) -> None:
            """Nobody looks."""

        def __call__(self, images: int) -> None:
            self.done += images

    progress: Any = Counting()
    attempt: Any = SimpleNamespace(stop_requested=lambda: progress.done >= after)
    subject: Any = SimpleNamespace(evaluation=SimpleNamespace(num_images=5))

    def sum_all(evaluation: object, batch_done: Any) -> str:
        for images in (3, 2):
            batch_done(images)
        return "sums"

    monkeypatch.setattr(work, "sum_all", sum_all)
    if stopped:
        with pytest.raises(Stopped, match="before all images"):
            work.sum_in_process(attempt, subject, progress)
    else:
        assert work.sum_in_process(attempt, subject, progress) == "sums"
