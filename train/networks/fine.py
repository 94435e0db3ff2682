"""The fine half of `coarse-to-fine` and both halves joined, as MindSpore cells; pictures are RGB (N, 3, h, w) float32.

After EDSR (arXiv 1707.02921, section 3): residual blocks without norms, their sums scaled down; sub-pixel convolutions
(ESPCN, arXiv 1609.05158, section 3.2) at the end, so that nearly all of the work is done at the small size.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

from mindspore import Tensor, nn, ops
from mindspore.common.initializer import HeUniform, Uniform

from train.networks.generators import CoarseGenerator
from train.networks.layers import LeakyReLU, SameConv2d

TIMES = (2, 4)
RESIDUAL = 0.2  # what a block adds is multiplied by it: EDSR section 3.3, there 0.1 for wider layers
SLOPE = 0.2  # of the leaky ReLUs
# What the fine half alone may give, so that a pixel a little too bright is still pulled back by the loss.
LIMIT = 1.2


class FineBlock(nn.Cell):
    """x + 0.2 conv(relu(conv(x))), both 3x3, zero-padded (EDSR, section 3.1 and 3.3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = fine_conv(channels, channels), fine_conv(channels, channels)

    def construct(self, x: Tensor) -> Tensor:
        return x + RESIDUAL * self.second(ops.relu(self.first(x)))


class FineGenerator(nn.Cell):
    """A small picture enlarged, and details drawn into it: (N, 3, h, w) in [-1, 1] -> (N, 3, times h, times w).

    The network computes what is added to the bilinear enlargement; the sum is limited to [-1.2, 1.2]. With `times` 2
    the pixels of each 2x2 cell become channels first, so that the blocks work at half the input's size and cost the
    same: h and w must be even then. Layer for layer the `Finer` of the PyTorch twin.
    """

    def __init__(self, channels: int = 48, blocks: int = 8, middle: int = 32, last: int = 16, times: int = 4) -> None:
        super().__init__()
        if times not in TIMES:
            raise ValueError(f"times {times}: must be one of {', '.join(map(str, TIMES))}")
        self.times, self.cell = times, 4 // times
        self.head = fine_conv(3 * self.cell**2, channels)
        self.body = nn.SequentialCell(*[FineBlock(channels) for _ in range(blocks)])
        self.up1 = fine_conv(channels, 4 * middle)
        self.up2 = fine_conv(middle, 4 * last)
        self.tail = fine_conv(last, 3)
        self.activation = LeakyReLU(SLOPE)

    def construct(self, x: Tensor) -> Tensor:
        cells = x if self.cell == 1 else ops.pixel_unshuffle(x, self.cell)
        y = ops.relu(self.head(cells))
        y = y + self.body(y)
        y = self.activation(ops.pixel_shuffle(self.up1(y), 2))
        y = self.activation(ops.pixel_shuffle(self.up2(y), 2))
        return ops.clip(enlarged(x, self.times) + self.tail(y), -LIMIT, LIMIT)


class CoarseToFine(nn.Cell):
    """The product's generator: (N, 3, H, W) in [-1, 1] -> the same shape and range.

    The mean over cells of `times` x `times` pixels, the coarse generator on that, the fine one back to the full size,
    all limited to [-1, 1]. `coarse` and `fine` are the options of the two halves. H and W must be divisible by 16 with
    `times` 4 (8 with 2).
    """

    def __init__(self, coarse: dict[str, Any] | None = None, fine: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.coarse, self.fine = CoarseGenerator(**(coarse or {})), FineGenerator(**(fine or {}))

    def construct(self, x: Tensor) -> Tensor:
        small = ops.avg_pool2d(x, self.fine.times, self.fine.times)
        return ops.clip(self.fine(self.coarse(small)), -1, 1)


def enlarged(x: Tensor, times: int) -> Tensor:
    """(N, C, h, w) -> (N, C, times h, times w): bilinear, pixels as squares (no align_corners), the border repeated."""
    height, width = x.shape[2:]
    return ops.interpolate(x, size=(times * height, times * width), mode="bilinear", align_corners=False)


def fine_conv(inputs: int, outputs: int) -> nn.Conv2d:
    """3x3, keeps the size, zero-padded, with a bias."""
    # PyTorch's default, unlike the other networks: with their Normal(0, 0.02) a norm has to set the scale right.
    bound = 1 / sqrt(9 * inputs)
    start = {"weight_init": HeUniform(sqrt(5)), "bias_init": Uniform(bound)}
    return SameConv2d(inputs, outputs, start=start)
