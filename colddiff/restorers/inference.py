"""Restorers where no gradient is wanted."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from colddiff.restorers.base import Block, Restorer
from colddiff.restorers.winograd import WinogradConvolution

SLICE_VALUES = 64 * 128 * 128
"""Of a batch, given to a block on a CPU at once. Its widest activations, twice as many, are then
blocks of 8 MB that are used over again, where larger ones come fresh from the system each time;
and at low resolution, where weights are many, all images share in reading them."""


def for_inference(R: Restorer) -> Restorer:
    """The same function in evaluation mode, as fast as its device can without gradients.

    On a CPU that is a copy: wide 3x3 convolutions become ``WinogradConvolution``, and blocks take
    large batches in slices. It shares the parameters of ``R``, which must stay as they are; those
    of the replaced convolutions it holds transformed too, in four times the memory. Elsewhere it is
    ``R`` itself.
    """
    if {parameter.device.type for parameter in R.parameters()} != {"cpu"}:
        return R.eval()
    kept = {id(tensor): tensor for tensor in (*R.parameters(), *R.buffers())}
    quick = copy.deepcopy(R, kept)
    for parent in list(quick.modules()):
        for name, module in list(parent.named_children()):
            if isinstance(module, nn.Conv2d) and WinogradConvolution.serves(module):
                setattr(parent, name, WinogradConvolution(module))
            elif isinstance(module, Block):
                setattr(parent, name, _InSlices(module))
    return quick.eval()


@contextmanager
def evaluating(R: object) -> Iterator[None]:
    """R in evaluation mode meanwhile, where it is a module; each part gets its own mode back."""
    # Its own: some of them may be frozen in evaluation mode.
    training = [m for m in R.modules() if m.training] if isinstance(R, nn.Module) else []
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


class _InSlices(nn.Module):
    """A block that sees a few images of a batch at a time."""

    def __init__(self, inner: Block) -> None:
        super().__init__()
        self.inner = inner

    @torch.no_grad()
    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        size = max(1, SLICE_VALUES // x[0].numel())
        given = [part for part in (x, time) if part is not None]
        slices = (slice(n, n + size) for n in range(0, len(x), size))
        found = [self.inner(*(part[rows] for part in given)) for rows in slices]
        return found[0] if len(found) == 1 else torch.cat(found)
