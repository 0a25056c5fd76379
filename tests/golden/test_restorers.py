"""The networks against outputs of the paper's code, with its parameter names and weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from colddiff.checkpoints.paper_weights import import_reference_checkpoint
from colddiff.restorers import Restorer, build_restorer
from colddiff.restorers.networks.base import sinusoid
from colddiff.types import ImageShape
from tests.golden.conftest import Golden

SMALL = {"kind": "convnext_unet", "dim": 8}
SMALL_DDPM = {"kind": "ddpm_unet", "ch": 32, "attn_resolutions": [8], "dropout": 0}


def fill(R: Restorer, names: Sequence[str]) -> None:
    """The recorded weights: sines of the place of each number, scaled by the kind of parameter."""
    parameters = dict(R.named_parameters())
    with torch.no_grad():
        for j, name in enumerate(names):
            weight = parameters[name]
            values = np.sin(0.37 * np.arange(weight.numel()) + 0.11 * j)
            if weight.ndim > 1 and not name.endswith((".g", ".b")):
                values = values / np.sqrt(np.prod(weight.shape[1:]))
            elif name.endswith(".g") or (weight.ndim == 1 and name.endswith("weight")):
                values = 1 + 0.1 * values
            else:
                values = 0.1 * values
            weight.copy_(torch.from_numpy(values).view(weight.shape))


def names_of(vectors: Any, net: str, *, time_embedding: bool = True) -> list[str]:
    names = [str(name) for name in vectors[f"{net}_param_names"]]
    return names if time_embedding else [name for name in names if "mlp" not in name]


def assert_recorded(R: Restorer, x: Tensor, t: Tensor, recorded: Any) -> None:
    """R(x, t) is the recorded output: to 1e-5 of the largest one in float64, to 2e-5 in float32.

    The outputs reach 16.5 (ConvNeXt) and 1.1 (DDPM). The recordings are float32 themselves: their
    rounding is 3e-5 and 1e-5 of what R(x, t) is in float64, so no tolerance below that is met.
    """
    expected = torch.from_numpy(recorded).double()
    largest = max(1.0, float(expected.abs().max()))
    with torch.no_grad():
        assert (R(x, t) - expected).abs().max() <= 2e-5 * largest
        assert (R.double()(x.double(), t) - expected).abs().max() <= 1e-5 * largest


@pytest.mark.parametrize(
    ("case", "fields"),
    [
        ("unet8", {}),
        ("unet8_residual", {"residual": True}),
        ("unet8_notemb", {"time_embedding": False}),
    ],
)
def test_convnext_unet_gives_the_recorded_outputs(
    golden: Golden, case: str, fields: dict[str, bool]
) -> None:
    vectors = golden("models_tiny")
    R = build_restorer({**SMALL, **fields}, ImageShape(3, 32, 32)).eval()
    fill(R, names_of(vectors, "unet8", time_embedding=fields.get("time_embedding", True)))
    x, t = torch.from_numpy(vectors["x"]), torch.from_numpy(vectors["t_idx"]) + 1
    assert_recorded(R, x, t, vectors[f"{case}_out"])


def test_ddpm_unet_gives_the_recorded_outputs(golden: Golden) -> None:
    vectors = golden("models_tiny")
    R = build_restorer(SMALL_DDPM, ImageShape(3, 16, 16)).eval()
    fill(R, names_of(vectors, "ddpm32"))
    x, t = torch.from_numpy(vectors["x16"]), torch.from_numpy(vectors["t_idx"]) + 1
    assert_recorded(R, x, t, vectors["ddpm32_out"])


@pytest.mark.parametrize(
    ("net", "spec", "size"), [("unet8", SMALL, 32), ("ddpm32", SMALL_DDPM, 16)]
)
def test_parameters_have_the_names_shapes_and_order_of_the_papers_code(
    golden: Golden, net: str, spec: dict[str, Any], size: int
) -> None:
    vectors = golden("models_tiny")
    R = build_restorer(spec, ImageShape(3, size, size))
    found = [(name, str(tuple(p.shape))) for name, p in R.named_parameters()]
    shapes = [str(shape) for shape in vectors[f"{net}_param_shapes"]]
    assert found == list(zip(names_of(vectors, net), shapes, strict=True))
    assert sorted(R.state_dict()) == sorted(names_of(vectors, net))


def test_the_embedding_of_severity_one_is_the_recorded_index_zero(golden: Golden) -> None:
    recorded = golden("models_tiny")["sinusoid_dim8_t0to4"]
    np.testing.assert_allclose(sinusoid(torch.arange(1, 6), 8).numpy(), recorded, atol=1e-6)


def test_a_checkpoint_of_the_papers_code_gives_its_recorded_output(
    golden: Golden, shared: Path
) -> None:
    recorded = golden("convnext_small_rgb32_io")
    x, t = torch.from_numpy(recorded["x"]), torch.from_numpy(recorded["t"]) + 1
    path = shared / "golden" / "convnext_small_rgb32.pt"
    R = build_restorer(SMALL, ImageShape(3, 32, 32)).eval()

    assert import_reference_checkpoint(path, R) == 7
    with torch.no_grad():
        np.testing.assert_allclose(R(x, t).numpy(), recorded["y"], rtol=0, atol=1e-5)

    import_reference_checkpoint(path, R, weights="model")
    with torch.no_grad():
        assert np.abs(R(x, t).numpy() - recorded["y"]).max() > 1e-3
