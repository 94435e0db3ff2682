"""Any folders of pictures to trainA, trainB, testA and testB, 256x256, for training.

Each picture is turned upright, converted to sRGB and cut to its middle square; with --faces, each face of a human
picture is found, leveled and framed as h2a-batch does it. Unreadable pictures, exact duplicates and near duplicates
(mirrored ones, too) are left out and listed in left_out.csv; pictures.csv says where each of the others came from. One
input gives the same bytes each time.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from train.errors import TrainError

SMALLEST = 128  # pixels: half of what a face has in the pictures that are made
SUMMARY = "folders of pictures to clean training and test sets"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    folders: dict[str, Any] = {"nargs": "+", "required": True, "type": Path, "metavar": "DIR"}
    parser.add_argument("--humans", **folders, help="folders of human faces, with their sub-folders: domain A")
    parser.add_argument("--anime", **folders, help="folders of anime faces, with their sub-folders: domain B")
    parser.add_argument("--train", type=int, default=1000, metavar="N", help="training pictures a domain (%(default)s)")
    parser.add_argument("--test", type=int, default=100, metavar="M", help="test pictures a domain (%(default)s)")
    parser.add_argument("--format", choices=("jpg", "png"), default="jpg", help="JPEG of quality 95, or PNG")
    parser.add_argument("--faces", action="store_true", help="find the human faces, level them, and frame each")
    parser.add_argument(
        "--min-face", type=int, default=SMALLEST, metavar="PIXELS", help="with --faces: the narrowest (%(default)s)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a set that was prepared in OUT before")
    parser.add_argument("--out", required=True, type=Path, metavar="OUT", help="the folder to make")


def run(options: argparse.Namespace) -> None:
    from train.prepare import LEFT_OUT, Counts, Cutter, check_output, choose, write_set

    if options.train < 1 or options.test < 0:
        raise TrainError("--train must be at least 1, --test at least 0")
    if options.min_face < 20:
        raise TrainError("--min-face must be at least 20")
    check_output(options.out, options.overwrite)
    place = options.out.resolve()
    for folder in (*options.humans, *options.anime):
        if folder.resolve().is_relative_to(place):
            raise TrainError(f"{folder}: an input cannot lie in the output folder {options.out}")
    counts = Counts(options.train, options.test)
    cutters = {"A": Cutter(options.min_face if options.faces else None), "B": Cutter()}
    folders = {"A": options.humans, "B": options.anime}
    domains = [choose(letter, folders[letter], counts, cutter) for letter, cutter in cutters.items()]
    write_set(domains, cutters, options.out, options.format, options.overwrite)
    for domain in domains:
        left = f"{len(domain.left_out)} left out ({LEFT_OUT})" if domain.left_out else "none left out"
        print(
            f"{options.out}: {len(domain.train)} train{domain.letter}, {len(domain.test)} test{domain.letter}, {left}"
        )
