"""D(x0, t) against the arrays the paper's code produced, to 2e-5 (its own float32 drift)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from colddiff.degradations import Degradation, build_degradation
from colddiff.degradations.blur import gaussian
from colddiff.degradations.mixing import alphas_bar
from colddiff.degradations.snow import WEATHERS, zoomed
from colddiff.schedules import SCHEDULES
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
    sigmas = SCHEDULES.parse(BLURS[name]["sigma"]).entries(D.num_timesteps)
    for i, wanted in zip(vectors.get("kernel1d_idx", [0]), vectors["kernel1d"], strict=True):
        assert np.abs(gaussian(len(wanted), float(sigmas[i])) - wanted).max() <= 1e-7
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


INPAINT = {
    "kind": "inpaint", "num_timesteps": 50, "centre": "random", "quantise": True,
    "sigma": {"kind": "linear", "start": 1.1, "step": 0.1},
}  # fmt: skip


def centres(vectors: Mapping[str, Any], n: int, prefix: str = "") -> Tensor:
    """Mask centres from the code's crop offsets: n - 1 - offset, which may be -1."""
    offsets = np.stack([vectors[f"{prefix}rand_row"], vectors[f"{prefix}rand_col"]], axis=1)
    return torch.from_numpy((n - 1 - offsets).astype(np.float32))


def differing(x: Any, levels: Any, ties: Any) -> int:
    """Values of ``x`` on other 8-bit levels, where float32 round-off could not decide a tie."""
    differ = np.rint((np.asarray(x, dtype=np.float64) + 1) * 127.5) != levels
    return int((differ & (np.abs(ties - np.rint(ties)) > 1e-4)).sum())


@pytest.mark.parametrize("name", ["inpaint_cifar10_random_init11", "inpaint_mnist_random_init11"])
def test_inpaint(golden: Golden, name: str) -> None:
    vectors = golden(name)
    x0 = torch.from_numpy(vectors["x0"])
    omega = {"centre": centres(vectors, 32)}
    sigmas = SCHEDULES.parse(INPAINT["sigma"]).entries(50)
    assert vectors["sigma_first_last"] == pytest.approx(sigmas[[0, -1]])
    given = [vectors["mask_centre_row"], vectors["mask_centre_col"]]
    assert np.array_equal(omega["centre"].numpy(), np.stack(given, axis=1))
    D = built(INPAINT, x0)
    for i, level in enumerate(vectors["levels"]):
        # The code stacks its mask to three channels, whatever the image has; each is our one.
        wanted, quantised = vectors["D_continuous"][i], vectors["D_quantised"][i]
        ours = of_level(D, x0, level, omega)
        assert worst(ours.expand(-1, 3, -1, -1), wanted) <= TOLERANCE, level
        mask = of_level(D, torch.ones_like(x0[:, :1]).expand_as(x0), level, omega)
        assert worst(mask[:, :1], vectors["cum_mask"][i]) <= TOLERANCE
        t = torch.full((len(x0),), int(level))
        observed = D.observe(x0, t, omega).expand(-1, 3, -1, -1)
        exact = (wanted.astype(np.float64) + 1) * 127.5
        assert differing(observed, np.rint(exact), ties=exact - 0.5) == 0, "ours: to nearest"
        assert differing(quantised, np.trunc(exact), ties=exact) == 0, "theirs: toward zero"
        assert differing(quantised, np.rint(exact), ties=exact) > 100


def test_fade_to_colour(golden: Golden) -> None:
    vectors = golden("inpaint_generation_small_T60_N32")
    x0 = torch.from_numpy(vectors["x0"])
    omega = {"colour": torch.from_numpy(vectors["colours"])}
    for reverse in (True, False):
        D = built({**FADE, "reverse": reverse}, x0)
        for level, wanted in zip(
            vectors["D_levels"], vectors["reverse_D" if reverse else "forward_D"], strict=True
        ):
            assert worst(of_level(D, x0, level, omega), wanted) <= TOLERANCE, level
    D = built(FADE, x0)
    ones = {"colour": torch.ones(len(x0), 3)}
    for index, wanted in zip(
        vectors["reverse_idx"], vectors["reverse_one_minus_alphas"], strict=True
    ):
        weight = of_level(D, torch.zeros_like(x0), index + 1, ones)
        assert worst(weight[0, 0], wanted) <= TOLERANCE, index


FADE = {
    "kind": "fade_to_colour", "num_timesteps": 60, "reverse": True,
    "sigma": {"kind": "linear", "start": 0.15, "step": 0.15},
}  # fmt: skip


def test_downsample(golden: Golden) -> None:
    vectors = golden("sr_mnist_cifar_factor2_T3_N32")
    x0 = torch.from_numpy(vectors["x0"])
    D = built({"kind": "downsample", "num_timesteps": 3}, x0)
    for level, wanted in zip(vectors["levels"], vectors["D"], strict=True):
        assert worst(of_level(D, x0, level), wanted) <= TOLERANCE, level


def snow_omega(base: Any, vertical: Any, batch: int) -> dict[str, Tensor]:
    """The code draws one layer per batch: here each image is given the same."""
    return {
        "base": torch.from_numpy(base).expand(batch, -1, -1),
        "vertical": torch.tensor([bool(vertical)]).expand(batch),
    }


def test_snow(golden: Golden) -> None:
    vectors = golden("snow_cifar10_level3_T200")
    x0 = torch.from_numpy(vectors["x0"])
    # What the code drew with numpy's normal(0.55, 0.3), before and after its zoom.
    base = zoomed(vectors["noise_raw_f64"], 2.5)
    assert np.abs(base - vectors["base_f64"]).max() < 1e-14
    assert bool(vectors["vertical"]) == bool(vectors["orientation_u"] > 0.5)
    omega = snow_omega(base, vectors["vertical"], len(x0))
    weather = WEATHERS[3]
    assert vectors["thres_first_last"] == pytest.approx(weather.threshold)
    assert vectors["mbsigma_first_last"] == pytest.approx(weather.streak)
    brightness = np.linspace(*weather.brightness, 200)[vectors["levels"] - 1]
    assert vectors["br_coef"] == pytest.approx(brightness)
    D = built({"kind": "snow", "num_timesteps": 200, "level": 3}, x0)
    bleaching = built({"kind": "snow", "fix_brightness": False}, x0)
    for i, level in enumerate(vectors["levels"]):
        ours = of_level(D, x0, level, omega)
        assert worst(ours, vectors["D_fix_brightness"][i]) <= TOLERANCE, level
        ours = of_level(bleaching, x0, level, omega)
        assert worst(ours, vectors["D_with_brightness"][i]) <= TOLERANCE, level
        # Of a black image 2 clip(L + rot180(L)) - 1 is left.
        layer = torch.from_numpy(vectors["snow_layers"][i])
        left = of_level(D, -torch.ones_like(x0), level, omega)[0, 0]
        assert worst(left, 2 * (layer + layer.flip(0, 1)).clamp(0, 1) - 1) <= TOLERANCE


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_snow_of_every_level(golden: Golden, level: int) -> None:
    vectors = golden("snow_fixed_seed123321_levels1to4_T10_N32")
    x0 = torch.from_numpy(vectors["x0"])
    omega = snow_omega(vectors[f"level{level}_base"], vectors[f"level{level}_vertical"], 1)
    D = built({"kind": "snow", "num_timesteps": 10, "level": level}, x0)
    for t, wanted in zip((1, 5, 10), vectors[f"level{level}_D_T10_t1_5_10"], strict=True):
        assert worst(of_level(D, x0, t, omega), wanted) <= TOLERANCE, t


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        ("D", {}),
        ("constant0.9_total1_D", {"schedule": "constant", "ema_factor": 0.9}),
        ("constant0.9_total0_D", {"schedule": "constant", "total_remove": False}),
    ],
)
def test_decolor(golden: Golden, key: str, fields: dict[str, Any]) -> None:
    vectors = golden("decolor_linear_T20")
    x0 = torch.from_numpy(vectors["x0"])
    D = built({"kind": "decolor", "num_timesteps": 20, **fields}, x0)
    for level, wanted in zip(vectors["levels"], vectors[key], strict=True):
        assert worst(of_level(D, x0, level), wanted) <= TOLERANCE, level


def test_each_step_of_decolor_keeps_what_the_codes_step_keeps(golden: Golden) -> None:
    """Its factors e_i are the ratios of our closed form's parts of the colour."""
    factors = golden("decolor_linear_T20")["step_ema_factors"]
    red = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1)
    D = built({"kind": "decolor", "num_timesteps": 20}, red)
    states = D.degrade(red.expand(21, -1, -1, -1), torch.arange(21))
    kept = (states[:, 0] - states[:, 1]).flatten().double()
    assert np.abs((kept[1:] / kept[:-1]).numpy() - factors).max() <= 1e-6


def cie_lab(rgb: Any) -> Any:
    """[B, 3, H, W] of values in [0, 1] to CIE L*a*b* (sRGB, D65), in float64."""
    rgb = np.asarray(rgb, dtype=np.float64)
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    to_xyz = np.array(
        [
            [0.412453, 0.357580, 0.180423],
            [0.212671, 0.715160, 0.072169],
            [0.019334, 0.119193, 0.950227],
        ]
    )
    white = np.array([0.95047, 1.0, 1.08883])
    ratio = np.einsum("dc,bchw->bdhw", to_xyz, linear) / white[:, None, None]
    x, y, z = np.moveaxis(np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 4 / 29), 1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def test_the_codes_decolor_in_lab_is_ours_shown_in_lab(golden: Golden) -> None:
    """Its ``to_lab``, which no experiment uses, mixes in RGB too: L*a*b* is only how it answers."""
    vectors = golden("decolor_linear_T20")
    x0 = torch.from_numpy(vectors["x0"])
    D = built({"kind": "decolor", "num_timesteps": 20}, x0)
    for level, name in ((0, "lab_x0"), (10, "lab_D_t10")):
        shown = cie_lab((of_level(D, x0, level) + 1) / 2)
        # L is in 0..100: 2e-4 of that is 2e-6 of the range.
        assert np.abs(shown - vectors[name]).max() <= 2e-4
