"""Convolutions of stride 1, zero-padded, in forms that train faster on a CPU: the same sums in another order.

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


class FastConvolution(nn.Cell):
    """x (N, i, H, W), weight (o, i, k, k), k odd -> (N, o, H, W), in the form that suits the size."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.winograd, self.shifted = Winograd() if kernel == 3 else None, Shifted(kernel)

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        height, width = x.shape[2:]
        fits = max(height, width) <= LARGEST_SIDE and height % TILE == width % TILE == 0
        return self.winograd(x, weight) if self.winograd is not None and fits else self.shifted(x, weight)


class Winograd(nn.Cell):
    """Winograd's minimal filtering of 3x3 (arXiv 1509.09308): a quarter of the multiplications, and 1e-5 of rounding.

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


class Shifted(nn.Cell):
    """A convolution of odd kernel k: products of matrices on pictures whose shifted copies lie one after the other.

    y[p] is the sum over (a, b) of W[a, b] x[p + (a, b)]. The k copies of x are shifted by columns, b; a product with W
    makes one map for each a; their sum, each shifted by its rows, is y. The same the other way round makes dx of dy.
    The copies of both make dW: it is the sum of dy[p] x[p + (a, b)] over p.
    """

    def __init__(self, kernel: int) -> None:
        super().__init__()
        # A cell each: what both passes share would be compiled to nothing.
        self.x_columns, self.x_columns_again = Copies(kernel, rows=False), Copies(kernel, rows=False)
        self.dy_rows = Copies(kernel, rows=True)
        self.sum_rows, self.sum_columns = ShiftedSum(kernel, rows=True), ShiftedSum(kernel, rows=False)
        self.times, self.times_transposed = ops.BatchMatMul(), ops.BatchMatMul(transpose_b=True)
        self.kernel = kernel

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        n, inputs, _, width = x.shape
        shape = (self.kernel * weight.shape[0], self.kernel * inputs)
        matrix = ops.reshape(ops.transpose(weight, (2, 0, 1, 3)), shape)
        return self.sum_rows(self.times(ops.broadcast_to(matrix, (n, *shape)), self.x_columns(x)), width)

    def bprop(self, x: Tensor, weight: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        n, inputs, _, width = x.shape
        outputs, k = weight.shape[0], self.kernel
        copies, shape = self.dy_rows(dout), (k * inputs, k * outputs)
        matrix = ops.reshape(ops.transpose(weight, (3, 1, 0, 2)), shape)
        dx = self.sum_columns(self.times(ops.broadcast_to(matrix, (n, *shape)), copies), width)
        dw = ops.sum(self.times_transposed(copies, self.x_columns_again(x)), 0)
        return dx, ops.transpose(ops.reshape(dw, (outputs, k, inputs, k)), (0, 2, 1, 3))


class Copies(nn.Cell):
    """(N, C, H, W) -> (N, k C, (H + k - 1) (W + k // 2)): a picture's copies, in zeros, each shifted by one more.

    By a row to the right, or by a column to the left. Zeros end each row, so that all shifts are along memory.
    """

    def __init__(self, kernel: int, rows: bool) -> None:
        super().__init__()
        self.kernel, self.rows = kernel, rows

    def construct(self, x: Tensor) -> Tensor:
        (n, channels, height, width), k = x.shape, self.kernel
        row = width + k // 2
        x = ops.reshape(ops.concat((x, ops.zeros((n, channels, height, k // 2), x.dtype)), 3), (n, channels, -1))
        gap = ops.zeros((n, channels, k * row if self.rows else (k - 1) * row - 1), x.dtype)
        parts: tuple[Tensor, ...] = (x,)
        for _ in range(k - 1):
            parts = (*parts, gap, x)
        if not self.rows:
            end = ops.zeros((n, channels, k // 2 * (row + 1)), x.dtype)
            parts = (end, *parts, end)
        return ops.reshape(ops.concat(parts, 2), (n, k * channels, -1))


class ShiftedSum(nn.Cell):
    """(N, k C, (H + k - 1) (W + k // 2)), k maps -> (N, C, H, W): their sum, the shifts of `Copies` undone."""

    def __init__(self, kernel: int, rows: bool) -> None:
        super().__init__()
        self.kernel, self.rows = kernel, rows

    def construct(self, maps: Tensor, width: int) -> Tensor:
        (n, channels, length), k = maps.shape, self.kernel
        channels, row = channels // k, width + k // 2
        length -= (k - 1) * row
        first, step = (0, row) if self.rows else (k // 2 * (row + 1), -1)
        total = ops.slice(maps, (0, 0, first), (n, channels, length))
        for copy in range(1, k):
            total = total + ops.slice(maps, (0, copy * channels, first + copy * step), (n, channels, length))
        return ops.slice(ops.reshape(total, (n, channels, -1, row)), (0, 0, 0, 0), (n, channels, length // row, width))


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
