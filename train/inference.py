"""A trained generator as the equal network that is exported: the same function, arranged for inference on a CPU.

Three rewrites, each exact algebra, so that only rounding differs (about 2e-6 in [-1, 1]):

1. No bias in front of an instance norm: the norm subtracts the mean, and the bias with it.
2. Channels last. MindSpore Lite runs its CPU convolutions on (N, H, W, C) and puts a transpose before and after each.
   Here everything between two convolutions works on (N, H, W, C), too, between explicit transposes; Lite cancels them
   against its own, and only the two at the ends of the network remain.
3. Sub-pixel convolution (arXiv 1609.05158; the equality: 1609.07009). A transposed 4x4 convolution of stride 2 is a
   3x3 convolution that makes the four pixels of each 2x2 cell ("phases") as channels, phase-major, and an interleaving
   of them. The 3x3 form has 2.25 times the multiply-accumulates, but Lite has a fast (Winograd) kernel for it and
   none for transposed ones. A zero-padded convolution that follows is rewritten to read and write phases, so that
   only its three output channels are interleaved at full size.

Measured with MindSpore Lite 2.0.0: see `train/README.md`.
"""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from numpy.typing import NDArray

from train.errors import TrainError
from train.networks import ConvBlock, ReflectConv2d, ResidualBlock, conv2d

Array = NDArray[np.float32]

# For an output phase (0 or 1 along one axis): which element of the 4-tap kernel each of the 3 taps is.
# out[2i] = w[3] x[i-1] + w[1] x[i];  out[2i+1] = w[2] x[i] + w[0] x[i+1]
SUBPIXEL_TAPS = {0: {0: 3, 1: 1}, 1: {1: 2, 2: 0}}
PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))


def inference_form(generator: nn.Cell) -> nn.Cell:
    """The equal inference network of a generator from `train.networks`; the generator is not changed.

    (N, 3, H, W) in [-1, 1] -> the same, as the generator itself.
    """
    layers = list(generator.layers)
    cells: list[nn.Cell] = []
    phases = False  # the value between two layers holds 2x2 pixels a position
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(layer, ResidualBlock):
            cells.append(_Sum(_block(layer.first), _block(layer.second)))
        elif isinstance(layer, ConvBlock) and _is_subpixel(layer.conv):
            cells += [_subpixel(layer.conv), _ChannelsLastNorm(layer)]
            phases = _takes_phases(following)
            cells += [] if phases else [_Interleave()]
        elif isinstance(layer, ConvBlock):
            cells.append(_block(layer))
        elif isinstance(layer, nn.Conv2d):
            cells += [_on_phases(layer), _Interleave()] if phases else [_plain(layer)]
        elif isinstance(layer, nn.Tanh):
            cells.append(nn.Tanh())
        else:
            raise TrainError(f"no inference form is known for the layer {type(layer).__name__}")
    return _InferenceGenerator(cells).set_train(False)


def subpixel_kernel(weight: Array) -> Array:
    """(in, out, 4, 4) of a transposed convolution (stride 2, padding 1) -> (4 out, in, 3, 3), phase-major."""
    inputs, outputs = weight.shape[:2]
    kernel = np.zeros((4, outputs, inputs, 3, 3), np.float32)
    for phase, (down, right) in enumerate(PHASES):
        for y, source_y in SUBPIXEL_TAPS[down].items():
            for x, source_x in SUBPIXEL_TAPS[right].items():
                kernel[phase, :, :, y, x] = weight[:, :, source_y, source_x].T
    return kernel.reshape(4 * outputs, inputs, 3, 3)


def phase_kernel(weight: Array) -> Array:
    """(out, in, k, k) of a stride-1 convolution, k odd -> (4 out, 4 in, m, m), which does the same on phases."""
    outputs, inputs, size, _ = weight.shape
    reach = (size // 2 + 1) // 2
    kernel = np.zeros((4, outputs, 4, inputs, 2 * reach + 1, 2 * reach + 1), np.float32)
    for phase, (down, right) in enumerate(PHASES):
        for y, x in np.ndindex(size, size):
            cell_y, source_y = divmod(down + y - size // 2, 2)
            cell_x, source_x = divmod(right + x - size // 2, 2)
            source = PHASES.index((source_y, source_x))
            kernel[phase, :, source, :, cell_y + reach, cell_x + reach] = weight[:, :, y, x]
    return kernel.reshape(4 * outputs, 4 * inputs, 2 * reach + 1, 2 * reach + 1)


class _InferenceGenerator(nn.Cell):
    """Layers on (N, H, W, C) behind the (N, C, H, W) interface of a generator."""

    def __init__(self, cells: list[nn.Cell]) -> None:
        super().__init__()
        self.layers = nn.SequentialCell(*cells)

    def construct(self, x: Tensor) -> Tensor:
        return ops.transpose(self.layers(ops.transpose(x, (0, 2, 3, 1))), (0, 3, 1, 2))


class _ChannelsLast(nn.Cell):
    """A convolution of (N, C, H, W) applied to (N, H, W, C)."""

    def __init__(self, conv: nn.Cell) -> None:
        super().__init__()
        self.conv = conv

    def construct(self, x: Tensor) -> Tensor:
        return ops.transpose(self.conv(ops.transpose(x, (0, 3, 1, 2))), (0, 2, 3, 1))


class _ChannelsLastNorm(nn.Cell):
    """The norm and ReLU of a block, for (N, H, W, C) or, with the statistics of the whole, phases (N, H/2, W/2, 4C)."""

    def __init__(self, block: ConvBlock) -> None:
        super().__init__()
        norm = block.norm
        self.channels = norm.gamma.size
        self.epsilon = norm.epsilon
        self.gamma = _constant(norm.gamma.asnumpy().reshape(1, 1, -1), "gamma")
        self.beta = _constant(norm.beta.asnumpy().reshape(1, 1, -1), "beta")
        self.activation = nn.ReLU() if isinstance(block.activation, nn.ReLU) else nn.Identity()

    def construct(self, x: Tensor) -> Tensor:
        height, width, depth = x.shape[1:]
        # -1 is the batch, so that the runtime can change its size.
        y = ops.reshape(x, (-1, height * width * depth // self.channels, self.channels))
        difference = y - ops.mean(y, 1, True)
        variance = ops.mean(ops.square(difference), 1, True)
        y = difference * (ops.rsqrt(variance + self.epsilon) * self.gamma) + self.beta
        # Before the reshape, so that Lite fuses it into the addition.
        return ops.reshape(self.activation(y), (-1, height, width, depth))


class _Interleave(nn.Cell):
    """Phases to pixels: (N, H, W, 4C) -> (N, 2H, 2W, C), one transpose that moves runs of 2C numbers."""

    def construct(self, x: Tensor) -> Tensor:
        height, width, depth = x.shape[1:]
        rows = ops.reshape(x, (-1, width, 2, depth // 2))
        return ops.reshape(ops.transpose(rows, (0, 2, 1, 3)), (-1, 2 * height, 2 * width, depth // 4))


class _Sum(nn.Cell):
    """x + second(first(x)): a residual block."""

    def __init__(self, first: nn.Cell, second: nn.Cell) -> None:
        super().__init__()
        self.first, self.second = first, second

    def construct(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


def _block(block: ConvBlock) -> nn.Cell:
    return nn.SequentialCell(_ChannelsLast(_copied(block.conv, None)), _ChannelsLastNorm(block))


def _copied(conv: nn.Conv2d | nn.Conv2dTranspose, bias: Array | None) -> nn.Cell:
    # A copy, because MindSpore renames the parameters of a cell that is put into another.
    weight = conv.weight.asnumpy()
    if isinstance(conv, nn.Conv2dTranspose):
        inputs, outputs, kernel = weight.shape[:3]
        copy = nn.Conv2dTranspose(inputs, outputs, kernel, conv.stride, "pad", conv.padding, has_bias=False)
        copy.weight.set_data(Tensor(weight))
        return copy
    return _conv(weight, bias, conv.stride[0], "reflect" if isinstance(conv, ReflectConv2d) else "zeros")


def _is_subpixel(conv: nn.Cell) -> bool:
    # Kernel 3 would become 4 times the work, which no kernel of Lite makes up for.
    return isinstance(conv, nn.Conv2dTranspose) and conv.weight.shape[2:] == (4, 4)


def _subpixel(conv: nn.Conv2dTranspose) -> nn.Cell:
    return _ChannelsLast(_conv(subpixel_kernel(conv.weight.asnumpy()), None))


def _takes_phases(layer: nn.Cell | None) -> bool:
    """Whether the layer can be rewritten for phases; a reflecting one mirrors pixels, which phases do not show."""
    return isinstance(layer, nn.Conv2d) and not isinstance(layer, ReflectConv2d)


def _plain(conv: nn.Conv2d) -> nn.Cell:
    return _ChannelsLast(_copied(conv, conv.bias.asnumpy()))


def _on_phases(conv: nn.Conv2d) -> nn.Cell:
    return _ChannelsLast(_conv(phase_kernel(conv.weight.asnumpy()), np.tile(conv.bias.asnumpy(), 4)))


def _conv(weight: Array, bias: Array | None, stride: int = 1, padding: str = "zeros") -> nn.Conv2d:
    outputs, inputs, kernel = weight.shape[:3]
    conv = conv2d(inputs, outputs, kernel, stride, padding, bias is not None)
    conv.weight.set_data(Tensor(np.ascontiguousarray(weight)))
    if bias is not None:
        conv.bias.set_data(Tensor(np.ascontiguousarray(bias)))
    return conv


def _constant(values: Array, name: str) -> Parameter:
    return Parameter(Tensor(np.ascontiguousarray(values, np.float32)), name=name)
