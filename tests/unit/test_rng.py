"""Streams: one image, one stream, whatever the batch, the seed's size or the machine."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch

from colddiff.errors import SpecError
from colddiff.rng import rows, stream, streams, words


def first(seed: int, purpose: str, index: int = 0) -> list[float]:
    return [float(value) for value in stream(seed, purpose, index).random(4)]


def test_a_stream_is_a_function_of_seed_purpose_and_index() -> None:
    names = [
        (0, "a", 0), (0, "a", 1), (0, "b", 0), (1, "a", 0), (-1, "a", 0), (0, "a", 2**64),
        (0, "a", 2**63), (2**32, "a", 0), (2**200, "a", 0), (1, "0/a", 0), (10, "a", 0),
    ]  # fmt: skip
    drawn = [first(*name) for name in names]
    assert drawn == [first(*name) for name in names]
    assert all(a != b for a, b in combinations(drawn, 2))


def test_streams_are_the_same_on_every_machine() -> None:
    """A change of numpy or of the key would silently change every image: then this fails."""
    assert stream(7, "tests", 3).integers(0, 2**63, 3).tolist() == PINNED
    assert stream(7, "tests", 3).standard_normal(1)[0] == pytest.approx(PINNED_NORMAL, abs=1e-15)


def test_neighbouring_streams_do_not_overlap_and_look_independent() -> None:
    drawn = np.stack([g.random(5000) for g in streams(0, "a", range(8))])
    assert len(np.unique(drawn)) == drawn.size
    correlation = np.corrcoef(drawn) - np.eye(8)
    assert np.abs(correlation).max() < 0.06
    assert abs(drawn.mean() - 0.5) < 0.01


def test_streams_are_one_stream_per_index() -> None:
    for index, generator in zip((5, 2, 9), streams(3, "p", [5, 2, 9]), strict=True):
        assert generator.random() == stream(3, "p", index).random()


def test_rows_are_the_given_generators_or_one_for_all() -> None:
    given = streams(0, "a", range(3))
    assert list(rows(given, 3)) == given
    one = stream(0, "a")
    assert list(rows(one, 2)) == [one, one]
    with pytest.raises(SpecError, match="3 generators for a batch of 2"):
        rows(given, 2)
    wrong: Any
    for wrong in (7, None):
        with pytest.raises(SpecError, match="expected a generator"):
            rows(wrong, 2)


def test_a_torch_generator_is_advanced_by_each_use() -> None:
    torch_rng = torch.Generator().manual_seed(4)
    a, b = (rows(torch_rng, 2)[0].random() for _ in range(2))
    assert a != b
    again = torch.Generator().manual_seed(4)
    assert [rows(again, 2)[0].random() for _ in range(2)] == [a, b]


def test_both_words_of_a_torch_generator_seed_the_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def drawn(first: int, second: int) -> float:
        two = torch.tensor([first, second])
        monkeypatch.setattr(torch, "randint", lambda *args, **options: two)
        return float(rows(torch.Generator(), 1)[0].random())

    here = drawn(5, 7)
    assert drawn(5, 7) == here
    assert len({here, drawn(5, 8), drawn(6, 7), drawn(5, -7), drawn(5, 7 + 2**61)}) == 5


def test_words_of_a_position_do_not_depend_on_the_run_they_are_asked_in() -> None:
    whole = words(1, "t", 0, 40)
    for start in (0, 1, 3, 4, 17, 39):
        assert np.array_equal(words(1, "t", start, 40 - start), whole[start:])
    assert (
        len(np.unique(np.concatenate([whole, words(2, "t", 0, 40), words(1, "u", 0, 40)]))) == 120
    )
    assert whole.dtype == np.uint64


PINNED = [3190503426473343135, 8951584249836310767, 6221998111284583831]
PINNED_NORMAL = -0.8353292886373158
