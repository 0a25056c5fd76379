"""Evaluation by several threads at once: the same numbers, and no core is idle."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from colddiff.data.readers.memory_shards import MemoryShards
from colddiff.degradations import build_degradation
from colddiff.errors import DivergedError
from colddiff.evaluation.evaluator import Evaluator, evaluate_all
from colddiff.evaluation.spec import EvaluationSpec
from colddiff.types import ImageShape
from tests.unit.test_evaluate import BLUR, PatchMeans, halfway, of, some_images


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2, "evaluation must give torch its threads back"
    torch.set_num_threads(before)


class AtOnce:
    """``halfway``, in which so many threads must have met before the first of them goes on.

    ``calls``: (thread, images, severity) of each.
    """

    def __init__(self, count: int) -> None:
        self.met = threading.Barrier(count)
        self.calls: list[tuple[int, int, int]] = []

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        thread = threading.get_ident()
        met = thread in {thread for thread, _, _ in self.calls}
        self.calls.append((thread, len(x_t), int(t[0])))
        if not met:
            assert torch.get_num_threads() == 1
            self.met.wait(timeout=60)
        return halfway(x_t, t)


def test_batches_at_once_are_the_same_to_the_last_bit(two_threads: None) -> None:
    images, spec = some_images(), EvaluationSpec(batch_size=6)
    told: list[int] = []
    found = of(images, restore=AtOnce(2), spec=spec, on_batch=lambda done, _: told.append(done))
    torch.set_num_threads(1)
    alone = of(images, spec=spec)
    torch.set_num_threads(2)
    assert found.metrics == alone.metrics
    assert told == [6, 12, 18, 23]


def test_more_batches_at_once_than_torch_has_threads() -> None:
    evaluator = Evaluator(
        AtOnce(2),
        build_degradation(BLUR, ImageShape(1, 12, 12)),
        MemoryShards(some_images()),
        EvaluationSpec(batch_size=6),
        PatchMeans(),
        cores=2,
    )
    assert torch.get_num_threads() == 1
    alone = of(some_images(), spec=EvaluationSpec(batch_size=6))
    assert evaluate_all(evaluator).metrics == alone.metrics


def test_the_samplers_of_one_batch_are_shared_out_among_threads(two_threads: None) -> None:
    # 20 images and 3: batches alone would leave a core idle for most of the time.
    R = AtOnce(2)
    of(some_images(), restore=R, spec=EvaluationSpec(batch_size=20))
    assert len({thread for thread, images, _ in R.calls if images == 20}) == 2


def test_the_degraded_images_are_restored_once_for_all_samplers() -> None:
    R = AtOnce(1)
    of(some_images(), restore=R, spec=EvaluationSpec(batch_size=23))
    steps = [severity for _, _, severity in R.calls]
    # Two samplers of four steps that begin alike, the one of one step, and what R does by severity.
    assert sorted(steps) == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4]


def test_of_batches_at_once_the_first_error_is_raised(two_threads: None) -> None:
    def diverges(x_t: Tensor, t: Tensor) -> Tensor:
        return x_t * torch.nan

    with pytest.raises(DivergedError, match="holds NaN or inf at severity 4"):
        of(some_images(), restore=diverges, spec=EvaluationSpec(batch_size=6))
