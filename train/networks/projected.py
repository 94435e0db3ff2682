"""The projected discriminator (arXiv 2111.01007): frozen features of ImageNet, mixed at random, and a head per scale.

Mixing (section 3.2 of the paper): a random 1x1 convolution per scale, then from coarse to fine the map below, enlarged
and sent through a random 3x3 convolution, is added. Heads are spectrally normalised (arXiv 1802.05957, section 2.1).
Its losses are the hinges of `train.losses`.

The frozen parts are constants of the graph. Weights files hold the heads alone; the mixing is made again from its seed.
"""

from __future__ import annotations

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from numpy.typing import NDArray

from train.foreign import Network
from train.networks.efficientnet_lite import CHANNELS, EfficientNetLite

Array = NDArray[np.float32]

WIDTHS = (64, 96, 128, 192)  # channels of the mixed features, fine to coarse
STRIDES = (4, 8, 16, 32)
SEED = 5  # of the mixing: heads in a file fit this one
HEAD_SIDE = 6  # maps larger than this are halved by a head's strided convolutions
HEAD_WIDTH = 128
SMALL = 6  # the largest side of a map whose trained convolution takes the form of matrices
TINY = 1e-12  # what a norm is at least, as in torch.nn.functional.normalize


class ProjectedDiscriminator(nn.Cell):
    """Features of pictures, and the heads' scores of features.

    `features`: pictures (N, 3, H, W) in [-1, 1] -> four maps (N, WIDTHS[s], size / STRIDES[s], size / STRIDES[s]); the
    gradient flows to the pictures. `construct`: these maps -> four score maps (N, 1, h, w), unbounded. Apart, so that
    the features of generated pictures, made for the generator's step, serve the discriminator's step as well.

    Trainable are the heads alone. In training (`set_train`) norms are over the batch, and every pass moves `u`.
    """

    def __init__(self, network: Network, size: int = 224, deviation: bool = True, seed: int = SEED) -> None:
        """`size`: what pictures are resized to, a multiple of 32; `deviation`: see `Head`."""
        super().__init__()
        self.size = size
        self.lite = EfficientNetLite(network, size)
        self.mixing = Mixing(size, seed)
        sides = [size // stride for stride in STRIDES]
        self.heads = nn.CellList([Head(width, side, deviation) for width, side in zip(WIDTHS, sides, strict=True)])

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        if x.shape[2] != self.size or x.shape[3] != self.size:
            x = ops.interpolate(x, size=(self.size, self.size), mode="bilinear", align_corners=False)
        f0, f1, f2, f3 = self.lite(x)
        mixed: tuple[Tensor, ...] = self.mixing(f0, f1, f2, f3)
        return mixed

    def construct(self, f0: Tensor, f1: Tensor, f2: Tensor, f3: Tensor) -> tuple[Tensor, ...]:
        return self.heads[0](f0), self.heads[1](f1), self.heads[2](f2), self.heads[3](f3)


class Mixing(nn.Cell):
    """Frozen random mixing across channels and scales: four maps of CHANNELS channels -> four of WIDTHS channels."""

    def __init__(self, size: int, seed: int) -> None:
        super().__init__()
        random = np.random.RandomState(seed)  # its numbers never change (NEP 19)
        mix, down = [], []
        for scale, (inputs, outputs) in enumerate(zip(CHANNELS, WIDTHS, strict=True)):
            mix.append(FrozenConv2d(normal(random, (outputs, inputs, 1, 1)) * (2 / inputs) ** 0.5 * 0.7))
            if scale:
                weight = normal(random, (WIDTHS[scale - 1], outputs, 3, 3)) * (1 / (9 * outputs)) ** 0.5
                down.append(FrozenConv2d(weight))
        self.mix, self.down = nn.CellList(mix), nn.CellList(down)
        self.enlarge = nn.CellList([Resize(size // stride, 2 * size // stride) for stride in STRIDES[1:]])

    def construct(self, f0: Tensor, f1: Tensor, f2: Tensor, f3: Tensor) -> tuple[Tensor, ...]:
        m3 = self.mix[3](f3)
        m2 = self.mix[2](f2) + self.down[2](self.enlarge[2](m3))
        m1 = self.mix[1](f1) + self.down[1](self.enlarge[1](m2))
        m0 = self.mix[0](f0) + self.down[0](self.enlarge[0](m1))
        return m0, m1, m2, m3


class FrozenConv2d(nn.Cell):
    """A convolution of stride 1 without bias whose weight is a constant: (N, i, H, W) -> (N, o, H, W)."""

    def __init__(self, weight: Array) -> None:
        super().__init__()
        self.weight = Tensor(weight.astype(np.float32))
        self.conv2d = ops.Conv2D(weight.shape[0], weight.shape[2], 1, "pad", weight.shape[2] // 2)

    def construct(self, x: Tensor) -> Tensor:
        return self.conv2d(x, self.weight)


class Resize(nn.Cell):
    """Bilinear, between pixels' centres: (N, C, side, side) -> (N, C, to, to).

    One matrix product: the gradient of ops.interpolate takes six times as long as PyTorch's on a CPU.
    """

    def __init__(self, side: int, to: int) -> None:
        super().__init__()
        line = resize_matrix(side, to)
        self.to = to
        self.matrix = Tensor(np.kron(line, line))
        self.matmul = ops.MatMul()

    def construct(self, x: Tensor) -> Tensor:
        pictures, channels, height, width = x.shape
        y = self.matmul(ops.reshape(x, (pictures * channels, height * width)), self.matrix)
        return ops.reshape(y, (pictures, channels, self.to, self.to))


class Head(nn.Cell):
    """The discriminator of one scale: (N, channels, side, side) -> (N, 1, h, h) scores, h = `side` halved to 6 or less.

    Spectrally normalised 4x4 convolutions of stride 2 with batch norm and leaky ReLU, a 3x3 one, and a last 3x3 one.
    `deviation`: the last one sees the batch's standard deviation as one more channel (arXiv 1710.10196, section 3), so
    that one picture for everybody is found out.
    """

    def __init__(self, channels: int, side: int, deviation: bool = True) -> None:
        super().__init__()
        cells: list[nn.Cell] = []
        while side > HEAD_SIDE:
            outputs = min(2 * channels, 2 * HEAD_WIDTH) if cells else HEAD_WIDTH
            cells += [
                SpectralConv2d(channels, outputs, side, 4, 2, bias=False),
                nn.BatchNorm2d(outputs),
                nn.LeakyReLU(0.2),
            ]
            channels, side = outputs, side // 2
        self.layers = nn.SequentialCell(*cells, SpectralConv2d(channels, HEAD_WIDTH, side, 3, 1), nn.LeakyReLU(0.2))
        self.last = SpectralConv2d(HEAD_WIDTH + deviation, 1, side, 3, 1)
        self.deviation = deviation

    def construct(self, x: Tensor) -> Tensor:
        x = self.layers(x)
        if self.deviation:
            pictures, _, height, width = x.shape
            spread = ops.broadcast_to(batch_deviation(x), (pictures, 1, height, width))
            x = ops.concat((x, spread), 1)
        return self.last(x)


def batch_deviation(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (1, 1, 1, 1): the standard deviation over the batch, the mean of it over all else."""
    difference = x - ops.mean(x, 0, True)
    variance = ops.mean(ops.square(difference), 0, True)
    return ops.mean(ops.sqrt(variance + 1e-6), (1, 2, 3), True)


class SpectralConv2d(nn.Conv2d):
    """A convolution whose weight is divided by its largest singular value (arXiv 1802.05957, section 2.1).

    That is estimated by one step of the power iteration a pass (algorithm 1 there) from `u`, (out,), which a pass in
    training keeps for the next one. u and v have no gradient. Weights and biases start as PyTorch's do.
    """

    def __init__(self, inputs: int, outputs: int, side: int, kernel: int, stride: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, kernel, stride, "pad", 1, has_bias=bias)
        if side <= SMALL:
            self.conv2d = MatrixConv2d(side, kernel, stride)
        start = np.random.normal(size=outputs)
        start = (start / np.linalg.norm(start)).astype(np.float32)
        self.u = Parameter(Tensor(start), name="u", requires_grad=False)

    def construct(self, x: Tensor) -> Tensor:
        matrix = ops.reshape(self.weight, (self.out_channels, -1))
        frozen = ops.stop_gradient(matrix)
        v = unit(ops.matmul(ops.reshape(self.u, (1, -1)), frozen))
        product = ops.matmul(matrix, ops.reshape(v, (-1, 1)))
        u = unit(ops.stop_gradient(ops.reshape(product, (1, -1))))
        if self.training:
            ops.assign(self.u, ops.reshape(u, (-1,)))
        # The output is divided, not the weight: the same, and its gradient has fewer numbers to go through.
        y = self.conv2d(x, self.weight) * ops.reshape(1.0 / ops.matmul(u, product), (1, 1, 1, 1))
        return self.bias_add(y, self.bias) if self.has_bias else y


class MatrixConv2d(nn.Cell):
    """A convolution with padding 1 of small maps, (N, i, side, side) -> (N, o, h, h), as two matrix products.

    The first, with a constant, copies what each output pixel sees (im2col); the second is one for the whole batch.
    MindSpore's own on a CPU is one product a picture, and the gradient of its weights takes 30 ms for maps of 3x3.
    """

    def __init__(self, side: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.kept = (side + 2 - kernel) // stride + 1
        self.columns = Tensor(column_matrix(side, kernel, stride, self.kept))
        self.matmul = ops.MatMul()

    def construct(self, x: Tensor, weight: Tensor) -> Tensor:
        pictures, channels, height, width = x.shape
        outputs, kept = weight.shape[0], self.kept
        seen = self.matmul(ops.reshape(x, (pictures * channels, height * width)), self.columns)
        seen = ops.transpose(ops.reshape(seen, (pictures, -1, kept * kept)), (1, 0, 2))
        weight = ops.reshape(weight, (outputs, -1))
        y = self.matmul(weight, ops.reshape(seen, (weight.shape[1], -1)))
        return ops.transpose(ops.reshape(y, (outputs, pictures, kept, kept)), (1, 0, 2, 3))


def column_matrix(side: int, kernel: int, stride: int, kept: int) -> Array:
    """(side**2, kernel**2 * kept**2) of 0 and 1: which input pixel each place of the kernel meets, for each output."""
    matrix = np.zeros((side, side, kernel, kernel, kept, kept), np.float32)
    for a, b, row, column in np.ndindex(kernel, kernel, kept, kept):
        y, x = row * stride + a - 1, column * stride + b - 1
        if 0 <= y < side and 0 <= x < side:
            matrix[y, x, a, b, row, column] = 1
    return matrix.reshape(side * side, -1)


def unit(x: Tensor) -> Tensor:
    """A row, (1, n), as long as 1."""
    return x / ops.maximum(ops.sqrt(ops.sum(ops.square(x))), TINY)


def normal(random: np.random.RandomState, shape: tuple[int, ...]) -> Array:
    """Normal(0, 1), the numbers that torch.randn draws from the same seed, so that heads of a PyTorch twin fit.

    24 bits of each number of the Mersenne Twister, Box and Muller's method on blocks of 8 and 8 (ATen/native/cpu/
    DistributionTemplates.h, `normal_fill`); the size must be a multiple of 16.
    """
    bits = random.randint(0, 2**32, int(np.prod(shape)), np.uint32) & (2**24 - 1)
    uniform = (bits / 2**24).reshape(-1, 2, 8)
    radius, angle = np.sqrt(-2 * np.log(1 - uniform[:, 0])), 2 * np.pi * uniform[:, 1]
    numbers: Array = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).astype(np.float32)
    return numbers.reshape(shape)


def resize_matrix(side: int, to: int) -> Array:
    """(side, to): a row of pixels times it is resized linearly, pixels' centres at (i + 0.5) / side of the way."""
    at = np.clip((np.arange(to) + 0.5) * side / to - 0.5, 0, side - 1)
    low = np.minimum(at.astype(int), side - 1)
    high = np.minimum(low + 1, side - 1)
    matrix = np.zeros((side, to))
    np.add.at(matrix, (low, np.arange(to)), 1 - (at - low))
    np.add.at(matrix, (high, np.arange(to)), at - low)
    return matrix.astype(np.float32)
