"""The generators of pytorch-CycleGAN-and-pix2pix (github.com/junyanz), recognised by the arrays of a checkpoint.

Source: models/networks.py there, `define_G`: netG resnet_9blocks, resnet_6blocks and unet_256. `recognise` says which
one it is, `convert` gives its weights as `train.weights` names them. Here is numpy alone; PyTorch is in
`train.pytorch`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.errors import TrainError
from train.toml import card_text, lines

Arrays = dict[str, NDArray[np.float32]]

REPOSITORY = "pytorch-CycleGAN-and-pix2pix"
NETWORKS = {"resnet_9blocks": "resnet-9", "resnet_6blocks": "resnet-6", "unet_256": "unet-256"}
UNET_DEPTH = 8
EPSILON = 1e-5  # of PyTorch's norms
# What DataParallel and torch.compile put before every name.
WRAPPERS = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class TorchGenerator:
    """What `define_G` was called with, as far as it shows in the checkpoint or was said on the command line."""

    net_g: str
    width: int  # ngf
    norm: str  # batch (with its statistics), instance, or none
    affine: bool  # the norms have factors
    bias: bool  # the convolutions in front of the norms have biases
    dropout: bool = False  # dropout layers inside the residual blocks; those of a U-Net do not show
    padding: str = "reflect"  # reflect or zeros
    pad_layers: bool = True  # the padding is layers of its own

    @property
    def blocks(self) -> int:
        return {"resnet_9blocks": 9, "resnet_6blocks": 6}.get(self.net_g, 0)

    @property
    def network(self) -> str:
        """Its name in `train.networks`."""
        return NETWORKS[self.net_g]

    @property
    def options(self) -> dict[str, str | int]:
        """What `train.networks.build_generator` is to be called with."""
        norm = "instance" if self.norm == "instance" else "none"
        padding = {"padding": self.padding} if self.blocks else {}
        return {"width": self.width, **padding, "norm": norm}

    @property
    def normalisation(self) -> str:
        if self.norm == "batch":
            return "batch norm with its frozen statistics (as `--eval` does there), folded into the convolutions"
        return {"instance": "instance norm, computed from each picture", "none": "none"}[self.norm]


@dataclass(frozen=True)
class Layer:
    """A convolution and its norm: their names in the checkpoint, and in a weights file of this project."""

    conv: str
    norm: str | None
    to_conv: str
    to_norm: str
    transposed: bool = False


def unwrapped(arrays: Mapping[str, NDArray[np.float32]]) -> Arrays:
    """Without the prefixes of wrappers, and without the counters of norms, which nothing reads."""
    result = dict(arrays)
    while result and (prefix := next((w for w in WRAPPERS if all(name.startswith(w) for name in result)), None)):
        result = {name.removeprefix(prefix): array for name, array in result.items()}
    return {name: array for name, array in result.items() if not name.endswith(".num_batches_tracked")}


def recognise(arrays: Arrays, norm: str | None = None, padding: str | None = None) -> TorchGenerator:
    """Which generator the (unwrapped) arrays are of; TrainError when it is none that this project has.

    `norm` overrides what the names tell, "instance" for the factors of a batch norm too; so does `padding`.
    """
    structure = _unet(arrays) if "model.model.0.weight" in arrays else _resnet(arrays)
    first = arrays[layers_of(structure)[0].conv + ".weight"]
    last = arrays.get(layers_of(structure)[-1].conv + ".bias", np.empty(3))
    if first.ndim == 4 and (first.shape[1], last.size) != (3, 3):
        raise TrainError(f"a generator of {first.shape[1]} to {last.size} channels: only RGB to RGB can be imported")
    if padding == "reflect" and not structure.pad_layers:
        raise TrainError("it has no padding layers, so it is padded with zeros, not by reflection")
    if padding and not structure.blocks:
        raise TrainError(f"--padding is for the ResNets: {structure.net_g} has none to choose")
    norm, affine, bias = _norms(arrays, structure, norm)
    padding = padding or structure.padding
    return replace(structure, width=first.shape[0], norm=norm, affine=affine, bias=bias, padding=padding)


def used(arrays: Arrays, generator: TorchGenerator) -> Arrays:
    """Without the statistics of norms that do not use them: instance norms of PyTorch before 0.4 saved such."""
    unused = () if generator.norm == "batch" else (".running_mean", ".running_var")
    return {name: array for name, array in arrays.items() if not name.endswith(unused)}


def convert(arrays: Arrays, generator: TorchGenerator) -> Arrays:
    """The weights of `build_generator(generator.network, **generator.options)`, as a weights file holds them.

    A convolution without bias gets one of 0; an instance norm without factors gets 1 and 0; a batch norm of fixed
    statistics is multiplied into the convolution before it (in float64, then rounded to float32).
    """
    result: dict[str, NDArray[np.floating[Any]]] = {}
    for layer in layers_of(generator):
        weight = arrays[f"{layer.conv}.weight"].astype(np.float64)
        channels = weight.shape[1 if layer.transposed else 0]
        zeros, ones = np.zeros(channels, np.float32), np.ones(channels, np.float32)
        bias = arrays.get(f"{layer.conv}.bias", zeros).astype(np.float64)
        gamma, beta = arrays.get(f"{layer.norm}.weight", ones), arrays.get(f"{layer.norm}.bias", zeros)
        if layer.norm and generator.norm == "batch":
            mean, variance = (arrays[f"{layer.norm}.running_{kind}"].astype(np.float64) for kind in ("mean", "var"))
            factor = gamma / np.sqrt(variance + EPSILON)
            weight *= factor.reshape((1, -1, 1, 1) if layer.transposed else (-1, 1, 1, 1))
            bias = (bias - mean) * factor + beta
        elif layer.norm and generator.norm == "instance":
            result |= {f"{layer.to_norm}.weight": gamma, f"{layer.to_norm}.bias": beta}
        result |= {f"{layer.to_conv}.weight": weight, f"{layer.to_conv}.bias": bias}
    return {name: np.ascontiguousarray(array, np.float32) for name, array in result.items()}


def card_draft(name: str, size: int, generator: TorchGenerator, file: str, sha256: str) -> str:
    """A card (TOML) for `export`, with what only people can say still to be written."""
    source = f"{generator.net_g} of {REPOSITORY}, trained there; imported by `python -m train import-torch`"
    weights = lines({"source": source, "source_file": file, "source_sha256": sha256})
    description = f"A generator trained with {REPOSITORY}; not described yet."
    kind = {"network": generator.network, "normalisation": generator.normalisation}
    return card_text(name, description, size, kind, generator.options, weights)


def layers_of(generator: TorchGenerator) -> list[Layer]:
    return _resnet_layers(generator) if generator.blocks else _unet_layers()


def _resnet_layers(generator: TorchGenerator) -> list[Layer]:
    pad, blocks = int(generator.pad_layers), generator.blocks
    # conv, norm, ReLU three times, the blocks, two transposed ones, and the last convolution without a norm.
    places = [pad, pad + 3, pad + 6, pad + 9 + blocks, pad + 12 + blocks]
    targets = [0, 1, 2, 3 + blocks, 4 + blocks]
    outer = [
        Layer(f"model.{place}", f"model.{place + 1}", f"m.{to}.0", f"m.{to}.1", number >= 3)
        for number, (place, to) in enumerate(zip(places, targets, strict=True))
    ]
    second = pad + 3 + generator.dropout + pad
    inner = [
        Layer(f"{block}.{place}", f"{block}.{place + 1}", f"m.{3 + number}.{half}.0", f"m.{3 + number}.{half}.1")
        for number in range(blocks)
        for block in [f"model.{pad + 9 + number}.conv_block"]
        for place, half in ((pad, "a"), (second, "b"))
    ]
    last = Layer(f"model.{2 * pad + 15 + blocks}", None, f"m.{5 + blocks}", "")
    return [*outer[:3], *inner, *outer[3:], last]


def _unet_layers() -> list[Layer]:
    downs, ups = [], []
    for level in range(UNET_DEPTH):
        # A level is one module inside the other, of LeakyReLU, convolution, norm, the next level, ReLU, and so on.
        path = "model.model" + ".1.model" * (level > 0) + ".3.model" * (level - 1)
        outermost, innermost = level == 0, level == UNET_DEPTH - 1
        conv, up = (0 if outermost else 1), (3 if outermost or innermost else 5)
        norm = None if outermost or innermost else f"{path}.2"
        downs.append(Layer(f"{path}.{conv}", norm, f"downs.{level}.{conv}", f"downs.{level}.2"))
        norm = None if outermost else f"{path}.{up + 1}"
        ups.append(Layer(f"{path}.{up}", norm, f"ups.{level}.1", f"ups.{level}.2", True))
    return [*downs, *reversed(ups)]


def _unet(arrays: Arrays) -> TorchGenerator:
    depth = 1 + max(len(re.findall(r"\.[13]\.model", name)) for name in arrays)
    if depth != UNET_DEPTH:
        raise TrainError(f"a U-Net of {depth} levels (unet_{2**depth}): of the U-Nets, only unet_256 can be imported")
    return TorchGenerator("unet_256", 0, "", False, False)


def _resnet(arrays: Arrays) -> TorchGenerator:
    """As `_unet`: the structure alone; width and norms are read when the layers are known."""
    found = [re.fullmatch(r"model\.(\d+)\.conv_block\.(\d+)\.weight", n) for n, a in arrays.items() if a.ndim == 4]
    blocks = {match[1] for match in found if match}
    inner = tuple(sorted({int(match[2]) for match in found if match}))
    if not blocks:
        raise TrainError(f"{_described(arrays)}, not a generator of {REPOSITORY} ({', '.join(NETWORKS)})")
    net_g = f"resnet_{len(blocks)}blocks"
    if net_g not in NETWORKS:
        raise TrainError(f"a ResNet of {len(blocks)} blocks: only resnet_9blocks and resnet_6blocks can be imported")
    known = {(1, 5): (True, False), (1, 6): (True, True), (0, 3): (False, False), (0, 4): (False, True)}
    if inner not in known:
        raise TrainError(f"residual blocks with convolutions at {inner}, which {net_g} of {REPOSITORY} has not")
    pad_layers, dropout = known[inner]
    if ("model.1.weight" in arrays and arrays["model.1.weight"].ndim == 4) != pad_layers:
        raise TrainError(
            "residual blocks padded with zeros and outer layers by reflection (padding_type zero): "
            "the networks of this project are padded in one way throughout"
        )
    padding = "reflect" if pad_layers else "zeros"
    structure = TorchGenerator(net_g, 0, "", False, False, dropout, padding, pad_layers)
    lacking = [layer.conv for layer in layers_of(structure) if f"{layer.conv}.weight" not in arrays]
    if lacking:
        raise TrainError(f"{lacking[0]}.weight is not there: not {net_g} as {REPOSITORY} has it")
    return structure


def _norms(arrays: Arrays, structure: TorchGenerator, wanted: str | None) -> tuple[str, bool, bool]:
    """The norm, whether it has factors, and whether the convolutions before it have biases (define_G: `use_bias`)."""
    normed = next(layer for layer in layers_of(structure) if layer.norm)
    affine, statistics = (f"{normed.norm}.{name}" in arrays for name in ("weight", "running_mean"))
    bias = f"{normed.conv}.bias" in arrays
    if wanted == "batch" and not (affine and statistics):
        raise TrainError("--norm batch: it has no factors and statistics of batch norms")
    if wanted is None and affine and statistics and bias:
        raise TrainError(
            "norms with statistics after convolutions with biases, which batch norms and old instance norms may both "
            "be: say --norm batch or --norm instance"
        )
    if affine:
        norm = "batch" if statistics and not bias else "instance"
    else:
        norm = "instance" if bias or statistics else "none"
    return wanted or norm, affine, bias


def _described(arrays: Arrays) -> str:
    kernels = [array for array in arrays.values() if array.ndim == 4]
    if kernels and kernels[-1].shape[0] == 1 and kernels[0].shape[2] in (1, 4):
        return "a discriminator"
    return "other weights" if kernels else "no weights of convolutions"
