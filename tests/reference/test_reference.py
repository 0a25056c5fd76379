"""Every kind against an independent sequential float64 implementation of the paper's formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from colddiff.degradations import build_degradation
from colddiff.degradations.snow import zoomed
from colddiff.types import ImageShape
from tests.reference import blur, decolor, downsample, masks, noise, snow
from tests.reference.blur import Array

few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
side = st.integers(6, 24)
channels = st.sampled_from([1, 3])
seeds = st.integers(0, 2**32 - 1)


def random_images(seed: int, batch: int, *chw: int) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, (batch, *chw))


def ours(
    spec: dict[str, Any], x0: NDArray[Any], t: list[int], omega: dict[str, Any] | None = None
) -> NDArray[Any]:
    """D(x0, t) of the library: one image at many severities, [len(t), C, H, W]."""
    D = build_degradation(spec, ImageShape(*x0.shape[1:]))
    drawn = {
        name: torch.as_tensor(value).expand(len(t), *np.shape(value)[1:])
        for name, value in (omega or {}).items()
    }
    images = torch.from_numpy(np.broadcast_to(x0, (len(t), *x0.shape[1:])).copy())
    return np.asarray(D.degrade(images, torch.tensor(t), drawn).numpy())


def chosen(T: int) -> list[int]:
    return sorted({0, 1, T // 2, T - 1, T})


@few
@given(seed=seeds, h=side, w=side, c=channels, T=st.integers(1, 300), data=st.data())
def test_blur(seed: int, h: int, w: int, c: int, T: int, data: st.DataObject) -> None:
    padding = data.draw(st.sampled_from(["circular", "reflect"]))
    size = 2 * data.draw(st.integers(0, min(h, w, 12) - 1)) + 1
    start, step = data.draw(st.floats(0.2, 5)), data.draw(st.floats(0, 0.1))
    collapse = data.draw(st.booleans())
    spec = {
        "kind": "blur",
        "num_timesteps": T,
        "kernel_size": size,
        "sigma": {"kind": "linear", "start": start, "step": step},
        "padding": padding,
        "collapse_to_mean": collapse,
    }
    x0, t = random_images(seed, 1, c, h, w), chosen(T)
    wanted = blur.states(x0[0], start + step * np.arange(T), size, padding, collapse)[t]
    assert np.abs(ours(spec, x0, t) - wanted).max() < 1e-10


@pytest.mark.parametrize("padding", ["circular", "reflect"])
def test_blur_in_single_precision_after_many_steps(padding: str) -> None:
    sigma = {"kind": "exponential", "rate": 0.01}
    for side, T, size, most in ((32, 50, 11, 1e-6), (128, 300, 27, 1e-5)):
        spec = {
            "kind": "blur", "num_timesteps": T, "kernel_size": size, "sigma": sigma,
            "padding": padding,
        }  # fmt: skip
        x0, t = random_images(0, 1, 1, side, side).astype(np.float32), [1, T // 2, T]
        wanted = blur.states(x0[0].astype(np.float64), np.exp(0.01 * np.arange(T)), size, padding)[
            t
        ]
        assert np.abs(ours(spec, x0, t) - wanted).max() < most
        assert np.abs(ours(spec, x0.astype(np.float64), t) - wanted).max() < 1e-12


@few
@given(
    kind=st.sampled_from(["noise", "animorph"]),
    schedule=st.sampled_from(["cosine", "linear"]),
    seed=seeds, h=side, w=side, c=channels, T=st.integers(1, 300),
)  # fmt: skip
def test_mixing(kind: str, schedule: str, seed: int, h: int, w: int, c: int, T: int) -> None:
    x0, t = random_images(seed, 2, c, h, w), chosen(T)
    spec = {"kind": kind, "num_timesteps": T, "schedule": schedule}
    wanted = np.stack([noise.state(x0[0], x0[1], s, schedule, T) for s in t])
    assert np.abs(ours(spec, x0[:1], t, {"z": x0[1:]}) - wanted).max() < 1e-10


@few
@given(seed=seeds, h=side, w=side, c=channels, T=st.integers(1, 300), data=st.data())
def test_inpaint(seed: int, h: int, w: int, c: int, T: int, data: st.DataObject) -> None:
    start, step = data.draw(st.floats(0.05, 4)), data.draw(st.floats(0, 0.2))
    random = data.draw(st.booleans())
    row, column = data.draw(st.integers(-1, h - 1)), data.draw(st.integers(-1, w - 1))
    if not random:
        # PAPER 3.2 gives n / 2 - 1 for even n; for odd n ours is the true middle.
        row, column = ((n - 1) // 2 for n in (h, w))
    spec = {
        "kind": "inpaint",
        "num_timesteps": T,
        "sigma": {"kind": "linear", "start": start, "step": step},
        "centre": "random" if random else "centred",
    }
    omega = {"centre": torch.tensor([[row, column]], dtype=torch.float32)} if random else {}
    x0, t = random_images(seed, 1, c, h, w), chosen(T)
    wanted = masks.inpainted(x0[0], (row, column), start + step * np.arange(T))[t]
    assert np.abs(ours(spec, x0, t, omega) - wanted).max() < 1e-10


@few
@given(seed=seeds, h=side, w=side, c=channels, T=st.integers(1, 300), data=st.data())
def test_fade_to_colour(seed: int, h: int, w: int, c: int, T: int, data: st.DataObject) -> None:
    start, step = data.draw(st.floats(0.05, 4)), data.draw(st.floats(0, 0.2))
    reverse = data.draw(st.booleans())
    spec = {
        "kind": "fade_to_colour",
        "num_timesteps": T,
        "sigma": {"kind": "linear", "start": start, "step": step},
        "reverse": reverse,
    }
    x0, t = random_images(seed, 1, c, h, w), chosen(T)
    colour = random_images(seed, 1, c)
    wanted = masks.faded(
        x0[0], colour[0], ((h - 1) // 2, (w - 1) // 2), start + step * np.arange(T), reverse
    )[t]
    assert np.abs(ours(spec, x0, t, {"colour": colour}) - wanted).max() < 1e-10


def test_the_middle_is_the_papers_for_even_sides() -> None:
    """63 for 128 px and 15 for 32 px; the mask is exactly 0 there, whatever its width."""
    for side, middle in ((128, 63), (32, 15)):
        spec = {"kind": "inpaint", "num_timesteps": 1, "centre": "centred"}
        x_1 = ours(spec, np.ones((1, 1, side, side)), [1])[0, 0]
        assert np.argwhere(x_1 == 0).tolist() == [[middle, middle]]


def test_centres_are_drawn_as_in_the_paper() -> None:
    """n - 1 - U{0..n}, both ends included: one more place than there are pixels."""
    D = build_degradation({"kind": "inpaint"}, ImageShape(1, 3, 5))
    drawn = D.draw(4000, rng=np.random.default_rng(0))["centre"]
    assert drawn.dtype == torch.float32
    for axis, n in ((0, 3), (1, 5)):
        values, counts = np.unique(drawn[:, axis].numpy(), return_counts=True)
        assert values.tolist() == list(range(-1, n))
        assert counts.min() > 0.8 * 4000 / (n + 1)


@few
@given(
    interpolation=st.sampled_from(["bicubic", "bilinear", "area"]),
    factor_and_T=st.sampled_from([(2, 1), (2, 3), (2, 4), (3, 1), (3, 2), (4, 1), (5, 1), (5, 2)]),
    seed=seeds, h=st.integers(1, 3), w=st.integers(1, 3), c=channels,
)  # fmt: skip
def test_downsample(
    interpolation: str, factor_and_T: tuple[int, int], seed: int, h: int, w: int, c: int
) -> None:
    factor, T = factor_and_T
    x0 = random_images(seed, 1, c, h * factor**T, w * factor**T)
    spec = {
        "kind": "downsample",
        "num_timesteps": T,
        "factor": factor,
        "interpolation": interpolation,
    }
    wanted = downsample.states(x0[0], factor, T, interpolation)
    assert np.abs(ours(spec, x0, list(range(T + 1))) - wanted).max() < 1e-10


def test_a_reduction_is_that_of_the_usual_resize() -> None:
    """A third witness for the kernels: torch's own resize, which the paper's code calls."""
    x0 = random_images(3, 1, 3, 24, 40)
    for interpolation in ("bicubic", "bilinear", "area"):
        align = {} if interpolation == "area" else {"align_corners": False}
        small = torch.nn.functional.interpolate(
            torch.from_numpy(x0), (12, 20), mode=interpolation, **align
        )
        wanted = torch.nn.functional.interpolate(small, (24, 40), mode="nearest-exact").numpy()
        spec = {"kind": "downsample", "num_timesteps": 1, "interpolation": interpolation}
        assert np.abs(ours(spec, x0, [1]) - wanted).max() < 1e-10


@few
@given(
    schedule=st.sampled_from(["linear", "constant"]),
    seed=seeds, h=side, w=side, c=channels, T=st.integers(1, 300),
    ema_factor=st.floats(0.05, 0.99), total_remove=st.booleans(),
)  # fmt: skip
def test_decolor(
    schedule: str, seed: int, h: int, w: int, c: int, T: int, ema_factor: float, total_remove: bool
) -> None:
    spec = {
        "kind": "decolor",
        "num_timesteps": T,
        "schedule": schedule,
        "ema_factor": ema_factor,
        "total_remove": total_remove,
    }
    x0, t = random_images(seed, 1, c, h, w), chosen(T)
    wanted = decolor.states(x0[0], T, schedule, ema_factor, total_remove)[t]
    assert np.abs(ours(spec, x0, t) - wanted).max() < 1e-10


@few
@given(
    seed=seeds, h=side, w=side, c=channels, T=st.integers(1, 300), level=st.integers(1, 4),
    vertical=st.booleans(), fix_brightness=st.booleans(),
)  # fmt: skip
def test_snow(
    seed: int, h: int, w: int, c: int, T: int, level: int, vertical: bool, fix_brightness: bool
) -> None:
    mean, zoom, *_ = snow.TABLE[level]
    base = snow.zoomed(np.random.default_rng(seed).normal(mean, 0.3, (h, w)), zoom)
    spec = {
        "kind": "snow",
        "num_timesteps": T,
        "level": level,
        "fix_brightness": fix_brightness,
    }
    x0, t = random_images(seed, 1, c, h, w), chosen(T)
    wanted = [snow.state(x0[0], base, vertical, s, level, T, fix_brightness) for s in t]
    omega = {"base": base[None], "vertical": torch.tensor([vertical])}
    assert np.abs(ours(spec, x0, t, omega) - np.stack(wanted)).max() < 1e-10


@few
@given(seed=seeds, h=st.integers(1, 40), w=st.integers(1, 40), zoom=st.sampled_from([2.5, 3]))
def test_the_zoom_of_snow(seed: int, h: int, w: int, zoom: float) -> None:
    noise = np.random.default_rng(seed).normal(0.5, 0.3, (h, w))
    assert np.abs(zoomed(noise, zoom) - snow.zoomed(noise, zoom)).max() < 1e-12


def test_snow_is_drawn_as_in_the_paper() -> None:
    """The base is the zoom of N(mean, 0.3^2), and half of all images get vertical streaks."""
    shape = ImageShape(3, 20, 28)
    for level in (1, 3):
        mean, zoom, *_ = snow.TABLE[level]
        D = build_degradation({"kind": "snow", "level": level}, shape)
        drawn = D.draw(1, rng=[np.random.default_rng(5)])
        rng = np.random.default_rng(5)
        noise = mean + 0.3 * rng.standard_normal((20, 28))
        assert np.abs(drawn["base"][0].numpy() - snow.zoomed(noise, zoom)).max() < 1e-6
        assert bool(drawn["vertical"][0]) == (rng.random() > 0.5)
    drawn = D.draw(400, rng=np.random.default_rng(0))
    assert drawn["vertical"].dtype == torch.bool
    assert 0.4 < drawn["vertical"].float().mean() < 0.6
