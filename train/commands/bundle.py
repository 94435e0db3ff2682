"""All networks of both halves of a coarse-to-fine model in one zip file, to be trained further by others.

The file holds coarse.npz and fine.npz, as `fit` wrote them: generators, their averages and discriminators. Unpacked,
each is a start: `fit --config train/configs/coarse-64.toml --set start=coarse.npz`, fine-256.toml alike.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

from train.errors import TrainError

SUMMARY = "the weights of both halves, all networks, as one file to train further from"

# Without these a training does not go on where it was.
NEEDED = {"coarse": ("gab", "gba", "da", "db", "ema"), "fine": ("gab", "ema")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    for half in NEEDED:
        text = f"weights.npz or best.npz of the {half} half's run"
        parser.add_argument(f"--{half}", required=True, type=Path, metavar="FILE", help=text)
    parser.add_argument("out", type=Path, metavar="OUT", help="a .zip file; an older one is replaced")


def run(options: argparse.Namespace) -> None:
    from h2a_batch.places import replacing, sha256_of
    from train.weights import read_weights

    if options.out.suffix != ".zip":
        raise TrainError(f"{options.out}: must be named .zip")
    files = {half: getattr(options, half) for half in NEEDED}
    for half, file in files.items():
        missing = [name for name in NEEDED[half] if name not in read_weights(file)]
        if missing:
            raise TrainError(f"{file}: lacks the network {missing[0]!r}, so it cannot start the {half} half's training")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(options.out) as target, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for half, file in files.items():
            archive.write(file, f"{half}.npz")
    print(f"{options.out}: {options.out.stat().st_size:,} bytes, sha256 {sha256_of(options.out)}")
