"""The generators and the discriminator of CycleGAN, as MindSpore cells.

Sources: CycleGAN, arXiv 1703.10593 (architectures: section 4 and appendix 7.2); PatchGAN: pix2pix, arXiv 1611.07004
(section 3.2.2 and appendix 6.1.2); instance normalisation: arXiv 1607.08022 (section 2).

Every generator takes RGB pictures (N, 3, H, W) float32 in [-1, 1] and returns the same shape and range; H and W must
be divisible by the network's total stride. Every convolution has a bias; weights start as Normal(0, 0.02), biases as 0
(appendix 7.1 of CycleGAN).
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Normal, initializer

PADDINGS = ("zeros", "reflect")
NORMS = ("instance", "none")


class InstanceNorm(nn.Cell):
    """Per picture and channel: (x - mean) / sqrt(variance + epsilon) * gamma + beta (arXiv 1607.08022, section 2).

    (N, C, H, W) -> (N, C, H, W). Written out because nn.InstanceNorm2d has no CPU kernel, neither in MindSpore nor in
    Lite. The variance is the mean square of the difference, never E[x^2] - E[x]^2, which cancels badly in float32.

    In training it is a batch norm over one picture of N * C channels, the same numbers: that kernel is fused, forward
    and backward, and several times faster on a CPU.
    """

    def __init__(self, channels: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.epsilon = epsilon
        # (1, C, 1, 1), not (C,): it broadcasts without a reshape in every pass.
        self.gamma = Parameter(initializer("ones", (1, channels, 1, 1)), name="gamma")
        self.beta = Parameter(initializer("zeros", (1, channels, 1, 1)), name="beta")
        self.batch_norm = ops.BatchNorm(is_training=True, epsilon=epsilon)

    def construct(self, x: Tensor) -> Tensor:
        if self.training:
            return self._fused(x)
        difference = x - ops.mean(x, (2, 3), True)
        variance = ops.mean(ops.square(difference), (2, 3), True)
        # The per-channel factors are multiplied first: one pass over the full-size tensor fewer.
        return difference * (ops.rsqrt(variance + self.epsilon) * self.gamma) + self.beta

    def _fused(self, x: Tensor) -> Tensor:
        pictures, channels, height, width = x.shape
        gamma, beta = ops.reshape(self.gamma, (channels,)), ops.reshape(self.beta, (channels,))
        if pictures > 1:
            gamma, beta = ops.tile(gamma, (pictures,)), ops.tile(beta, (pictures,))
        # The kernel wants running statistics to update; nobody reads them.
        unused = ops.zeros((pictures * channels,), x.dtype)
        y = self.batch_norm(ops.reshape(x, (1, pictures * channels, height, width)), gamma, beta, unused, unused)[0]
        return ops.reshape(y, x.shape)


class ReflectPad(nn.Cell):
    """Mirrors `size` rows and columns at each border, the border itself not repeated: (H, W) -> (H+2s, W+2s).

    By slices and Concat: nn.ReflectionPad2d becomes MirrorPad, which MindSpore Lite 2.0.0 does not have on CPU. In
    training it is MirrorPad, because the gradient of so many slices takes the compiler minutes and gigabytes.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def construct(self, x: Tensor) -> Tensor:
        if self.training:
            return ops.pad(x, (self.size, self.size, self.size, self.size), mode="reflect")
        height, width = x.shape[2], x.shape[3]
        above = [x[:, :, i : i + 1, :] for i in range(self.size, 0, -1)]
        below = [x[:, :, i : i + 1, :] for i in range(height - 2, height - 2 - self.size, -1)]
        x = ops.concat([*above, x, *below], 2)
        left = [x[:, :, :, i : i + 1] for i in range(self.size, 0, -1)]
        right = [x[:, :, :, i : i + 1] for i in range(width - 2, width - 2 - self.size, -1)]
        return ops.concat([*left, x, *right], 3)


class ReflectConv2d(nn.Conv2d):
    """A convolution whose input is mirrored at the border; stride 1 keeps (H, W), stride 2 halves it."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, kernel, stride, "pad", 0, has_bias=bias, **_initial())
        self.reflect = ReflectPad(kernel // 2)

    def construct(self, x: Tensor) -> Tensor:
        return super().construct(self.reflect(x))


class FourPixels(nn.Cell):
    """A convolution of stride 1 from many channels to a picture's three: the same sums, faster in training.

    One of stride 2 makes the four pixels of each 2x2 cell as channels; its kernel, one larger, holds the weights four
    times. That is 1.44 times the multiplications for a kernel of 5, in a third of the time on a CPU, where a matrix
    product of three rows is slow, most of all backwards. H and W must be even; `padding` is that of the stride 1.
    """

    def __init__(self, outputs: int, kernel: int, padding: int) -> None:
        super().__init__()
        self.strided = ops.Conv2D(4 * outputs, kernel + 1, 1, "pad", padding, 2)
        # Where each weight goes: the pixel at the right or bottom of its cell reads one further.
        places = np.zeros((kernel, kernel, 2, 2, kernel + 1, kernel + 1), np.float32)
        for y, x, down, right in np.ndindex(kernel, kernel, 2, 2):
            places[y, x, down, right, y + down, x + right] = 1
        self.places = Tensor(places.reshape(kernel * kernel, -1))

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        outputs, inputs, kernel, _ = weight.shape
        # A product with a constant, not ops.pad: the gradient of four pads differed from one run to the next.
        moved = ops.matmul(ops.reshape(weight, (outputs * inputs, kernel * kernel)), self.places)
        moved = ops.transpose(ops.reshape(moved, (outputs, inputs, 4, -1)), (0, 2, 1, 3))
        y = self.strided(x, ops.reshape(moved, (4 * outputs, inputs, kernel + 1, kernel + 1)))
        return ops.pixel_shuffle(y, 2) + ops.reshape(bias, (1, outputs, 1, 1))


class OutputConv2d(nn.Conv2d):
    """The last convolution of a generator, zero-padded: (N, i, H, W) -> (N, o, H, W)."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, 1, "pad", kernel // 2, has_bias=True, **_initial())
        self.four_pixels = FourPixels(outputs, kernel, kernel // 2)

    def construct(self, x: Tensor) -> Tensor:
        return self.four_pixels(x, self.weight, self.bias) if self.training else super().construct(x)


class ReflectOutputConv2d(ReflectConv2d):
    """The same, mirrored at the border."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, 1)
        self.four_pixels = FourPixels(outputs, kernel, 0)

    def construct(self, x: Tensor) -> Tensor:
        x = self.reflect(x)
        if self.training:
            return self.four_pixels(x, self.weight, self.bias)
        # Not super().construct(x): MindSpore compiles a second level of super() to an endless recursion.
        return self.bias_add(self.conv2d(x, self.weight), self.bias)


def output_conv2d(inputs: int, outputs: int, kernel: int, padding: str) -> nn.Conv2d:
    """The last convolution of a generator, of odd kernel."""
    if padding not in PADDINGS:
        raise ValueError(f"padding {padding!r}: must be one of {', '.join(PADDINGS)}")
    return (ReflectOutputConv2d if padding == "reflect" else OutputConv2d)(inputs, outputs, kernel)


def conv2d(
    inputs: int, outputs: int, kernel: int, stride: int = 1, padding: str = "zeros", bias: bool = True
) -> nn.Conv2d:
    """A convolution of odd kernel, padded by kernel // 2 with zeros or by reflection."""
    if padding not in PADDINGS:
        raise ValueError(f"padding {padding!r}: must be one of {', '.join(PADDINGS)}")
    if padding == "reflect":
        return ReflectConv2d(inputs, outputs, kernel, stride, bias)
    return nn.Conv2d(inputs, outputs, kernel, stride, "pad", kernel // 2, has_bias=bias, **_initial())


class ConvBlock(nn.Cell):
    """Convolution, instance norm, and ReLU unless `activate` is off: (N, i, H, W) -> (N, o, H / stride, W / stride)."""

    def __init__(self, conv: nn.Conv2d | nn.Conv2dTranspose, channels: int, activate: bool = True) -> None:
        super().__init__()
        self.conv = conv
        self.norm = InstanceNorm(channels)
        self.activation = nn.ReLU() if activate else nn.Identity()

    def construct(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv(x)))


class PlainBlock(nn.Cell):
    """ConvBlock without its norm, for weights into which a norm of fixed statistics is folded."""

    def __init__(self, conv: nn.Conv2d | nn.Conv2dTranspose, activate: bool = True) -> None:
        super().__init__()
        self.conv = conv
        self.activation = nn.ReLU() if activate else nn.Identity()

    def construct(self, x: Tensor) -> Tensor:
        return self.activation(self.conv(x))


Block = ConvBlock | PlainBlock


def block(conv: nn.Conv2d | nn.Conv2dTranspose, channels: int, norm: str = "instance", activate: bool = True) -> Block:
    """The block of a network with this norm."""
    if norm not in NORMS:
        raise ValueError(f"norm {norm!r}: must be one of {', '.join(NORMS)}")
    return ConvBlock(conv, channels, activate) if norm == "instance" else PlainBlock(conv, activate)


def down(inputs: int, outputs: int, kernel: int, stride: int, padding: str = "zeros", norm: str = "instance") -> Block:
    """Block that keeps the size (stride 1) or halves it (stride 2)."""
    return block(conv2d(inputs, outputs, kernel, stride, padding), outputs, norm)


def up(inputs: int, outputs: int, kernel: int, norm: str = "instance") -> Block:
    """Block that doubles the size with a transposed convolution of kernel 3 or 4.

    Kernel 4 divides by the stride, so that every output pixel is made of equally many inputs: no checkerboard.
    Kernel 3 is the paper's; padding (1, 0) on each axis is PyTorch's padding=1 with output_padding=1.
    """
    pads = {3: (1, 0, 1, 0), 4: (1, 1, 1, 1)}[kernel]
    conv = nn.Conv2dTranspose(inputs, outputs, kernel, 2, "pad", pads, has_bias=True, **_initial())
    return block(conv, outputs, norm)


class ResidualBlock(nn.Cell):
    """x + norm(conv(relu(norm(conv(x))))), both 3x3, no activation after the sum (CycleGAN, appendix 7.2, Rk)."""

    def __init__(self, channels: int, padding: str = "zeros", norm: str = "instance") -> None:
        super().__init__()
        self.first = block(conv2d(channels, channels, 3, 1, padding), channels, norm)
        self.second = block(conv2d(channels, channels, 3, 1, padding), channels, norm, activate=False)

    def construct(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


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
            output_conv2d(last, 3, 5, padding),
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
            output_conv2d(width, 3, 7, padding),
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
            down_cells = [nn.LeakyReLU(0.2)] * (level > 0) + [_patch_conv(inputs, outputs, 2)]
            downs.append(nn.SequentialCell(*down_cells, *_norm_if(normed and 0 < level < depth - 1, outputs)))
            joined = outputs if level == depth - 1 else 2 * outputs
            conv = nn.Conv2dTranspose(joined, inputs, 4, 2, "pad", 1, has_bias=True, **_initial())
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


class PatchDiscriminator(nn.SequentialCell):
    """The 70x70 PatchGAN: C64-C128-C256-C512 and a one-channel convolution, no sigmoid (for the LSGAN loss).

    (N, 3, H, W) in [-1, 1] -> (N, 1, H/8 - 2, W/8 - 2) unbounded scores, one for each 70x70 patch: 30x30 for 256x256.
    `width` is ndf: 64 in the papers (pix2pix appendix 6.1.2, CycleGAN appendix 7.2), 40 in the shipped weights. Two
    4x4 convolutions of stride 1 close it, and the first layer has no norm. `inputs` is 6 for the conditional one of
    pix2pix, which sees input and output joined.
    """

    def __init__(self, width: int = 64, inputs: int = 3) -> None:
        cells: list[nn.Cell] = [_patch_conv(inputs, width, 2), nn.LeakyReLU(0.2)]
        for inputs, outputs, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
            cells += [_patch_conv(inputs * width, outputs * width, stride), InstanceNorm(outputs * width)]
            cells.append(nn.LeakyReLU(0.2))
        super().__init__(*cells, _patch_conv(8 * width, 1, 1))


def total_stride(generator: nn.Cell) -> int:
    """What a generator's height and width must be divisible by: 8 (fast), 4 (ResNet), 2**depth (U-Net)."""
    # Each generator is one chain: its strided convolutions halve one after the other, the transposed ones undo it.
    return prod(cell.stride[0] for _, cell in generator.cells_and_names() if isinstance(cell, nn.Conv2d))


def _patch_conv(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 4, stride, "pad", 1, has_bias=True, **_initial())


def _initial() -> dict[str, object]:
    return {"weight_init": Normal(0.02), "bias_init": "zeros"}


# What `network = "..."` in a card or a training config may say.
GENERATORS: dict[str, Callable[..., nn.Cell]] = {
    "fast": FastGenerator,
    "resnet-9": lambda **options: ResNetGenerator(9, **options),
    "resnet-6": lambda **options: ResNetGenerator(6, **options),
    "unet-256": UNetGenerator,
}


def build_generator(network: str, **options: object) -> nn.Cell:
    """The named generator, freshly initialised, in inference mode."""
    if network not in GENERATORS:
        raise ValueError(f"unknown generator {network!r}: must be one of {', '.join(GENERATORS)}")
    return GENERATORS[network](**options).set_train(False)
