"""Terminals: what each kind draws, that a row is a function of its generator, what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from colddiff.degradations import DEGRADATIONS, Degradation, build_degradation
from colddiff.errors import CheckpointError, SpecError
from colddiff.rng import streams
from colddiff.sampling import sample
from colddiff.spec import parse
from colddiff.terminal import (
    TERMINALS,
    Gmm,
    Images,
    SolidColour,
    StandardNormal,
    Terminal,
    terminal_spec,
)
from colddiff.terminals.sklearn_mixture import fit_mixture
from colddiff.types import ImageShape

SHAPE = ImageShape(3, 8, 8)
BLUR = {"kind": "blur", "num_timesteps": 4, "kernel_size": 5, "collapse_to_mean": True}
SUPERRES = {"kind": "downsample", "num_timesteps": 2}


def built(spec: dict[str, Any], shape: ImageShape = SHAPE) -> Degradation[Any]:
    return build_degradation(spec, shape)


def mixture(features: int, components: int = 2) -> dict[str, Tensor]:
    rng = np.random.default_rng(5)
    factors = 0.05 * np.tril(rng.standard_normal((components, features, features)))
    return {
        "weights": torch.arange(1, components + 1, dtype=torch.float64),
        "means": torch.from_numpy(rng.uniform(-0.8, 0.8, (components, features))),
        "factors": torch.from_numpy(factors),
    }


def numbered(rng: Sequence[np.random.Generator]) -> Tensor:
    """The second set: image n is n / 10 all over."""
    numbers = [int(generator.integers(10)) for generator in rng]
    return torch.tensor(numbers).view(-1, 1, 1, 1).expand(-1, *SHAPE.chw) / 10


CASES: dict[str, tuple[dict[str, Any], Terminal]] = {
    "colours": (BLUR, Terminal(Gmm(grid=(1, 1)), mixture(3))),
    "low resolution": (SUPERRES, Terminal(Gmm(grid=(2, 2)), mixture(12))),
    "solid colour": ({"kind": "fade_to_colour", "num_timesteps": 5}, Terminal(SolidColour())),
    "noise": ({"kind": "noise", "num_timesteps": 5}, Terminal(StandardNormal())),
    "images": ({"kind": "animorph", "num_timesteps": 5}, Terminal(Images(), {}, numbered)),
}
every_case = pytest.mark.parametrize(("spec", "terminal"), CASES.values(), ids=CASES)


@every_case
def test_a_row_is_a_function_of_its_generator_alone(
    spec: dict[str, Any], terminal: Terminal
) -> None:
    D = built(spec)

    def draw(seeds: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        return terminal.draw(D, streams(7, "start", seeds), symmetry_noise=0.01)

    together, omega = draw([0, 1, 2, 3])
    assert (together.shape, together.dtype) == ((4, *SHAPE.chw), torch.float32)
    for i in range(4):
        alone, its_omega = draw([i])
        assert torch.equal(alone[0], together[i])
        assert all(torch.equal(its_omega[name][0], omega[name][i]) for name in omega)
    assert not torch.equal(together[0], together[1])


@every_case
def test_files_give_the_same_terminal(spec: dict[str, Any], terminal: Terminal) -> None:
    tensors = safetensors.torch.load(safetensors.torch.save(dict(terminal.tensors)))
    state = json.loads(json.dumps(terminal.state()))
    again = Terminal.from_files(tensors, state, terminal.images)
    D = built(spec)
    drawn = [t.draw(D, streams(0, "start", range(3)))[0] for t in (terminal, again)]
    assert torch.equal(*drawn)
    with pytest.raises(CheckpointError, match=r"terminal: kind .* has tensors"):
        Terminal.from_files({**tensors, "more": torch.zeros(1)}, state)


@every_case
def test_sampling_starts_from_it(spec: dict[str, Any], terminal: Terminal) -> None:
    D = built(spec)
    assert terminal_spec(D) == terminal.spec
    x_T, omega = terminal.draw(D, streams(0, "start", range(2)))
    x0 = torch.zeros_like(x_T)
    made = sample(lambda x, t: x0, D, x_T, omega)
    # Algorithm 2 with an R that says 0: what x_T has beyond D(0, T) stays, all else is gone.
    expected = x_T - D.degrade(x0, torch.full((2,), D.num_timesteps), omega)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)


def test_a_mixture_has_the_moments_it_was_given() -> None:
    tensors = mixture(3)
    x_T, omega = Terminal(Gmm(grid=(1, 1)), tensors).draw(
        built(BLUR), streams(0, "start", range(4000))
    )
    assert omega == {}
    assert torch.equal(x_T, x_T[:, :, :1, :1].expand_as(x_T))
    colours = x_T[:, :, 0, 0].double()
    weights = tensors["weights"] / tensors["weights"].sum()
    mean = weights @ tensors["means"]
    spread = tensors["means"] - mean
    covariance = torch.einsum("k,kij->ij", weights, tensors["factors"] @ tensors["factors"].mT)
    covariance = covariance + torch.einsum("k,ki,kj->ij", weights, spread, spread)
    torch.testing.assert_close(colours.mean(dim=0), mean, rtol=0, atol=0.05)
    torch.testing.assert_close(colours.T.cov(), covariance, rtol=0.1, atol=0.02)


def test_the_spread_of_a_mixture_is_its_factor_times_its_transpose_in_that_order() -> None:
    factor = torch.tensor([[0.5, 0.0, 0.0], [0.4, 0.1, 0.0], [-0.3, 0.2, 0.3]]).double()
    tensors = {"weights": torch.ones(1), "means": torch.zeros(1, 3), "factors": factor[None]}
    x_T, _ = Terminal(Gmm(grid=(1, 1)), tensors).draw(built(BLUR), streams(0, "start", range(4000)))
    covariance = x_T[:, :, 0, 0].double().T.cov()
    torch.testing.assert_close(covariance, factor @ factor.T, rtol=0, atol=0.02)
    # The other order is another distribution, and far away.
    assert (factor @ factor.T - factor.T @ factor).abs().max() > 0.2


def test_what_is_drawn_is_spread_as_the_features_it_was_fitted_to() -> None:
    rng = np.random.default_rng(3)
    mixing = np.array([[0.3, 0.2, 0.0], [0.0, 0.1, 0.0], [0.1, -0.2, 0.05]])
    features = rng.standard_normal((3000, 3)) @ mixing
    x_T, _ = Terminal(Gmm(grid=(1, 1)), fit_mixture([features])).draw(
        built(BLUR), streams(0, "start", range(4000))
    )
    drawn = x_T[:, :, 0, 0].double().T.cov().numpy()
    np.testing.assert_allclose(drawn, np.cov(features.T), atol=0.01)


def test_low_resolution_images_are_enlarged_by_nearest_pixel() -> None:
    x_T, _ = CASES["low resolution"][1].draw(built(SUPERRES), streams(0, "start", range(3)))
    small = x_T[:, :, ::4, ::4]
    assert torch.equal(x_T, torch.nn.functional.interpolate(small, scale_factor=4, mode="nearest"))
    # Their own D(x, T): a start that D leaves as it is.
    again = built({**SUPERRES, "interpolation": "area"}).degrade(x_T, torch.full((3,), 2))
    torch.testing.assert_close(again, x_T, rtol=0, atol=1e-6)


def test_starts_and_omega_agree() -> None:
    for name in ("noise", "images"):
        spec, terminal = CASES[name]
        x_T, omega = terminal.draw(built(spec), streams(0, "start", range(3)))
        assert torch.equal(x_T, omega["z"])
    spec, terminal = CASES["solid colour"]
    x_T, omega = terminal.draw(built(spec), streams(0, "start", range(200)))
    assert torch.equal(x_T, omega["colour"][:, :, None, None].expand_as(x_T))
    assert -0.5 <= float(x_T.min()) < -0.45
    assert 0.45 < float(x_T.max()) <= 0.5


def test_symmetry_noise_is_added_to_the_start_and_not_to_omega() -> None:
    spec, terminal = CASES["solid colour"]
    D = built(spec, SHAPE)
    clean, omega = terminal.draw(D, streams(0, "start", range(300)))
    noisy, same = terminal.draw(D, streams(0, "start", range(300)), symmetry_noise=0.002)
    assert torch.equal(omega["colour"], same["colour"])
    assert float((noisy - clean).std()) == pytest.approx(0.002, rel=0.02)
    with pytest.raises(SpecError, match="symmetry_noise"):
        terminal.draw(D, streams(0, "start", range(2)), symmetry_noise=-1)


@pytest.mark.parametrize("kind", sorted(DEGRADATIONS))
def test_what_a_kind_says_of_its_terminal_can_be_built(kind: str) -> None:
    D = built({"kind": kind}, ImageShape(3, 32, 32))
    default = D.terminal()
    assert (terminal_spec(D) is None) == (default is None)
    assert default is None or TERMINALS.parse(default).kind == default["kind"]


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ({"kind": "inpaint"}, (3, 32, 32)),
        ({"kind": "snow"}, (3, 32, 32)),
        ({"kind": "decolor"}, (3, 32, 32)),
        ({"kind": "fade_to_colour", "reverse": False}, (3, 32, 32)),
        ({"kind": "downsample", "num_timesteps": 1}, (3, 128, 128)),
    ],
)
def test_what_still_shows_the_image_or_is_too_large_has_none(
    spec: dict[str, Any], shape: tuple[int, int, int]
) -> None:
    assert terminal_spec(built(spec, ImageShape(*shape))) is None


def test_a_wish_is_completed_by_the_kinds_own() -> None:
    D = built(SUPERRES)
    wish = parse(Gmm, json.loads(json.dumps({"kind": "gmm", "components": 5, "grid": None})))
    assert terminal_spec(D, wish) == Gmm(components=5, grid=(2, 2))
    assert terminal_spec(D, Gmm(grid=(4, 4))) == Gmm(grid=(4, 4))
    assert terminal_spec(built({"kind": "decolor"}), Gmm(components=2)) == Gmm(components=2)


def test_what_does_not_belong_together_is_one_clear_error() -> None:
    rng = streams(0, "start", range(2))
    cases: list[tuple[dict[str, Any], Terminal, str]] = [
        (BLUR, Terminal(StandardNormal()), "degradation 'blur' has no omega entry 'z'"),
        (BLUR, Terminal(Gmm(grid=(3, 3)), mixture(3)), "terminal.grid: 3x3 blocks do not divide"),
        (BLUR, Terminal(Gmm(grid=(1, 1)), mixture(12)), "the mixture has 12 features, .* have 3"),
        ({"kind": "animorph"}, Terminal(Images()), "omega z holds images of a second set"),
    ]
    for spec, terminal, message in cases:
        with pytest.raises(SpecError, match=message):
            terminal.draw(built(spec), rng)
    with pytest.raises(SpecError, match="one for each image"):
        CASES["noise"][1].draw(built({"kind": "noise"}), np.random.default_rng(0))
    with pytest.raises(CheckpointError, match="terminal: kind: no 'gm'; did you mean 'gmm'"):
        Terminal.from_files({}, {"kind": "gm"})
    with pytest.raises(SpecError, match="components"):
        parse(Gmm, {"components": 0})
