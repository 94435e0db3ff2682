"""Weights of a generator that pytorch-CycleGAN-and-pix2pix trained, for `export` and for `fit --set start=`.

Reads `*_net_G*.pth` of netG resnet_9blocks, resnet_6blocks and unet_256, without running pickled code. Before anything
is written, MindSpore's output is compared with PyTorch's.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train.errors import TrainError

if TYPE_CHECKING:
    from train.export import Picture

SUMMARY = "a generator of pytorch-CycleGAN-and-pix2pix (.pth) to weights"

SIZE = 256
SUFFIXES = (".npz", ".ckpt")
# Largest difference to PyTorch allowed anywhere in an output of range [-1, 1]: an eighth of an 8-bit step.
MAX_DIFFERENCE = 1e-3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", type=Path, metavar="PTH", help="such as latest_net_G_A.pth")
    parser.add_argument("out", type=Path, metavar="OUT", help="OUT.npz, or OUT.ckpt for a checkpoint of MindSpore")
    parser.add_argument(
        "--as",
        dest="name",
        default="ema",
        choices=("ema", "gab", "gba", "ema_ba"),
        help="its name in OUT, for `fit --set start=` and `export`: faces to anime ema (default) or gab, anime to faces"
        " ema_ba or gba",
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="photos to compare on, beside synthetic pictures")
    parser.add_argument(
        "--norm",
        choices=("batch", "instance"),
        help="where the names leave it open; instance: each picture's own statistics in place of a batch norm's frozen"
        " ones, as test.py there does without --eval",
    )
    parser.add_argument(
        "--padding", choices=("reflect", "zeros"), help="of a ResNet, where a changed repository pads otherwise"
    )


def run(options: argparse.Namespace) -> None:
    card = check(options)
    # PyTorch before MindSpore: nothing is loaded in vain for a file that cannot be read.
    from train import foreign
    from train.pytorch import read_state, rebuild

    arrays = foreign.unwrapped(read_state(options.checkpoint))
    try:
        generator = foreign.recognise(arrays, options.norm, options.padding)
        arrays = foreign.used(arrays, generator)
        module = rebuild(arrays, generator)

        from train.networks import build_generator
        from train.weights import load_network, write_weights

        cell = build_generator(generator.network, **generator.options)
        load_network(cell, foreign.convert(arrays, generator))
    except TrainError as error:
        raise TrainError(f"{options.checkpoint}: {error}") from error

    from h2a_batch.places import replacing, sha256_of

    pictures = compared_pictures(options.images)
    difference = largest_difference(cell, module, pictures)
    origin = (options.checkpoint.name, sha256_of(options.checkpoint))
    draft = foreign.card_draft(options.out.stem, SIZE, generator, *origin)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_weights(options.out, {options.name: cell})
    with replacing(card) as file:
        file.write(draft.encode())
    print(f"{options.checkpoint}: {generator.net_g}, ngf {generator.width}; norm: {generator.normalisation}")
    print(f"{options.out}: network {options.name}, {sum(p.size for p in cell.get_parameters()):,} parameters")
    print(f"{card}: the draft of its card for `python -m train export --card`; describe the model there")
    print(
        f"largest difference {difference:.2g} between {versions()} on {len(pictures)} pictures"
        f" (limit {MAX_DIFFERENCE:g})"
    )


def check(options: argparse.Namespace) -> Path:
    """What can be said before any work; returns where the card goes."""
    if find_spec("torch") is None:
        raise TrainError("import-torch needs torch: install the extra torch (pip install 'h2a-batch[torch]')")
    if options.out.suffix not in SUFFIXES:
        raise TrainError(f"{options.out}: must end in {' or '.join(SUFFIXES)}")
    card: Path = options.out.with_suffix(".toml")
    for path in (options.out, card):
        if path.exists():
            raise TrainError(f"{path}: is there already; choose another OUT, or move it away")
    return card


def compared_pictures(folder: Path | None) -> list[Picture]:
    """The photos of the folder, cropped to SIZE x SIZE, behind synthetic pictures of that size."""
    from train.export import read_pictures, synthetic_pictures

    # Instance norms without factors make nothing but rounding of a picture of one colour, in PyTorch too.
    synthetic = [picture for picture in synthetic_pictures(SIZE, SIZE) if picture.min() < picture.max()]
    pixels = {"width": SIZE, "height": SIZE, "layout": "NCHW", "order": "RGB"}
    return [*synthetic, *(read_pictures(folder, {"input": pixels}) if folder else [])]


def largest_difference(cell: Any, module: Any, pictures: Sequence[Picture]) -> float:
    """Between MindSpore's output of the cell and PyTorch's of the module; TrainError above the limit."""
    import numpy as np
    from mindspore import Tensor

    from train.pytorch import run as run_torch

    inputs = [np.ascontiguousarray(p.transpose(2, 0, 1)[None], np.float32) / 127.5 - 1 for p in pictures]
    # One runtime after the other: their threads spin, and would take each other's cores.
    expected = [run_torch(module, x) for x in inputs]
    actual = (cell(Tensor(x)).asnumpy() for x in inputs)
    differences = [float(np.abs(y - z).max()) for y, z in zip(expected, actual, strict=True)]
    worst = int(np.argmax(differences))  # NaN, where there is one
    if not differences[worst] <= MAX_DIFFERENCE:  # so that NaN fails
        raise TrainError(
            f"MindSpore differs from PyTorch by {differences[worst]:.3g}, more than {MAX_DIFFERENCE:g}, on picture"
            f" {worst + 1} of {len(pictures)}; nothing was written"
        )
    return differences[worst]


def versions() -> str:
    from importlib.metadata import version

    return f"MindSpore {version('mindspore')} and PyTorch {version('torch')}"
