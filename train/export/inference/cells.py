"""What inference forms are made of: cells on (N, H, W, C) float32.

Where they reshape, -1 is the batch, so that the runtime can change its size.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from train.errors import TrainError
from train.export.inference.kernels import (
    Array,
    from_phases_kernel,
    mean_kernel,
    phase_kernel,
    subpixel_kernel,
    to_phases_kernel,
)
from train.networks import InstanceNorm, ReflectConv2d, conv2d, resize_matrix

# A convolution and the bias that it keeps, to a cell on (N, H, W, C).
Form = Callable[[nn.Cell, Array | None], nn.Cell]


class ChannelsLast(nn.Cell):
    """A convolution of (N, C, H, W) applied to (N, H, W, C)."""

    def __init__(self, conv: nn.Cell) -> None:
        super().__init__()
        self.conv = conv

    def construct(self, x: Tensor) -> Tensor:
        return ops.transpose(self.conv(ops.transpose(x, (0, 3, 1, 2))), (0, 2, 3, 1))


class Leaky(nn.Cell):
    """A convolution and a leaky ReLU, both on (N, C, H, W): inside of a ChannelsLast.

    As PReLU with one slope, which is one operator; LeakyReLU is exported as a product and a maximum. Lite takes PReLU
    for one of (N, C, H, W), and refuses it where transposes say otherwise.
    """

    def __init__(self, conv: nn.Conv2d, slope: float) -> None:
        super().__init__()
        self.conv = conv
        self.slope = constant(np.full(1, slope, np.float32), "slope")
        self.prelu = ops.PReLU()

    def construct(self, x: Tensor) -> Tensor:
        return self.prelu(self.conv(x), self.slope)


class ChannelsLastNorm(nn.Cell):
    """A norm and its activation, for (N, H, W, C) or, with the statistics of the whole, phases (N, H/2, W/2, 4C)."""

    def __init__(self, norm: InstanceNorm, active: nn.Cell) -> None:
        super().__init__()
        self.channels = norm.gamma.size
        self.epsilon = norm.epsilon
        self.gamma = constant(norm.gamma.asnumpy().reshape(1, 1, 1, -1), "gamma")
        self.beta = constant(norm.beta.asnumpy().reshape(1, 1, 1, -1), "beta")
        self.activation = activation(active)

    def construct(self, x: Tensor) -> Tensor:
        height, width, depth = x.shape[1:]
        y = ops.reshape(x, (-1, height, width * depth // self.channels, self.channels))
        difference = y - ops.mean(ops.mean(y, 2, True), 1, True)
        variance = ops.mean(ops.mean(ops.square(difference), 2, True), 1, True)
        y = difference * (ops.rsqrt(variance + self.epsilon) * self.gamma) + self.beta
        # Before the reshape, so that Lite fuses it into the addition.
        return ops.reshape(self.activation(y), (-1, height, width, depth))


class Interleave(nn.Cell):
    """Phases to pixels: (N, H, W, 4C) -> (N, 2H, 2W, C), one transpose that moves runs of 2C numbers."""

    def construct(self, x: Tensor) -> Tensor:
        height, width, depth = x.shape[1:]
        rows = ops.reshape(x, (-1, width, 2, depth // 2))
        return ops.reshape(ops.transpose(rows, (0, 2, 1, 3)), (-1, 2 * height, 2 * width, depth // 4))


class Gather(nn.Cell):
    """Pixels to phases, the inverse of Interleave: (N, 2H, 2W, C) -> (N, H, W, 4C)."""

    def construct(self, x: Tensor) -> Tensor:
        height, width, depth = x.shape[1:]
        rows = ops.reshape(x, (-1, 2, width // 2, 2 * depth))
        return ops.reshape(ops.transpose(rows, (0, 2, 1, 3)), (-1, height // 2, width // 2, 4 * depth))


class InterleaveFirst(nn.Cell):
    """Phases to pixels, channels first: (N, H, W, 4C) -> (N, C, 2H, 2W), one transpose for both."""

    def construct(self, x: Tensor) -> Tensor:
        height, width, depth = x.shape[1:]
        cells = ops.reshape(x, (-1, height, width, 2, 2, depth // 4))
        return ops.reshape(ops.transpose(cells, (0, 5, 1, 3, 2, 4)), (-1, depth // 4, 2 * height, 2 * width))


class Sum(nn.Cell):
    """x + second(first(x)): a residual block."""

    def __init__(self, first: nn.Cell, second: nn.Cell) -> None:
        super().__init__()
        self.first, self.second = first, second

    def construct(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


class EnlargeFirst(nn.Cell):
    """Bilinear, ends repeated, channels first: (N, h, w, C) -> (N, C, times h, times w), as two products of matrices.

    Lite 2.0.0 cannot be asked for it: a ResizeBilinear of a MINDIR counts from corners there, not from pixels' centres.
    """

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.product = ops.MatMul()

    def construct(self, x: Tensor) -> Tensor:
        height, width, channels = x.shape[1:]
        tall, wide = self.times * height, self.times * width
        columns = ops.reshape(ops.transpose(x, (0, 3, 2, 1)), (-1, height))
        columns = ops.reshape(self.product(columns, _enlarging(height, self.times)), (-1, width, tall))
        rows = ops.reshape(ops.transpose(columns, (0, 2, 1)), (-1, width))
        return ops.reshape(self.product(rows, _enlarging(width, self.times)), (-1, channels, tall, wide))


@ops.constexpr
def _enlarging(length: int, times: int) -> Tensor:
    return Tensor(resize_matrix(length, times * length))


def layer(conv: nn.Cell, norm: InstanceNorm | None, active: nn.Cell, form: Form) -> list[nn.Cell]:
    """A convolution in one of the forms below, its norm where there is one, its activation."""
    bias = None if norm else conv.bias.asnumpy()
    return [form(conv, bias), ChannelsLastNorm(norm, active) if norm else activation(active)]


def plain(conv: nn.Conv2d | nn.Conv2dTranspose, bias: Array | None) -> nn.Cell:
    """From pixels to pixels."""
    return ChannelsLast(_copied(conv, bias))


def on_phases(conv: nn.Conv2d, bias: Array | None) -> nn.Cell:
    """One of stride 1 from phases to phases."""
    return convolution(phase_kernel(conv.weight.asnumpy()), _four_times(bias))


def to_phases(conv: nn.Conv2d, bias: Array | None) -> nn.Cell:
    """One of stride 1 from pixels to phases."""
    kernel = to_phases_kernel(conv.weight.asnumpy())
    outputs, inputs, size = kernel.shape[:3]
    strided = nn.Conv2d(inputs, outputs, size, 2, "pad", size // 2 - 1, has_bias=bias is not None)
    return ChannelsLast(_filled(strided, kernel, _four_times(bias)))


def from_phases(conv: nn.Conv2d, bias: Array | None) -> nn.Cell:
    """One of kernel 3 and stride 2 from phases to pixels."""
    kernel = from_phases_kernel(conv.weight.asnumpy())
    outputs, inputs = kernel.shape[:2]
    whole = nn.Conv2d(inputs, outputs, 2, 1, "pad", (1, 0, 1, 0), has_bias=bias is not None)
    return ChannelsLast(_filled(whole, kernel, bias))


def subpixel(conv: nn.Conv2dTranspose, bias: Array | None) -> nn.Cell:
    """A transposed one of kernel 4 and stride 2 from pixels to phases."""
    return convolution(subpixel_kernel(conv.weight.asnumpy()), _four_times(bias))


def is_subpixel(conv: nn.Cell) -> bool:
    # Kernel 3 would become 4 times the work, which no kernel of Lite makes up for.
    return isinstance(conv, nn.Conv2dTranspose) and conv.weight.shape[2:] == (4, 4)


def cell_means(size: int) -> nn.Cell:
    """Means over cells of size x size pixels; as a convolution, which is faster in Lite than its pooling."""
    return ChannelsLast(_filled(nn.Conv2d(3, 3, size, size, "valid", has_bias=False), mean_kernel(size), None))


def convolution(weight: Array, bias: Array | None, slope: float | None = None) -> nn.Cell:
    """One of stride 1 that keeps the size, zero-padded, with these weights; with a leaky ReLU where it has a slope."""
    conv = _conv(weight, bias)
    return ChannelsLast(conv if slope is None else Leaky(conv, slope))


def activation(cell: nn.Cell) -> nn.Cell:
    """A copy; TrainError for one that is not known."""
    if isinstance(cell, nn.LeakyReLU):
        return nn.LeakyReLU(cell.alpha)
    if isinstance(cell, (nn.ReLU, nn.Tanh, nn.Identity)):
        return type(cell)()
    raise unknown(cell)


def unknown(cell: nn.Cell) -> TrainError:
    return TrainError(f"no inference form is known for the layer {type(cell).__name__}")


def constant(values: Array, name: str) -> Parameter:
    return Parameter(Tensor(np.ascontiguousarray(values, np.float32)), name=name)


def _copied(conv: nn.Conv2d | nn.Conv2dTranspose, bias: Array | None) -> nn.Cell:
    # A copy, because MindSpore renames the parameters of a cell that is put into another.
    weight = conv.weight.asnumpy()
    if isinstance(conv, ReflectConv2d):
        return _conv(weight, bias, conv.stride[0], "reflect")
    # Transposed ones are (in, out, kernel, kernel), the others (out, in, kernel, kernel).
    transposed = isinstance(conv, nn.Conv2dTranspose)
    kind, (inputs, outputs) = (nn.Conv2dTranspose, weight.shape[:2]) if transposed else (nn.Conv2d, weight.shape[1::-1])
    copy = kind(inputs, outputs, weight.shape[2], conv.stride, "pad", conv.padding, has_bias=bias is not None)
    return _filled(copy, weight, bias)


def _four_times(bias: Array | None) -> Array | None:
    return None if bias is None else np.tile(bias, 4)


def _conv(weight: Array, bias: Array | None, stride: int = 1, padding: str = "zeros") -> nn.Conv2d:
    outputs, inputs, kernel = weight.shape[:3]
    return _filled(conv2d(inputs, outputs, kernel, stride, padding, bias is not None), weight, bias)


def _filled(conv: nn.Cell, weight: Array, bias: Array | None) -> nn.Cell:
    conv.weight.set_data(Tensor(np.ascontiguousarray(weight, np.float32)))
    if bias is not None:
        conv.bias.set_data(Tensor(np.ascontiguousarray(bias, np.float32)))
    return conv
