"""Two folders of pictures as unpaired batches: (N, 3, size, size) float32 in [-1, 1], RGB, prepared in a thread.

Every batch is a function of the seed and the step alone, so that a run resumes with the pictures it would have had.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from train.config import Config
from train.data.augmentation import affine, draw_affine, jitter
from train.errors import TrainError
from train.parallel import ALONE, Workers

Array = NDArray[np.float32]

A, B, POOLS = range(3)  # streams of random numbers
AHEAD = 4


def random_of(config: Config, step: int, stream: int, rank: int = 0) -> np.random.Generator:
    """The random numbers of one worker's step: nothing to save, nothing to restore."""
    return np.random.default_rng((config.seed, stream, step, rank))


class Domain:
    """The pictures of a folder; decoded when they are asked for, because all of them may not fit in memory."""

    def __init__(self, folder: Path, config: Config, stream: int, workers: Workers = ALONE) -> None:
        known = Image.registered_extensions()
        if not folder.is_dir():
            raise TrainError(f"{folder}: no such folder of pictures (see --data)")
        self.files = sorted(f for f in folder.iterdir() if f.suffix.lower() in known)
        if not self.files:
            raise TrainError(f"{folder}: no pictures there")
        self.config = config
        self.affine = config.affine_a if stream == A else config.affine_b
        self.jitter = config.jitter_a if stream == A else {}
        self.stream = stream
        self.workers = workers
        self._epoch: tuple[int, NDArray[np.int64]] | None = None

    def batch(self, step: int) -> Array:
        """Of this step (from 1): every picture comes once in an epoch, augmented at random as the config says.

        An epoch is shared by all workers; `config.batch` is the count of each.
        """
        rank, count = self.workers.rank, self.config.batch
        random = random_of(self.config, step, self.stream, rank)
        first = ((step - 1) * self.workers.size + rank) * count
        places = range(first, first + count)
        return np.stack([self._augmented(self.files[self._order(place)], random) for place in places])

    def fixed(self, count: int) -> Array:
        """Up to `count` pictures at equal intervals, whole: for samples."""
        chosen = np.linspace(0, len(self.files) - 1, min(count, len(self.files))).astype(int)
        size = self.config.size
        return np.stack([to_array(_read(self.files[i]).resize((size, size), Image.Resampling.BICUBIC)) for i in chosen])

    def _order(self, place: int) -> int:
        epoch, position = divmod(place, len(self.files))
        if self._epoch is None or self._epoch[0] != epoch:
            random = np.random.default_rng((self.config.seed, self.stream, 0, epoch))
            self._epoch = (epoch, random.permutation(len(self.files)))
        return int(self._epoch[1][position])

    def _augmented(self, file: Path, random: np.random.Generator) -> Array:
        image, size = _read(file), self.config.size
        if self.affine:
            whole = to_array(image.resize((size, size), Image.Resampling.BOX))
            x = affine(whole, draw_affine(self.affine, self.config.flip, random))
        else:
            x = to_array(self._crop(image, random))
        return jitter(x, self.jitter, random) if self.jitter else x

    def _crop(self, image: Image.Image, random: np.random.Generator) -> Image.Image:
        """A part of the picture, resized to the whole and flipped, each at random."""
        size = self.config.size
        share = random.uniform(self.config.smallest_crop, 1)
        width, height = share * image.width, share * image.height
        left, top = random.uniform(0, image.width - width), random.uniform(0, image.height - height)
        box = (left, top, left + width, top + height)
        image = image.resize((size, size), Image.Resampling.BICUBIC, box=box)
        if random.random() < self.config.flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return image


def domains(config: Config, workers: Workers = ALONE) -> tuple[Domain, Domain]:
    root = Path(config.data)
    return Domain(root / config.domain_a, config, A, workers), Domain(root / config.domain_b, config, B, workers)


def held_out(config: Config, count: int) -> tuple[Array, Array]:
    """Up to `count` of each domain: from testA and testB beside the training folders, else pictures of training."""
    root, result = Path(config.data), []
    for name, stream in ((config.domain_a, A), (config.domain_b, B)):
        test = root / name.replace("train", "test")
        folder = test if test.is_dir() else root / name
        result.append(Domain(folder, config, stream).fixed(count))
    return result[0], result[1]


def batches(config: Config, first: int, last: int, workers: Workers = ALONE) -> Iterator[tuple[int, Array, Array]]:
    """(step, x, y) of this worker for the steps first to last, read ahead in a thread."""
    a, b = domains(config, workers)
    ready: queue.Queue[tuple[int, Array, Array] | BaseException | None] = queue.Queue(AHEAD)
    stopped = threading.Event()

    def put(item: tuple[int, Array, Array] | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.2)
            except queue.Full:
                continue

    def read() -> None:
        try:
            for step in range(first, last + 1):
                if stopped.is_set():
                    return
                put((step, a.batch(step), b.batch(step)))
            put(None)
        except BaseException as error:  # handed on to the reader of the batches
            put(error)

    threading.Thread(target=read, name="batches", daemon=True).start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()


def to_array(image: Image.Image) -> Array:
    """RGB -> (3, H, W) in [-1, 1]."""
    return np.ascontiguousarray(np.asarray(image, np.float32).transpose(2, 0, 1)) / 127.5 - 1


def to_picture(x: Array) -> Image.Image:
    """(3, H, W) in [-1, 1] -> RGB."""
    pixels: NDArray[np.uint8] = ((x.transpose(1, 2, 0) + 1) * 127.5).clip(0, 255).round().astype(np.uint8)
    return Image.fromarray(pixels)


def _read(file: Path) -> Image.Image:
    try:
        with Image.open(file) as image:
            picture: Image.Image = image.convert("RGB")
            return picture
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise TrainError(f"{file}: cannot be read: {error}") from error
