"""What each kind of degradation refuses, in one line that names the field and the way out."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from colddiff.degradations import DEGRADATIONS, build_degradation
from colddiff.errors import SpecError
from colddiff.rng import stream
from colddiff.spec import Choices, Range, search_ranges
from colddiff.types import ImageShape

RGB32 = ImageShape(3, 32, 32)


@pytest.mark.parametrize(
    ("spec", "shape", "message"),
    [
        ({"kind": "blur", "kernel_size": 10}, RGB32, "kernel_size: must be odd, got 10; use 9 or"),
        (
            {"kind": "blur", "kernel_size": 15, "padding": "reflect"},
            ImageShape(1, 32, 7),
            "degradation.kernel_size: reflect padding of 7 px does not fit an image of 7 px; "
            "use at most kernel_size=13, or padding=circular",
        ),
        (
            {"kind": "blur", "sigma": {"kind": "constant", "value": -1}},
            RGB32,
            "degradation.sigma: must be positive and finite, is -1 at severity 1",
        ),
        ({"kind": "blur", "num_timesteps": 0}, RGB32, "num_timesteps: input should be greater"),
        (
            {"kind": "inpaint", "sigma": {"kind": "table", "values": [1.0]}},
            RGB32,
            "degradation.sigma.values: has 1 entries for num_timesteps=50",
        ),
        ({"kind": "inpaint", "centre": "corner"}, RGB32, "centre: input should be 'centred' or"),
        (
            {"kind": "fade_to_colour", "sigma": {"kind": "linear", "start": 1, "end": -1}},
            RGB32,
            "degradation.sigma: must be positive",
        ),
        (
            {"kind": "fade_to_colour", "colour_range": [0.5, -0.5]},
            RGB32,
            "colour_range: must be [low, high], got [0.5, -0.5]",
        ),
        ({"kind": "fade_to_colour", "colour_range": [0, 2]}, RGB32, "less than or equal to 1"),
        (
            {"kind": "downsample"},
            ImageShape(1, 28, 28),
            "degradation.num_timesteps: 3 steps by factor 2 need a height divisible by 8, "
            "got 28 px; use num_timesteps=2",
        ),
        (
            {"kind": "downsample", "factor": 3},
            ImageShape(1, 27, 32),
            "a width divisible by 27, got 32 px; use another factor or image size",
        ),
        ({"kind": "downsample", "factor": 1}, RGB32, "factor: input should be greater than"),
        ({"kind": "snow", "level": 5}, RGB32, "level: input should be 1, 2, 3 or 4, got 5"),
        (
            {"kind": "snow", "fix_brightness": False},
            ImageShape(2, 32, 32),
            "degradation.fix_brightness: false needs the luma of 1 or 3 channels, got 2; use true",
        ),
        ({"kind": "decolor", "ema_factor": 1}, RGB32, "ema_factor: input should be less than 1"),
        ({"kind": "noise", "schedule": "sine"}, RGB32, "schedule: input should be 'cosine' or"),
        ({"kind": "animorph", "other": ""}, RGB32, "other: string should have at least 1 char"),
        ({"kind": "blurr"}, RGB32, "kind: no 'blurr'; did you mean 'blur'? (one of"),
        ({"kind": "blur", "sigm": 1}, RGB32, "sigm: no such field; did you mean 'sigma'?"),
    ],
    ids=lambda value: value.get("kind") if isinstance(value, dict) else None,
)
def test_a_spec_that_cannot_be_meant(spec: dict[str, Any], shape: ImageShape, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        build_degradation(spec, shape)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("centre", [(3.5, 2.0), (-2.0, 0.0), (0.0, 32.0)])
def test_a_mask_has_its_centre_on_a_pixel(centre: tuple[float, float]) -> None:
    D = build_degradation({"kind": "inpaint"}, RGB32)
    x0, t = torch.zeros(2, 3, 32, 32), torch.tensor([1, 2])
    omega = {"centre": torch.tensor([[4.0, 4.0], centre])}
    with pytest.raises(SpecError, match=r"whole pixels, -1\.\.31 by -1\.\.31, got \("):
        D.degrade(x0, t, omega)


def test_a_centred_mask_has_nothing_random() -> None:
    D = build_degradation({"kind": "inpaint", "centre": "centred"}, RGB32)
    assert D.draw(4, rng=stream(0, "a")) == {}
    x0 = torch.ones(1, 3, 32, 32)
    assert torch.equal(D.degrade(x0, torch.tensor([5])), D.degrade(x0, torch.tensor([5]), {}))


def test_colours_lie_in_their_range_and_cover_everything_at_the_end() -> None:
    spec = {"kind": "fade_to_colour", "num_timesteps": 40, "colour_range": [0.1, 0.3]}
    D = build_degradation(spec, RGB32)
    omega = D.draw(200, rng=stream(0, "a"))
    assert 0.1 <= omega["colour"].min() < 0.11
    assert 0.29 < omega["colour"].max() <= 0.3
    x_T = D.degrade(torch.rand(200, 3, 32, 32), torch.full((200,), 40), omega)
    assert torch.equal(x_T, omega["colour"][:, :, None, None].expand_as(x_T))


def test_a_collapsed_blur_ends_at_the_channel_means() -> None:
    for padding in ("circular", "reflect"):
        spec = {"kind": "blur", "padding": padding, "collapse_to_mean": True}
        D = build_degradation(spec, ImageShape(3, 24, 16))
        x0 = torch.rand(2, 3, 24, 16, dtype=torch.float64)
        x_T = D.degrade(x0, torch.full((2,), D.num_timesteps))
        assert torch.allclose(x_T, x0.mean(dim=(2, 3), keepdim=True).expand_as(x0), atol=1e-12)


def test_a_very_narrow_kernel_is_the_identity() -> None:
    """Widths whose square underflows are still widths."""
    for kind in ("blur", "inpaint"):
        spec = {
            "kind": kind,
            "num_timesteps": 2,
            "sigma": {"kind": "constant", "value": 1e-200},
        }
        D = build_degradation(spec, ImageShape(1, 16, 16))
        x0 = torch.rand(1, 1, 16, 16)
        omega = {"centre": torch.tensor([[0.0, -1.0]])}  # beside the image: nothing is hidden
        assert torch.equal(D.degrade(x0, torch.tensor([2]), omega), x0)


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_every_field_says_what_it_is_and_has_its_bounds(kind: str) -> None:
    spec = DEGRADATIONS[kind].model_validate({})
    for name, field in type(spec).model_fields.items():
        assert name == "kind" or field.description, f"{kind}.{name} has no description"
    ranges = search_ranges(spec)
    assert "num_timesteps" in ranges
    for path, found in ranges.items():
        for value in found.values if isinstance(found, Choices) else (found.low, found.high):
            data = spec.to_dict()
            inner = data
            *parents, last = path.split(".")
            for part in parents:
                inner = inner[part]
            whole = isinstance(found, Range) and found.integer
            inner[last] = int(value) if whole else value
            DEGRADATIONS.parse(data)  # what is worth searching is allowed


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_units_are_those_of_parameters_that_are_there(kind: str) -> None:
    D = build_degradation({"kind": kind}, RGB32)
    assert set(D.parameter_units) <= set(D.parameters())
