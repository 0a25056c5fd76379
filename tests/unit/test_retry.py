"""Retry with backoff: pauses grow to a limit, attempts are counted, patience ends."""

from __future__ import annotations

import time

import pytest

from colddiff.errors import ColddiffError, SpecError, StoreDenied, StoreError
from colddiff.retry import Backoff, call_with_retry
from colddiff.stores import s3_store
from colddiff.verbs.train.failures import Failures


def test_pauses_grow_by_the_factor_up_to_the_longest() -> None:
    backoff = Backoff(first_s=0.1, longest_s=2.0, factor=4.0)
    assert [backoff.pause_s(n) for n in range(5)] == pytest.approx([0, 0.1, 0.4, 1.6, 2.0])


def test_any_number_of_failures_has_a_pause() -> None:
    assert Backoff(first_s=1.0, longest_s=60.0).pause_s(100_000) == 60.0
    failures = Failures(limit=5000, step=0)
    for _ in range(2000):
        assert failures.may_retry(0)
    assert failures.pause_s == 60.0


def test_jitter_leaves_out_a_share_of_the_pause_by_chance() -> None:
    backoff = Backoff(first_s=8.0, longest_s=8.0, jitter=0.25)
    pauses = [backoff.pause_s(1) for _ in range(200)]
    assert 6.0 <= min(pauses) < 6.5
    assert 7.5 < max(pauses) <= 8.0


def test_attempts_pause_before_each_but_the_first() -> None:
    pauses: list[float] = []
    attempts = Backoff(first_s=1.0, longest_s=3.0, factor=3.0).attempts(4, sleep=pauses.append)
    assert next(attempts) == 1
    assert pauses == []
    assert list(attempts) == [2, 3, 4]
    assert pauses == [1.0, 3.0, 3.0]


def test_what_succeeds_waits_for_nothing_more() -> None:
    pauses: list[float] = []
    for attempt in Backoff(1.0, 1.0).attempts(9, sleep=pauses.append):
        if attempt == 2:
            break
    assert pauses == [1.0]


def test_workers_that_lost_s3_do_not_come_back_at_once() -> None:
    assert len({s3_store.RETRY.pause_s(3) for _ in range(20)}) > 10
    assert all(0.4 <= s3_store.RETRY.pause_s(3) <= 0.8 for _ in range(20))
    assert all(2.5 <= s3_store.RETRY.pause_s(50) <= 5.0 for _ in range(20))


def test_patience_is_bounded_and_for_services_that_do_not_answer_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls: list[float] = []

    def away() -> None:
        raise StoreError("nobody home")

    with pytest.raises(ColddiffError, match=r"the log: still failing after 0\.05 s.*nobody home"):
        call_with_retry(away, "the log", 0.05, sleep=lambda s: time.sleep(0.02))

    def wrong() -> None:
        calls.append(1)
        raise SpecError("wrong")

    with pytest.raises(SpecError):
        call_with_retry(wrong, "x", 60)
    assert calls == [1]
    assert caplog.messages
    assert all("the log: nobody home; retrying in" in line for line in caplog.messages)


def test_a_denial_is_waited_for_only_where_no_others_have_access() -> None:
    pauses: list[float] = []

    def denied() -> None:
        raise StoreDenied("no credentials")

    with pytest.raises(StoreDenied, match="no credentials"):
        call_with_retry(denied, "x", 60, at_once=(StoreDenied,), sleep=pauses.append)
    assert pauses == []
    with pytest.raises(ColddiffError, match="still failing"):
        call_with_retry(denied, "x", 0.05, sleep=lambda s: time.sleep(0.02))


def test_pauses_grow_and_what_is_back_is_used() -> None:
    left, pauses = [4], list[float]()

    def away() -> str:
        left[0] -= 1
        if left[0]:
            raise StoreError("nobody home")
        return "here"

    assert call_with_retry(away, "x", 60, sleep=pauses.append) == "here"
    assert pauses == [0.5, 1.0, 2.0]
