"""3x3 convolutions of stride 1, zero-padded, in forms that train faster on a CPU: the same sums in another order.

MindSpore's kernel unrolls pictures into matrices and multiplies those. That is fair forwards, and slow where it makes
the gradient of the weights. Two forms put the time into large products of matrices instead. (N, C, H, W) float32.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr
from numpy.typing import NDArray

LARGEST_SIDE = 32  # up to which the transforms of Winograd's form, dense here, cost less than they save
TILE, TAPS = 4, 6  # pixels a side that are made at once, and of the input that they need

# F(4x4, 3x3) of Lavin and Gray, arXiv 1509.09308 (section 4.3): of an input tile, of the kernel, of an output tile.
INPUT = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
KERNEL = np.array([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
OUTPUT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


class Conv3x3(nn.Cell):
    """x (N, i, H, W), weight (o, i, 3, 3) -> (N, o, H, W), in the form that suits the size."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.winograd, self.shifted = Winograd(), ShiftedGradient(inputs, outputs)

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        height, width = x.shape[2:]
        small = max(height, width) <= LARGEST_SIDE
        return self.winograd(x, weight) if small and height % TILE == width % TILE == 0 else self.shifted(x, weight)


class Winograd(nn.Cell):
    """Winograd's minimal filtering (arXiv 1509.09308): a quarter of the multiplications, and 1e-5 of rounding.

    Each 4x4 pixels of the output are made of 6x6 of the input: 36 products of matrices, over all tiles at once, between
    linear transforms, which are products with constants here: first of rows, then of columns, pixels outermost.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernel = Tensor(np.kron(KERNEL, KERNEL), ms.float32)  # (36, 9)
        self.each_by_transposed = ops.BatchMatMul(transpose_b=True)
        self.by_transposed = ops.MatMul(transpose_b=True)

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        n, inputs, height, width = x.shape
        outputs, rows, columns = weight.shape[0], height // TILE, width // TILE
        u = ops.reshape(self.by_transposed(self.kernel, ops.reshape(weight, (-1, 9))), (-1, outputs, inputs))
        x = ops.transpose(ops.reshape(x, (n * inputs, height * width)), (1, 0))
        v = ops.matmul(input_transform(height), ops.reshape(x, (height, -1)))
        v = ops.BatchMatMul()(input_transform(width, TAPS * rows), ops.reshape(v, (-1, width, n * inputs)))
        v = ops.transpose(ops.reshape(v, (TAPS, rows, TAPS, -1)), (0, 2, 1, 3))
        m = self.each_by_transposed(ops.reshape(v, (TAPS * TAPS, -1, inputs)), u)
        m = ops.transpose(ops.reshape(m, (TAPS, TAPS, rows, -1)), (0, 2, 1, 3))
        y = ops.BatchMatMul()(output_transform(width, TAPS * rows), ops.reshape(m, (-1, TAPS * columns, n * outputs)))
        y = ops.matmul(output_transform(height), ops.reshape(y, (TAPS * rows, -1)))
        y = ops.transpose(ops.reshape(y, (height * width, n * outputs)), (1, 0))
        return ops.reshape(y, (n, outputs, height, width))


class ShiftedGradient(nn.Cell):
    """The kernel of MindSpore, and its gradients but for the weights', which is one product of matrices here.

    dW[o, i, a, b] is the sum over all places p of dy[o, p] x[i, p + (a, b)]. With three copies of x, shifted by
    columns, and three of dy, shifted by rows, all nine are one product; copies are cheap, since a zero between rows
    makes every shift one along the memory.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ops.Conv2D(outputs, 3, 1, "pad", 1)
        self.input_gradient = ops.Conv2DBackpropInput(outputs, 3, "pad", 1, (1, 1, 1, 1))
        self.by_transposed = ops.BatchMatMul(transpose_b=True)

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.conv(x, weight)

    def bprop(self, x: Tensor, weight: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        dx = self.input_gradient(dout, weight, x.shape)
        n, inputs, height, width = x.shape
        outputs, row = dout.shape[1], width + 1
        # By columns: the copies begin 1 further left each; by rows: a whole row further right each.
        x3 = copies(x, row + 1, 2 * row - 1, row + 1)
        dy3 = copies(dout, 0, 3 * row, 0)
        length = (height + 2) * row
        products = self.by_transposed(ops.reshape(dy3, (n, -1, length)), ops.reshape(x3, (n, -1, length)))
        dw = ops.reshape(ops.sum(products, 0), (outputs, 3, inputs, 3))
        return dx, ops.transpose(dw, (0, 2, 1, 3))


def copies(x: Tensor, before: int, between: int, after: int) -> Tensor:
    """(N, C, H, W) -> (N, C, length): three times the picture, each row ended by a zero, with zeros around."""
    n, channels, height, _ = x.shape
    x = ops.reshape(ops.concat((x, ops.zeros((n, channels, height, 1), x.dtype)), 3), (n, channels, -1))
    gap = ops.zeros((n, channels, between), x.dtype)
    parts = (x, gap, x, gap, x)
    if before:
        parts = (ops.zeros((n, channels, before), x.dtype), *parts, ops.zeros((n, channels, after), x.dtype))
    return ops.concat(parts, 2)


@constexpr
def input_transform(side: int, times: int = 0) -> Tensor:
    """(6 side / 4, side): the six numbers of every tile, the first ones of all tiles first; `times` over, if given."""
    tiles = side // TILE
    matrix = np.zeros((TAPS, tiles, side + 2))
    for tile in range(tiles):
        matrix[:, tile, TILE * tile : TILE * tile + TAPS] = INPUT
    return _constant(matrix[:, :, 1:-1].reshape(-1, side), times)  # what lies outside is zero


@constexpr
def output_transform(side: int, times: int = 0) -> Tensor:
    """(side, 6 side / 4): from the numbers of every tile, in the same order, to its pixels."""
    tiles = side // TILE
    matrix = np.zeros((side, TAPS, tiles))
    for tile in range(tiles):
        matrix[TILE * tile : TILE * tile + TILE, :, tile] = OUTPUT
    return _constant(matrix.reshape(side, -1), times)


def _constant(matrix: NDArray[np.float64], times: int) -> Tensor:
    return Tensor(np.repeat(matrix[None], times, 0) if times else matrix, ms.float32)
