"""The inference form of `UNetGenerator`."""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from train.export.inference.cells import Interleave, activation, is_subpixel, layer, plain, subpixel
from train.networks import InstanceNorm, UNetGenerator

# Of the U-Net, from the outside. At 256x256 Lite is as fast with 3 to 5, slower with 8; each makes the file larger.
SUBPIXEL_LEVELS = 3


class UNetForm(nn.Cell):
    """`UNetGenerator` on (N, H, W, C)."""

    def __init__(self, generator: UNetGenerator) -> None:
        super().__init__()
        self.depth = generator.depth
        self.downs = nn.CellList([nn.SequentialCell(*_level(cell)) for cell in generator.downs])
        ups = [_level(cell, level < SUBPIXEL_LEVELS) for level, cell in enumerate(generator.ups)]
        self.ups = nn.CellList([nn.SequentialCell(*cells) for cells in ups])

    def construct(self, x: Tensor) -> Tensor:
        levels = []
        for down_cell in self.downs:
            x = down_cell(x)
            levels.append(x)
        for level in range(self.depth - 1, 0, -1):
            x = ops.concat((levels[level - 1], self.ups[level](x)), 3)
        return ops.tanh(self.ups[0](x))


def _level(cells: nn.SequentialCell, phases: bool = False) -> list[nn.Cell]:
    """One direction of one level of the U-Net: an activation or none, a convolution, a norm or none."""
    forms: list[nn.Cell] = []
    layers = list(cells)
    for current, following in zip(layers, [*layers[1:], None], strict=True):
        if isinstance(current, (nn.Conv2d, nn.Conv2dTranspose)):
            norm = following if isinstance(following, InstanceNorm) else None
            if phases and is_subpixel(current):
                forms += [*layer(current, norm, nn.Identity(), subpixel), Interleave()]
            else:
                forms += layer(current, norm, nn.Identity(), plain)
        elif not isinstance(current, InstanceNorm):
            forms.append(activation(current))
    return forms
