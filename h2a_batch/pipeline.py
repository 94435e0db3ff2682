"""The story of one photo: decode -> batch -> generator -> encode, each stage a pool of threads.

`convert` lets only so many photos be on their way at once, so memory does not grow with their number, and a
slow stage holds the faster ones back. Threads are enough: Pillow and MindSpore Lite both let go of the GIL,
and arrays pass without copies.
"""

from __future__ import annotations

import errno
import queue
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from collections.abc import Generator as Yields
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from h2a_batch.errors import H2AError, ModelError, PhotoError, StorageError
from h2a_batch.files import replacing
from h2a_batch.generator import Generator
from h2a_batch.image import Photo, decode, encode, finish
from h2a_batch.ledger import Task
from h2a_batch.options import Options, Workers

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENODEV, errno.ESTALE}
_HANDFUL = 4  # photos for which one generator will do
_FILL_SECONDS = 0.05  # how long a batch that is not full waits for one more photo


@dataclass(frozen=True)
class Result:
    """What became of a task: ``error`` is None where its output is complete and on disk.

    ``seconds`` counts from the first byte read to the last byte written; ``sha256`` is that of the input.
    """

    task: Task
    seconds: float
    sha256: str = ""
    output_size: int = 0
    error: H2AError | None = None
    trace: str = ""


@dataclass
class _Job:
    """A photo on its way: each stage fills in its part."""

    task: Task
    started: float = field(default_factory=time.perf_counter)
    ended: float = 0.0
    photo: Photo | None = None
    painted: NDArray[np.uint8] | None = None
    output_size: int = 0
    error: H2AError | None = None
    trace: str = ""

    def fail(self, error: Exception) -> None:
        if isinstance(error, H2AError):
            self.error = error
        else:
            self.trace = traceback.format_exc()
            self.error = PhotoError("internal", f"unexpected {type(error).__name__}: {error}", "please report this")


def convert(
    tasks: Iterable[Task | None], options: Options, generator: Generator, workers: Workers
) -> Yields[Result, None, None]:
    """Convert photos and yield a result for each, in the order in which they are done.

    Args:
        tasks: pulled one by one as there is room; the pipeline never runs far ahead of its results. None says,
            after a moment's wait, that there is nothing for now: what is done by then is yielded, then more asked for.
        options: what the outputs should be.
        generator: the first worker's; further workers load the same model for themselves.
        workers: threads of each stage, all at least 1.

    Raises:
        StorageError: the output volume is full or gone. What was on its way is dropped.
    """
    stages = _Stages(options, generator, workers)
    room = 2 * (workers.decode + workers.generator * generator.batch_size + workers.encode)
    waiting, flying, exhausted = iter(tasks), 0, False
    try:
        while flying or not exhausted:
            paused = False
            while flying < room and not exhausted and not paused:
                try:
                    task = next(waiting)
                except StopIteration:
                    exhausted = True
                    break
                paused = task is None
                if task is not None:
                    stages.arrivals.put(_Job(task))
                    flying += 1
            if flying > _HANDFUL:
                stages.use_all_generators()
            for _ in range(stages.departures.qsize() if paused else min(flying, 1)):
                job = stages.departures.get()
                flying -= 1
                yield _result(job)
    finally:
        stages.close()


class _Stages:
    """The three pools and the queues between them."""

    def __init__(self, options: Options, generator: Generator, workers: Workers) -> None:
        self.options = options
        self.generator = generator
        self.closing = False
        self._loading = threading.Lock()
        self.arrivals: queue.Queue[_Job | None] = queue.Queue()
        self.decoded: queue.Queue[_Job | None] = queue.Queue()
        self.painted: queue.Queue[_Job | None] = queue.Queue()
        self.departures: queue.Queue[_Job] = queue.Queue()
        self._threads: list[threading.Thread] = []
        self._spare_generators = workers.generator - 1
        self._start("decode", workers.decode, lambda number: self._each(self.arrivals, self._decode, self.decoded))
        self._start("generator", 1, lambda number: self._generate(generator))
        self._start("encode", workers.encode, lambda number: self._each(self.painted, self._encode, self.departures))

    def use_all_generators(self) -> None:
        """Let the other generators join in, one after the other, as long as photos wait for them."""
        if self._spare_generators:
            self._start("generator", self._spare_generators, lambda number: self._generate(self._another()))
            self._spare_generators = 0

    def close(self) -> None:
        """End all threads; what is still on its way is dropped before it is written."""
        self.closing = True
        for _ in self._threads:
            for stage in (self.arrivals, self.decoded, self.painted):
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

    def _decode(self, job: _Job) -> None:
        pixels = self.generator.card.input
        fit = self.options.fit or self.generator.card.framing
        job.started = time.perf_counter()
        job.photo = decode(
            job.task.source.path,
            (pixels.width, pixels.height),
            fit,
            self.options.size,
            self.options.keep_metadata,
        )

    def _generate(self, generator: Generator | None) -> None:
        while generator is not None and (batch := self._batch(generator.batch_size)):
            try:
                painted = generator.paint([job.photo.pixels for job in batch if job.photo])
                for job, image in zip(batch, painted, strict=True):
                    job.painted = image
            except Exception as error:
                for job in batch:
                    job.fail(PhotoError("model", str(error)) if isinstance(error, ModelError) else error)
            for job in batch:
                job.ended = time.perf_counter()
                (self.departures if job.error else self.painted).put(job)

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
        while len(batch) < size:
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
        assert job.photo is not None and job.painted is not None
        options, path = self.options, job.task.output
        image = finish(job.photo, job.painted, keep_alpha=options.format != "jpg")
        data = encode(image, options.format, options.effective_quality, job.photo.exif)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as file:
                file.write(data)
            job.output_size = len(data)
        except OSError as error:
            if error.errno in _FULL:
                raise StorageError(
                    f"{path}: cannot be written ({error.strerror})",
                    "free space there and run again: it goes on from here",
                ) from error
            raise PhotoError(
                "output",
                f"{path}: cannot be written ({error.strerror or error})",
                "check the folder's permissions",
            ) from error


def _result(job: _Job) -> Result:
    if isinstance(job.error, StorageError):
        raise job.error
    seconds = job.ended - job.started
    sha256 = job.photo.sha256 if job.photo else ""
    return Result(job.task, seconds, sha256, job.output_size, job.error, job.trace)
