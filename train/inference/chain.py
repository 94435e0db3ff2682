"""The inference forms of the generators that are one chain of layers: fast, coarse, ResNet."""

from __future__ import annotations

from mindspore import nn

from train.inference.cells import (
    Gather,
    Interleave,
    Sum,
    activation,
    is_subpixel,
    layer,
    on_phases,
    plain,
    unknown,
)
from train.networks import InstanceNorm, ReflectConv2d, ResidualBlock

# From this kernel on Lite is faster with four pixels at once, although the pixels have to be gathered first: 0.3 of the
# time for the 7x7 of `coarse`.
LARGE_KERNEL = 7


def chain_form(generator: nn.Cell) -> nn.SequentialCell:
    """The layers of a generator that has `layers`, for (N, H, W, 3) -> the same shape."""
    layers = list(generator.layers)
    cells: list[nn.Cell] = []
    phases = False  # the value between two layers holds 2x2 pixels a position
    for current, following in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(current, ResidualBlock):
            cells.append(Sum(_block(current.first), _block(current.second)))
        elif is_block(current) and is_subpixel(current.conv):
            cells += layer(current.conv, _norm_of(current), current.activation, to_phases=True)
            phases = _takes_phases(following)
            cells += [] if phases else [Interleave()]
        elif is_block(current):
            cells.append(_block(current))
        elif isinstance(current, nn.Conv2d):
            cells += _output(current, phases)
        else:
            cells.append(activation(current))
    return nn.SequentialCell(*cells)


def is_block(cell: nn.Cell) -> bool:
    """A convolution with an activation behind it, and a norm between them or none."""
    return isinstance(getattr(cell, "conv", None), (nn.Conv2d, nn.Conv2dTranspose)) and hasattr(cell, "activation")


def _output(conv: nn.Conv2d, phases: bool) -> list[nn.Cell]:
    """The convolution to the picture's three channels, of phases or of pixels."""
    if phases:
        return [on_phases(conv), Interleave()]
    if _takes_phases(conv) and conv.weight.shape[2] >= LARGE_KERNEL:
        return [Gather(), on_phases(conv), Interleave()]
    return [plain(conv)]


def _takes_phases(cell: nn.Cell | None) -> bool:
    """Whether the layer can be rewritten for phases; a reflecting one mirrors pixels, which phases do not show."""
    return isinstance(cell, nn.Conv2d) and not isinstance(cell, ReflectConv2d)


def _block(block: nn.Cell) -> nn.Cell:
    return nn.SequentialCell(*layer(block.conv, _norm_of(block), block.activation, to_phases=False))


def _norm_of(block: nn.Cell) -> InstanceNorm | None:
    norm = getattr(block, "norm", None)
    if norm is None or isinstance(norm, nn.Identity):
        return None
    if not isinstance(norm, InstanceNorm):
        raise unknown(norm)
    return norm
