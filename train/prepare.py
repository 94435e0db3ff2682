"""Folders of any pictures to the four folders that training reads: clean, square, without duplicates, reproducible."""

from __future__ import annotations

import csv
import io
import os
import shutil
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from h2a_batch.convert import Photo, decode
from h2a_batch.errors import PhotoError
from h2a_batch.faces import Detector, Face, Search
from h2a_batch.inference import FaceRule
from h2a_batch.options import MOST_FACES
from h2a_batch.places import replacing
from h2a_batch.sources import Scan, Source, Unusable, scan
from train.errors import TrainError
from train.pictures import equal_intervals, save

SIZE = 256
JPEG_QUALITY = 95
THREADS = 2
PICTURES, LEFT_OUT = "pictures.csv", "left_out.csv"
FOLDERS = ("trainA", "trainB", "testA", "testB")
HASH_SIDE = 12  # gradients a side: 2 x 12 x 12 = 288 bits
# Of 288 bits. Measured on ../shared/data/human2anime: distinct pictures of a domain differ in 45 bits or more (median
# 122), a picture and its copy at half size and JPEG quality 30 in 20 at most, a crop by 4 of 256 pixels in 21 (median).
NEAR = 32

Bits = NDArray[np.bool_]


@dataclass(frozen=True)
class Picture:
    """A usable picture: where it is, how the lists call it, and what it looks like.

    ``sha256`` is the file's; ``part`` the number of the face in it, left to right, 0 where it is the only one.
    """

    path: Path
    label: str
    sha256: str
    bits: Bits
    mirrored: Bits
    part: int = 0


@dataclass(frozen=True)
class LeftOut:
    """A picture that is not used: why, and of which other it is a duplicate."""

    label: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Counts:
    """Pictures a domain."""

    train: int
    test: int


@dataclass(frozen=True)
class Domain:
    """What was chosen of one domain (letter A: human, B: anime), and what was not usable."""

    letter: str
    train: list[Picture]
    test: list[Picture]
    left_out: list[LeftOut]


def difference_hash(pixels: NDArray[np.uint8]) -> Bits:
    """288 bits: whether luminance rises from each cell of a 13x13 grid to the right, and down.

    The difference hash (dHash) in both directions; it hardly changes with size, compression and brightness.
    """
    side = HASH_SIDE + 1
    grid = np.asarray(Image.fromarray(pixels).convert("L").resize((side, side), Image.Resampling.BOX), np.int16)
    right, down = grid[:-1, 1:] > grid[:-1, :-1], grid[1:, :-1] > grid[:-1, :-1]
    return np.concatenate([right.ravel(), down.ravel()])


class Cutter:
    """Cuts pictures out of files: the middle square, or with `faces` each face as h2a-batch frames it.

    Args:
        faces: pixels across the smallest face that counts; None: faces are not looked for.
    """

    def __init__(self, faces: int | None = None) -> None:
        self._faces = faces
        self._own = threading.local()  # a detector for each thread

    def __call__(self, path: Path) -> Photo:
        """The file's pictures as the parts of a `Photo`, each of shape (SIZE, SIZE, 3).

        Raises:
            PhotoError: it cannot be read, or faces are looked for and it has none.
        """
        search = self._faces and Search(self._find, FaceRule(), self._faces, MOST_FACES, "fail", whole=False)
        return decode(path, (SIZE, SIZE), "crop", "model", search=search or None)

    def _find(self, picture: NDArray[np.uint8], smallest: float) -> list[Face]:
        if not hasattr(self._own, "detector"):
            self._own.detector = Detector()
        return list(self._own.detector.find(picture, smallest))


def choose(letter: str, folders: Sequence[Path], counts: Counts, cutter: Cutter) -> Domain:
    """Scans, hashes, drops duplicates, and samples one domain; the order of the folders plays no part.

    All that is kept differs from all else that is kept, so no test picture is a near duplicate of a training one.

    Raises:
        TrainError: a folder is missing, or fewer usable pictures are there than wanted.
    """
    sources, left_out = find(folders)
    usable: list[Picture] = []
    with ThreadPoolExecutor(THREADS) as pool:
        done = pool.map(lambda source: read(source[0], source[1], cutter), sources)
        for found in tqdm(done, f"{letter}: reading", len(sources), disable=None):
            if isinstance(found, LeftOut):
                left_out.append(found)
            else:
                usable += found
    kept, duplicates = without_duplicates(usable)
    wanted = counts.train + counts.test
    if len(kept) < wanted:
        raise TrainError(
            f"domain {letter}: {len(kept)} different usable pictures of {len(sources)}, {wanted} are wanted:"
            " add pictures, or lower --train and --test"
        )
    sample = equal_intervals(kept, wanted)
    test = equal_intervals(range(wanted), counts.test)
    train = sorted(set(range(wanted)) - set(test))
    ordered = sorted([*left_out, *duplicates], key=lambda item: (item.label, item.reason))
    return Domain(letter, [sample[i] for i in train], [sample[i] for i in test], ordered)


def find(folders: Sequence[Path]) -> tuple[list[tuple[Path, str]], list[LeftOut]]:
    """All pictures below the folders as (path, label), sorted by label: FOLDER/PATH, without where FOLDER lies."""
    sources: list[tuple[Path, str]] = []
    left_out: list[LeftOut] = []
    for folder in {os.path.realpath(folder): folder for folder in folders}.values():
        if not folder.is_dir():
            raise TrainError(f"{folder}: no such folder")
        root = folder.resolve()
        for item in scan([root], Scan(suffix="", format="png", recursive=True, out=root / ".none")):
            if isinstance(item, (Source, Unusable)) and isinstance(item.path, Path):  # a folder is no object store
                label = f"{root.name}/{item.path.relative_to(root).as_posix()}"
                if isinstance(item, Source):
                    sources.append((item.path, label))
                else:
                    left_out.append(LeftOut(label, item.kind, item.message))
    if not sources:
        raise TrainError(f"{', '.join(map(str, folders))}: no pictures there")
    return sorted(sources, key=lambda source: (source[1], source[0])), left_out


def read(path: Path, label: str, cutter: Cutter) -> list[Picture] | LeftOut:
    """The identity and hashes of a file's pictures, or why it cannot be used."""
    try:
        photo = cutter(path)
    except PhotoError as error:
        return LeftOut(label, error.kind, error.message)
    pictures = []
    for number, part in enumerate(photo.parts, 1):
        which, name = (number, f"{label}#{number}") if len(photo.parts) > 1 else (0, label)
        bits, mirrored = difference_hash(part.pixels), difference_hash(part.pixels[:, ::-1])
        pictures.append(Picture(path, name, photo.sha256, bits, mirrored, which))
    return pictures


def without_duplicates(pictures: Iterable[Picture]) -> tuple[list[Picture], list[LeftOut]]:
    """The pictures that differ from all before them, and the others.

    A duplicate has the sha256 of an earlier picture, or a hash (its own or its mirror image's, since training flips)
    within NEAR bits of an earlier one.
    """
    kept: list[Picture] = []
    left_out: list[LeftOut] = []
    by_content: dict[tuple[str, int], Picture] = {}
    signs = np.empty((1024, 2 * HASH_SIDE**2), np.float32)  # +1 and -1: a product then counts the bits that agree
    for picture in pictures:
        if same := by_content.get((picture.sha256, picture.part)):
            left_out.append(LeftOut(picture.label, "duplicate", same.label))
            continue
        by_content[picture.sha256, picture.part] = picture
        views = np.where(np.stack([picture.bits, picture.mirrored]), np.float32(1), np.float32(-1))
        distances = ((signs.shape[1] - signs[: len(kept)] @ views.T) / 2).min(1)
        if len(kept) and distances.min() <= NEAR:
            like = kept[int(distances.argmin())]
            left_out.append(LeftOut(picture.label, "near-duplicate", f"{like.label} ({distances.min():.0f} bits)"))
            continue
        if len(kept) == len(signs):
            signs = np.concatenate([signs, np.empty_like(signs)])
        signs[len(kept)] = views[0]
        kept.append(picture)
    return kept, left_out


def write_set(
    domains: Sequence[Domain], cutters: Mapping[str, Cutter], out: Path, format: str, overwrite: bool
) -> None:
    """Writes everything beside `out`, then moves it there in one step.

    Raises:
        TrainError: `out` is not empty and may not be overwritten, or holds what this command never writes.
    """
    out = out.absolute()
    draft, old = out.with_name(f".{out.name}.part"), out.with_name(f".{out.name}.old")
    if old.exists() and not out.exists():  # a run was killed between its two renames
        old.rename(out)
    check_output(out, overwrite)
    out.parent.mkdir(parents=True, exist_ok=True)
    for leftover in (draft, old):
        shutil.rmtree(leftover, ignore_errors=True)  # of a run that was killed
    try:
        draft.mkdir()
        _write_files(domains, cutters, draft, format)
        if out.exists():
            out.rename(old)
        draft.rename(out)
    except BaseException:
        if old.exists() and not out.exists():
            old.rename(out)
        shutil.rmtree(draft, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def check_output(out: Path, overwrite: bool) -> None:
    """TrainError where `out` may not be written or replaced."""
    if not out.exists():
        return
    if not out.is_dir():
        raise TrainError(f"{out}: not a folder")
    inside = sorted(entry.name for entry in out.iterdir())
    if inside and not overwrite:
        raise TrainError(f"{out}: not empty; choose another folder, or --overwrite")
    if foreign := [name for name in inside if name not in (*FOLDERS, PICTURES, LEFT_OUT)]:
        raise TrainError(f"{out}: not overwritten, as it holds more than a prepared set: {foreign[0]}")


def _write_files(domains: Sequence[Domain], cutters: Mapping[str, Cutter], out: Path, format: str) -> None:
    rows: list[tuple[object, ...]] = []
    for domain in domains:
        for part, pictures in (("train", domain.train), ("test", domain.test)):
            folder = out / f"{part}{domain.letter}"
            folder.mkdir()
            names = [f"{number:05d}.{format}" for number in range(1, len(pictures) + 1)]
            targets = [folder / name for name in names]
            with ThreadPoolExecutor(THREADS) as pool:
                cutter = cutters[domain.letter]
                done = pool.map(lambda picture, target: _write_picture(picture, target, cutter), pictures, targets)  # noqa: B023 - used here
                list(tqdm(done, folder.name, len(pictures), disable=None))
            rows += [(folder.name, n, p.label, p.sha256) for n, p in zip(names, pictures, strict=True)]
    _write_csv(out / PICTURES, ("folder", "file", "source", "source_sha256"), rows)
    left_out = [(d.letter, item.label, item.reason, item.detail) for d in domains for item in d.left_out]
    _write_csv(out / LEFT_OUT, ("domain", "source", "reason", "detail"), left_out)


def _write_picture(picture: Picture, target: Path, cutter: Cutter) -> None:
    try:
        photo = cutter(picture.path)
    except PhotoError as error:
        raise TrainError(f"{picture.path}: {error.message} (it could be read before)") from error
    if photo.sha256 != picture.sha256:
        raise TrainError(f"{picture.path}: the file changed while the set was prepared")
    save(photo.parts[max(0, picture.part - 1)].pixels, target, JPEG_QUALITY)


def _write_csv(path: Path, heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([heads, *rows])
    with replacing(path) as file:
        file.write(text.getvalue().encode("utf-8", "surrogateescape"))
