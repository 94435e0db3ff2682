"""Scores of anime faces: KID-EfficientNetLite0 against real ones, and how much of the input's structure is kept.

KID is the unbiased squared maximum mean discrepancy with a cubic kernel (arXiv 1801.01401, section 4). The paper takes
Inception's features; here they are EfficientNet-Lite0's, so the figures compare with no Inception KID.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from h2a_batch.files import replacing
from h2a_batch.image import decode, encode
from h2a_batch.source import Scan, Source, scan
from train.errors import TrainError

KID_NAME = "KID-EfficientNetLite0"
FEATURE_SIZE = 224  # pixels: EfficientNet-Lite0's own
LUMINANCE_SIZE = 32
SUBSETS, SUBSET_SIZE = 100, 50  # of the standard error
ENDINGS = ("_anime", "_human")  # what names of a pair may differ by, as in 151_human.jpg and 151_anime.jpg

T = TypeVar("T")
Features = NDArray[np.float64]
Extractor = Callable[[Iterator[NDArray[np.uint8]]], Features]  # (224, 224, 3) uint8 RGB each -> (N, D)


@dataclass(frozen=True)
class Score:
    """One row of the table; KID and its standard error are multiplied by 1000, as usual.

    `structure` is the mean over `pairs` inputs and outputs, None where no names pair.
    """

    name: str
    pictures: int
    kid: float
    kid_error: float
    structure: float | None
    pairs: int

    def fields(self) -> dict[str, object]:
        """For JSON, with the score under its full name."""
        fields = asdict(self)
        return {(k.replace("kid", f"{KID_NAME}_x1000")): v for k, v in fields.items()}


def kid(x: Features, y: Features) -> float:
    """Unbiased MMD^2 of features (M, D) and (N, D), kernel (a.b / D + 1)^3, times 1000; may fall below 0 by chance."""
    return 1000 * _unbiased(_kernel(x, x), _kernel(y, y), _kernel(x, y))


def kid_error(x: Features, y: Features, seed: int = 0) -> float:
    """The standard error of `kid`, estimated by subsets.

    The spread over SUBSETS random pairs of subsets of at most SUBSET_SIZE, without replacement, scaled to the whole by
    sqrt(subset / whole). Not a bootstrap: repeated pictures would bias the unbiased estimate upwards.
    """
    m, n = len(x), len(y)
    k, j = min(SUBSET_SIZE, m // 2), min(SUBSET_SIZE, n // 2)
    if min(k, j) < 2:
        return float("nan")
    kernels, random = (_kernel(x, x), _kernel(y, y), _kernel(x, y)), np.random.default_rng(seed)
    values = []
    for _ in range(SUBSETS):
        a, b = random.choice(m, k, replace=False), random.choice(n, j, replace=False)
        values.append(_unbiased(kernels[0][np.ix_(a, a)], kernels[1][np.ix_(b, b)], kernels[2][np.ix_(a, b)]))
    # Subsets of a finite set overlap, which hides spread: by the factor 1 - k / m of sampling without replacement.
    share = (k + j) / (m + n)
    return 1000 * float(np.std(values, ddof=1) * np.sqrt(share / (1 - share)))


def _kernel(x: Features, y: Features) -> Features:
    kernel: Features = (x @ y.T / x.shape[1] + 1) ** 3
    return kernel


def _unbiased(xx: Features, yy: Features, xy: Features) -> float:
    m, n = xy.shape
    within = (xx.sum() - np.trace(xx)) / (m * (m - 1)) + (yy.sum() - np.trace(yy)) / (n * (n - 1))
    return float(within - 2 * xy.mean())


def correlation(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """Pearson's correlation of two pictures' 32x32 luminance; 0 where one has no contrast at all."""
    a, b = (_luminance(picture) for picture in (before, after))
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length > 0 else 0.0


def _luminance(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    small = Image.fromarray(picture).convert("L").resize((LUMINANCE_SIZE,) * 2, Image.Resampling.BOX)
    values: NDArray[np.float64] = np.asarray(small, np.float64).ravel()
    values = values - values.mean()
    return values


def list_pictures(folder: Path, limit: int | None = None) -> list[Path]:
    """All pictures of a folder in the order of their names, or `limit` of them at equal intervals."""
    if not folder.is_dir():
        raise TrainError(f"{folder}: no such folder")
    how = Scan(suffix="", format="png", recursive=False, out=folder / ".none")
    files = [found.path for found in scan([folder], how) if isinstance(found, Source)]
    if not files:
        raise TrainError(f"{folder}: no pictures there")
    return equal_intervals(files, len(files) if limit is None else min(limit, len(files)))


def equal_intervals(items: Sequence[T], count: int) -> list[T]:
    """`count` of the items in their order, evenly spread, the first among them; count must not exceed their number."""
    return [items[i * len(items) // count] for i in range(count)]


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


def square(path: Path, side: int) -> NDArray[np.uint8]:
    """A picture's middle square, upright, in sRGB: uint8 of shape (side, side, 3)."""
    return decode(path, (side, side), "crop", "model").pixels


def features_of(files: Sequence[Path], extract: Extractor) -> Features:
    """(N, D) features of files; at least two, or no KID is defined."""
    if len(files) < 2:
        raise TrainError(f"{files[0].parent if files else 'a set'}: {KID_NAME} needs two pictures or more")
    return extract(square(path, FEATURE_SIZE) for path in files)


def structure_of(pairs: Sequence[tuple[Path, Path]]) -> float | None:
    """The mean correlation of the pairs, 1 where luminance is kept, 0 where nothing of it is; None without pairs."""
    values = [correlation(square(a, FEATURE_SIZE), square(b, FEATURE_SIZE)) for a, b in pairs]
    return float(np.mean(values)) if values else None


def score(
    name: str, outputs: Sequence[Path], pairs: Sequence[tuple[Path, Path]], real: Features, extract: Extractor
) -> Score:
    """The row of one set of outputs against the features of real anime faces."""
    found = features_of(outputs, extract)
    return Score(name, len(outputs), kid(found, real), kid_error(found, real), structure_of(pairs), len(pairs))


def paint_files(model: str, humans: Sequence[Path], out: Path) -> list[Path]:
    """Runs a model on the middle square of each picture, and writes its answers as NAME.png into `out`."""
    from h2a_batch.generator import Generator

    generator = Generator(model, threads=2)
    pixels = generator.card.input
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for path in humans:
        photo = decode(path, (pixels.width, pixels.height), "crop", "model")
        written.append(out / f"{path.stem}.png")
        save(generator.paint([photo.pixels])[0], written[-1])
    return written


def save(pixels: NDArray[np.uint8], path: Path, quality: int = 95) -> None:
    """Writes uint8 RGB of shape (height, width, 3) as the format that the path's suffix names, whole or not at all."""
    data = encode(Image.fromarray(pixels), path.suffix[1:], quality)
    with replacing(path) as file:
        file.write(data)


def table(scores: Sequence[Score]) -> str:
    """The scores as text, one line each."""
    heads = ("", "pictures", f"{KID_NAME} x1000", "structure")
    rows = [
        (
            s.name,
            str(s.pictures),
            f"{s.kid:.1f} \u00b1 {s.kid_error:.1f}",
            "-" if s.structure is None else f"{s.structure:.3f}",
        )
        for s in scores
    ]
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    lines = [
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in (heads, *rows)
    ]
    return "\n".join("  ".join(line).rstrip() for line in lines)
