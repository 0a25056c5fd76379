"""Many lists on the same images: the numbers are those of an evaluation, and calls are shared."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from colddiff.checkpoints.references import load_checkpoint
from colddiff.data.open import open_shards, pack_source
from colddiff.errors import Stopped
from colddiff.evaluation.evaluator import Evaluator, evaluate_all
from colddiff.evaluation.spec import EvaluationSpec
from colddiff.features.open import open_features
from colddiff.restorers import for_inference
from colddiff.verbs.search.severities.confirm import ListDifference, jackknife_error
from colddiff.verbs.search.severities.evaluator import GROUPS, ListEvaluator
from colddiff.verbs.search.severities.lists import SeverityList
from colddiff.verbs.search.severities.shared_calls import Beginnings, SharedCalls
from tests.tiny_checkpoint import RANDOM_INPAINT
from tests.unit.search.tiny_lists import EVALUATION, T, list_checkpoint

FIRST = SeverityList((8, 5, 2, 0), "improved")
KINDS: dict[str, dict[str, Any]] = {
    "blur": {},
    "random inpaint": {"degradation": {**RANDOM_INPAINT, "num_timesteps": T}},
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = str(tmp_path_factory.mktemp("digits"))
    pack_source("digits", place, split="test", channels=1, image_size=16)
    return place


def evaluator(tmp_path: Path, digits: str, severities: Any = None, **fields: Any) -> Evaluator:
    loaded = load_checkpoint(list_checkpoint(tmp_path / "checkpoint", **fields))
    spec = EvaluationSpec.model_validate({**EVALUATION, "severities": severities})
    return Evaluator(
        for_inference(loaded.restorer),
        loaded.degradation,
        open_shards(digits),
        spec,
        open_features(spec.features, torch.device("cpu")),
        keep=0,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_numbers_are_those_of_an_evaluation(tmp_path: Path, digits: str, kind: str) -> None:
    lists = ListEvaluator(evaluator(tmp_path, digits, **KINDS[kind]))
    for column, sampler in (("sampled", "improved"), ("naive", "naive")):
        for severities in ((8, 5, 2, 0), (8, 7, 6, 0), (8, 5, 1, 0)):
            found = lists.measure(SeverityList(severities, sampler), groups=3)
            own = evaluate_all(evaluator(tmp_path, digits, severities, **KINDS[kind])).metrics
            expected = {name: own[f"eval/{column}/{name}"] for name in found.metrics}
            assert set(found.metrics) == {"fd_lenet", "rmse", "ssim", "psnr"}
            assert found.metrics == pytest.approx(expected, rel=1e-6)
            assert found.n == EVALUATION["num_images"]


def test_lists_that_begin_alike_share_calls_and_no_digit_changes(
    tmp_path: Path, digits: str
) -> None:
    shared, n = ListEvaluator(evaluator(tmp_path, digits)), EVALUATION["num_images"]
    assert shared.measure(FIRST).calls_made == 3 * n
    again = shared.measure(FIRST)
    assert again.calls_made == 0
    beside = SeverityList((8, 5, 1, 0), "improved")
    naive = SeverityList((8, 5, 2, 0), "naive")
    assert [shared.measure(c).calls_made for c in (beside, naive)] == [n, 2 * n]
    for chosen in (FIRST, beside, naive):
        alone = ListEvaluator(evaluator(tmp_path, digits)).measure(chosen)
        assert shared.measure(chosen).metrics == alone.metrics


def test_estimates_that_do_not_fit_are_made_again(tmp_path: Path, digits: str) -> None:
    small = ListEvaluator(evaluator(tmp_path, digits), SharedCalls(most_bytes=1))
    large = ListEvaluator(evaluator(tmp_path, digits))
    for _ in range(2):
        assert small.measure(FIRST).metrics == large.measure(FIRST).metrics
    assert small.shared.calls_made == 2 * large.shared.calls_made


def test_beginnings_differ_by_sampler_after_the_first_call() -> None:
    beginnings = Beginnings()
    improved = beginnings.of(SeverityList((4, 3, 1, 0), "improved"))
    naive = beginnings.of(SeverityList((4, 3, 1, 0), "naive"))
    assert improved[0] == naive[0]
    assert not set(improved[1:]) & set(naive[1:])
    assert beginnings.of(SeverityList((4, 3, 2, 0), "improved"))[:2] == improved[:2]
    assert len(beginnings) == 6


def test_replicates_leave_out_one_group_each(tmp_path: Path, digits: str) -> None:
    lists = ListEvaluator(evaluator(tmp_path, digits))
    found = lists.measure(FIRST, groups=GROUPS)
    assert {len(values) for values in found.replicates.values()} == {GROUPS}
    # Of a mean, the mean of the replicates is the mean itself.
    squares = [value**2 for value in found.replicates["rmse"]]
    assert np.mean(squares) == pytest.approx(found.metrics["rmse"] ** 2, rel=1e-6)
    assert lists.measure(FIRST).replicates == {}


def test_the_jackknife_is_the_standard_error_of_a_mean() -> None:
    rng = np.random.default_rng(0)
    values, others = rng.standard_normal(40), rng.standard_normal(40)
    means = [[np.delete(side, i).mean() for i in range(40)] for side in (values, others)]
    expected = np.std(values - others, ddof=1) / math.sqrt(40)
    assert jackknife_error(*means) == pytest.approx(expected)
    assert jackknife_error([1.0], [2.0]) is None


@pytest.mark.parametrize(
    ("difference", "se", "lower", "verdict"),
    [
        (-1.0, 0.4, True, "better"),
        (1.0, 0.4, True, "worse"),
        (1.0, 0.4, False, "better"),
        (-1.0, 0.6, True, "not distinguished"),
        (-1.0, None, True, "not distinguished"),
        (0.0, 0.0, True, "not distinguished"),
    ],
)
def test_a_difference_counts_from_two_standard_errors_on(
    difference: float, se: float | None, lower: bool, verdict: str
) -> None:
    found = ListDifference("even spacing", FIRST, 10.0, difference, se, lower)
    assert found.verdict == verdict
    assert found.sentence.endswith(f": {verdict}")


def test_a_stop_is_heard_between_calls_of_the_network(tmp_path: Path, digits: str) -> None:
    calls: list[int] = []

    def stop() -> None:
        calls.append(len(calls))
        if len(calls) == 2:
            raise Stopped("asked to")

    lists = ListEvaluator(evaluator(tmp_path, digits))
    with pytest.raises(Stopped):
        lists.measure(FIRST, on_call=stop)
    assert len(calls) == 2
    # What was called before is kept: the rest of 3 calls on the first batch, and the other batch.
    n, first = EVALUATION["num_images"], EVALUATION["batch_size"]
    assert lists.measure(FIRST).calls_made == 3 * n - first
