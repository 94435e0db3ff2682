"""The networks, as MindSpore cells: layers, generators, discriminators; and the generators by name."""

from __future__ import annotations

from collections.abc import Callable
from math import lcm, prod

from mindspore import nn

from train.networks.discriminators import PatchDiscriminator
from train.networks.efficientnet_lite import EfficientNetLite
from train.networks.fine import LIMIT, RESIDUAL, SLOPE, CoarseToFine, FineBlock, FineGenerator
from train.networks.generators import CoarseGenerator, FastGenerator, ResNetGenerator, UNetGenerator
from train.networks.layers import (
    ConvBlock,
    InstanceNorm,
    ReflectConv2d,
    ResidualBlock,
    conv2d,
)
from train.networks.projected import ProjectedDiscriminator, resize_matrix

__all__ = [
    "GENERATORS",
    "LIMIT",
    "RESIDUAL",
    "SLOPE",
    "CoarseGenerator",
    "CoarseToFine",
    "ConvBlock",
    "EfficientNetLite",
    "FastGenerator",
    "FineBlock",
    "FineGenerator",
    "InstanceNorm",
    "PatchDiscriminator",
    "ProjectedDiscriminator",
    "ReflectConv2d",
    "ResNetGenerator",
    "ResidualBlock",
    "UNetGenerator",
    "build_generator",
    "conv2d",
    "resize_matrix",
    "total_stride",
]

# What `network = "..."` in a card or a training config may say.
GENERATORS: dict[str, Callable[..., nn.Cell]] = {
    "fast": FastGenerator,
    "coarse": CoarseGenerator,
    "fine": FineGenerator,
    "coarse-to-fine": CoarseToFine,
    "resnet-9": lambda **options: ResNetGenerator(9, **options),
    "resnet-6": lambda **options: ResNetGenerator(6, **options),
    "unet-256": UNetGenerator,
}


def build_generator(network: str, **options: object) -> nn.Cell:
    """The named generator, freshly initialised, in inference mode."""
    if network not in GENERATORS:
        raise ValueError(f"unknown generator {network!r}: must be one of {', '.join(GENERATORS)}")
    return GENERATORS[network](**options).set_train(False)


def total_stride(generator: nn.Cell) -> int:
    """What a generator's height and width must be divisible by.

    8 (fast), 4 (coarse, ResNet), 2**depth (U-Net), 1 (fine; 2 where it enlarges 2 times), 16 (coarse-to-fine).
    """
    if isinstance(generator, FineGenerator):
        return generator.cell
    if isinstance(generator, CoarseToFine):  # what both halves want, of the small picture
        return generator.fine.times * lcm(total_stride(generator.coarse), total_stride(generator.fine))
    # The others are one chain each: strided convolutions halve one after the other, transposed ones undo it.
    return prod(cell.stride[0] for _, cell in generator.cells_and_names() if isinstance(cell, nn.Conv2d))
