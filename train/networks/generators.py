"""The generators, as MindSpore cells: RGB pictures (N, 3, H, W) float32 in [-1, 1] in and out, of the same size.

Sources: CycleGAN, arXiv 1703.10593 (section 4 and appendix 7.2); pix2pix, arXiv 1611.07004 (appendix 6.1.1). H and W
must be divisible by the network's total stride.
"""

from __future__ import annotations

from mindspore import Tensor, nn, ops

from train.networks.layers import NORMS, InstanceNorm, ResidualBlock, conv2d, down, initial, patch_conv, up


class FastGenerator(nn.Cell):
    """The shipped small generator: 256x256 at the cost of 128x128, because its first layer already strides.

    7x7/2, 3x3/2, 3x3/2, `blocks` residual blocks at 1/8 size, three transposed 4x4/2, 5x5, tanh. H and W must be
    divisible by 8. With the defaults: 4.1 million parameters and 4.9 G multiply-accumulates at 256x256. Layer for
    layer the `Generator` of the PyTorch twin that trained the first weights.
    """

    def __init__(
        self,
        channels: tuple[int, int, int] = (40, 80, 160),
        blocks: int = 8,
        last: int = 24,
        padding: str = "zeros",
    ) -> None:
        super().__init__()
        a, b, c = channels
        self.layers = nn.SequentialCell(
            down(3, a, 7, 2, padding),
            down(a, b, 3, 2, padding),
            down(b, c, 3, 2, padding),
            *[ResidualBlock(c, padding) for _ in range(blocks)],
            up(c, b, 4),
            up(b, a, 4),
            up(a, last, 4),
            conv2d(last, 3, 5, 1, padding),
            nn.Tanh(),
        )

    def construct(self, x: Tensor) -> Tensor:
        return self.layers(x)


class CoarseGenerator(nn.Cell):
    """The coarse half of `coarse-to-fine`, for 64x64: its first layer keeps the size, so that small features survive.

    7x7, 3x3/2, 3x3/2, `blocks` residual blocks at 1/4 size, transposed 4x4/2, `refine[0]` residual blocks at 1/2 size,
    transposed 4x4/2, `refine[1]` residual blocks at full size, 7x7, tanh. H and W must be divisible by 4.
    """

    def __init__(
        self,
        channels: tuple[int, int, int] = (24, 48, 96),
        blocks: int = 6,
        refine: tuple[int, int] = (2, 2),
        padding: str = "zeros",
    ) -> None:
        super().__init__()
        a, b, c = channels
        self.layers = nn.SequentialCell(
            down(3, a, 7, 1, padding),
            down(a, b, 3, 2, padding),
            down(b, c, 3, 2, padding),
            *[ResidualBlock(c, padding) for _ in range(blocks)],
            up(c, b, 4),
            *[ResidualBlock(b, padding) for _ in range(refine[0])],
            up(b, a, 4),
            *[ResidualBlock(a, padding) for _ in range(refine[1])],
            conv2d(a, 3, 7, 1, padding),
            nn.Tanh(),
        )

    def construct(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ResNetGenerator(nn.Cell):
    """The generator of the CycleGAN paper (section 4 and appendix 7.2, after Johnson et al., arXiv 1603.08155).

    c7s1-64, d128, d256, R256 x `blocks`, u128, u64, c7s1-3, tanh; 9 blocks for 256x256 and larger, 6 for 128x128.
    `width` is ngf (64 in the paper). Reflection padding as in the paper, or zeros, which is faster. The norm "none" is
    for imported weights into which their batch norms are folded. H and W must be divisible by 4.
    """

    def __init__(self, blocks: int = 9, width: int = 64, padding: str = "reflect", norm: str = "instance") -> None:
        super().__init__()
        self.layers = nn.SequentialCell(
            down(3, width, 7, 1, padding, norm),
            # The strided convolutions are zero-padded in the reference implementation, too.
            down(width, 2 * width, 3, 2, norm=norm),
            down(2 * width, 4 * width, 3, 2, norm=norm),
            *[ResidualBlock(4 * width, padding, norm) for _ in range(blocks)],
            up(4 * width, 2 * width, 3, norm),
            up(2 * width, width, 3, norm),
            conv2d(width, 3, 7, 1, padding),
            nn.Tanh(),
        )

    def construct(self, x: Tensor) -> Tensor:
        return self.layers(x)


class UNetGenerator(nn.Cell):
    """The U-Net of pix2pix (arXiv 1611.07004, appendix 6.1.1) as `unet_256` of pytorch-CycleGAN-and-pix2pix has it.

    `depth` strided 4x4 convolutions to 1/2**depth of the size, as many transposed ones back, each level joined with its
    mirror image by concatenation; instance norm except at the outermost and the innermost convolution, or with `norm`
    "none" no norm at all; no dropout. H and W must be divisible by 2**depth: 256 with the default.
    """

    def __init__(self, width: int = 64, depth: int = 8, norm: str = "instance") -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"norm {norm!r}: must be one of {', '.join(NORMS)}")
        normed = norm == "instance"
        channels = [3, *(width * min(2**level, 8) for level in range(depth))]
        self.depth = depth
        downs, ups = [], []
        for level in range(depth):
            inputs, outputs = channels[level], channels[level + 1]
            down_cells = [nn.LeakyReLU(0.2)] * (level > 0) + [patch_conv(inputs, outputs, 2)]
            downs.append(nn.SequentialCell(*down_cells, *_norm_if(normed and 0 < level < depth - 1, outputs)))
            joined = outputs if level == depth - 1 else 2 * outputs
            conv = nn.Conv2dTranspose(joined, inputs, 4, 2, "pad", 1, has_bias=True, **initial())
            ups.append(nn.SequentialCell(nn.ReLU(), conv, *_norm_if(normed and level > 0, inputs)))
        # Whole lists: the parameters of cells that are appended later would not be named after the list.
        self.downs, self.ups = nn.CellList(downs), nn.CellList(ups)

    def construct(self, x: Tensor) -> Tensor:
        levels = []
        for down_cell in self.downs:
            x = down_cell(x)
            levels.append(x)
        for level in range(self.depth - 1, 0, -1):
            x = ops.concat((levels[level - 1], self.ups[level](x)), 1)
        return ops.tanh(self.ups[0](x))


def _norm_if(wanted: bool, channels: int) -> list[nn.Cell]:
    return [InstanceNorm(channels)] if wanted else []
