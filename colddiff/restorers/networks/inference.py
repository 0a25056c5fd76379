"""Prepares a restorer for inference."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from colddiff.restorers.networks.base import Block, Restorer
from colddiff.restorers.networks.winograd import WinogradConvolution

SLICE_VALUES = 64 * 128 * 128
"""Input values per slice of a batch, in a block on a CPU. The widest activations, twice as many,
then take 8 MB, which the allocator reuses; larger ones are requested from the system each time. At
low resolution, where weights dominate, one slice still covers many images per read of them."""


def for_inference(R: Restorer) -> Restorer:
    """``R`` in evaluation mode, optimised for running without gradients.

    On a CPU this is a copy: wide 3x3 convolutions become ``WinogradConvolution``, and blocks
    process large batches in slices. The copy shares the parameters of ``R``, which must not change
    afterwards; for replaced convolutions it also holds transformed weights, of four times their
    size. On other devices it is ``R`` itself.
    """
    if {parameter.device.type for parameter in R.parameters()} != {"cpu"}:
        return R.eval()
    shared = {id(tensor): tensor for tensor in (*R.parameters(), *R.buffers())}
    optimised = copy.deepcopy(R, shared)
    for parent in list(optimised.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, nn.Conv2d) and WinogradConvolution.supports(module):
                setattr(parent, name, WinogradConvolution(module))
            elif isinstance(module, Block):
                setattr(parent, name, _InSlices(module))
    return optimised.eval()


class _InSlices(nn.Module):
    """A block that processes a batch in slices of a few images."""

    def __init__(self, inner: Block) -> None:
        super().__init__()
        self.inner = inner

    @torch.no_grad()
    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        size = max(1, SLICE_VALUES // x[0].numel())
        inputs = [part for part in (x, time) if part is not None]
        slices = (slice(n, n + size) for n in range(0, len(x), size))
        found = [self.inner(*(part[rows] for part in inputs)) for rows in slices]
        return found[0] if len(found) == 1 else torch.cat(found)
