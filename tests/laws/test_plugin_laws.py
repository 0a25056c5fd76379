"""The laws as a library: every kind and the worked plugin keep them, each broken D is found out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from colddiff.degradations import DEGRADATIONS, Degradation, DegradationSpec
from colddiff.degradations.blur import BlurSpec
from colddiff.errors import SpecError
from colddiff.laws import LAWS, broken, check_laws
from colddiff.severity_profile import measure_severity_profile
from colddiff.spec import parse
from colddiff.spec.plugins import load_plugin, unload_plugin
from colddiff.synthetic import synthetic_images, synthetic_omega
from colddiff.types import Image, ImageShape, Omega, Severity
from tests.laws.cases import name, specs

KSPACE = Path(__file__).resolve().parents[2] / "infra/docs/own-degradation/kspace.py"
SHAPE = ImageShape(3, 16, 24)


@pytest.fixture(autouse=True, scope="module")
def _forgets_the_example() -> Iterator[None]:
    """Its kind would be in every later list of kinds."""
    yield
    unload_plugin(load_plugin(KSPACE))


class FadeSpec(DegradationSpec):
    """What the broken operators below are variations of; not registered by itself."""

    kind: Literal["laws-fade"] = "laws-fade"
    num_timesteps: int = 8
    operator: str = "Fade"

    def build(self, shape: ImageShape) -> Degradation[FadeSpec]:
        return OPERATORS[self.operator](self, shape)


class Fade(Degradation[FadeSpec]):
    """D(x, t) = (1 - t/T) x + (t/T) colour."""

    omega_names = ("colour",)

    def omega_shape(self, name: str) -> tuple[int, ...]:
        return (3, 1, 1)

    def _draw_row(self, rng: np.random.Generator) -> dict[str, Any]:
        return {"colour": rng.random((3, 1, 1), dtype=np.float32)}

    def weight(self, x0: Image, t: Severity) -> torch.Tensor:
        return (t / self.num_timesteps).to(x0.dtype).view(-1, 1, 1, 1)

    def _degrade(self, x0: Image, t: Severity, omega: Omega) -> Image:
        return torch.lerp(x0, omega["colour"].expand_as(x0), self.weight(x0, t))


class NotTheIdentity(Fade):
    def degrade(self, x0: Image, t: Severity, omega: Omega | None = None) -> Image:  # type: ignore[misc]
        return self._degrade(x0, t, {k: v.to(x0.dtype) for k, v in (omega or {}).items()}) * 1.0001


class AnotherDtype(Fade):
    def degrade(self, x0: Image, t: Severity, omega: Omega | None = None) -> Image:  # type: ignore[misc]
        return Degradation.degrade(self, x0, t, omega).float()


class Cancelling(Fade):
    def _degrade(self, x0: Image, t: Severity, omega: Omega) -> Image:
        return (super()._degrade(x0, t, omega) + 1e4) - 1e4


class Undefined(Fade):
    def _degrade(self, x0: Image, t: Severity, omega: Omega) -> Image:
        x = super()._degrade(x0, t, omega)
        return x / (t != 5).view(-1, 1, 1, 1).to(x.dtype)


class OverTheBatch(Fade):
    def _degrade(self, x0: Image, t: Severity, omega: Omega) -> Image:
        return torch.lerp(x0, x0.mean(dim=0, keepdim=True).expand_as(x0), self.weight(x0, t))


class OneSeverityForAll(Fade):
    def _degrade(self, x0: Image, t: Severity, omega: Omega) -> Image:
        return super()._degrade(x0, t.max().expand_as(t), omega)


class HiddenNoise(Fade):
    def _degrade(self, x0: Image, t: Severity, omega: Omega) -> Image:
        return super()._degrade(x0, t, omega) + 1e-3 * torch.randn_like(x0)


class DrawnWhenBuilt(Fade):
    serial = itertools.count()

    def __init__(self, spec: FadeSpec, shape: ImageShape) -> None:
        super().__init__(spec, shape)
        self.shift = 1e-3 * next(self.serial)

    def _degrade(self, x0: Image, t: Severity, omega: Omega) -> Image:
        return super()._degrade(x0, t, omega) + self.shift


class InPlace(Fade):
    def _degrade(self, x0: Image, t: Severity, omega: Omega) -> Image:
        omega["colour"].mul_(0.5)
        return super()._degrade(x0, t, omega)


class OneStreamForAll(Fade):
    stream = np.random.default_rng(0)

    def _draw_row(self, rng: np.random.Generator) -> dict[str, Any]:
        return super()._draw_row(self.stream)


class Raises(Fade):
    def _degrade(self, x0: Image, t: Severity, omega: Omega) -> Image:
        raise KeyError("a table that is not there")


FADES: list[type[Fade]] = [Fade, *Fade.__subclasses__()]
OPERATORS = {cls.__name__: cls for cls in FADES}


@pytest.fixture
def fade() -> Iterator[None]:
    DEGRADATIONS.register(FadeSpec)
    yield
    DEGRADATIONS.forget(__name__)


@pytest.mark.usefixtures("fade")
@pytest.mark.parametrize(
    ("operator", "law", "measured"),
    [
        ("NotTheIdentity", "identity_at_zero", (1e-6, 1e-3)),
        ("AnotherDtype", "image_in_image_out", (1, 100)),
        ("Cancelling", "precise", (1e-4, 1e-2)),
        ("Undefined", "finite", (3 * 16 * 24, 3 * 16 * 24)),
        ("OverTheBatch", "batch_independence", (0.01, 2)),
        ("OneSeverityForAll", "own_severity", (0.01, 2)),
        ("HiddenNoise", "same_omega_same_image", (1e-4, 1e-1)),
        ("DrawnWhenBuilt", "same_omega_same_image", (1e-4, 1)),
        ("InPlace", "arguments_unchanged", (1, 1)),
        ("OneStreamForAll", "own_generator", (1, 3)),
        ("HiddenNoise", "improved_restores", (1e-4, 1e-1)),
        ("NotTheIdentity", "naive_restores", (1e-6, 1e-3)),
    ],
)
def test_a_broken_operator_is_found_out_by_its_law_with_the_error_measured(
    operator: str, law: str, measured: tuple[float, float]
) -> None:
    assert not broken(check_laws(FadeSpec(), SHAPE)), "the unbroken one keeps all laws"
    (found,) = (f for f in check_laws(FadeSpec(operator=operator), SHAPE) if f.law == law)
    assert not found.holds
    assert measured[0] <= found.measured <= measured[1]


@pytest.mark.usefixtures("fade")
def test_an_exception_of_the_operator_breaks_the_law_by_name() -> None:
    found = broken(check_laws(FadeSpec(operator="Raises"), SHAPE))
    assert "finite" in {f.law for f in found}
    assert {f.problem for f in found} == {"KeyError: 'a table that is not there'"}


@pytest.mark.parametrize("spec", specs(), ids=name)
def test_every_kind_keeps_every_law(spec: DegradationSpec) -> None:
    found = check_laws(spec, ImageShape(3, 16, 24))
    assert len(found) == len(LAWS) == 11
    assert [f for f in found if not f.holds] == []


@pytest.mark.parametrize("shape", [SHAPE, ImageShape(1, 31, 20), ImageShape(1, 1, 8)], ids=str)
@pytest.mark.parametrize(
    "fields",
    [{}, {"jitter": 0, "centre": 0}, {"num_timesteps": 1}, {"num_timesteps": 200}],
    ids=str,
)
def test_the_worked_example_keeps_every_law(shape: ImageShape, fields: dict[str, Any]) -> None:
    load_plugin(KSPACE)
    spec = DEGRADATIONS.parse({"kind": "kspace", **fields})
    assert broken(check_laws(spec, shape)) == []


def kspace(**fields: Any) -> Degradation[Any]:
    load_plugin(KSPACE)
    return DEGRADATIONS.parse({"kind": "kspace", **fields}).build(ImageShape(1, 32, 20))


def kept_rows(D: Degradation[Any], omega: Omega, t: int) -> torch.Tensor:
    """What D leaves of each row of the 2-D FFT, [B, H]."""
    x0 = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 1, 32, 20)))
    x_t = D.degrade(x0, torch.full((3,), t), omega)
    before, after = (torch.fft.fft2(x)[:, 0] for x in (x0, x_t))
    ratio = after / before
    assert torch.allclose(ratio.imag, torch.zeros(()).double(), atol=1e-9)
    assert torch.allclose(ratio, ratio[:, :, :1].expand_as(ratio), atol=1e-9), "whole rows"
    kept: torch.Tensor = ratio.real[:, :, 0]
    return kept


def test_kspace_leaves_a_shrinking_set_of_rows_low_frequencies_last() -> None:
    D = kspace(keep=0.25, centre=0.1)
    omega = D.draw(3, rng=np.random.default_rng(1))
    before = torch.ones(3, 32).double()
    for t in (1, 8, 20, 32):
        rows = kept_rows(D, omega, t)
        assert ((rows > -1e-9) & (rows < 1 + 1e-9)).all()
        assert (rows <= before + 1e-6).all(), "what is gone stays gone"
        assert torch.allclose(rows[:, 1:], rows[:, 1:].flip(1), atol=1e-6), "k and -k go together"
        assert torch.allclose(rows[:, [0, 1]], torch.ones(()).double(), atol=1e-6)
        before = rows
    whole = before.round().sum(dim=1)
    assert torch.allclose(before.sum(dim=1), torch.full((3,), 1 + 0.25 * 32).double(), atol=1.01)
    assert (whole < 12).all()
    assert not torch.equal(before[0], before[1]), "an order of its own for each image"


def test_kspace_without_jitter_is_a_low_pass_and_linear() -> None:
    D = kspace(jitter=0)
    omega = D.draw(3, rng=np.random.default_rng(1))
    rows = kept_rows(D, omega, 16)[:, :17]
    assert (rows[:, 1:] <= rows[:, :-1] + 1e-9).all()
    a, b = (synthetic_images(D.shape, 3, seed).double() for seed in (1, 2))
    t = torch.tensor([3, 16, 32])
    together = D.degrade(2 * a - 3 * b, t, omega)
    assert torch.allclose(together, 2 * D.degrade(a, t, omega) - 3 * D.degrade(b, t, omega))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keep": 0}, "keep: .* greater than 0"),
        ({"jiter": 1}, "jiter: no such field; did you mean 'jitter'"),
        ({"centre": 1.0}, "centre: .* less than 1"),
    ],
)
def test_bad_fields_of_a_plugin_are_one_clear_line(fields: dict[str, Any], message: str) -> None:
    load_plugin(KSPACE)
    with pytest.raises(SpecError, match=message):
        DEGRADATIONS.parse({"kind": "kspace", **fields})


def test_removal_is_measured_between_states_and_from_the_original() -> None:
    T = 70  # more severities than one chunk, and not a multiple of it
    spec = parse(BlurSpec, {"num_timesteps": T, "sigma": {"kind": "constant", "value": 0.5}})
    D = spec.build(SHAPE)
    x0 = synthetic_images(SHAPE, 3)
    found = measure_severity_profile(D, x0, {})
    x = [D.degrade(x0, torch.full((3,), t)).double() for t in range(T + 1)]
    away = [float(((y - x0.double()) / 2).square().mean().sqrt()) for y in x]
    steps = [float(((y - z) / 2).square().mean().sqrt()) for z, y in itertools.pairwise(x)]
    np.testing.assert_allclose(found.rmse, away, atol=1e-6)
    np.testing.assert_allclose(found.steps, steps, atol=1e-6)
    assert found.largest_step == 1 + int(np.argmax(steps))
    assert found.roughness == pytest.approx(max(steps) / np.mean(steps), rel=1e-3)
    assert found.psnr(T) == pytest.approx(-20 * np.log10(away[-1]), abs=1e-3)
    assert found.num_images == 3
    assert found.dead == []


@pytest.mark.usefixtures("fade")
def test_severities_that_change_nothing_are_named() -> None:
    load_plugin(KSPACE)
    spec = parse(BlurSpec, {"num_timesteps": 30, "sigma": {"kind": "constant", "value": 9.0}})
    D = spec.build(SHAPE)
    x0 = synthetic_images(SHAPE, 2)
    found = measure_severity_profile(D, x0, {})
    assert found.dead, "a constant image stays as it is"
    assert found.dead == list(range(found.dead[0], 31))
    steady = measure_severity_profile(
        FadeSpec().build(SHAPE), x0, synthetic_omega(FadeSpec().build(SHAPE), 2)
    )
    assert steady.dead == []
    assert steady.roughness == pytest.approx(1, abs=1e-3)


def test_synthetic_images_are_a_function_of_their_seed_and_number() -> None:
    images = synthetic_images(SHAPE, 4, seed=3)
    assert images.shape == (4, *SHAPE.chw)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1
    assert torch.equal(images[:2], synthetic_images(SHAPE, 2, seed=3))
    assert not torch.equal(images[0], images[1])
    assert not torch.equal(images[:2], synthetic_images(SHAPE, 2, seed=4))
    assert 0.2 < float(images.std()) < 0.6, "a photograph's contrast"
