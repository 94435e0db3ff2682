"""Trained weights to a MINDIR that MindSpore Lite runs, with its card, and to ONNX.

Both halves of `coarse-to-fine` become one model: --weights has the coarse one, --fine the fine one.
The exported graphs are run by MindSpore Lite and ONNX Runtime and compared with MindSpore's own forward pass before
anything is written.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train.config import JOINED
from train.errors import TrainError
from train.toml import read_toml

if TYPE_CHECKING:
    from mindspore import nn

    from train.weights import Arrays

SUMMARY = "weights to a verified MINDIR and its card, and to ONNX"

# The networks of `fit`: the average that a direction has, and the last iterate.
NETWORKS = {"a2b": ("ema", "gab"), "b2a": ("ema_ba", "gba")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        required=True,
        type=Path,
        nargs="+",
        metavar="FILE",
        help="one or more networks (.npz, .ckpt); of several files each holds a part of them",
    )
    parser.add_argument(
        "--fine", type=Path, metavar="FILE", help=f"the fine half of {JOINED}, whose coarse half --weights has then"
    )
    parser.add_argument("--direction", choices=NETWORKS, help="a2b: faces to anime, the default; b2a: anime to faces")
    parser.add_argument(
        "--network", help="the file's network of this name; default: the direction's average, else its last iterate"
    )
    parser.add_argument("--card", required=True, type=Path, metavar="TOML", help="what people have to say of the model")
    parser.add_argument("--name", help="the model's name in place of the card's; all else that the card says stays")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="photos to verify on, beside synthetic pictures")
    parser.add_argument("--onnx", action="store_true", help="write NAME.onnx beside it (extra `onnx`)")
    parser.add_argument("out", type=Path, metavar="OUT", help="a .mindir file, or a folder for NAME.mindir")


def run(options: argparse.Namespace) -> None:
    if options.onnx:
        require_onnx()
    card = read_card(options.card, options.name)
    path = options.out if options.out.suffix == ".mindir" else options.out / f"{card['name']}.mindir"

    from train.export import export_generator, read_pictures
    from train.weights import load_network

    arrays, origin, said = chosen_weights(options, card["generator"]["network"])
    generator = generator_of(options.card, card)
    load_network(generator, arrays)
    card["weights"] |= origin
    pictures = read_pictures(options.images, card) if options.images else []
    written = export_generator(generator, card, path, pictures, options.onnx)
    print(said)
    made = written["generator"]
    print(f"{made['parameters']:,} parameters, {made['macs']:,} multiply-accumulates an image")
    report(path, written)
    onnx = path.with_suffix(".onnx")
    if options.onnx:
        report(onnx, written["onnx"])
    elif onnx.exists():
        print(f"{onnx} is left as it was, of an earlier export")


def chosen_weights(options: argparse.Namespace, kind: str) -> tuple[Arrays, dict[str, Any], str]:
    """The arrays of the card's generator, the card's fields of where they are from, and what there is to say of it."""
    from train.weights import read_parts, read_weights

    networks = read_parts(options.weights)
    files = ", ".join(map(str, options.weights))
    network, reason = choose_network(files, networks, options.network, options.direction)
    arrays, origin = networks[network], {"network": network, "sha256": digest(options.weights)}
    said = f"network {network} of {files}{reason}"
    halves = sorted({name.partition(".")[0] for name in arrays} & {"coarse", "fine"})
    if not options.fine:
        if kind == JOINED and not halves:
            raise TrainError(f"{files}: {network!r} is only the coarse half of {JOINED}: give the other by --fine FILE")
        return arrays, origin, said
    if kind != JOINED:
        raise TrainError(f"--fine is for the network {JOINED!r}, and the card's is {kind!r}")
    if halves:
        raise TrainError(f"{files}: {network!r} has both halves already: leave --fine away")
    fine = read_weights(options.fine)
    name, _ = choose_network(str(options.fine), fine, None, None)
    parts = {"coarse": arrays, "fine": fine[name]}
    both = {f"{half}.{layer}": array for half, part in parts.items() for layer, array in part.items()}
    said += f"\nnetwork {name} of {options.fine}, the fine half"
    return both, {**origin, "fine": {"network": name, "sha256": digest([options.fine])}}, said


def digest(files: Sequence[Path]) -> str | list[str]:
    """The sha256 of the file, or of each."""
    from h2a_batch.places import sha256_of

    digests = [sha256_of(file) for file in files]
    return digests[0] if len(digests) == 1 else digests


def report(path: Path, fields: dict[str, Any]) -> None:
    verified = fields["verified"]
    left_out = f"; {n} of one colour left out, unstable in MindSpore itself" if (n := verified.get("left_out")) else ""
    print(f"{path}: {path.stat().st_size:,} bytes, sha256 {fields['sha256']}")
    print(
        f"largest difference {verified['max_abs_difference']:.2g} between {verified['runtime']}"
        f" and {verified['against']} on {verified['pictures']} pictures (limit {verified['limit']:g}){left_out}"
    )


def require_onnx() -> None:
    """TrainError where the packages are not installed."""
    if missing := [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]:
        raise TrainError(f"--onnx needs {' and '.join(missing)}: pip install 'h2a-batch[onnx]'")


def choose_network(
    weights: str, networks: Collection[str], network: str | None, direction: str | None
) -> tuple[str, str]:
    """The network to export, and what there is to say of the choice."""
    if network is None:
        average, last = NETWORKS[direction or "a2b"]
        if average in networks:
            return average, f" ({direction or 'a2b'})"
        if last in networks:
            return last, f" ({direction or 'a2b'}): it has no average {average!r}, so this is the last iterate"
        raise TrainError(f"{weights} has no network {average!r} or {last!r}: it has {', '.join(networks)}")
    if network not in networks:
        raise TrainError(f"{weights} has no network {network!r}: it has {', '.join(networks)}")
    other = next((name for name, known in NETWORKS.items() if network in known and name != direction), None)
    if direction and other:
        raise TrainError(f"--network {network} is {other}, not {direction}: give one of --network and --direction")
    return network, ""


def generator_of(path: Path, card: dict[str, Any]) -> nn.Cell:
    """The untrained generator that the card names."""
    from train.networks import build_generator

    try:
        return build_generator(card["generator"]["network"], **card["generator"].get("options", {}))
    except (TypeError, ValueError) as error:
        raise TrainError(f"{path}: [generator]: {error}") from error


def read_card(path: Path, name: str | None = None) -> dict[str, Any]:
    """The fields that people write, with another name if one is given; `train.export` adds those that are measured."""
    card = read_toml(path)
    card |= {"name": name} if name is not None else {}
    for field, kind in {"name": str, "input": dict, "output": dict, "generator": dict, "weights": dict}.items():
        if not isinstance(card.get(field), kind):
            raise TrainError(f"{path}: the card needs {'a table' if kind is dict else 'a text'} {field!r}")
    if card["name"] != Path(card["name"]).name or card["name"] in ("", ".."):
        raise TrainError(f"the model's name {card['name']!r} must be usable as a file's name")
    if not isinstance(card["generator"].get("network"), str):
        raise TrainError(f'{path}: [generator] needs network = "..."')
    if not isinstance(card["generator"].get("options", {}), dict):
        raise TrainError(f"{path}: the options of [generator] must be a table")
    return card
