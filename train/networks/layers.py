"""The layers that the networks are made of, as MindSpore cells.

Pictures and features are (N, C, H, W) float32. Every convolution has a bias; weights start as Normal(0, 0.02), biases
as 0 (CycleGAN, arXiv 1703.10593, appendix 7.1). Instance normalisation: arXiv 1607.08022 (section 2).
"""

from __future__ import annotations

from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Normal, initializer

from train.networks.convolution import FastConvolution

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
        super().__init__(inputs, outputs, kernel, stride, "pad", 0, has_bias=bias, **initial())
        self.reflect = ReflectPad(kernel // 2)
        self.fast = FastConvolution(kernel) if stride == 1 else None

    def construct(self, x: Tensor) -> Tensor:
        x = self.reflect(x)
        if not self.training or self.fast is None:
            return super().construct(x)
        (n, _, height, width), border = x.shape, self.reflect.size
        size = (n, self.out_channels, height - 2 * border, width - 2 * border)
        y = ops.slice(self.fast(x, self.weight), (0, 0, border, border), size)
        return self.bias_add(y, self.bias) if self.has_bias else y


class SameConv2d(nn.Conv2d):
    """A convolution of odd kernel and stride 1, zero-padded: (N, i, H, W) -> (N, o, H, W), faster in training.

    `start`: the initial weights, if not those of all others. `normed`: a norm follows, which takes the bias away again,
    so that training leaves it out.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, bias: bool = True, start: dict[str, object] | None = None
    ) -> None:
        super().__init__(inputs, outputs, kernel, 1, "pad", kernel // 2, has_bias=bias, **(start or initial()))
        self.fast = FastConvolution(kernel)
        self.normed = False

    def construct(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().construct(x)
        y = self.fast(x, self.weight)
        return self.bias_add(y, self.bias) if self.has_bias and not self.normed else y


class LeakyReLU(nn.LeakyReLU):
    """x where it is above 0, `alpha` x elsewhere; in training as a sum, since the gradient of a maximum is slow."""

    def construct(self, x: Tensor) -> Tensor:
        if not self.training:
            return ops.leaky_relu(x, self.alpha)
        return self.alpha * x + (1 - self.alpha) * ops.relu(x)


def conv2d(
    inputs: int, outputs: int, kernel: int, stride: int = 1, padding: str = "zeros", bias: bool = True
) -> nn.Conv2d:
    """A convolution of odd kernel, padded by kernel // 2 with zeros or by reflection."""
    if padding not in PADDINGS:
        raise ValueError(f"padding {padding!r}: must be one of {', '.join(PADDINGS)}")
    if padding == "reflect":
        return ReflectConv2d(inputs, outputs, kernel, stride, bias)
    if stride == 1:
        return SameConv2d(inputs, outputs, kernel, bias)
    return nn.Conv2d(inputs, outputs, kernel, stride, "pad", kernel // 2, has_bias=bias, **initial())


class ConvBlock(nn.Cell):
    """Convolution, instance norm, and ReLU unless `activate` is off: (N, i, H, W) -> (N, o, H / stride, W / stride)."""

    def __init__(self, conv: nn.Conv2d | nn.Conv2dTranspose, channels: int, activate: bool = True) -> None:
        super().__init__()
        self.conv = conv
        if isinstance(conv, SameConv2d):
            conv.normed = True
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
    conv = nn.Conv2dTranspose(inputs, outputs, kernel, 2, "pad", pads, has_bias=True, **initial())
    return block(conv, outputs, norm)


class ResidualBlock(nn.Cell):
    """x + norm(conv(relu(norm(conv(x))))), both 3x3, no activation after the sum (CycleGAN, appendix 7.2, Rk)."""

    def __init__(self, channels: int, padding: str = "zeros", norm: str = "instance") -> None:
        super().__init__()
        self.first = block(conv2d(channels, channels, 3, 1, padding), channels, norm)
        self.second = block(conv2d(channels, channels, 3, 1, padding), channels, norm, activate=False)

    def construct(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


def patch_conv(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 4, stride, "pad", 1, has_bias=True, **initial())


def initial() -> dict[str, object]:
    return {"weight_init": Normal(0.02), "bias_init": "zeros"}
