"""D(x0, t) against the arrays the paper's code produced, to 2e-5 (its own float32 drift)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from colddiff.degradations import Degradation, build_degradation
from colddiff.degradations.mixing import alphas_bar
from colddiff.types import ImageShape
from tests.golden.conftest import Golden

TOLERANCE = 2e-5


def of_level(
    D: Degradation[Any], x0: Tensor, level: int, omega: dict[str, Tensor] | None = None
) -> Tensor:
    return D.degrade(x0, torch.full((len(x0),), int(level), dtype=torch.int64), omega)


def built(spec: dict[str, Any], x0: Tensor) -> Degradation[Any]:
    return build_degradation(spec, ImageShape(*x0.shape[1:]))


def worst(ours: Tensor, golden: Any) -> float:
    return float((ours.double() - torch.from_numpy(np.asarray(golden)).double()).abs().max())


BLURS: dict[str, dict[str, Any]] = {
    "blur_mnist_constant_k11_s7": {
        "num_timesteps": 40, "kernel_size": 11, "sigma": {"kind": "constant", "value": 7.0},
    },
    "blur_cifar10_special6": {
        "num_timesteps": 50, "kernel_size": 11, "padding": "reflect",
        "sigma": {"kind": "linear", "start": 0.35, "step": 0.01},
    },
    "blur_celeba_expreflect_k15": {
        "num_timesteps": 200, "kernel_size": 15, "padding": "reflect",
        "sigma": {"kind": "exponential", "rate": 0.01},
    },
}  # fmt: skip


@pytest.mark.parametrize("name", BLURS)
def test_blur(golden: Golden, name: str) -> None:
    vectors = golden(name)
    x0 = torch.from_numpy(vectors["x0"])
    D = built({"kind": "blur", **BLURS[name]}, x0)
    for level, wanted in zip(vectors["levels"], vectors["D"], strict=True):
        assert worst(of_level(D, x0, level), wanted) <= TOLERANCE, level
    if "D_mixed" in vectors:
        mixed = D.degrade(x0, torch.from_numpy(vectors["t_idx_mixed"]) + 1)
        assert worst(mixed, vectors["D_mixed"]) <= TOLERANCE


def test_our_rounding_differs_from_the_codes_truncation_exactly_where_it_should(
    golden: Golden,
) -> None:
    """The code truncates toward zero, so that 63 of 256 8-bit values lose a level; we do not."""
    vectors = golden("quantiser_discrete")
    spec = {"kind": "blur", "num_timesteps": 1, "quantise": True, "kernel_size": 1}

    def observed(values: Any) -> Any:
        x = torch.from_numpy(values).view(1, 1, 1, -1)
        # A kernel of one tap is the identity: what is left is the rounding.
        seen = built(spec, x).observe(x, torch.ones(1, dtype=torch.int64))
        return seen.numpy().ravel()

    k = np.arange(256)
    assert np.array_equal(vectors["k_in"], observed(vectors["k_in"])), "8-bit images stay put"
    changed = np.flatnonzero(vectors["int_out"] != k)
    assert len(changed) == vectors["n_changed"] == 63
    assert np.array_equal(vectors["int_out"][changed], changed - 1)
    ours = (observed(vectors["x"]) + 1) * 127.5
    theirs = (vectors["q"] + 1) * 127.5
    exact = (vectors["x"].astype(np.float64) + 1) * 127.5
    assert np.abs(ours - exact).max() <= 0.5 + 1e-4, "to nearest, and no clamp"
    assert (np.abs(theirs) <= np.abs(exact) + 1e-4).all(), "toward zero"
    assert np.abs(theirs - exact).max() > 0.99


def test_noise(golden: Golden) -> None:
    vectors = golden("hot_noise_cosine_T200")
    x0, z = torch.from_numpy(vectors["x0"]), torch.from_numpy(vectors["z"])
    D = built({"kind": "noise", "num_timesteps": 200}, x0)
    for level, wanted in zip(vectors["levels"], vectors["D"], strict=True):
        assert worst(of_level(D, x0, level, {"z": z}), wanted) <= TOLERANCE, level
    for T in (50, 200, 1000):
        wanted = vectors[f"alphas_cumprod_T{T}"]
        assert np.abs(alphas_bar("cosine", T) - wanted).max() <= 1e-6


def test_animorph(golden: Golden) -> None:
    vectors = golden("animorphosis_cosine_T200")
    x0 = torch.from_numpy(vectors["x0"])
    omega = {"z": torch.from_numpy(vectors["z_animal"])}
    D = built({"kind": "animorph", "num_timesteps": 200}, x0)
    for level, wanted in zip(vectors["levels"], vectors["D"], strict=True):
        assert worst(of_level(D, x0, level, omega), wanted) <= TOLERANCE, level
