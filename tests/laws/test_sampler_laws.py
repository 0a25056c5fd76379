"""Laws of the samplers: what each one does with a perfect restorer, and with any restorer."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from colddiff.degradations import Degradation, DegradationSpec
from colddiff.degradations.blur import BlurSpec
from colddiff.errors import SpecError
from colddiff.rng import stream, streams
from colddiff.samplers import SAMPLERS
from colddiff.sampling import Severities, break_symmetry, falling, sample, sample_steps
from colddiff.types import Image, ImageShape, Omega, Severity
from tests.laws.cases import SHAPES, full, images, name, omega, specs

BATCH = 2


class LineSpec(DegradationSpec):
    """D(x, s) = x + (s / T) e; not registered, so that no list of kinds shows it."""

    kind: Literal["line"] = "line"
    num_timesteps: int = 12

    def build(self, shape: ImageShape) -> Line:
        return Line(self, shape)


class Line(Degradation[LineSpec]):
    omega_names = ("e",)

    def omega_shape(self, name: str) -> tuple[int, ...]:
        return self.shape.chw

    def _degrade(self, x0: Image, t: Severity, omega: Omega) -> Image:
        return x0 + (t / self.num_timesteps).to(x0.dtype).view(-1, 1, 1, 1) * omega["e"]


def careless(x: Tensor, t: Tensor) -> Tensor:
    """A restorer that is wrong, and differently so at each severity."""
    return 0.3 * x.flip(-1) + 0.2 * torch.sin(3 * x) + 0.01 * t.view(-1, 1, 1, 1)


@pytest.mark.parametrize("spec", specs(), ids=name)
@pytest.mark.parametrize("skipping", [False, True], ids=["all", "skipping"])
def test_a_perfect_restorer_leads_back_to_x0(spec: DegradationSpec, skipping: bool) -> None:
    D = spec.build(SHAPES[0])
    x0, drawn, T = images(SHAPES[0], BATCH), omega(D, BATCH), spec.num_timesteps
    severities: Severities = sorted({T, max(1, T // 3), 1, 0}, reverse=True) if skipping else None
    x_T = D.degrade(x0, full(BATCH, T), drawn)
    for sampler in ("direct", "naive", "improved", "interpolated"):
        x = sample(lambda x, t: x0, D, x_T, drawn, sampler=sampler, severities=severities)
        assert torch.allclose(x, x0, rtol=0, atol=2e-5), sampler
    if D.estimate_omega(x_T, x0, full(BATCH, T)) is None:
        with pytest.raises(SpecError, match="use the sampler improved"):
            sample(lambda x, t: x0, D, x_T, drawn, sampler="improved_estimated")
    else:
        x = sample(lambda x, t: x0, D, x_T, sampler="improved_estimated", severities=severities)
        assert torch.allclose(x, x0, rtol=0, atol=2e-5)


@pytest.mark.parametrize("spec", specs(), ids=name)
def test_a_re_estimated_omega_explains_the_state_it_was_estimated_from(
    spec: DegradationSpec,
) -> None:
    D = spec.build(SHAPES[0])
    x_t, x0_hat = images(SHAPES[0], BATCH).double(), images(SHAPES[0], BATCH, seed=5).double()
    for t in (1, spec.num_timesteps):
        estimated = D.estimate_omega(x_t, x0_hat, full(BATCH, t))
        if estimated is None:
            return
        assert set(estimated) == set(D.omega_names)
        assert torch.allclose(D.degrade(x0_hat, full(BATCH, t), estimated), x_t, atol=1e-9)
        # In half precision only the images are rounded, not what they are weighed with.
        x, x_hat = x_t.bfloat16(), x0_hat.bfloat16()
        exact = D.estimate_omega(x.double(), x_hat.double(), full(BATCH, t)) or {}
        for key, value in (D.estimate_omega(x, x_hat, full(BATCH, t)) or {}).items():
            assert torch.allclose(value.double(), exact[key], rtol=1e-4, atol=1e-4), key


def _line() -> tuple[Line, Tensor, dict[str, Tensor], Tensor]:
    D = LineSpec().build(SHAPES[0])
    x0 = images(SHAPES[0], BATCH).double()
    e = images(SHAPES[0], BATCH, seed=3).double()
    return D, x0, {"e": e}, D.degrade(x0, full(BATCH, 12), {"e": e})


@pytest.mark.parametrize("severities", [None, 5, [12, 7, 3, 0]], ids=str)
def test_algorithm_2_is_exact_for_any_restorer_where_d_is_a_straight_line(
    severities: Severities,
) -> None:
    D, x0, drawn, x_T = _line()
    assert torch.allclose(sample(careless, D, x_T, drawn, severities=severities), x0, atol=1e-12)


def test_algorithm_1_hands_on_the_error_of_its_restorer() -> None:
    D, x0, drawn, x_T = _line()
    steps = list(sample_steps(careless, D, x_T, drawn, sampler="naive"))
    assert torch.equal(steps[-1].x_s, steps[-1].x0_hat), "its end is R's last estimate"
    assert (steps[-1].x_s - x0).abs().mean() > 0.1
    direct = sample(careless, D, x_T, drawn, sampler="direct")
    assert torch.equal(direct, careless(x_T, full(BATCH, 12)))


@pytest.mark.parametrize("spec", specs(), ids=name)
def test_algorithm_1_of_every_kind_ends_with_its_restorers_error(spec: DegradationSpec) -> None:
    D, T = spec.build(SHAPES[0]), spec.num_timesteps
    x0, drawn = images(SHAPES[0], BATCH), omega(D, BATCH)
    x_T = D.degrade(x0, full(BATCH, T), drawn)
    steps = list(sample_steps(careless, D, x_T, drawn, sampler="naive", severities=min(T, 4)))
    error = steps[-1].x0_hat - x0
    assert torch.equal(steps[-1].x_s - x0, error)
    assert float(error.abs().mean()) > 0.1


def test_each_step_is_the_update_of_its_algorithm() -> None:
    D = BlurSpec(num_timesteps=6).build(SHAPES[0])
    x_T = D.degrade(images(SHAPES[0], BATCH), full(BATCH, 6))
    given: Severities = [6, 4, 1, 0]
    expected: dict[str, Callable[[Tensor, Tensor, int, int], Tensor]] = {
        "naive": lambda x, x0, t, s: D.degrade(x0, full(BATCH, s)),
        "improved": lambda x, x0, t, s: (
            x - D.degrade(x0, full(BATCH, t)) + D.degrade(x0, full(BATCH, s))
        ),
        "interpolated": lambda x, x0, t, s: (1 - s / t) * x0 + (s / t) * x,
    }
    for sampler, update in expected.items():
        x = x_T
        steps = list(sample_steps(careless, D, x_T, sampler=sampler, severities=given))
        assert [(step.t, step.s) for step in steps] == [(6, 4), (4, 1), (1, 0)]
        for step in steps:
            assert torch.equal(step.x0_hat, careless(x, full(BATCH, step.t)))
            wanted = update(x, step.x0_hat, step.t, step.s)
            assert torch.allclose(step.x_s, wanted, rtol=0, atol=1e-6)
            x = step.x_s


def test_each_image_is_sampled_as_if_it_were_alone() -> None:
    D = BlurSpec(num_timesteps=8).build(SHAPES[0])
    x_T = images(SHAPES[0], 3)
    for sampler in ("direct", "naive", "improved", "interpolated"):
        together = sample(careless, D, x_T, sampler=sampler)
        alone = sample(careless, D, x_T[1:2], sampler=sampler)
        assert torch.allclose(together[1], alone[0], rtol=0, atol=1e-6)


class Recorder(nn.Module):
    """A restorer with a part that is frozen in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)
        self.frozen = nn.Dropout(0.5).eval()
        self.modes: list[bool] = []

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.modes.append(self.training)
        assert t.dtype == torch.int64
        out: Tensor = self.frozen(self.layer(x))
        return out


def test_a_module_is_evaluated_and_gets_its_modes_back() -> None:
    D, R = BlurSpec(num_timesteps=3).build(SHAPES[0]), Recorder()
    x = sample(R, D, images(SHAPES[0], 1))
    assert R.modes == [False] * 3
    assert R.training
    assert R.layer.training
    assert not R.frozen.training
    assert not x.requires_grad
    assert not x.is_inference(), "callers may differentiate through what follows"


def test_a_walk_given_up_half_way_gives_the_modes_back_too() -> None:
    D, R = BlurSpec(num_timesteps=3).build(SHAPES[0]), Recorder()
    walk = sample_steps(R, D, images(SHAPES[0], 1))
    next(walk)
    seen = [R.training]
    walk.close()
    assert [*seen, R.training] == [False, True]


@pytest.mark.parametrize("T", [1, 2, 7, 20, 61])
def test_n_even_steps_fall_strictly_from_T_to_0(T: int) -> None:
    for n in range(1, T + 1):
        steps = falling(n, T)
        assert (steps[0], steps[-1], len(steps)) == (T, 0, n + 1)
        gaps = [t - s for t, s in pairwise(steps)]
        assert min(gaps) >= 1
        assert max(gaps) - min(gaps) <= 1
    assert falling(None, T) == list(range(T, -1, -1))


def test_even_steps_are_the_nearest_severities_not_those_below() -> None:
    assert falling(3, 20) == [20, 13, 7, 0]  # 13 1/3 and 6 2/3
    assert falling(7, 50) == [50, 43, 36, 29, 21, 14, 7, 0]
    for T in (7, 20, 61):
        for n in range(1, T + 1):
            assert all(abs(t - T * (n - i) / n) <= 0.5 for i, t in enumerate(falling(n, T)))


@pytest.mark.parametrize(
    "wrong",
    [0, 21, -1, [], [20], [20, 10], [20, 20, 0], [10, 20, 0], [21, 0], [5, 0, -1], ["a", 0]],
)
def test_severities_that_do_not_fall_are_refused(wrong: Any) -> None:
    with pytest.raises(SpecError, match="severities"):
        falling(wrong, 20)
    assert falling([15, 3, 0], 20) == [15, 3, 0]
    assert falling([15, 3, 0], 20, "direct") == [15, 0]


def test_bad_input_is_refused_before_the_restorer_runs() -> None:
    D = BlurSpec(num_timesteps=3).build(SHAPES[0])
    x = images(SHAPES[0], 1)

    def never(x: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("the restorer ran")

    for sampler in SAMPLERS:
        with pytest.raises(SpecError, match="built for images"):
            sample(never, D, x[:, :1], sampler=sampler)
        with pytest.raises(SpecError, match="NaN"):
            sample(never, D, x * float("nan"), sampler=sampler)
    with pytest.raises(
        SpecError, match=r"no 'ddim' \(one of direct, naive, improved, improved_estimated, interp"
    ):
        sample(never, D, x, sampler="ddim")
    noisy = LineSpec().build(SHAPES[0])
    with pytest.raises(SpecError, match="omega has no 'e'"):
        sample(never, noisy, x)


def test_broken_symmetry_is_noise_of_each_image_alone() -> None:
    x_T = torch.zeros(4, *SHAPES[0].chw)
    assert break_symmetry(x_T, 0.0, stream(0, "n")) is x_T
    noisy = break_symmetry(x_T, 0.002, streams(0, "n", range(4)))
    assert torch.equal(noisy[2:3], break_symmetry(x_T[:1], 0.002, [stream(0, "n", 2)]))
    assert not torch.equal(noisy[0], noisy[1])
    assert float(noisy.std()) == pytest.approx(0.002, rel=0.05)
    assert abs(float(noisy.mean())) < 2e-4
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(SpecError, match="symmetry_noise"):
            break_symmetry(x_T, wrong, stream(0, "n"))


def test_algorithm_2_keeps_the_noise_of_a_broken_symmetry() -> None:
    """Under a linear D the start's noise is carried to the end, not subtracted (PAPER 4.2)."""
    D = BlurSpec(num_timesteps=5, collapse_to_mean=True).build(SHAPES[0])
    x0 = images(SHAPES[0], BATCH)
    x_T = D.degrade(x0, full(BATCH, 5))
    noisy = break_symmetry(x_T, 0.01, stream(1, "n"))
    ends = [sample(lambda x, t: x0, D, start) for start in (x_T, noisy)]
    assert torch.allclose(ends[1] - ends[0], noisy - x_T, atol=1e-5)
