"""PyTorch's side of an import: its files, and the generators of pytorch-CycleGAN-and-pix2pix to check against.

The modules are written after models/networks.py of that repository (github.com/junyanz), the layers and the names of
their parameters alike, so that its checkpoints load strictly. They take and give (N, 3, H, W) float32 in [-1, 1].
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from train.errors import TrainError
from train.foreign import UNET_DEPTH, Arrays, TorchGenerator

Norm = Callable[[int], nn.Module]


def read_state(path: Path) -> Arrays:
    """The arrays of a state dict (`torch.save(net.state_dict())`, the older format or the newer), as float32.

    Pickled code is never run. TrainError when the file holds anything but tensors, or is broken.
    """
    if not path.is_file():
        raise TrainError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
        if not _is_state_dict(state):
            raise TrainError(f"{path}: not a state dict, which holds names and tensors alone")
        return {name: value.detach().float().numpy() for name, value in state.items()}
    except TrainError:
        raise
    except Exception as error:  # of any kind: it depends on where the bytes stop making sense
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        if code:
            text = f"it holds pickled code ({code[1]}), which is never run; save net.state_dict() instead"
        else:
            text = f"cut short, or not a checkpoint of PyTorch ({_first_sentence(error)})"
        raise TrainError(f"{path}: {text}") from error


def rebuild(arrays: Arrays, generator: TorchGenerator) -> nn.Module:
    """The generator with these weights, for inference; TrainError when a name or a shape is another."""
    with torch.device("meta"):
        expected = {name: tuple(value.shape) for name, value in build(generator).state_dict().items()}
    expected = {name: shape for name, shape in expected.items() if not name.endswith(".num_batches_tracked")}
    what = f"{generator.net_g} with ngf {generator.width} and {generator.norm} norm"
    if lacking := expected.keys() - arrays.keys():
        raise TrainError(f"it lacks {min(lacking)}, which {what} has")
    if unknown := arrays.keys() - expected.keys():
        raise TrainError(f"it has {min(unknown)}, which {what} has not")
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise TrainError(f"{name} is {arrays[name].shape}, {what} wants {shape}")
    module = build(generator)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()}, strict=True)
    return module.eval()


def run(module: nn.Module, x: NDArray[np.float32]) -> NDArray[np.float32]:
    with torch.inference_mode():
        result: NDArray[np.float32] = module(torch.from_numpy(x)).numpy()
    return result


def build(generator: TorchGenerator) -> nn.Module:
    """The generator, freshly initialised as PyTorch does it."""
    return ResnetGenerator(generator) if generator.blocks else UnetGenerator(generator)


class ResnetGenerator(nn.Module):
    """netG resnet_9blocks and resnet_6blocks."""

    def __init__(self, generator: TorchGenerator) -> None:
        super().__init__()
        width, bias, norm = generator.width, generator.bias, norm_of(generator)
        layers = [*_padded(generator, 3, width, 7, bias), norm(width), nn.ReLU()]
        for inputs in (width, 2 * width):
            layers += [nn.Conv2d(inputs, 2 * inputs, 3, 2, 1, bias=bias), norm(2 * inputs), nn.ReLU()]
        layers += [ResnetBlock(generator, 4 * width) for _ in range(generator.blocks)]
        for inputs in (4 * width, 2 * width):
            conv = nn.ConvTranspose2d(inputs, inputs // 2, 3, 2, 1, output_padding=1, bias=bias)
            layers += [conv, norm(inputs // 2), nn.ReLU()]
        self.model = nn.Sequential(*layers, *_padded(generator, width, 3, 7, True), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y


class ResnetBlock(nn.Module):
    def __init__(self, generator: TorchGenerator, channels: int) -> None:
        super().__init__()
        norm = norm_of(generator)
        conv = [_padded(generator, channels, channels, 3, generator.bias) for _ in range(2)]
        dropout = [nn.Dropout(0.5)] if generator.dropout else []
        self.conv_block = nn.Sequential(*conv[0], norm(channels), nn.ReLU(), *dropout, *conv[1], norm(channels))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.conv_block(x)
        return y


class UnetGenerator(nn.Module):
    """netG unet_256; its dropout, which only training applies, is left out: it has no name in a checkpoint."""

    def __init__(self, generator: TorchGenerator) -> None:
        super().__init__()
        widths = [generator.width * min(2**level, 8) for level in range(UNET_DEPTH)]
        block: UnetBlock | None = None
        for outer, inner in reversed(list(pairwise(widths))):
            block = UnetBlock(generator, outer, inner, block)
        self.model = UnetBlock(generator, 3, generator.width, block, outermost=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y


class UnetBlock(nn.Module):
    """One level: down, the level inside it, up; the input is put before the output, except at the outermost."""

    def __init__(
        self, generator: TorchGenerator, outer: int, inner: int, inside: UnetBlock | None, outermost: bool = False
    ) -> None:
        super().__init__()
        norm, bias = norm_of(generator), generator.bias
        self.outermost = outermost
        down = nn.Conv2d(outer, inner, 4, 2, 1, bias=bias)
        up = nn.ConvTranspose2d(2 * inner if inside else inner, outer, 4, 2, 1, bias=bias or outermost)
        first: list[nn.Module] = [down] if outermost else [nn.LeakyReLU(0.2), down]
        middle: list[nn.Module] = [] if inside is None else [inside] if outermost else [norm(inner), inside]
        self.model = nn.Sequential(*first, *middle, nn.ReLU(), up, nn.Tanh() if outermost else norm(outer))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y if self.outermost else torch.cat([x, y], 1)


def norm_of(generator: TorchGenerator) -> Norm:
    """`get_norm_layer` of the repository."""
    if generator.norm == "batch":
        return nn.BatchNorm2d
    if generator.norm == "instance":
        return lambda channels: nn.InstanceNorm2d(channels, affine=generator.affine)
    return lambda channels: nn.Identity()


def _padded(generator: TorchGenerator, inputs: int, outputs: int, kernel: int, bias: bool) -> list[nn.Module]:
    size = kernel // 2
    if not generator.pad_layers:
        return [nn.Conv2d(inputs, outputs, kernel, padding=size, bias=bias)]
    padding = {"reflect": nn.ReflectionPad2d, "zeros": nn.ZeroPad2d}[generator.padding]
    return [padding(size), nn.Conv2d(inputs, outputs, kernel, bias=bias)]


def _is_state_dict(state: object) -> bool:
    return isinstance(state, Mapping) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())


def _first_sentence(error: Exception) -> str:
    text = str(error).partition("\n")[0].partition(". ")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
