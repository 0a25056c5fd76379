"""Samplers against the trajectories of the paper's code, with its README's toy restorer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from colddiff.degradations import Degradation
from colddiff.sampling import Restore, Severities, sample_steps
from tests.golden.conftest import Golden
from tests.golden.test_degradations import (
    BLURS,
    FADE,
    INPAINT,
    built,
    centres,
    of_level,
    snow_omega,
    worst,
)

TOLERANCE = 5e-5
ALGORITHMS: dict[str, str] = {"alg1": "naive", "alg2": "improved"}


def toy(x: Tensor, t: Tensor) -> Tensor:
    """The vectors' toy restorer: its last term tells the severities apart."""
    return 0.9 * x + 0.05 + 0.001 * (t - 1).view(-1, 1, 1, 1)


def walk(
    D: Degradation[Any],
    x_T: Tensor,
    sampler: str,
    omega: dict[str, Tensor] | None = None,
    severities: Severities = None,
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    """States x_s by severity, and the estimates made from them."""
    states, estimates = {D.num_timesteps: x_T}, {}
    for step in sample_steps(toy, D, x_T, omega, sampler=sampler, severities=severities):
        states[step.s], estimates[step.t] = step.x_s, step.x0_hat
    return states, estimates


def first_last_count(estimates: dict[int, Tensor]) -> list[int]:
    """The code's indices of the first and the last call of R, and how many there were."""
    calls = [t - 1 for t in estimates]
    return [calls[0], calls[-1], len(calls)]


MNIST = "blur_mnist_constant_k11_s7"
BLUR_SAMPLERS = [
    (MNIST, "T20", {**BLURS[MNIST], "num_timesteps": 20}),
    ("blur_cifar10_special6", "T50", BLURS["blur_cifar10_special6"]),
    ("blur_celeba_expreflect_k15_sampler32", "T200", BLURS["blur_celeba_expreflect_k15"]),
]  # fmt: skip


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("name", "prefix", "spec"), BLUR_SAMPLERS, ids=lambda v: str(v)[:12])
def test_blur(golden: Golden, name: str, prefix: str, spec: dict[str, Any], algorithm: str) -> None:
    vectors = golden(name)
    key = f"{prefix}_{algorithm}"
    # 20 000 chained convolutions leave the reference itself 1.2e-4 off.
    tolerance = 3e-4 if "sampler32" in name else TOLERANCE
    x0 = torch.from_numpy(vectors["x0"])[: len(vectors[f"{key}_xT"])]
    D = built({"kind": "blur", **spec}, x0)
    x_T = of_level(D, x0, D.num_timesteps)
    assert worst(x_T, vectors[f"{key}_xT"]) <= 2e-5
    states, estimates = walk(D, x_T, ALGORITHMS[algorithm])
    assert [t - 1 for t in estimates] == vectors[f"{key}_calls"].tolist()
    assert worst(estimates[D.num_timesteps], vectors[f"{key}_direct"]) <= tolerance
    for i, level in enumerate(vectors[f"{key}_xs_state_levels"]):
        assert worst(states[int(level)], vectors[f"{key}_xs"][i]) <= tolerance, level
        assert worst(estimates[int(level)], vectors[f"{key}_x0hat"][i]) <= tolerance, level
    assert worst(states[0], vectors[f"{key}_final"]) <= tolerance


GENERATION = {
    "kind": "blur", "num_timesteps": 300, "kernel_size": 27, "padding": "circular",
    "sigma": {"kind": "exponential", "rate": 0.01}, "collapse_to_mean": True, "quantise": True,
}  # fmt: skip


@pytest.mark.parametrize("noise", ["0.0", "0.002"])
def test_blur_generation_from_colours(golden: Golden, noise: str) -> None:
    """Perfect and broken symmetry: the start's noise is kept, and nothing is rounded on the way."""
    vectors = golden("blur_generation_exp_k27_sampler32")
    colours = torch.from_numpy(vectors["colours"])[:, :, None, None].expand(-1, -1, 32, 32)
    x_T = colours + torch.from_numpy(vectors[f"noise{noise}_noise"])
    assert worst(x_T, vectors[f"noise{noise}_xT"]) <= 2e-5
    D = built(GENERATION, x_T)
    states, estimates = walk(D, x_T, "improved")
    assert first_last_count(estimates) == vectors[f"noise{noise}_first_last_call"].tolist()
    assert worst(estimates[300], vectors[f"noise{noise}_direct"]) <= TOLERANCE
    assert worst(states[0], vectors[f"noise{noise}_final"]) <= TOLERANCE


def test_blur_generation_from_images(golden: Golden) -> None:
    vectors = golden("blur_generation_exp_k27_sampler32")
    x0 = torch.from_numpy(vectors["cond_x0"])
    D = built(GENERATION, x0)
    x_T = of_level(D, x0, 300)
    assert worst(x_T, vectors["cond_xT"]) <= 2e-5
    for sampler, key in (("improved", "cond_final"), ("naive", "cond_alg1_final")):
        states, estimates = walk(D, x_T, sampler)
        assert worst(estimates[300], vectors["cond_direct"]) <= TOLERANCE
        assert worst(states[0], vectors[key]) <= TOLERANCE


def test_noise(golden: Golden) -> None:
    """Fixed noise is Algorithm 2, estimated noise is DDIM; both start from z itself."""
    vectors = golden("hot_noise_cosine_T200")
    z = torch.from_numpy(vectors["z"])
    D = built({"kind": "noise", "num_timesteps": 200}, z)
    states, estimates = walk(D, z, "improved", {"z": z})
    assert worst(estimates[200], vectors["fixed_direct"]) <= TOLERANCE
    assert worst(states[0], vectors["fixed_final"]) <= TOLERANCE

    states, estimates = walk(D, z, "improved_estimated")
    assert worst(estimates[200], vectors["estimated_direct"]) <= TOLERANCE
    assert worst(states[0], vectors["estimated_final"]) <= TOLERANCE
    for i, level in enumerate(map(int, vectors["estimated_xs_levels"])):
        x_t, x0_hat, t = states[level], estimates[level], torch.full((len(z),), level)
        assert worst(x_t, vectors["estimated_xs"][i]) <= TOLERANCE
        # At severity 1 the reference's abar, rounded to float32, leaves 1 - abar 1e-4 off.
        z_hat = D.estimate_omega(x_t, x0_hat, t)
        assert z_hat is not None
        size = np.abs(vectors["estimated_zhat"][i]).max()
        assert worst(z_hat["z"], vectors["estimated_zhat"][i]) <= 1e-4 * max(1, size)


def test_the_codes_default_sampler_does_nothing_for_noise_and_ours_is_algorithm_1(
    golden: Golden,
) -> None:
    vectors = golden("hot_noise_cosine_T200")
    z = torch.from_numpy(vectors["z"])
    assert worst(z, vectors["default_noop_final"]) == 0
    D = built({"kind": "noise", "num_timesteps": 200}, z)
    states, estimates = walk(D, z, "naive", {"z": z})
    assert torch.equal(states[0], estimates[1])
    assert worst(states[0], vectors["default_noop_final"]) > 1


def test_animorph(golden: Golden) -> None:
    vectors = golden("animorphosis_cosine_T200")
    z = torch.from_numpy(vectors["z_animal"])
    D = built({"kind": "animorph", "num_timesteps": 200}, z)
    states, estimates = walk(D, z, "improved", {"z": z})
    assert worst(estimates[200], vectors["gen_fixed_direct"]) <= TOLERANCE
    assert worst(states[0], vectors["gen_fixed_final"]) <= TOLERANCE
    noisy = z + torch.from_numpy(vectors["noise0.002"])
    states, _ = walk(D, noisy, "improved", {"z": z})
    assert worst(states[0], vectors["gen_fixed_noise0.002_final"]) <= TOLERANCE
    states, _ = walk(D, z, "improved_estimated")
    assert worst(states[0], vectors["sample_estimated_final"]) <= TOLERANCE


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", ["inpaint_cifar10_random_init11", "inpaint_mnist_random_init11"])
def test_inpaint(golden: Golden, name: str, algorithm: str) -> None:
    """From the code's own start, which it truncates to 8 bit where we round to nearest."""
    vectors = golden(name)
    x0, x_T = torch.from_numpy(vectors["x0"]), torch.from_numpy(vectors[f"{algorithm}_xT"])
    omega = {"centre": centres(vectors, 32, "sampler_")}
    D = built(INPAINT, x0)
    start = D.observe(x0, torch.full((len(x0),), 50), omega).expand_as(x_T)
    assert 0 <= float((start - x_T).min()) + 1e-5 <= float((start - x_T).max()) < 2 / 255 + 1e-5
    D = built(INPAINT, x_T)
    states, estimates = walk(D, x_T, ALGORITHMS[algorithm], omega)
    assert first_last_count(estimates) == vectors[f"{algorithm}_calls_first_last_n"].tolist()
    assert worst(estimates[50], vectors[f"{algorithm}_direct"]) <= TOLERANCE
    for level, wanted in zip(
        vectors[f"{algorithm}_xs_after_level"], vectors[f"{algorithm}_xs"], strict=True
    ):
        assert worst(states[int(level)], wanted) <= TOLERANCE, level
    assert worst(states[0], vectors[f"{algorithm}_final"]) <= TOLERANCE
    # What its evaluation scores as degraded is x_{T-1}, and as sampled R(x_1).
    assert worst(states[49], vectors[f"{algorithm}_metric_degraded_xt0"]) <= TOLERANCE
    assert worst(estimates[1], vectors[f"{algorithm}_metric_sampled_x0last"]) <= TOLERANCE


def test_fade_to_colour(golden: Golden) -> None:
    """From solid colours, and from colours with noise on them, which D does not know of."""
    vectors = golden("inpaint_generation_small_T60_N32")
    omega = {"colour": torch.from_numpy(vectors["colours"])}
    x_T = omega["colour"][:, :, None, None].expand(-1, -1, 32, 32)
    D = built(FADE, x_T)
    states, estimates = walk(D, x_T, "improved", omega)
    assert worst(estimates[60], vectors["alg2_direct"]) <= TOLERANCE
    for level, wanted in zip(vectors["xs_levels"], vectors["xs"], strict=True):
        assert worst(states[int(level)], wanted) <= TOLERANCE, level
    assert worst(states[0], vectors["alg2_final"]) <= TOLERANCE
    noisy = x_T + torch.from_numpy(vectors["noise_added"])
    states, _ = walk(D, noisy, "improved", omega)
    assert worst(states[0], vectors["alg2_final_with_noise"]) <= TOLERANCE


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_downsample(golden: Golden, algorithm: str) -> None:
    vectors = golden("sr_mnist_cifar_factor2_T3_N32")
    x0 = torch.from_numpy(vectors["x0"])
    D = built({"kind": "downsample", "num_timesteps": 3}, x0)
    states, estimates = walk(D, of_level(D, x0, 3), ALGORITHMS[algorithm])
    assert [t - 1 for t in estimates] == vectors[f"{algorithm}_calls"].tolist()
    assert worst(estimates[3], vectors[f"{algorithm}_direct"]) <= TOLERANCE
    for level, wanted in zip(
        vectors[f"{algorithm}_xs_levels"], vectors[f"{algorithm}_xs"], strict=True
    ):
        assert worst(states[int(level)], wanted) <= TOLERANCE, level
    assert worst(states[0], vectors[f"{algorithm}_final"]) <= TOLERANCE
    assert worst(estimates[1], vectors[f"{algorithm}_metric_sampled_x0last"]) <= TOLERANCE


def one_level_low(
    R: Restore, D: Degradation[Any], x_T: Tensor, sampler: str, omega: dict[str, Tensor]
) -> tuple[list[Tensor], Tensor]:
    """The sampler of the code's snow and colour systems: D gets s - 1 where s is meant (PAPER 4.6).

    States x_T..x_0, and the last estimate.
    """
    x, states, x0_hat = x_T, [x_T], x_T
    for s in range(D.num_timesteps, 0, -1):
        x0_hat = R(x, torch.full((len(x),), s))
        lower = of_level(D, x0_hat, max(s - 2, 0), omega)
        x = lower if sampler == "naive" else x - of_level(D, x0_hat, s - 1, omega) + lower
        states.append(x)
    return states, x0_hat


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", ["snow_cifar10_level3_T200", "decolor_linear_T20"])
def test_snow_and_decolor_differ_from_the_code_by_its_one_level(
    golden: Golden, name: str, algorithm: str
) -> None:
    vectors, sampler = golden(name), ALGORITHMS[algorithm]
    x0 = torch.from_numpy(vectors["x0"])
    kind, omega = "decolor", {}
    if name.startswith("snow"):
        kind, omega = "snow", snow_omega(vectors["base_f64"], vectors["vertical"], len(x0))
    D = built({"kind": kind}, x0)
    T = D.num_timesteps
    x_T = of_level(D, x0, T, omega)
    assert worst(x_T, vectors[f"{algorithm}_xT"]) <= 2e-5
    # R is asked at the same severities by both; it is D that the code asks for one less.
    _, estimates = walk(D, x_T, sampler, omega)
    if kind == "snow":
        calls = vectors[f"{algorithm}_calls_first_last_n"].tolist()
        assert first_last_count(estimates) == calls
    else:
        assert [t - 1 for t in estimates] == vectors[f"{algorithm}_calls"].tolist()

    # One level low, our D is where the code is at every step.
    theirs, last = one_level_low(toy, D, x_T, sampler, omega)
    assert worst(toy(x_T, torch.full((len(x0),), T)), vectors[f"{algorithm}_direct"]) <= TOLERANCE
    for call, wanted in zip(
        vectors[f"{algorithm}_xs_after_call"], vectors[f"{algorithm}_xs"], strict=True
    ):
        assert worst(theirs[int(call)], wanted) <= TOLERANCE, call
    assert worst(theirs[-1], vectors[f"{algorithm}_final"]) <= TOLERANCE
    assert worst(theirs[1], vectors[f"{algorithm}_metric_degraded_Xts0"]) <= TOLERANCE
    assert worst(last, vectors[f"{algorithm}_metric_sampled_X0slast"]) <= TOLERANCE

    def perfect(x: Tensor, t: Tensor) -> Tensor:
        return x0

    # With a perfect restorer the difference is one level, kept to the end by Algorithm 2.
    theirs, _ = one_level_low(perfect, D, x_T, sampler, omega)
    ours = [step.x_s for step in sample_steps(perfect, D, x_T, omega, sampler=sampler)]
    for k in (1, T // 2, T - 1):
        assert worst(ours[k - 1], of_level(D, x0, T - k, omega)) < 2e-6
    assert worst(ours[-1], x0) < 2e-6
    if sampler == "naive":
        assert worst(theirs[1], of_level(D, x0, T - 2, omega)) < 2e-6
        assert worst(theirs[-1], x0) < 2e-6
    else:
        missed = of_level(D, x0, T, omega) - of_level(D, x0, T - 1, omega)
        assert worst(theirs[-1], x0 + missed) < 2e-6
        assert float(missed.abs().max()) > 0.03
