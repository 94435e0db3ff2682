"""The story of one photo: decode -> batch -> generator -> encode, each stage a pool of threads.

`convert` lets only so many photos be on their way at once, so memory does not grow with their number, and a
slow stage holds the faster ones back. Threads are enough: Pillow and MindSpore Lite both let go of the GIL,
and arrays pass without copies.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Generator as Yields
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from h2a_batch.convert.finish import finish
from h2a_batch.convert.parts import Photo, decode
from h2a_batch.errors import H2AError, ModelError, PhotoError, StorageError
from h2a_batch.faces import Detectors, Face, check_detector, search_of
from h2a_batch.inference import Generator, resolve_device
from h2a_batch.ledger import Output, Task
from h2a_batch.options import Options, Workers
from h2a_batch.photos import FORMATS, Frame, encode
from h2a_batch.places import at

NameFaces = Callable[[Task, int], Sequence[str]]
_HANDFUL = 8  # photos for which one generator will do: it takes as long to load another
_CALLERS = 16  # threads that read from a store, and at least half as many that write to one: they mostly wait
_HELD_BYTES = 256 << 20  # of objects in memory that are not decoded yet; a larger one is there alone
_FILL_SECONDS = 0.05  # how long a batch that is not full waits for one more photo


@dataclass(frozen=True)
class Result:
    """What became of a task: ``error`` is None where its output is complete and on disk.

    ``seconds`` counts from the first byte read to the last byte written; ``sha256`` is that of the input.
    ``outputs`` are what was made of it, ``faces`` those that were found and converted, none where it was the whole.
    """

    task: Task
    seconds: float
    sha256: str = ""
    outputs: tuple[Output, ...] = ()
    faces: tuple[Frame, ...] = ()
    error: H2AError | None = None
    trace: str = ""


@dataclass
class _Job:
    """A photo on its way: each stage fills in its part."""

    task: Task
    started: float = field(default_factory=time.perf_counter)
    ended: float = 0.0
    data: Path | bytes | None = None  # what was fetched from afar
    photo: Photo | None = None
    painted: list[NDArray[np.uint8]] = field(default_factory=list)
    outputs: tuple[Output, ...] = ()
    error: H2AError | None = None
    trace: str = ""

    @property
    def count(self) -> int:
        """Of its parts."""
        return len(self.photo.parts) if self.photo else 0

    def fail(self, error: Exception) -> None:
        if isinstance(error, H2AError):
            self.error = error
        else:
            self.trace = traceback.format_exc()
            self.error = PhotoError("internal", f"unexpected {type(error).__name__}: {error}", "please report this")


def load(model: Path, options: Options) -> Generator:
    """The first generator of a run, on the device that the options name; and a look whether faces can be found.

    Raises:
        ModelError, RuntimeMissingError: one of the models, or what runs them, is missing or broken.
    """
    if options.faces != "off":
        check_detector()
    device = resolve_device(options.device)
    return Generator(model, device=device, batch_size=options.batch_for(device))


def convert(
    tasks: Iterable[Task | None], options: Options, generator: Generator, workers: Workers, name_faces: NameFaces
) -> Yields[Result, None, None]:
    """Convert photos and yield a result for each, in the order in which they are done.

    Args:
        tasks: pulled one by one as there is room; the pipeline never runs far ahead of its results. None says,
            after a moment's wait, that there is nothing for now: what is done by then is yielded, then more asked for.
        options: what the outputs should be.
        generator: the first worker's; further workers load the same model for themselves.
        workers: threads of each stage, all at least 1.
        name_faces: gives the faces of a photo their names in OUT, on record before they are written.

    Raises:
        StorageError: the output volume is full or gone. What was on its way is dropped.
    """
    stages = _Stages(options, generator, workers, name_faces)
    room = 2 * (workers.decode + workers.generator * generator.batch_size + workers.encode)
    waiting, flying, exhausted = iter(tasks), 0, False
    try:
        while flying or not exhausted:
            paused = False
            while flying < room + stages.calling and not exhausted and not paused:
                try:
                    task = next(waiting)
                except StopIteration:
                    exhausted = True
                    break
                paused = task is None
                if task is not None:
                    stages.take(_Job(task))
                    flying += 1
            if flying > _HANDFUL:
                stages.use_all_generators()
            for _ in range(stages.departures.qsize() if paused else min(flying, 1)):
                job = stages.departures.get()
                flying -= 1
                yield _result(job)
    finally:
        stages.close()


class _Allowance:
    """So many bytes for all threads together, given in turn; what is larger has to itself all there is."""

    def __init__(self, most: int) -> None:
        self._most, self._used, self._open = most, 0, False
        self._freed = threading.Condition()
        self._line: list[object] = []  # who waits; without it a large one would, as long as small ones come

    def take(self, size: int) -> None:
        """Wait until there are so many."""
        with self._freed:
            self._line.append(turn := object())
            self._freed.wait_for(lambda: self._open or (self._line[0] is turn and self._has(size)))
            self._line.remove(turn)
            self._used += size
            self._freed.notify_all()

    def give(self, size: int) -> None:
        """Give so many back."""
        with self._freed:
            self._used -= size
            self._freed.notify_all()

    def open(self) -> None:
        """Let nobody wait any more."""
        with self._freed:
            self._open = True
            self._freed.notify_all()

    def _has(self, size: int) -> bool:
        return not self._used or self._used + size <= self._most


class _Stages:
    """The three pools and the queues between them."""

    def __init__(self, options: Options, generator: Generator, workers: Workers, name_faces: NameFaces) -> None:
        self.options = options
        self.generator = generator
        self.name_faces = name_faces
        self.detectors = Detectors()
        self.closing = False
        self._fetchers = self._callers = 0
        self._memory = _Allowance(_HELD_BYTES)
        self._loading = threading.Lock()
        self.named: queue.Queue[_Job | None] = queue.Queue()
        self.arrivals: queue.Queue[_Job | None] = queue.Queue()
        self.decoded: queue.Queue[_Job | None] = queue.Queue()
        self.painted: queue.Queue[_Job | None] = queue.Queue()
        self.departures: queue.Queue[_Job] = queue.Queue()
        self._threads: list[threading.Thread] = []
        self._spare_generators = workers.generator - 1
        self._start("decode", workers.decode, lambda number: self._decoder())
        self._start("generator", 1, lambda number: self._generate(generator))
        self._encoders = workers.encode
        self._start("encode", workers.encode, lambda number: self._each(self.painted, self._encode, self.departures))

    def take(self, job: _Job) -> None:
        """Send a photo on its way."""
        far = at(job.task.source.path).far, at(job.task.out).far
        if far[0] and not self._fetchers:
            self._fetchers = _CALLERS
            self._start("fetch", _CALLERS, lambda number: self._each(self.named, self._fetch, self.arrivals))
        if far[1] and not self._callers:
            self._callers = max(1, _CALLERS // 2 - self._encoders)
            self._start("encode", self._callers, lambda number: self._each(self.painted, self._encode, self.departures))
        (self.named if far[0] else self.arrivals).put(job)

    @property
    def calling(self) -> int:
        """Photos that are waited for, or with, beside those that are worked on."""
        return _CALLERS if self._fetchers or self._callers else 0

    def use_all_generators(self) -> None:
        """Let the other generators join in, one after the other, as long as photos wait for them."""
        if self._spare_generators:
            self._start("generator", self._spare_generators, lambda number: self._generate(self._another()))
            self._spare_generators = 0

    def close(self) -> None:
        """End all threads; what is still on its way is dropped before it is written."""
        self.closing = True
        self._memory.open()
        for _ in self._threads:
            for stage in (self.named, self.arrivals, self.decoded, self.painted):
                stage.put(None)
        for thread in self._threads:
            thread.join()

    def _start(self, name: str, count: int, work: Callable[[int], None]) -> None:
        for number in range(count):
            thread = threading.Thread(target=work, args=(number,), name=f"{name}-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _each(
        self,
        source: queue.Queue[_Job | None],
        work: Callable[[_Job], None],
        target: queue.Queue[_Job | None] | queue.Queue[_Job],
    ) -> None:
        """Do one stage's work on each photo; one that failed goes straight to the departures."""
        while (job := source.get()) is not None:
            if self.closing:
                continue
            try:
                work(job)
            except Exception as error:
                job.fail(error)
            job.ended = time.perf_counter()
            (self.departures if job.error else target).put(job)

    def _fetch(self, job: _Job) -> None:
        self._memory.take(job.task.source.size)
        job.started = time.perf_counter()
        try:
            job.data = at(job.task.source.path).fetch()
        except BaseException:
            self._memory.give(job.task.source.size)
            raise

    def _decoder(self) -> None:
        """A thread that decodes, and looks for faces."""
        card, options = self.generator.card, self.options
        size, fit = (card.input.width, card.input.height), options.fit or card.fit

        def find(picture: NDArray[np.uint8], smallest: float) -> list[Face]:
            try:
                return self.detectors.find(picture, smallest)
            except ModelError as error:
                raise PhotoError("model", str(error)) from error

        search = search_of(options, find, card.face)

        def decode_one(job: _Job) -> None:
            source, fetched = job.task.source, job.data
            if fetched is None:
                job.started = time.perf_counter()
            met = (source.size, source.mtime_ns) if options.watch else None  # it came to rest just so
            try:
                data = at(source.path).fetch() if fetched is None else fetched
                job.photo = decode(data, size, fit, options.size, options.keep_metadata, search, met)
            finally:
                if fetched is not None:
                    job.data = None
                    self._memory.give(source.size)

        self._each(self.arrivals, decode_one, self.decoded)

    def _generate(self, generator: Generator | None) -> None:
        while generator is not None and (batch := self._batch(generator.batch_size)):
            if not self._paint(generator, batch) and len(batch) > 1:
                for job in batch:  # it may have been one of them: the others must not fail with it
                    job.error = None
                    self._paint(generator, [job])
            for job in batch:
                job.ended = time.perf_counter()
                (self.departures if job.error else self.painted).put(job)

    def _paint(self, generator: Generator, batch: list[_Job]) -> bool:
        """Have the generator paint the parts of some photos; where it fails, all of them have."""
        try:
            parts = [part.pixels for job in batch if job.photo for part in job.photo.parts]
            painted = iter(generator.paint(parts))
            for job in batch:
                job.painted = list(islice(painted, job.count))
        except Exception as error:
            for job in batch:
                job.fail(PhotoError("model", str(error)) if isinstance(error, ModelError) else error)
            return False
        return True

    def _another(self) -> Generator | None:
        """One more generator like the first; None at the end, or where there is no memory for it."""
        first = self.generator
        with self._loading:
            while self.decoded.qsize() <= first.batch_size:  # a photo waits: loading will pay
                if self.closing:
                    return None
                time.sleep(_FILL_SECONDS)
            try:
                batch, threads = first.batch_size, first.threads
                return Generator(first.card.path, device=first.device, threads=threads, batch_size=batch)
            except Exception:  # whatever it is, the others go on
                return None

    def _batch(self, size: int) -> list[_Job]:
        """The next photos to run together: at least one, then what comes without much waiting; none at the end."""
        batch: list[_Job] = []
        while sum(job.count for job in batch) < size:
            try:
                job = self.decoded.get(timeout=_FILL_SECONDS if batch else None)
            except queue.Empty:
                break
            if job is None:
                if batch:
                    self.decoded.put(None)  # for the next call
                break
            if not self.closing:
                batch.append(job)
        return batch

    def _encode(self, job: _Job) -> None:
        assert job.photo is not None
        options, photo = self.options, job.photo
        images = finish(photo, job.painted, keep_alpha=FORMATS[options.format].alpha)
        files = [encode(image, options.format, options.effective_quality, photo.exif) for image in images]
        portraits = bool(photo.faces) and photo.canvas is None
        names = self.name_faces(job.task, len(files)) if portraits else [job.task.name]
        out = job.task.out
        for name, data in zip(names, files, strict=True):
            at(out / name).write(data)
        job.outputs = tuple(Output(name, len(data)) for name, data in zip(names, files, strict=True))


def _result(job: _Job) -> Result:
    if isinstance(job.error, StorageError):
        raise job.error
    seconds = job.ended - job.started
    sha256, faces = (job.photo.sha256, job.photo.faces) if job.photo else ("", ())
    return Result(job.task, seconds, sha256, job.outputs, faces, job.error, job.trace)
