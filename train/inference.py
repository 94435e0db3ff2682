"""A trained generator as the equal network that is exported: the same function, arranged for inference on a CPU.

Four rewrites, each exact algebra, so that only rounding differs (about 2e-6 in [-1, 1]):

1. No bias in front of an instance norm: the norm subtracts the mean, and the bias with it.
2. Channels last. MindSpore Lite runs its CPU convolutions on (N, H, W, C) and puts a transpose before and after each.
   Here everything between two convolutions works on (N, H, W, C), too, between explicit transposes; Lite cancels them
   against its own, and only the two at the ends of the network remain.
3. Sub-pixel convolution (arXiv 1609.05158; the equality: 1609.07009). A transposed 4x4 convolution of stride 2 is a
   3x3 convolution that makes the four pixels of each 2x2 cell ("phases") as channels, phase-major, and an interleaving
   of them. The 3x3 form has 2.25 times the multiply-accumulates, but Lite has a fast (Winograd) kernel for it and
   none for transposed ones. A zero-padded convolution that follows is rewritten to read and write phases, so that
   only its three output channels are interleaved at full size. In the U-Net it pays only where the picture is large
   and the kernels are small: at its outermost levels.
4. Means in two stages, of each row and then of these. Lite adds up in plain order, where the last of 65,536 numbers
   finds three digits gone: with one sum a network is several times further from MindSpore.
"""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from numpy.typing import NDArray

from train.errors import TrainError
from train.networks import InstanceNorm, ReflectConv2d, ResidualBlock, UNetGenerator, conv2d

Array = NDArray[np.float32]

# For an output phase (0 or 1 along one axis): which element of the 4-tap kernel each of the 3 taps is.
# out[2i] = w[3] x[i-1] + w[1] x[i];  out[2i+1] = w[2] x[i] + w[0] x[i+1]
SUBPIXEL_TAPS = {0: {0: 3, 1: 1}, 1: {1: 2, 2: 0}}
PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))
# Of the U-Net, from the outside. At 256x256 Lite is as fast with 3 to 5, slower with 8; each makes the file larger.
SUBPIXEL_LEVELS = 3


def inference_form(generator: nn.Cell) -> nn.Cell:
    """The equal inference network of a generator from `train.networks`; the generator is not changed.

    (N, 3, H, W) in [-1, 1] -> the same, as the generator itself. Raises TrainError for layers without a known form.
    """
    if isinstance(generator, UNetGenerator):
        return _UNetForm(generator).set_train(False)
    layers = list(generator.layers)
    cells: list[nn.Cell] = []
    phases = False  # the value between two layers holds 2x2 pixels a position
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(layer, ResidualBlock):
            cells.append(_Sum(_block(layer.first), _block(layer.second)))
        elif is_block(layer) and _is_subpixel(layer.conv):
            cells += _layer(layer.conv, _norm_of(layer), layer.activation, subpixel=True)
            phases = _takes_phases(following)
            cells += [] if phases else [_Interleave()]
        elif is_block(layer):
            cells.append(_block(layer))
        elif isinstance(layer, nn.Conv2d):
            cells += [_on_phases(layer), _Interleave()] if phases else [_plain(layer)]
        else:
            cells.append(_activation(layer))
    return _InferenceGenerator(cells).set_train(False)


def is_block(layer: nn.Cell) -> bool:
    """A convolution with an activation behind it, and a norm between them or none."""
    return isinstance(getattr(layer, "conv", None), (nn.Conv2d, nn.Conv2dTranspose)) and hasattr(layer, "activation")


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
    """A norm and its activation, for (N, H, W, C) or, with the statistics of the whole, phases (N, H/2, W/2, 4C)."""

    def __init__(self, norm: InstanceNorm, activation: nn.Cell) -> None:
        super().__init__()
        self.channels = norm.gamma.size
        self.epsilon = norm.epsilon
        self.gamma = _constant(norm.gamma.asnumpy().reshape(1, 1, 1, -1), "gamma")
        self.beta = _constant(norm.beta.asnumpy().reshape(1, 1, 1, -1), "beta")
        self.activation = _activation(activation)

    def construct(self, x: Tensor) -> Tensor:
        height, width, depth = x.shape[1:]
        # -1 is the batch, so that the runtime can change its size.
        y = ops.reshape(x, (-1, height, width * depth // self.channels, self.channels))
        difference = y - ops.mean(ops.mean(y, 2, True), 1, True)
        variance = ops.mean(ops.mean(ops.square(difference), 2, True), 1, True)
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


class _UNetForm(nn.Cell):
    """`UNetGenerator` on (N, H, W, C) behind its (N, C, H, W) interface."""

    def __init__(self, generator: UNetGenerator) -> None:
        super().__init__()
        self.depth = generator.depth
        self.downs = nn.CellList([nn.SequentialCell(*_level(cell)) for cell in generator.downs])
        ups = [_level(cell, level < SUBPIXEL_LEVELS) for level, cell in enumerate(generator.ups)]
        self.ups = nn.CellList([nn.SequentialCell(*cells) for cells in ups])

    def construct(self, x: Tensor) -> Tensor:
        x = ops.transpose(x, (0, 2, 3, 1))
        levels = []
        for down_cell in self.downs:
            x = down_cell(x)
            levels.append(x)
        for level in range(self.depth - 1, 0, -1):
            x = ops.concat((levels[level - 1], self.ups[level](x)), 3)
        return ops.transpose(ops.tanh(self.ups[0](x)), (0, 3, 1, 2))


def _level(cells: nn.SequentialCell, subpixel: bool = False) -> list[nn.Cell]:
    """One direction of one level of the U-Net: an activation or none, a convolution, a norm or none."""
    forms: list[nn.Cell] = []
    layers = list(cells)
    for layer, following in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(layer, (nn.Conv2d, nn.Conv2dTranspose)):
            norm = following if isinstance(following, InstanceNorm) else None
            phases = subpixel and _is_subpixel(layer)
            forms += _layer(layer, norm, nn.Identity(), phases)
            forms += [_Interleave()] if phases else []
        elif not isinstance(layer, InstanceNorm):
            forms.append(_activation(layer))
    return forms


def _layer(conv: nn.Cell, norm: InstanceNorm | None, activation: nn.Cell, subpixel: bool) -> list[nn.Cell]:
    """A convolution, its norm where there is one, its activation; a sub-pixel one gives phases."""
    bias = None if norm else conv.bias.asnumpy()
    first = _subpixel(conv, bias) if subpixel else _ChannelsLast(_copied(conv, bias))
    return [first, _ChannelsLastNorm(norm, activation) if norm else _activation(activation)]


def _block(block: nn.Cell) -> nn.Cell:
    return nn.SequentialCell(*_layer(block.conv, _norm_of(block), block.activation, subpixel=False))


def _norm_of(block: nn.Cell) -> InstanceNorm | None:
    norm = getattr(block, "norm", None)
    if norm is None or isinstance(norm, nn.Identity):
        return None
    if not isinstance(norm, InstanceNorm):
        raise _unknown(norm)
    return norm


def _activation(cell: nn.Cell) -> nn.Cell:
    if isinstance(cell, nn.LeakyReLU):
        return nn.LeakyReLU(cell.alpha)
    if isinstance(cell, (nn.ReLU, nn.Tanh, nn.Identity)):
        return type(cell)()
    raise _unknown(cell)


def _unknown(cell: nn.Cell) -> TrainError:
    return TrainError(f"no inference form is known for the layer {type(cell).__name__}")


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


def _is_subpixel(conv: nn.Cell) -> bool:
    # Kernel 3 would become 4 times the work, which no kernel of Lite makes up for.
    return isinstance(conv, nn.Conv2dTranspose) and conv.weight.shape[2:] == (4, 4)


def _subpixel(conv: nn.Conv2dTranspose, bias: Array | None) -> nn.Cell:
    return _ChannelsLast(_conv(subpixel_kernel(conv.weight.asnumpy()), None if bias is None else np.tile(bias, 4)))


def _takes_phases(layer: nn.Cell | None) -> bool:
    """Whether the layer can be rewritten for phases; a reflecting one mirrors pixels, which phases do not show."""
    return isinstance(layer, nn.Conv2d) and not isinstance(layer, ReflectConv2d)


def _plain(conv: nn.Conv2d) -> nn.Cell:
    return _ChannelsLast(_copied(conv, conv.bias.asnumpy()))


def _on_phases(conv: nn.Conv2d) -> nn.Cell:
    return _ChannelsLast(_conv(phase_kernel(conv.weight.asnumpy()), np.tile(conv.bias.asnumpy(), 4)))


def _conv(weight: Array, bias: Array | None, stride: int = 1, padding: str = "zeros") -> nn.Conv2d:
    outputs, inputs, kernel = weight.shape[:3]
    return _filled(conv2d(inputs, outputs, kernel, stride, padding, bias is not None), weight, bias)


def _filled(conv: nn.Cell, weight: Array, bias: Array | None) -> nn.Cell:
    conv.weight.set_data(Tensor(np.ascontiguousarray(weight)))
    if bias is not None:
        conv.bias.set_data(Tensor(np.ascontiguousarray(bias)))
    return conv


def _constant(values: Array, name: str) -> Parameter:
    return Parameter(Tensor(np.ascontiguousarray(values, np.float32)), name=name)
