"""The generators and the discriminator of CycleGAN, as MindSpore cells.

Sources: CycleGAN, arXiv 1703.10593 (architectures: section 4 and appendix 7.2); PatchGAN: pix2pix, arXiv 1611.07004
(section 3.2.2 and appendix 6.1.2); instance normalisation: arXiv 1607.08022 (section 2).

Every generator takes RGB pictures (N, 3, H, W) float32 in [-1, 1] and returns the same shape and range; H and W must
be divisible by the network's total stride. Every convolution has a bias; weights start as Normal(0, 0.02), biases as 0
(appendix 7.1 of CycleGAN).
"""

from __future__ import annotations

from collections.abc import Callable

from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Normal, initializer

PADDINGS = ("zeros", "reflect")


class InstanceNorm(nn.Cell):
    """Per picture and channel: (x - mean) / sqrt(variance + epsilon) * gamma + beta (arXiv 1607.08022, section 2).

    (N, C, H, W) -> (N, C, H, W). Written out because nn.InstanceNorm2d has no CPU kernel, neither in MindSpore nor in
    Lite. The variance is the mean square of the difference, never E[x^2] - E[x]^2, which cancels badly in float32.
    """

    def __init__(self, channels: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.epsilon = epsilon
        # (1, C, 1, 1), not (C,): it broadcasts without a reshape in every pass.
        self.gamma = Parameter(initializer("ones", (1, channels, 1, 1)), name="gamma")
        self.beta = Parameter(initializer("zeros", (1, channels, 1, 1)), name="beta")

    def construct(self, x: Tensor) -> Tensor:
        difference = x - ops.mean(x, (2, 3), True)
        variance = ops.mean(ops.square(difference), (2, 3), True)
        # The per-channel factors are multiplied first: one pass over the full-size tensor fewer.
        return difference * (ops.rsqrt(variance + self.epsilon) * self.gamma) + self.beta


class ReflectPad(nn.Cell):
    """Mirrors `size` rows and columns at each border, the border itself not repeated: (H, W) -> (H+2s, W+2s).

    By slices and Concat: nn.ReflectionPad2d becomes MirrorPad, which MindSpore Lite 2.0.0 does not have on CPU.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def construct(self, x: Tensor) -> Tensor:
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


def down(inputs: int, outputs: int, kernel: int, stride: int, padding: str = "zeros") -> ConvBlock:
    """ConvBlock that keeps the size (stride 1) or halves it (stride 2)."""
    return ConvBlock(conv2d(inputs, outputs, kernel, stride, padding), outputs)


def up(inputs: int, outputs: int, kernel: int) -> ConvBlock:
    """ConvBlock that doubles the size with a transposed convolution of kernel 3 or 4.

    Kernel 4 divides by the stride, so that every output pixel is made of equally many inputs: no checkerboard.
    Kernel 3 is the paper's; padding (1, 0) on each axis is PyTorch's padding=1 with output_padding=1.
    """
    pads = {3: (1, 0, 1, 0), 4: (1, 1, 1, 1)}[kernel]
    conv = nn.Conv2dTranspose(inputs, outputs, kernel, 2, "pad", pads, has_bias=True, **_initial())
    return ConvBlock(conv, outputs)


class ResidualBlock(nn.Cell):
    """x + norm(conv(relu(norm(conv(x))))), both 3x3, no activation after the sum (CycleGAN, appendix 7.2, Rk)."""

    def __init__(self, channels: int, padding: str = "zeros") -> None:
        super().__init__()
        self.first = ConvBlock(conv2d(channels, channels, 3, 1, padding), channels)
        self.second = ConvBlock(conv2d(channels, channels, 3, 1, padding), channels, activate=False)

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
            conv2d(last, 3, 5, 1, padding),
            nn.Tanh(),
        )

    def construct(self, x: Tensor) -> Tensor:
        return self.layers(x)


class ResNetGenerator(nn.Cell):
    """The generator of the CycleGAN paper (section 4 and appendix 7.2, after Johnson et al., arXiv 1603.08155).

    c7s1-64, d128, d256, R256 x `blocks`, u128, u64, c7s1-3, tanh; 9 blocks for 256x256 and larger, 6 for 128x128.
    `width` is ngf (64 in the paper). Reflection padding as in the paper, or zeros, which is faster. H and W must be
    divisible by 4.
    """

    def __init__(self, blocks: int = 9, width: int = 64, padding: str = "reflect") -> None:
        super().__init__()
        self.layers = nn.SequentialCell(
            down(3, width, 7, 1, padding),
            # The strided convolutions are zero-padded in the reference implementation, too.
            down(width, 2 * width, 3, 2),
            down(2 * width, 4 * width, 3, 2),
            *[ResidualBlock(4 * width, padding) for _ in range(blocks)],
            up(4 * width, 2 * width, 3),
            up(2 * width, width, 3),
            conv2d(width, 3, 7, 1, padding),
            nn.Tanh(),
        )

    def construct(self, x: Tensor) -> Tensor:
        return self.layers(x)


class PatchDiscriminator(nn.SequentialCell):
    """The 70x70 PatchGAN: C64-C128-C256-C512 and a one-channel convolution, no sigmoid (for the LSGAN loss).

    (N, 3, H, W) in [-1, 1] -> (N, 1, H/8 - 2, W/8 - 2) unbounded scores, one for each 70x70 patch: 30x30 for 256x256.
    `width` is ndf: 64 in the papers (pix2pix appendix 6.1.2, CycleGAN appendix 7.2), 40 in the shipped weights. Two
    4x4 convolutions of stride 1 close it, and the first layer has no norm.
    """

    def __init__(self, width: int = 64) -> None:
        cells: list[nn.Cell] = [_patch_conv(3, width, 2), nn.LeakyReLU(0.2)]
        for inputs, outputs, stride in ((1, 2, 2), (2, 4, 2), (4, 8, 1)):
            cells += [_patch_conv(inputs * width, outputs * width, stride), InstanceNorm(outputs * width)]
            cells.append(nn.LeakyReLU(0.2))
        super().__init__(*cells, _patch_conv(8 * width, 1, 1))


def _patch_conv(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 4, stride, "pad", 1, has_bias=True, **_initial())


def _initial() -> dict[str, object]:
    return {"weight_init": Normal(0.02), "bias_init": "zeros"}


# What `network = "..."` in a card or a training config may say.
GENERATORS: dict[str, Callable[..., nn.Cell]] = {
    "fast": FastGenerator,
    "resnet-9": lambda **options: ResNetGenerator(9, **options),
    "resnet-6": lambda **options: ResNetGenerator(6, **options),
}


def build_generator(network: str, **options: object) -> nn.Cell:
    """The named generator, freshly initialised, in inference mode."""
    if network not in GENERATORS:
        raise ValueError(f"unknown generator {network!r}: must be one of {', '.join(GENERATORS)}")
    return GENERATORS[network](**options).set_train(False)
