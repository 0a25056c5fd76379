"""The convolution of both U-Nets where a dimension of its weight is 1."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own name for it


class Convolution(nn.Conv2d):
    """A 2-D convolution whose weight's gradient has the strides of the weight, in any layout."""

    def forward(self, input: Tensor) -> Tensor:
        # Channels-last inputs give the gradient other strides along dimensions of size 1, which
        # data-parallel training warns about (its buckets have the strides of the parameters).
        weight = self.weight.flatten(1).view(self.weight.shape)
        return F.conv2d(
            input, weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )
