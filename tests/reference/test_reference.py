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
from colddiff.types import ImageShape
from tests.reference import blur, noise
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
@given(seed=seeds, h=side, w=side, c=channels, T=st.integers(1, 60), data=st.data())
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
