"""Restorers without gradients: the same function of each image, with nothing else touched."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from colddiff.restorers import build_restorer, for_inference
from colddiff.restorers.networks import inference
from colddiff.restorers.networks.base import Block
from colddiff.restorers.networks.winograd import WinogradConvolution
from colddiff.types import ImageShape


def images(batch: int, side: int) -> Tensor:
    return torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize(
    ("spec", "replaced"),
    [
        ({"kind": "convnext_unet", "dim": 64, "dim_mults": [1, 2]}, 8),
        ({"kind": "ddpm_unet", "ch": 128, "ch_mult": [1], "attn_resolutions": []}, 14),
    ],
)
def test_a_restorer_for_inference_is_the_same_function(
    spec: dict[str, object], replaced: int
) -> None:
    torch.manual_seed(0)
    R = build_restorer(spec, ImageShape(3, 32, 32)).train()
    quick = for_inference(R)
    assert sum(isinstance(m, WinogradConvolution) for m in quick.modules()) == replaced
    x, t = images(2, 32), torch.tensor([1, 7])
    with torch.no_grad():
        assert R.training, "the original is as it was"
        expected = R.eval()(x, t)
        torch.testing.assert_close(quick(x, t), expected, rtol=0, atol=1e-5)
    assert not any(isinstance(m, WinogradConvolution) for m in R.modules())
    assert all(p.requires_grad for p in R.parameters())


def test_nothing_but_the_transformed_weights_is_copied() -> None:
    R = build_restorer({"kind": "convnext_unet"}, ImageShape(3, 32, 32))
    quick = for_inference(R)
    theirs = {p.data_ptr() for p in R.parameters()}
    assert {p.data_ptr() for p in quick.parameters()} == theirs
    own = [b for m in quick.modules() if isinstance(m, WinogradConvolution) for b in m.buffers()]
    assert sum(b.numel() for b in own) < 4.1 * R.num_parameters


@pytest.mark.parametrize(
    "spec",
    [
        {"kind": "convnext_unet", "dim": 8, "dim_mults": [1, 2]},
        {"kind": "ddpm_unet", "ch": 32, "ch_mult": [1], "attn_resolutions": [8]},
    ],
)
def test_blocks_take_large_batches_in_slices(
    spec: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    R = build_restorer(spec, ImageShape(3, 8, 8))
    quick = for_inference(R)
    x, t = images(7, 8), torch.arange(1, 8)
    whole = quick(x, t)
    seen: list[int] = []
    for module in quick.modules():
        if isinstance(module, Block):
            module.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    monkeypatch.setattr(inference, "SLICE_VALUES", 3 * 3 * 8 * 8)
    torch.testing.assert_close(quick(x, t), whole, rtol=0, atol=1e-5)
    # The first block has 3 channels, or 32.
    assert seen[:3] == ([3, 3, 1] if spec["kind"] == "convnext_unet" else [1, 1, 1])
    assert max(seen) < len(x)


def test_elsewhere_than_on_a_cpu_it_is_the_restorer_itself() -> None:
    R = (
        build_restorer({"kind": "convnext_unet", "dim": 8}, ImageShape(3, 16, 16))
        .to("meta")
        .train()
    )
    assert for_inference(R) is R
    assert not R.training
