"""Convolutions by Winograd's tiles: within rounding of exact, row by row, and fallen back from."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from colddiff.restorers.networks.winograd import WinogradConvolution


def convolution(inner: int = 128, outer: int = 160, **options: object) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(inner, outer, 3, padding=1, **options)  # type: ignore[arg-type]


def images(batch: int, channels: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, channels, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("batch", "height", "width"),
    # Tiles that fit and that do not; chunks of many images, of one, of rows, of uneven rows.
    [(1, 16, 16), (17, 9, 6), (3, 61, 47), (1, 8, 520), (40, 4, 1)],
)
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_convolution(batch: int, height: int, width: int, bias: bool) -> None:
    direct, x = convolution(bias=bias), images(batch, 128, height, width)
    found = WinogradConvolution(direct)(x)
    with torch.no_grad():
        exact = direct.double()(x.double())
    assert found.shape == exact.shape
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() < 1e-5 * exact.abs().max()


@pytest.mark.parametrize("channels", [128, 512])
def test_float32_errs_by_two_millionths_of_the_exact_result(channels: int) -> None:
    """Against float64 and not another convolution, whose error depends on the CPU.

    Measured: 1.1 and 1.2 millionths; the usual points 0, 1, 2 give 2.4 and 2.8.
    """
    direct, x = convolution(channels, 256), images(2, channels, 32, 32)
    with torch.no_grad():
        found = WinogradConvolution(direct)(x)
        exact = direct.double()(x.double())
    error = found - exact
    assert error.square().mean().sqrt() < 2e-6 * exact.square().mean().sqrt()
    assert error.abs().max() < 5e-6 * exact.abs().max()


def test_layouts_in_memory_do_not_matter() -> None:
    x = images(3, 128, 24, 20)
    quick = WinogradConvolution(convolution())
    assert torch.equal(quick(x), quick(x.contiguous(memory_format=torch.channels_last)))


@pytest.mark.parametrize("side", [8, 32, 64])
def test_a_row_is_a_function_of_itself(side: int) -> None:
    """Whichever images lie beside it, and wherever in the batch it lies."""
    x, quick = images(7, 128, side, side), WinogradConvolution(convolution())
    found = quick(x)
    for order in ([6, 0, 1, 2, 3, 4, 5], [3, 3, 3, 3, 3, 3, 2]):
        assert torch.equal(quick(x[order]), found[order])


def test_few_tiles_and_autocast_are_convolved_directly() -> None:
    direct = convolution()
    quick, x = WinogradConvolution(direct), images(1, 128, 12, 12)
    with torch.no_grad():
        assert torch.equal(quick(x), direct(x))
        wide = images(1, 128, 16, 16)
        assert not torch.equal(quick(wide), direct(wide))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(quick(wide), direct(wide))


@pytest.mark.parametrize(
    "other",
    [
        nn.Conv2d(128, 128, 3, padding=1, stride=2),
        nn.Conv2d(128, 128, 3),
        nn.Conv2d(128, 128, 1),
        nn.Conv2d(128, 128, 3, padding=1, groups=128),
        nn.Conv2d(128, 128, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(128, 128, 3, padding=2, dilation=2),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.Conv2d(128, 128, 3, padding=1).double(),
        nn.Conv2d(128, 128, 3, padding=1, device="meta"),
    ],
)
def test_other_convolutions_stay(other: nn.Conv2d) -> None:
    assert not WinogradConvolution.supports(other)
