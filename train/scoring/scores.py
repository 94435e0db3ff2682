"""Scores of folders of anime faces: against real ones, and against the photos they were made from (`metrics`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from h2a_batch.convert import decode
from train.errors import TrainError
from train.foreign import FEATURE_SIZE
from train.pictures import save, square
from train.scoring.metrics import correlation, diversity, has_collapsed, kid, kid_error, luminance, own_structure

KID_NAME = "KID-EfficientNetLite0"
ENDINGS = ("_anime", "_human")  # what names of a pair may differ by, as in 151_human.jpg and 151_anime.jpg

Features = NDArray[np.float64]
Extractor = Callable[[Iterator[NDArray[np.uint8]]], Features]  # (224, 224, 3) uint8 RGB each -> (N, D)


@dataclass(frozen=True)
class Score:
    """One row of the table; KID and its standard error are multiplied by 1000, as usual.

    `structure` and `own_structure` are means over `pairs` of input and output; None where there are too few pairs.
    """

    name: str
    pictures: int
    kid: float
    kid_error: float
    structure: float | None
    own_structure: float | None
    diversity: float
    pairs: int

    @property
    def one_face_for_everybody(self) -> bool:
        return has_collapsed(self.diversity, self.own_structure)

    def fields(self) -> dict[str, object]:
        """For JSON, with the score under its full name."""
        fields = {**asdict(self), "one_face_for_everybody": self.one_face_for_everybody}
        return {(k.replace("kid", f"{KID_NAME}_x1000")): v for k, v in fields.items()}


def pair_up(inputs: Sequence[Path], outputs: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Inputs and outputs of one name, whatever their suffix, `_human` or `_anime`; none is taken twice."""
    by_name = {_key(path): path for path in inputs}
    if len(by_name) < len(inputs):
        raise TrainError(f"{inputs[0].parent}: two pictures differ only in their suffix, so outputs cannot be paired")
    return [(by_name[_key(path)], path) for path in outputs if _key(path) in by_name]


def _key(path: Path) -> str:
    stem = path.stem
    for ending in ENDINGS:
        stem = stem.removesuffix(ending)
    return stem


def features_of(files: Sequence[Path], extract: Extractor) -> Features:
    """(N, D) features of files; at least two, or no KID is defined."""
    if len(files) < 2:
        raise TrainError(f"{files[0].parent if files else 'a set'}: {KID_NAME} needs two pictures or more")
    return extract(square(path, FEATURE_SIZE) for path in files)


def structures_of(pairs: Sequence[tuple[Path, Path]]) -> tuple[float | None, float | None]:
    """Returns the mean structure and the own structure of inputs and outputs; None where there are too few pairs."""
    squares = [(square(a, FEATURE_SIZE), square(b, FEATURE_SIZE)) for a, b in pairs]
    if not squares:
        return None, None
    before, after = (np.stack([luminance(pair[side]) for pair in squares]) for side in (0, 1))
    own = own_structure(before, after) if len(squares) > 1 else None
    return float(np.mean([correlation(a, b) for a, b in squares])), own


def score(
    name: str, outputs: Sequence[Path], pairs: Sequence[tuple[Path, Path]], real: Features, extract: Extractor
) -> Score:
    """The row of one set of outputs against the features of real anime faces."""
    found = features_of(outputs, extract)
    structure, own = structures_of(pairs)
    error = kid_error(found, real)
    return Score(name, len(outputs), kid(found, real), error, structure, own, diversity(found, real), len(pairs))


def paint_files(model: str, humans: Sequence[Path], out: Path) -> list[Path]:
    """Runs a model on the middle square of each picture, and writes its answers as NAME.png into `out`."""
    from h2a_batch.inference import Generator

    generator = Generator(model, threads=2)
    pixels = generator.card.input
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for path in humans:
        photo = decode(path, (pixels.width, pixels.height), "crop", "model")
        written.append(out / f"{path.stem}.png")
        save(generator.paint([photo.pixels])[0], written[-1])
    return written


def table(scores: Sequence[Score]) -> str:
    """The scores as text, one line each; a line below for each generator that has collapsed."""
    heads = ("", "pictures", f"{KID_NAME} x1000", "structure", "own structure", "diversity")
    rows = [
        (
            s.name,
            str(s.pictures),
            f"{s.kid:.1f} \u00b1 {s.kid_error:.1f}",
            *("-" if value is None else f"{value:.3f}" for value in (s.structure, s.own_structure, s.diversity)),
        )
        for s in scores
    ]
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    lines = [
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in (heads, *rows)
    ]
    warnings = [f"{s.name}: one face for everybody; its KID says nothing" for s in scores if s.one_face_for_everybody]
    return "\n".join(["  ".join(line).rstrip() for line in lines] + warnings)
