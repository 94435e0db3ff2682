"""Trained weights to a MINDIR that MindSpore Lite runs, with its card.

The exported graph is run by MindSpore Lite and compared with MindSpore's own forward pass before anything is written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from train.errors import TrainError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUMMARY = "weights (.npz) to a verified MINDIR and its card"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", required=True, type=Path, metavar="NPZ", help="networks as NETWORK.LAYER arrays")
    parser.add_argument("--network", default="ema", help="which network of the file (default: %(default)s)")
    parser.add_argument("--card", required=True, type=Path, metavar="TOML", help="what people have to say of the model")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="photos to verify on, beside synthetic pictures")
    parser.add_argument("out", type=Path, metavar="OUT", help="a .mindir file, or a folder for NAME.mindir")


def run(options: argparse.Namespace) -> None:
    card = read_card(options.card)
    path = options.out if options.out.suffix == ".mindir" else options.out / f"{card['name']}.mindir"

    from h2a_batch.files import sha256_of
    from train.export import export_generator, read_pictures
    from train.networks import build_generator
    from train.weights import load_network, read_weights

    networks = read_weights(options.weights)
    if options.network not in networks:
        raise TrainError(f"{options.weights} has no network {options.network!r}: it has {', '.join(networks)}")
    generator = build_generator(card["generator"]["network"], **card["generator"].get("options", {}))
    load_network(generator, networks[options.network])
    card["weights"] |= {"network": options.network, "sha256": sha256_of(options.weights)}
    pictures = read_pictures(options.images, card) if options.images else []
    written = export_generator(generator, card, path, pictures)
    verified, made = written["verified"], written["generator"]
    print(f"{path}: {path.stat().st_size:,} bytes, sha256 {written['sha256']}")
    print(f"{made['parameters']:,} parameters, {made['macs']:,} multiply-accumulates an image")
    print(
        f"largest difference {verified['max_abs_difference']:.2g} between {verified['runtime']}"
        f" and {verified['against']} on {verified['pictures']} pictures (limit {verified['limit']:g})"
    )


def read_card(path: Path) -> dict[str, Any]:
    """The fields that people write; `train.export` adds those that are measured."""
    try:
        card: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TrainError(f"{path}: not a TOML file: {error}") from error
    for name, kind in {"name": str, "input": dict, "output": dict, "generator": dict, "weights": dict}.items():
        if not isinstance(card.get(name), kind):
            raise TrainError(f"{path}: the card needs {'a table' if kind is dict else 'a text'} {name!r}")
    if not isinstance(card["generator"].get("network"), str):
        raise TrainError(f'{path}: [generator] needs network = "..."')
    return card
