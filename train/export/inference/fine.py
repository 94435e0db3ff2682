"""The inference forms of the fine half and of `coarse-to-fine`."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from train.export.inference.cells import (
    EnlargeFirst,
    Gather,
    Interleave,
    InterleaveFirst,
    cell_means,
    convolution,
    on_phases,
    plain,
)
from train.export.inference.chain import chain_form
from train.export.inference.kernels import phase_major
from train.networks import LIMIT, RESIDUAL, SLOPE, CoarseToFine, FineGenerator


class FineForm(nn.Cell):
    """`FineGenerator` from (N, h, w, 3) to (N, 3, times h, times w): the result is channels first, as pictures are.

    The factor of a block's sum is in its weights. What pixel shuffles spread is kept in phases through the activations,
    and behind the second one to the end: the last convolution works on phases.
    """

    def __init__(self, fine: FineGenerator, limit: float) -> None:
        super().__init__()
        self.limit = limit
        head = fine.head.weight.asnumpy()
        gathered = fine.cell > 1  # then the pixels of each 2x2 cell are channels
        self.gather = Gather() if gathered else nn.Identity()
        self.head = convolution(phase_major(head, 1) if gathered else head, fine.head.bias.asnumpy())
        self.firsts = nn.CellList([plain(block.first, block.first.bias.asnumpy()) for block in fine.body])
        self.seconds = nn.CellList([_scaled(block.second) for block in fine.body])
        self.ups = nn.SequentialCell(
            _shuffled(fine.up1),
            Interleave(),
            _shuffled(fine.up2),
            on_phases(fine.tail, fine.tail.bias.asnumpy()),
            InterleaveFirst(),
        )
        self.enlarge = EnlargeFirst(fine.times)

    def construct(self, x: Tensor) -> Tensor:
        first = ops.relu(self.head(self.gather(x)))
        y = first
        for i in range(len(self.firsts)):
            y = y + self.seconds[i](ops.relu(self.firsts[i](y)))
        y = self.enlarge(x) + self.ups(first + y)
        return ops.minimum(ops.maximum(y, Tensor(-self.limit, ms.float32)), Tensor(self.limit, ms.float32))


class FineFirst(nn.Cell):
    """`FineGenerator` alone, behind its (N, C, H, W) interface."""

    def __init__(self, fine: FineGenerator) -> None:
        super().__init__()
        self.fine = FineForm(fine, LIMIT)

    def construct(self, x: Tensor) -> Tensor:
        return self.fine(ops.transpose(x, (0, 2, 3, 1)))


class CoarseToFineForm(nn.Cell):
    """Both halves, behind the (N, C, H, W) interface; the larger limit of the fine half falls away in the other."""

    def __init__(self, generator: CoarseToFine) -> None:
        super().__init__()
        self.means = cell_means(generator.fine.times)
        self.coarse = chain_form(generator.coarse)
        self.fine = FineForm(generator.fine, min(LIMIT, 1.0))

    def construct(self, x: Tensor) -> Tensor:
        return self.fine(self.coarse(self.means(ops.transpose(x, (0, 2, 3, 1)))))


def _scaled(conv: nn.Conv2d) -> nn.Cell:
    factor = np.float32(RESIDUAL)
    return convolution(factor * conv.weight.asnumpy(), factor * conv.bias.asnumpy())


def _shuffled(conv: nn.Conv2d) -> nn.Cell:
    """The convolution in front of a pixel shuffle, its channels phase-major, and the leaky ReLU behind that."""
    return convolution(phase_major(conv.weight.asnumpy()), phase_major(conv.bias.asnumpy()), SLOPE)
