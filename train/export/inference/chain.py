"""The inference forms of the generators that are one chain of layers: fast, coarse, ResNet."""

from __future__ import annotations

from mindspore import nn

from train.export.inference.cells import (
    Form,
    Gather,
    Interleave,
    Sum,
    activation,
    from_phases,
    is_subpixel,
    layer,
    on_phases,
    plain,
    subpixel,
    to_phases,
    unknown,
)
from train.networks import InstanceNorm, ReflectConv2d, ResidualBlock

# From this kernel on Lite is faster with four pixels at once at the ends of a network, where pictures have three
# channels: 0.45 of the time for the first 7x7 of `coarse`, 0.3 for the last, although its pixels are gathered first.
LARGE_KERNEL = 7


def chain_form(generator: nn.Cell) -> nn.SequentialCell:
    """The layers of a generator that has `layers`, for (N, H, W, 3) -> the same shape."""
    layers = list(generator.layers)
    cells: list[nn.Cell] = []
    phases = False  # the value between two layers holds 2x2 pixels a position
    for current, following in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(current, ResidualBlock):
            cells.append(Sum(_block(current.first), _block(current.second)))
        elif is_block(current) and phases:
            cells.append(_block(current, from_phases))
            phases = False
        elif is_block(current) and _opens(current, following):
            cells.append(_block(current, to_phases))
            phases = True
        elif is_block(current) and is_subpixel(current.conv):
            cells.append(_block(current, subpixel))
            phases = _takes_phases(following)
            cells += [] if phases else [Interleave()]
        elif is_block(current):
            cells.append(_block(current))
        elif isinstance(current, nn.Conv2d):
            cells += _output(current, phases)
        else:
            cells.append(activation(current))
    return nn.SequentialCell(*cells)


def is_block(cell: nn.Cell | None) -> bool:
    """A convolution with an activation behind it, and a norm between them or none."""
    return isinstance(getattr(cell, "conv", None), (nn.Conv2d, nn.Conv2dTranspose)) and hasattr(cell, "activation")


def _opens(block: nn.Cell, following: nn.Cell | None) -> bool:
    """Whether the block is a large first one of stride 1, in front of a 3x3 one of stride 2."""
    if following is None or not is_block(following) or not all(_takes_phases(cell.conv) for cell in (block, following)):
        return False
    shapes = [(cell.conv.weight.shape[2], cell.conv.stride[0]) for cell in (block, following)]
    return shapes[0][0] >= LARGE_KERNEL and shapes[0][1] == 1 and shapes[1] == (3, 2)


def _output(conv: nn.Conv2d, phases: bool) -> list[nn.Cell]:
    """The convolution to the picture's three channels, of phases or of pixels."""
    bias = conv.bias.asnumpy()
    if phases:
        return [on_phases(conv, bias), Interleave()]
    if _takes_phases(conv) and conv.weight.shape[2] >= LARGE_KERNEL:
        return [Gather(), on_phases(conv, bias), Interleave()]
    return [plain(conv, bias)]


def _takes_phases(cell: nn.Cell | None) -> bool:
    """Whether it is a convolution with a form for phases; a reflecting one mirrors pixels, which phases do not show."""
    return isinstance(cell, nn.Conv2d) and not isinstance(cell, ReflectConv2d)


def _block(block: nn.Cell, form: Form = plain) -> nn.Cell:
    return nn.SequentialCell(*layer(block.conv, _norm_of(block), block.activation, form))


def _norm_of(block: nn.Cell) -> InstanceNorm | None:
    norm = getattr(block, "norm", None)
    if norm is None or isinstance(norm, nn.Identity):
        return None
    if not isinstance(norm, InstanceNorm):
        raise unknown(norm)
    return norm
