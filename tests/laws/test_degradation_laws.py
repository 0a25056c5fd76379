"""Laws of every degradation, built-in or registered later: parametrised over the registry."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from colddiff.degradations import DEGRADATIONS, Degradation, DegradationSpec, build_degradation
from colddiff.errors import SpecError
from colddiff.rng import stream
from colddiff.types import ImageShape
from tests.laws.cases import SHAPES, full, images, name, omega, severities, specs

BATCH = 3

every_spec = pytest.mark.parametrize("spec", specs(), ids=name)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def rms(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean().sqrt())


@every_spec
@every_shape
def test_severity_zero_is_the_clean_image_bit_for_bit(
    spec: DegradationSpec, shape: ImageShape
) -> None:
    D, x0 = spec.build(shape), images(shape, BATCH)
    drawn = omega(D, BATCH)
    assert torch.equal(D.degrade(x0, full(BATCH, 0), drawn), x0)
    assert torch.equal(D.observe(x0, full(BATCH, 0), drawn), x0)
    # Also next to degraded images, and for values that arithmetic would round.
    mixed = torch.tensor([0, spec.num_timesteps, 0])
    assert torch.equal(D.degrade(x0 / 3, mixed, drawn)[[0, 2]], (x0 / 3)[[0, 2]])


@every_spec
@every_shape
def test_each_image_has_its_own_severity_and_its_own_row_of_omega(
    spec: DegradationSpec, shape: ImageShape
) -> None:
    D = spec.build(shape)
    t = torch.tensor(severities(spec))
    x0, drawn = images(shape, len(t)), omega(D, len(t))
    together = D.degrade(x0, t, drawn)
    for i in range(len(t)):
        alone = D.degrade(x0[i : i + 1], t[i : i + 1], {k: v[i : i + 1] for k, v in drawn.items()})
        assert torch.allclose(together[i], alone[0], rtol=0, atol=1e-6)


@every_spec
def test_the_same_omega_gives_the_same_image_and_nothing_else_is_random(
    spec: DegradationSpec,
) -> None:
    D, x0 = spec.build(SHAPES[0]), images(SHAPES[0], BATCH)
    drawn, t = omega(D, BATCH), full(BATCH, spec.num_timesteps)
    kept = {key: value.clone() for key, value in drawn.items()}
    first = D.degrade(x0, t, drawn)
    torch.manual_seed(99)
    np.random.seed(99)  # the global generators must not matter
    assert torch.equal(D.degrade(x0, t, drawn), first)
    assert torch.equal(spec.build(SHAPES[0]).degrade(x0, t, drawn), first)
    assert all(torch.equal(drawn[key], kept[key]) for key in kept), "omega is not changed in place"


@every_spec
def test_row_i_of_a_draw_depends_on_generator_i_only(spec: DegradationSpec) -> None:
    D = spec.build(SHAPES[0])
    if D.omega_images:
        with pytest.raises(SpecError, match=r"pass omega=\{"):
            D.draw(2, rng=stream(0, "a"))
        return
    drawn = D.draw(3, rng=[stream(7, "a", i) for i in range(3)])
    assert set(drawn) == set(D.omega_names)
    row = D.draw(1, rng=[stream(7, "a", 2)])
    for key, values in drawn.items():
        assert len(values) == 3
        assert torch.equal(values[2:], row[key])
        assert values.dtype in (torch.float32, torch.int64, torch.bool)
        shape = D.omega_shape(key)
        assert shape is not None, "a drawn entry states its shape"
        assert values.shape[1:] == shape
    if D.omega_names:
        assert any(not torch.equal(values[0], values[1]) for values in drawn.values())


@every_spec
def test_one_generator_or_a_torch_generator_will_do(spec: DegradationSpec) -> None:
    D = spec.build(SHAPES[0])
    if D.omega_images:
        return  # no generator makes them: test_row_i_of_a_draw_depends_on_generator_i_only
    x0, t = images(SHAPES[0], 2), full(2, spec.num_timesteps)
    for make in (
        lambda seed: stream(seed, "a"),
        lambda seed: torch.Generator().manual_seed(seed),
    ):
        one, again, other = (D.draw(2, rng=make(seed)) for seed in (1, 1, 2))
        assert torch.equal(D.degrade(x0, t, one), D.degrade(x0, t, again))
        if D.omega_names:
            assert any(not torch.equal(one[key], other[key]) for key in one)
            assert any(not torch.equal(values[0], values[1]) for values in one.values())


@every_spec
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_dtype_and_device_are_those_of_the_images(
    spec: DegradationSpec, dtype: torch.dtype
) -> None:
    D, x0 = spec.build(SHAPES[0]), images(SHAPES[0], BATCH).to(dtype)
    t = torch.tensor([1, spec.num_timesteps // 2, spec.num_timesteps])
    drawn = omega(D, BATCH)
    x_t = D.degrade(x0, t, drawn)
    assert (x_t.dtype, x_t.device, x_t.shape) == (dtype, x0.device, x0.shape)
    assert D.observe(x0, t, drawn).dtype == dtype
    # The operator itself works in single precision or better: only the result is rounded.
    exact = D.degrade(x0.double(), t, drawn)
    size = float(exact.abs().max())
    assert rms(x_t.double(), exact) <= size * (1e-12 + torch.finfo(dtype).eps / 2)


@every_spec
def test_autocast_does_not_reach_the_operator(spec: DegradationSpec) -> None:
    D, x0 = spec.build(SHAPES[0]), images(SHAPES[0], BATCH)
    t, drawn = full(BATCH, max(1, spec.num_timesteps // 2)), omega(D, BATCH)
    expected = D.degrade(x0, t, drawn)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(D.degrade(x0, t, drawn), expected)


@every_spec
@every_shape
def test_every_severity_is_finite_and_removes_more(
    spec: DegradationSpec, shape: ImageShape
) -> None:
    """D(x0, t) moves away from x0 with t, by steps no longer than the way so far.

    A table read one entry off, or wrapped round at T, breaks one of the two.
    """
    D, T = spec.build(shape), spec.num_timesteps
    x0 = images(shape, 1).expand(T + 1, -1, -1, -1)
    drawn = {k: v.expand(T + 1, *v.shape[1:]) for k, v in omega(D, 1).items()}
    x = D.degrade(x0, torch.arange(T + 1), drawn)
    assert torch.isfinite(x).all()
    away = [rms(x[t], x[0]) for t in range(T + 1)]
    if max(away) < 1e-6:
        assert (spec.kind, shape.channels) == ("decolor", 1), "only grey has no colour to lose"
        return
    for t in range(T):
        assert away[t + 1] >= away[t] - 0.1 * max(away)
        assert rms(x[t + 1], x[t]) <= max(away[t], away[t + 1]) * 1.05 + 1e-6


@every_spec
def test_a_gradient_passes_through_the_operator_after_it_was_used_for_sampling(
    spec: DegradationSpec,
) -> None:
    D, x0 = spec.build(SHAPES[0]), images(SHAPES[0], 2)
    t, drawn = full(2, 1), omega(D, 2)
    with torch.inference_mode():
        D.degrade(x0, t, drawn)
    x0.requires_grad_()
    (gradient,) = torch.autograd.grad(D.degrade(x0, t, drawn).sum(), x0)
    assert torch.isfinite(gradient).all()


@every_spec
def test_the_spec_round_trips_through_json(spec: DegradationSpec) -> None:
    data = json.loads(json.dumps(spec.to_dict()))
    assert DEGRADATIONS.parse(data) == spec
    D, x0 = build_degradation(data, SHAPES[0]), images(SHAPES[0], 2)
    t, drawn = full(2, spec.num_timesteps), omega(D, 2)
    assert torch.equal(D.degrade(x0, t, drawn), spec.build(SHAPES[0]).degrade(x0, t, drawn))


@every_spec
def test_observe_rounds_to_eight_bit_where_the_spec_says_so(spec: DegradationSpec) -> None:
    D, x0 = spec.build(SHAPES[0]), images(SHAPES[0], BATCH)
    t, drawn = full(BATCH, max(1, spec.num_timesteps // 2)), omega(D, BATCH)
    plain, observed = D.degrade(x0, t, drawn), D.observe(x0, t, drawn)
    if not getattr(spec, "quantise", False):
        assert torch.equal(observed, plain)
        return
    levels = (observed + 1) * 127.5
    assert torch.allclose(levels, levels.round(), atol=1e-4)
    assert (observed - plain).abs().max() <= 1 / 255 + 1e-6


@every_spec
def test_what_cannot_be_meant_is_refused_in_one_line(spec: DegradationSpec) -> None:
    shape = SHAPES[0]
    D, x0, T = spec.build(shape), images(shape, 2), spec.num_timesteps
    t, drawn = full(2, 1), omega(D, 2)

    def refused(match: str, *args: Any) -> None:
        with pytest.raises(SpecError, match=match) as caught:
            D.degrade(*args)
        assert "\n" not in str(caught.value)

    refused(f"severity {T + 1} is outside 0..{T}", x0, full(2, T + 1), drawn)
    refused("severity -1 is outside", x0, full(2, -1), drawn)
    refused("t must be int64", x0, t.float(), drawn)
    refused("t must be int64", x0, t[:1], drawn)
    refused("NaN or inf", x0 * float("nan"), t, drawn)
    refused("must be floating", (x0 * 100).to(torch.uint8), t, drawn)
    refused("built for images", x0[:, :, 1:], t, drawn)
    refused("built for images", x0.repeat(1, 2, 1, 1), t, drawn)
    for key, values in drawn.items():
        rest = {k: v for k, v in drawn.items() if k != key}
        refused(f"omega has no '{key}'", x0, t, rest)
        refused(f"omega\\['{key}'\\] must be", x0, t, {**rest, key: values[:1]})
        refused(f"omega\\['{key}'\\] must be", x0, t, {**rest, key: values.unsqueeze(1)})
        if values.is_floating_point():
            refused("NaN or inf", x0, t, {**rest, key: values * float("nan")})


@every_spec
def test_moving_to_a_dtype_beforehand_changes_nothing(spec: DegradationSpec) -> None:
    x0, t = images(SHAPES[0], 2), full(2, spec.num_timesteps)
    D: Degradation[Any] = spec.build(SHAPES[0])
    drawn = omega(D, 2)
    expected = D.degrade(x0, t, drawn)
    assert torch.equal(spec.build(SHAPES[0]).to("cpu").degrade(x0, t, drawn), expected)


@every_spec
def test_no_value_is_read_back_from_the_device(spec: DegradationSpec) -> None:
    """On the meta device there are no values: what would wait for a GPU fails here."""
    D, x0 = spec.build(SHAPES[0]), images(SHAPES[0], 2).to("meta")
    drawn = {key: value.to("meta") for key, value in omega(D, 2).items()}
    for t in (full(2, 1), full(2, 1).to("meta")):
        x_t = D.observe(x0, t, drawn)
        assert (x_t.device.type, x_t.shape) == ("meta", x0.shape)
        D.estimate_omega(x_t, x0, t)


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_the_tables_of_three_hundred_severities_take_less_than_a_second(kind: str) -> None:
    T = DEGRADATIONS[kind].model_validate({}).num_timesteps
    try:
        build_degradation({"kind": kind, "num_timesteps": 300}, ImageShape(3, 128, 128))
        T = 300
    except SpecError:
        pass  # more steps than an image of 128 px has halvings
    D = build_degradation({"kind": kind, "num_timesteps": T}, ImageShape(3, 128, 128))
    began = time.thread_time()  # other processes, and BLAS's idle threads, do not count
    D.to("cpu")
    assert time.thread_time() - began < 1


def test_an_empty_batch_is_no_special_case() -> None:
    for kind in DEGRADATIONS:
        D = build_degradation({"kind": kind}, SHAPES[0])
        nothing = torch.empty(0, *SHAPES[0].chw)
        drawn = {key: torch.empty(0, *D.omega_shape(key) or ()) for key in D.omega_names}
        assert D.degrade(nothing, torch.empty(0, dtype=torch.int64), drawn).shape == nothing.shape
