"""EfficientNet-Lite as a frozen MindSpore cell whose gradient is fast on a CPU.

Its weights are constants of the graph, not parameters: nothing trains them, no weights file carries them, and the
compiler leaves their gradients out. Padding is TensorFlow's SAME: the odd pixel at the bottom right.

MindSpore's depthwise convolution on a CPU is a matrix product of one row for every picture and channel, about ten
times slower than it need be, so that none is used here:

- On maps of up to 8x8 pixels, each channel's convolution is a matrix from all pixels to all pixels. Features there lie
  channels first, (C, N * H * W), so that 1x1 convolutions are single matrix products.
- On larger ones, a grouped convolution makes q x q neighbouring pixels at once, as channels. The following 1x1
  convolution does not care where pixels lie; they are put in order behind it, where channels are fewest.
"""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn, ops
from numpy.typing import NDArray

from train.foreign import Block, Convolution, Network

Array = NDArray[np.float32]

CHANNELS = (24, 40, 112, 320)  # of the features at strides 4, 8, 16, 32
TILES = (3, 4, 2, 1)  # sides of a tile, the fastest first
SMALL = 8  # the largest side of a map that takes the form of matrices
STRIDE = 32  # of the whole network


class EfficientNetLite(nn.Cell):
    """(N, 3, size, size) -> features at strides 4, 8, 16 and 32, of CHANNELS channels, (N, C, size / s, size / s).

    The features are what the last block before each change of the stride puts out, without activation. `size` must be
    divisible by 32: the matrices are made for it.

    Pictures are not normalised here. In [-1, 1] they are what the weights were trained on (TensorFlow's Lite code takes
    (x - 127) / 128), and so the projected discriminator and its PyTorch twin give them; ImageNet's mean and deviation,
    with which `train.pytorch` scores pictures, are the caller's.
    """

    def __init__(self, network: Network, size: int) -> None:
        super().__init__()
        if size < STRIDE or size % STRIDE:
            raise ValueError(f"size {size}: must be a multiple of {STRIDE}")
        self.stem = Stem(network.stem)
        large: list[nn.Cell] = []
        small: list[nn.Cell] = []
        self.outputs: list[bool] = []
        side = size // 2
        for number, block in enumerate(network.blocks):
            if side <= SMALL:
                small.append(MatrixBlock(block, side))
            else:
                large.append(TiledBlock(block, side))
            side //= block.stride
            following = network.blocks[number + 1 : number + 2]
            self.outputs.append(not following or (following[0].stride == 2 and number > 0))
        # Whole lists: see UNetGenerator.
        self.large, self.small = nn.CellList(large), nn.CellList(small)
        self.head = Pointwise(network.head)
        self.size = size

    def construct(self, x: Tensor) -> tuple[Tensor, ...]:
        features = []
        x = self.stem(x)
        number = 0
        for block in self.large:
            x = block(x)
            if self.outputs[number]:
                features.append(x)
            number += 1
        pictures = x.shape[0]
        x = channels_first(x)
        for block in self.small:
            x = block(x)
            if self.outputs[number]:
                maps = ops.reshape(x, (x.shape[0], pictures, block.side, block.side))
                features.append(ops.transpose(maps, (1, 0, 2, 3)))
            number += 1
        return tuple(features)

    def pooled(self, x: Tensor) -> Tensor:
        """(N, 3, size, size) -> (N, 1280): the input of ImageNet's last layer."""
        maps = self.construct(x)[-1]
        y = ops.relu6(self.head(channels_first(maps)))
        return ops.transpose(ops.mean(ops.reshape(y, (y.shape[0], maps.shape[0], -1)), 2), (1, 0))


def channels_first(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (C, N * H * W)."""
    return ops.reshape(ops.transpose(x, (1, 0, 2, 3)), (x.shape[1], -1))


class Stem(nn.Cell):
    """The first convolution, 3x3 of stride 2, and ReLU6: (N, 3, H, W) -> (N, 32, H / 2, W / 2)."""

    def __init__(self, convolution: Convolution) -> None:
        super().__init__()
        self.weight, self.bias = Tensor(convolution.weight), Tensor(convolution.bias)
        self.conv2d = ops.Conv2D(len(convolution.bias), convolution.weight.shape[2], 1, "same", 0, 2)
        self.bias_add, self.relu6 = ops.BiasAdd(), ops.ReLU6()

    def construct(self, x: Tensor) -> Tensor:
        return self.relu6(self.bias_add(self.conv2d(x, self.weight), self.bias))


class TiledBlock(nn.Cell):
    """An inverted bottleneck on a large map: (N, i, H, W) -> (N, o, H / stride, W / stride)."""

    def __init__(self, block: Block, side: int) -> None:
        super().__init__()
        self.expand = PlainConv2d(block.expand) if block.expand else None
        self.depthwise = TiledDepthwise(block.depthwise, side, block.stride)
        self.project = PlainConv2d(block.project)
        self.adds = block.adds
        self.relu6 = ops.ReLU6()

    def construct(self, x: Tensor) -> Tensor:
        y = x
        if self.expand is not None:
            y = self.relu6(self.expand(y))
        y = self.relu6(self.depthwise(y))
        y = self.depthwise.ordered(self.project(self.depthwise.flat(y)))
        return x + y if self.adds else y


class PlainConv2d(nn.Cell):
    """A 1x1 convolution with bias: (N, i, H, W) -> (N, o, H, W)."""

    def __init__(self, convolution: Convolution) -> None:
        super().__init__()
        self.weight, self.bias = Tensor(convolution.weight), Tensor(convolution.bias)
        self.conv2d, self.bias_add = ops.Conv2D(len(convolution.bias), 1), ops.BiasAdd()

    def construct(self, x: Tensor) -> Tensor:
        return self.bias_add(self.conv2d(x, self.weight), self.bias)


class TiledDepthwise(nn.Cell):
    """A depthwise convolution that makes tiles of q x q pixels: (N, C, H, W) -> (N, C * q * q, h, h).

    h is H / stride / q. `flat` joins a channel's pixels, tile by tile; `ordered` puts them in rows and columns again.
    """

    def __init__(self, convolution: Convolution, side: int, stride: int) -> None:
        super().__init__()
        channels, _, kernel, _ = convolution.weight.shape
        outputs = side // stride
        q = self.q = next(q for q in TILES if outputs % q == 0)
        before, step = same_padding(side, kernel, stride)[0], stride * q
        reach = (q - 1) * stride + kernel
        weight = np.zeros((channels, q, q, reach, reach), np.float32)
        for row, column in np.ndindex(q, q):
            place = np.s_[row * stride : row * stride + kernel, column * stride : column * stride + kernel]
            weight[:, row, column, place[0], place[1]] = convolution.weight[:, 0]
        after = outputs * stride - step + reach - side - before
        self.weight = Tensor(weight.reshape(channels * q * q, 1, reach, reach))
        self.bias = Tensor(np.repeat(convolution.bias, q * q))
        pads = (before, after, before, after)
        self.conv2d = ops.Conv2D(channels * q * q, reach, 1, "pad", pads, step, group=channels)
        self.bias_add = ops.BiasAdd()

    def construct(self, x: Tensor) -> Tensor:
        return self.bias_add(self.conv2d(x, self.weight), self.bias)

    def flat(self, x: Tensor) -> Tensor:
        tiles = self.q * self.q
        return ops.reshape(x, (x.shape[0], x.shape[1] // tiles, tiles * x.shape[2], x.shape[3]))

    def ordered(self, x: Tensor) -> Tensor:
        n, c, q, w = x.shape[0], x.shape[1], self.q, x.shape[3]
        x = ops.transpose(ops.reshape(x, (n, c, q, q, w, w)), (0, 1, 4, 2, 5, 3))
        return ops.reshape(x, (n, c, w * q, w * q))


class MatrixBlock(nn.Cell):
    """An inverted bottleneck on a small map, channels first: (i, N * H * W) -> (o, N * H * W / stride**2)."""

    def __init__(self, block: Block, side: int) -> None:
        super().__init__()
        if block.expand is None:
            raise ValueError("a block without expansion on a small map: larger pictures are needed")
        self.expand, self.project = Pointwise(block.expand), Pointwise(block.project)
        self.depthwise = Tensor(depthwise_matrices(block.depthwise.weight, side, block.stride))
        self.bias = Tensor(block.depthwise.bias)
        self.matmul, self.bias_add, self.relu6 = ops.BatchMatMul(), ops.BiasAdd(), ops.ReLU6()
        self.adds, self.side = block.adds, side // block.stride

    def construct(self, x: Tensor) -> Tensor:
        y = self.relu6(self.expand(x))
        channels, pixels, _ = self.depthwise.shape
        y = self.matmul(ops.reshape(y, (channels, -1, pixels)), self.depthwise)
        y = self.bias_add(ops.reshape(y, (1, channels, -1)), self.bias)
        y = self.project(ops.reshape(self.relu6(y), (channels, -1)))
        return x + y if self.adds else y


class Pointwise(nn.Cell):
    """A 1x1 convolution with bias, channels first: (i, M) -> (o, M)."""

    def __init__(self, convolution: Convolution) -> None:
        super().__init__()
        self.weight, self.bias = Tensor(convolution.weight[:, :, 0, 0]), Tensor(convolution.bias)
        self.matmul, self.bias_add = ops.MatMul(), ops.BiasAdd()

    def construct(self, x: Tensor) -> Tensor:
        y = ops.expand_dims(self.matmul(self.weight, x), 0)
        return ops.reshape(self.bias_add(y, self.bias), (y.shape[1], y.shape[2]))


def same_padding(side: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding before and after a side."""
    total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2


def depthwise_matrices(weight: Array, side: int, stride: int) -> Array:
    """(C, 1, k, k) -> (C, side**2, (side / stride)**2): a row of a channel's pixels times its matrix is convolved."""
    channels, _, kernel, _ = weight.shape
    kept, before = side // stride, same_padding(side, kernel, stride)[0]
    matrices = np.zeros((channels, side, side, kept, kept), np.float32)
    for row, column, a, b in np.ndindex(kept, kept, kernel, kernel):
        y, x = row * stride + a - before, column * stride + b - before
        if 0 <= y < side and 0 <= x < side:
            matrices[:, y, x, row, column] = weight[:, 0, a, b]
    return matrices.reshape(channels, side * side, kept * kept)
