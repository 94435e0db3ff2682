"""The detector: finds faces by the network CenterFace on MindSpore Lite, in a copy as small as will do.

For each cell of 4x4 pixels, the network (Xu et al., "CenterFace", arXiv 1911.03599) tells whether the middle of a face
lies there, the face's height and width, where in the cell the middle is, and five landmarks.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from h2a_batch.errors import ModelError
from h2a_batch.faces.framing import Face, frame_of
from h2a_batch.inference import (
    DETECTOR,
    FaceRule,
    check_detector_card,
    check_weights,
    find_model,
    load,
    load_runtime,
    one_line,
    read_card,
)
from h2a_batch.options import LARGE_SMALLEST, USUAL_SMALLEST
from h2a_batch.photos import Pixels, cut

__all__ = ["NARROWEST", "Detector", "Detectors", "Face", "check_detector", "usual_smallest"]

MODEL = "centerface"
# scripts/bench_faces chose these. A first look at a small copy finds what may be a face. A second look at the doubtful
# ones, upright and larger, gives scores of 0.75 and more to faces, of 0.65 and less to other things
NARROWEST = 16.0  # pixels across the narrowest face in the first copy
USUAL_SHARE = 1 / 64  # of the photo's longer side
POSSIBLE, CERTAIN, CONFIRMED = 0.25, 0.6, 0.7  # scores: two of the first look, one of the second
LEVEL = 12.0  # degrees; a face that is tilted by more gets its landmarks from the second look
_SECOND_SIDE = 128  # pixels of the second look's picture
_SECOND_SHARE = 1.2  # of the face's square: what the second look's picture shows
_CELL, _STEP = 4, 32  # pixels: the side of a cell; the sides of the network's picture are multiples of the latter
_SAME = 0.3  # boxes that share this part of their union show one face
_PART = 768  # pixels: longer copies are looked at part by part, which bounds the memory
_LARGEST = 80  # pixels of the largest face in a part, and of the overlap of parts; a smaller copy shows larger faces
_SMALLER = 4.0  # how many times smaller that copy is
_GLANCE = 0.1  # seconds after which a waiting thread checks whether another detector would pay
_ACROSS, _DOWN = [0, 2, *range(4, 14, 2)], [1, 3, *range(5, 14, 2)]  # the columns of x and of y in a row, see `_rows`

Floats = NDArray[np.float32]


def usual_smallest(size: tuple[int, int]) -> float:
    """Return the width in pixels of the narrowest face that counts in a photo of this width and height, by default.

    It grows with the photo up to `LARGE_SMALLEST`: a larger photo then takes no longer to search.
    """
    return min(LARGE_SMALLEST, max(USUAL_SMALLEST, USUAL_SHARE * max(size)))


def check_detector() -> None:
    """Check that the shipped model is there and whole.

    Raises:
        ModelError: the model or its card is missing, damaged, or has numbers that are none.
    """
    path = find_model(MODEL)
    fields = read_card(path, DETECTOR)
    if fields is None:  # a damaged file would find faces everywhere
        raise ModelError(f"{MODEL}.json, the card of the face detector, is missing", "install h2a-batch again")
    check_detector_card(path, fields)
    check_weights(path)


class Detector:
    """Finds faces, on the CPU. It is not thread-safe: every thread needs a detector of its own.

    Args:
        threads: CPU threads for one picture.

    Raises:
        ModelError: the shipped model is missing or broken.
        RuntimeMissingError: MindSpore Lite is missing.
    """

    def __init__(self, threads: int = 1) -> None:
        check_detector()
        self.path = find_model(MODEL)
        lite = load_runtime()
        context = lite.Context()
        context.target = ["cpu"]
        context.cpu.thread_num = threads
        context.cpu.inter_op_parallel_num = 1
        context.cpu.thread_affinity_mode = 0  # bound threads fight with the generators
        try:
            self._model: Any = load(lite, self.path, context)
        except RuntimeError as error:
            raise ModelError(f"{self.path}: MindSpore Lite cannot load it: {one_line(error)}") from error

    def find(self, pixels: Pixels, smallest: float) -> list[Face]:
        """Return the faces of a picture, the surest first.

        Args:
            pixels: uint8 RGB of shape (height, width, 3), upright.
            smallest: the width in pixels of the narrowest face that counts. The time grows with the number of pixels
                divided by its square.

        Raises:
            ModelError: MindSpore Lite failed.
        """
        height, width = pixels.shape[:2]
        image = Image.fromarray(pixels)
        scale = min(1.0, NARROWEST / smallest)
        copies = [self._look(_reduced(image, scale))]
        while max(width, height) * scale > _PART:  # the parts of a large copy cut large faces
            scale /= _SMALLER
            copies.append(self._look(_reduced(image, scale)))
        faces = (_face(row, width, height) for row in _distinct(np.concatenate(copies)))
        sure = [self._look_again(image, face) for face in faces if face.width >= smallest]
        return sorted((face for face in sure if face), key=lambda face: -face.score)

    def _look(self, copy: _Copy) -> Floats:
        """Return the faces of a copy, as `_rows` in the pixels of the picture."""
        height, width = copy.pixels.shape[:2]
        found = []
        for (left, right), (top, bottom) in product(_parts(width), _parts(height)):
            rows = _rows(*self._run(copy.pixels[top:bottom, left:right]))
            rows[:, _ACROSS] += left
            rows[:, _DOWN] += top
            if max(width, height) > _PART:
                rows = rows[_is_whole(rows, (left, top, right, bottom), (width, height))]
            found.append(rows)
        faces = np.concatenate(found)
        faces[:, _ACROSS] *= copy.across
        faces[:, _DOWN] *= copy.down
        return faces

    def _look_again(self, image: Image.Image, face: Face) -> Face | None:
        """Return a face that is certain, with better landmarks if it is tilted; None if there is no face."""
        frame = frame_of(face, FaceRule())
        if face.score >= CERTAIN and abs(frame.angle) <= LEVEL:
            return face
        frame = replace(frame, side=_SECOND_SHARE * frame.side)
        middle = _SECOND_SIDE / 2
        rows = _distinct(_rows(*self._run(cut(image, frame, (_SECOND_SIDE, _SECOND_SIDE)))))
        rows = rows[((rows[:, :2] < middle) & (rows[:, 2:4] > middle)).all(axis=1)]
        if not len(rows) or rows[0, 14] < CONFIRMED:
            return face if face.score >= CERTAIN else None
        matrix = frame.to_photo((_SECOND_SIDE, _SECOND_SIDE))
        points = rows[0, 4:14].reshape(5, 2) @ matrix[:, :2].T + matrix[:, 2]
        eye, other, nose, corner, end = ((float(x), float(y)) for x, y in points)
        return replace(face, landmarks=(eye, other, nose, corner, end), score=float(max(face.score, rows[0, 14])))

    def _run(self, part: Pixels) -> list[Floats]:
        """Return the network's four answers: heat, scale, offset and landmarks.

        Each is float32 of shape (channels, rows of cells, columns of cells).

        Raises:
            ModelError: MindSpore Lite failed, or gave numbers that are not finite.
        """
        height, width = part.shape[:2]
        tensor = np.zeros((1, 3, -(-height // _STEP) * _STEP, -(-width // _STEP) * _STEP), np.float32)
        tensor[0, :, :height, :width] = part.transpose(2, 0, 1)
        try:
            inputs = self._model.get_inputs()
            if tuple(inputs[0].shape) != tensor.shape:
                self._model.resize(inputs, [list(tensor.shape)])
                inputs = self._model.get_inputs()
            inputs[0].set_data_from_numpy(tensor)
            answers = [output.get_data_to_numpy()[0] for output in self._model.predict(inputs)]
        except RuntimeError as error:
            what = f"{self.path}: MindSpore Lite failed on {width}x{height} pixels: {one_line(error)}"
            raise ModelError(what) from error
        if not all(np.isfinite(answer).all() for answer in answers):  # no face would be found, and nobody told
            raise ModelError(f"{self.path}: the face detector gave numbers that are not finite", "install it again")
        return answers


class Detectors:
    """Finds faces for any number of threads, with as many detectors as pay.

    It loads one more when threads have waited for the others for as long as it takes to load.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._free: list[Detector] = []
        self._count = 0
        self._loading = False
        self._waited = 0.0  # seconds of all threads together, since the last detector was loaded
        self._cost = 0.0  # seconds that the last detector took to load

    def find(self, pixels: Pixels, smallest: float) -> list[Face]:
        """Return the faces of a picture as `Detector.find` does; raise what `Detector` raises."""
        detector = self._take() or self._load()
        try:
            return detector.find(pixels, smallest)
        finally:
            with self._changed:
                self._free.append(detector)
                self._changed.notify()

    def _take(self) -> Detector | None:
        """Return a free detector, after some waiting; None if the caller should load another."""
        with self._changed:
            while not self._free:
                if not self._loading and self._waited >= self._cost:
                    self._loading = True
                    return None
                began = time.monotonic()
                self._changed.wait(_GLANCE)
                self._waited += time.monotonic() - began if self._count else 0.0
            return self._free.pop()

    def _load(self) -> Detector:
        """Load one more detector, and note how long that took."""
        began = time.monotonic()
        try:
            detector = Detector()
            self._count += 1
            self._cost = time.monotonic() - began
            return detector
        finally:
            with self._changed:
                self._loading = False
                self._waited = 0.0
                self._changed.notify_all()


@dataclass(frozen=True)
class _Copy:
    """A smaller copy of a picture.

    Args:
        pixels: uint8 RGB of shape (height, width, 3).
        across: how many times wider the picture is.
        down: how many times higher the picture is.
    """

    pixels: Pixels
    across: float
    down: float


def _reduced(image: Image.Image, scale: float) -> _Copy:
    width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    small = image
    if image.size != (width, height):
        small = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return _Copy(np.asarray(small), image.width / width, image.height / height)


def _parts(length: int) -> list[tuple[int, int]]:
    """Return start and end of the parts of a side: few, of one length, neighbours sharing `_LARGEST` pixels or more."""
    if length <= _PART:
        return [(0, length)]
    count = math.ceil((length - _LARGEST) / (_PART - _LARGEST))
    extent = -(-(length + (count - 1) * _LARGEST) // (count * _STEP)) * _STEP
    starts = (round(number * (length - extent) / (count - 1)) for number in range(count))
    return [(start, start + extent) for start in starts]


def _rows(heat: Floats, scale: Floats, offset: Floats, landmarks: Floats) -> Floats:
    """Return the network's answers as faces: float32 of shape (n, 15).

    A row holds left, top, right, bottom, five times x and y, and the score. Several rows, of neighbouring cells, may
    show one face.
    """
    y, x = np.nonzero(heat[0] > math.log(POSSIBLE / (1 - POSSIBLE)))
    high, wide = np.exp(scale[:, y, x]) * _CELL
    rows = np.empty((len(x), 15), np.float32)
    rows[:, 0] = (x + offset[1, y, x] + 0.5) * _CELL - wide / 2
    rows[:, 1] = (y + offset[0, y, x] + 0.5) * _CELL - high / 2
    rows[:, 2], rows[:, 3] = rows[:, 0] + wide, rows[:, 1] + high
    rows[:, 4:14:2] = (rows[:, 0] + landmarks[1::2, y, x] * wide).T
    rows[:, 5:14:2] = (rows[:, 1] + landmarks[0::2, y, x] * high).T
    rows[:, 14] = 1 / (1 + np.exp(-heat[0, y, x]))
    return rows


def _is_whole(rows: Floats, part: tuple[int, int, int, int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell which faces fit into the overlap of two parts, and do not cross a side at which another part begins."""
    inner = np.array([part[0] > 0, part[1] > 0, part[2] < size[0], part[3] < size[1]])
    beyond = np.concatenate([rows[:, :2] < part[:2], rows[:, 2:4] > part[2:]], axis=1)
    fits = (rows[:, 2:4] - rows[:, :2]).max(axis=1) <= _LARGEST
    whole: NDArray[np.bool_] = fits & ~(beyond & inner).any(axis=1)
    return whole


def _distinct(rows: Floats) -> Floats:
    """Return one row for each face, the surest first (non-maximum suppression)."""
    rows = rows[np.argsort(-rows[:, 14], kind="stable")]
    chosen = []
    while len(rows):
        chosen.append(rows[0])
        corner, end = np.maximum(rows[:, :2], rows[0, :2]), np.minimum(rows[:, 2:4], rows[0, 2:4])
        common = (end - corner).clip(0).prod(axis=1)
        areas = (rows[:, 2:4] - rows[:, :2]).prod(axis=1)
        same = common > _SAME * (areas + areas[0] - common)
        same[0] = True
        rows = rows[~same]
    return np.array(chosen, np.float32).reshape(-1, 15)


def _face(row: Floats, width: int, height: int) -> Face:
    """Return a row as a face, its box cut to a picture of this size."""
    left, top, right, bottom, *points, score = (float(value) for value in row)
    box = (max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom))
    eye, other, nose, corner, end = zip(points[::2], points[1::2], strict=True)
    return Face(box, (eye, other, nose, corner, end), score)
