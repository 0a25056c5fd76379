"""What every restorer does, and what is particular to each of the paper's two networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from colddiff.errors import SpecError
from colddiff.restorers import RESTORERS, Restorer, RestorerSpec, build_restorer
from colddiff.restorers.networks.convnext_unet import ChannelLayerNorm, LinearAttention
from colddiff.restorers.networks.convolution import Convolution
from colddiff.types import ImageShape

CONVNEXT: dict[str, Any] = {"kind": "convnext_unet", "dim": 8, "dim_mults": [1, 2]}
DDPM: dict[str, Any] = {
    "kind": "ddpm_unet",
    "ch": 32,
    "ch_mult": [1, 2],
    "num_res_blocks": 1,
    "attn_resolutions": [8],
}
TINY = pytest.mark.parametrize("spec", [CONVNEXT, DDPM], ids=lambda spec: str(spec["kind"]))


def build(spec: dict[str, Any], shape: ImageShape | None = None) -> Restorer:
    torch.manual_seed(0)
    return build_restorer(spec, shape or ImageShape(3, 16, 16)).eval()


def images(batch: int, shape: ImageShape | None = None) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(batch, *(shape or ImageShape(3, 16, 16)).chw, generator=generator) * 2 - 1


@pytest.mark.parametrize(
    ("spec", "channels", "count"),
    [
        ({"kind": "convnext_unet"}, 3, 56_615_708),
        ({"kind": "convnext_unet"}, 1, 56_612_916),
        ({"kind": "convnext_unet", "time_embedding": False}, 3, 56_278_745),
        ({"kind": "ddpm_unet"}, 3, 35_746_307),
    ],
)
def test_parameter_counts_of_the_paper(spec: dict[str, Any], channels: int, count: int) -> None:
    with torch.device("meta"):
        assert build_restorer(spec, ImageShape(channels, 32, 32)).num_parameters == count


@pytest.mark.parametrize(
    "spec", [RESTORERS.parse({"kind": kind}) for kind in RESTORERS], ids=lambda s: str(s.kind)
)
def test_every_kind_restores_images_of_its_shape_by_default(spec: RestorerSpec) -> None:
    with torch.device("meta"):
        R = spec.build(ImageShape(3, 32, 32))
        assert R(torch.empty(2, 3, 32, 32), torch.ones(2, dtype=torch.int64)).shape == (
            2,
            3,
            32,
            32,
        )
    assert RESTORERS.parse(spec.to_dict()) == spec


@TINY
@pytest.mark.parametrize(
    "shape", [ImageShape(1, 16, 16), ImageShape(3, 16, 24), ImageShape(4, 32, 16)], ids=str
)
def test_any_channels_and_sides(spec: dict[str, Any], shape: ImageShape) -> None:
    x = images(2, shape)
    kept = x.clone()
    x0_hat = build(spec, shape)(x, torch.tensor([1, 20]))
    assert x0_hat.shape == x.shape
    assert x0_hat.dtype == torch.float32
    assert torch.equal(x, kept)


@TINY
def test_each_image_follows_its_own_severity(spec: dict[str, Any]) -> None:
    R, x = build(spec), images(1).expand(3, -1, -1, -1)
    with torch.no_grad():
        mixed = R(x, torch.tensor([3, 9, 3]))
        alone = R(x, torch.tensor([9, 9, 9]))
    torch.testing.assert_close(mixed[0], mixed[2])
    torch.testing.assert_close(mixed[1], alone[1], rtol=1e-5, atol=1e-6)
    assert (mixed[0] - mixed[1]).abs().max() > 1e-6


def test_without_time_embedding_the_severity_is_hidden() -> None:
    R, x = build({**CONVNEXT, "time_embedding": False}), images(2)
    assert not any("mlp" in name for name in R.state_dict())
    with torch.no_grad():
        assert torch.equal(R(x, torch.tensor([1, 2])), R(x, torch.tensor([9, 5])))


def test_residual_adds_the_input() -> None:
    plain, residual = build(CONVNEXT), build({**CONVNEXT, "residual": True})
    x, t = images(2), torch.tensor([1, 9])
    with torch.no_grad():
        torch.testing.assert_close(residual(x, t), plain(x, t) + x)


def test_dropout_acts_in_training_only() -> None:
    R, x, t = build({**DDPM, "dropout": 0.5}), images(2), torch.tensor([1, 9])
    with torch.no_grad():
        still = R(x, t)
        assert torch.equal(still, R(x, t))
        R.train()
        assert not torch.equal(R(x, t), R(x, t))
        torch.testing.assert_close(build({**DDPM, "dropout": 0})(x, t), still)


@TINY
@pytest.mark.parametrize("channels", [1, 3])
def test_gradients_reach_every_parameter_in_the_strides_of_the_parameter(
    spec: dict[str, Any], channels: int
) -> None:
    shape = ImageShape(channels, 16, 16)
    R, x = build(spec, shape), images(2, shape)
    torch.autograd.backward((R(x, torch.tensor([1, 9])) - x).abs().mean())
    for name, parameter in R.named_parameters():
        assert parameter.grad is not None
        # A constant added to all keys changes no softmax.
        if not name.endswith(".k.bias"):
            assert parameter.grad.abs().max() > 0, name
        # Data-parallel training warns about other strides.
        assert parameter.grad.stride() == parameter.stride(), name


@pytest.mark.parametrize(("batch", "channels_last"), [(2, False), (32, True)])
def test_on_a_cpu_channels_last_is_kept_where_values_outweigh_weights(
    batch: int, channels_last: bool
) -> None:
    convolution = Convolution(64, 64, 3, padding=1)
    x = torch.rand(batch, 64, 4, 4).to(memory_format=torch.channels_last)
    found = convolution(x)
    assert found.is_contiguous(memory_format=torch.channels_last) is channels_last
    expected = F.conv2d(x.contiguous(), convolution.weight, convolution.bias, padding=1)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("channels", "side", "folds"), [(16, 8, True), (256, 4, False)])
def test_both_orders_of_linear_attention_are_equation_and_the_cheaper_one_is_taken(
    channels: int, side: int, folds: bool
) -> None:
    torch.manual_seed(0)
    attention = LinearAttention(channels).double()
    x = torch.randn(2, channels, side, side, dtype=torch.float64)
    q, k, v = (part.reshape(2, 4, 32, -1) for part in attention.to_qkv(x).chunk(3, dim=1))
    context = torch.einsum("bhdn,bhen->bhde", k.softmax(-1), v)
    mixed = torch.einsum("bhde,bhdn->bhen", context, q * 32**-0.5)
    expected = attention.to_out(mixed.reshape(2, 128, side, side))

    assert attention._folds(channels, side * side) is folds
    torch.testing.assert_close(attention(x), expected)
    attention._folds = lambda *_: not folds  # type: ignore[method-assign]
    torch.testing.assert_close(attention(x), expected)


def test_channel_norm_is_the_norm_of_each_pixel_with_statistics_in_float32() -> None:
    norm = ChannelLayerNorm(96)
    torch.nn.init.normal_(norm.g)
    torch.nn.init.normal_(norm.b)
    # bfloat16 holds these values exactly, but not their sums: 256 + 1 is 256.
    x = torch.randint(0, 256, (2, 96, 5, 4), generator=torch.Generator().manual_seed(0)).float()
    centred = x - x.mean(dim=1, keepdim=True)
    expected = centred / (x.var(dim=1, keepdim=True, correction=0) + 1e-5).sqrt() * norm.g + norm.b
    torch.testing.assert_close(norm(x), expected)
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(x.bfloat16()).float()
    torch.testing.assert_close(found, expected, rtol=2**-8, atol=2**-8)


@TINY
def test_bf16_autocast_stays_near_fp32_and_trains(spec: dict[str, Any]) -> None:
    R, x, t = build(spec), images(4), torch.tensor([1, 5, 9, 20])
    expected = R(x, t)
    with torch.autocast("cpu", torch.bfloat16):
        found = R(x, t)
    assert (found.float() - expected).norm() < 0.03 * expected.norm()
    torch.autograd.backward((found.float() - x).abs().mean())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in R.parameters())
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in R.parameters())


@TINY
def test_compiles_without_a_graph_break(spec: dict[str, Any]) -> None:
    R, x, t = build(spec), images(2), torch.tensor([1, 9])
    compiled = torch.compile(R, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(x, t), R(x, t), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("spec", "shape", "message"),
    [
        ({"kind": "convnext_unet"}, (3, 28, 28), r"restorer\.dim_mults: .*28x28.*divisible by 8"),
        ({"kind": "convnext_unet"}, (3, 8, 8), r"restorer\.dim_mults: .*leaves 1 px of 8"),
        ({"kind": "convnext_unet"}, (3, 32, 28), r"restorer\.dim_mults: .*divisible by 8"),
        ({"kind": "ddpm_unet"}, (3, 36, 36), r"restorer\.ch_mult: .*divisible by 8"),
        (
            {"kind": "ddpm_unet", "attn_resolutions": [16, 7]},
            (3, 32, 32),
            r"restorer\.attn_resolutions: no resolution is 7 px.*they are 32, 16, 8, 4",
        ),
        ({"kind": "ddpm_unet", "ch": 100}, (3, 32, 32), r"ch: .*32 groups.*use 96 or 128"),
        ({"kind": "convnext_unet", "dim": 7}, (3, 32, 32), r"dim: .*multiple of 2"),
        ({"kind": "convnext_unet", "dim_mults": []}, (3, 32, 32), r"dim_mults: .*at least 1"),
    ],
)
def test_a_spec_that_does_not_fit_says_so_before_anything_is_built(
    spec: dict[str, Any], shape: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        build_restorer(spec, ImageShape(*shape))


@TINY
@pytest.mark.parametrize("side", [4, 8, 10, 15, 16, 18, 24])
def test_what_a_spec_says_of_a_shape_without_torch_is_what_building_says(
    spec: dict[str, Any], side: int
) -> None:
    parsed = RESTORERS.parse({**spec, "dim_mults": [1, 2, 2]} if "dim" in spec else spec)
    said: list[str] = []
    for judge in (parsed.check, lambda shape: RestorerSpec.check(parsed, shape)):
        try:
            judge(ImageShape(3, side, side))
            said.append("fits")
        except SpecError as error:
            said.append(str(error))
    assert said[0] == said[1]
