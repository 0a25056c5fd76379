"""What cannot be meant is refused in one line, before R runs, and without asking a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import colddiff
from colddiff.data.readers.memory_shards import MemoryShards
from colddiff.data.readers.second_set import SecondSet
from colddiff.degradations import Degradation, DegradationSpec
from colddiff.errors import ColddiffError
from colddiff.evaluation.evaluator import Evaluator
from colddiff.evaluation.spec import EvaluationSpec
from colddiff.features.open import open_features
from colddiff.rng import streams
from colddiff.samplers import SAMPLERS
from colddiff.sampling import sample, sample_steps
from colddiff.types import ImageShape
from tests.laws.cases import full, images, name, omega, specs

SHAPE = ImageShape(3, 16, 16)
ONE_COLOUR = {"kind": "blur", "num_timesteps": 10, "collapse_to_mean": True}


def blur(**fields: Any) -> Degradation[Any]:
    return colddiff.build_degradation({"kind": "blur", "num_timesteps": 10, **fields}, SHAPE)


def never(x: Tensor, t: Tensor) -> Tensor:
    raise AssertionError("the restorer ran")


def halved(x: Tensor, t: Tensor) -> Tensor:
    return 0.5 * x


def degrade(t: int = 1, change: Callable[[Tensor], Tensor] = lambda x: x) -> None:
    blur().degrade(change(images(SHAPE, 2)), full(2, t))


def empty_other() -> None:
    nothing = MemoryShards(np.zeros((0, 3, 16, 16), dtype=np.uint8))
    D = colddiff.build_degradation({"kind": "animorph"}, SHAPE)
    D.draw(2, rng=streams(0, "test", range(2)), images=SecondSet(lambda: nothing, SHAPE))


def starts_elsewhere() -> None:
    D = colddiff.build_degradation(ONE_COLOUR, SHAPE)
    sample(never, D, images(SHAPE, 2), severities=[5, 2, 0])


def evaluates_elsewhere() -> None:
    D = colddiff.build_degradation(ONE_COLOUR, SHAPE)
    shards = MemoryShards(np.zeros((4, 3, 16, 16), dtype=np.uint8))
    spec = EvaluationSpec(num_images=4, severities=(5, 2, 0))
    Evaluator(R=never, D=D, source=shards, spec=spec, extractor=open_features("lenet"))


def with_nan(x: Tensor) -> Tensor:
    x[0, 0, 0, 0] = float("nan")
    return x


CASES: dict[str, tuple[Callable[[], object], str]] = {
    "severity above T": (lambda: degrade(11), "severity 11 is outside 0..10"),
    "severity below 0": (lambda: degrade(-1), "severity -1 is outside 0..10"),
    "NaN": (lambda: degrade(1, with_nan), "the images hold NaN or inf"),
    "inf": (lambda: degrade(1, lambda x: x / 0), "the images hold NaN or inf"),
    "not floating": (
        lambda: degrade(1, lambda x: (127.5 * (x + 1)).to(torch.uint8)),
        "images must be floating in [-1, 1], got torch.uint8; divide 8-bit values by 127.5 and",
    ),
    "no tensor": (
        lambda: degrade(1, lambda x: x.numpy()),  # type: ignore[arg-type, return-value]
        "images must be a torch tensor, got ndarray",
    ),
    "one severity for all": (
        lambda: blur().degrade(images(SHAPE, 2), 3),  # type: ignore[arg-type]
        "t must be a torch tensor, got int; pass one for each image, torch.full((len(x0),), 3)",
    ),
    "channels": (
        lambda: degrade(1, lambda x: x[:, :1]),
        "built for images [B, 3, 16, 16], got [2, 1, 16, 16]",
    ),
    "smaller than the padding": (
        lambda: blur(padding="reflect", kernel_size=33),
        "reflect padding of 16 px does not fit an image of 16 px; use at most kernel_size=31, or "
        "padding=circular",
    ),
    "factor": (
        lambda: colddiff.build_degradation({"kind": "downsample", "factor": 3}, SHAPE),
        "3 steps by factor 3 need a height divisible by 27, got 16 px; use another factor",
    ),
    "empty other": (empty_other, "the second set is empty; pack at least one image"),
    "collapsed, sampled from elsewhere": (
        starts_elsewhere,
        "severities: with collapse_to_mean a trajectory starts at T = 10, where an image is its "
        "channel means, not at 5; start there, or build D with collapse_to_mean=false",
    ),
    "collapsed, evaluated from elsewhere": (evaluates_elsewhere, "starts at T = 10"),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_one_line_that_says_what_and_the_way_out(case: str) -> None:
    run, message = CASES[case]
    with pytest.raises(ColddiffError) as caught:
        run()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_one_value_that_is_not_finite_is_found_and_large_ones_are_let_through(
    value: float, dtype: torch.dtype
) -> None:
    x = torch.full((2, *SHAPE.chw), 0.9 * torch.finfo(dtype).max, dtype=dtype)
    blur(kernel_size=1).degrade(x, full(2, 1))
    x[1, 2, 15, 15] = value
    x[1, 2, 15, 14] = -value
    with pytest.raises(ColddiffError, match="NaN or inf"):
        blur().degrade(x, full(2, 1))


def test_a_collapsed_blur_is_sampled_from_its_end_and_a_plain_one_from_anywhere() -> None:
    x = images(SHAPE, 2)
    plain = {**ONE_COLOUR, "collapse_to_mean": False}
    for spec, severities in ((ONE_COLOUR, [10, 4, 0]), (plain, [5, 0])):
        D = colddiff.build_degradation(spec, SHAPE)
        assert torch.isfinite(sample(lambda x, t: x, D, x, severities=severities)).all()


@pytest.mark.parametrize("spec", specs(), ids=name)
def test_sampling_asks_no_device_for_a_value(spec: DegradationSpec) -> None:
    """On the meta device there are no values: whatever would wait for a GPU fails there."""
    D = spec.build(SHAPE)
    x_T = images(SHAPE, 2).to("meta")
    drawn = {key: value.to("meta") for key, value in omega(D, 2).items()}
    fit = [name for name in SAMPLERS if SAMPLERS[name].unfit(D) is None]
    estimates = D.estimate_omega(x_T, x_T, full(2, 1)) is not None
    assert ("improved_estimated" in fit) == estimates
    for sampler in fit:
        for step in sample_steps(halved, D, x_T, drawn, sampler=sampler, severities=2):
            assert step.x_s.device.type == "meta"


def test_a_read_of_one_value_would_be_noticed_there() -> None:
    x = torch.ones(2, device="meta")
    for read in (lambda: float(x[0]), lambda: bool((x > 0).all()), lambda: x.cpu(), x.nonzero):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read()
