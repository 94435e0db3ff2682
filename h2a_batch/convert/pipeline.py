"""The pipeline of one photo: decode -> batch -> generator -> encode, each stage a pool of threads.

`convert` limits how many photos are on their way at once: memory does not grow with the number of photos, and a
slow stage holds the faster ones back. Threads are enough: Pillow and MindSpore Lite both release the GIL, and threads
share arrays without copies.
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

from h2a_batch.convert.allowance import Allowance
from h2a_batch.convert.answers import answers_of
from h2a_batch.convert.finish import finish
from h2a_batch.convert.parts import decode
from h2a_batch.convert.photo import Photo
from h2a_batch.convert.turns import Turns
from h2a_batch.errors import H2AError, ModelError, PhotoError, ShortageError, StorageError
from h2a_batch.faces import Detectors, Face, check_detector, search_of
from h2a_batch.inference import Generator, one_line, resolve_device
from h2a_batch.ledger import Output, Task
from h2a_batch.machine import available_memory, lacks_memory
from h2a_batch.options import Options, Workers
from h2a_batch.photos import FORMATS, Frame, encode
from h2a_batch.places import at

NameFaces = Callable[[Task, int], Sequence[str]]
_HANDFUL = 8  # photos: no more than these need one generator only, as loading another takes as long
_CALLERS = 16  # threads that read from a store; half as many at least write to one: they mostly wait
_HELD_BYTES = 256 << 20  # of objects in memory before they are decoded; a larger one is there alone
_SHORT = "free some memory, or use fewer --workers; the next run goes on from here"
_LITTLE_MEMORY = 256 << 20  # bytes; with less, MindSpore Lite fails for reasons that it does not say
_FILL_SECONDS = 0.05  # how long a batch with room waits for one more photo


@dataclass(frozen=True)
class Result:
    """The result of a task.

    Args:
        task: the task.
        seconds: the time from the first byte read to the last byte written.
        sha256: of the photo's bytes, in hex; empty where it could not be read.
        outputs: the files that were made of the photo.
        faces: the faces that were found and converted; empty where the photo was converted as a whole.
        error: None where all outputs are complete and on disk.
        trace: the traceback of an unexpected error.
        note: what of the photo was left out, in words; empty for most photos.
    """

    task: Task
    seconds: float
    sha256: str = ""
    outputs: tuple[Output, ...] = ()
    faces: tuple[Frame, ...] = ()
    error: H2AError | None = None
    trace: str = ""
    note: str = ""


@dataclass
class _Job:
    """A photo on its way; each stage fills in its fields."""

    task: Task
    started: float = field(default_factory=time.perf_counter)
    ended: float = 0.0
    data: Path | bytes | None = None  # the bytes of an object, once they are fetched
    photo: Photo | None = None
    painted: list[NDArray[np.uint8]] = field(default_factory=list)
    outputs: tuple[Output, ...] = ()
    error: H2AError | None = None
    trace: str = ""
    alone: bool = False  # it is tried again with nothing else going on
    short: bool = False  # it failed because memory ran short

    @property
    def count(self) -> int:
        """The number of the photo's parts."""
        return len(self.photo.parts) if self.photo else 0

    def fail(self, error: Exception) -> None:
        """Note why the photo failed; an error of no known kind is kept with its traceback."""
        models = isinstance(error, ModelError) or (isinstance(error, PhotoError) and error.kind == "model")
        self.short = lacks_memory(error) or (models and available_memory() < _LITTLE_MEMORY)
        if self.short and not isinstance(error, ShortageError):
            why = one_line(error) or type(error).__name__
            self.error = ShortageError(f"{self.task.source.path}: memory ran short ({why})", _SHORT)
        elif isinstance(error, H2AError):
            self.error = error
        else:
            self.trace = traceback.format_exc()
            self.error = PhotoError("internal", f"unexpected {type(error).__name__}: {error}", "please report this")


def load(model: Path, options: Options) -> Generator:
    """Load the first generator of a run, on the device that the options name, and check that faces can be found.

    Raises:
        ModelError: one of the models is missing or broken.
        RuntimeMissingError: MindSpore Lite or the device is missing.
    """
    if options.faces != "off":
        check_detector()
    np.eye(2) @ np.eye(2)  # OpenBLAS takes its memory now: later, where there is none, it would try for ever
    device = resolve_device(options.device)
    return Generator(model, device=device, batch_size=options.batch_for(device))


def convert(
    tasks: Iterable[Task | None], options: Options, generator: Generator, workers: Workers, name_faces: NameFaces
) -> Yields[Result, None, None]:
    """Convert photos and yield a result for each, in the order in which they are done.

    Args:
        tasks: pulled one by one as there is room; the pipeline never runs far ahead of its results. None says, after a
            moment's wait, that there is nothing for now: the pipeline then yields what is done before it asks again.
        options: the options of the run.
        generator: the first generator; the others load the same model for themselves.
        workers: the number of threads of each stage, all at least 1.
        name_faces: claims the names of a photo's faces in OUT, before they are written.

    Raises:
        StorageError: the output volume is full or gone. Photos on their way are dropped.
        ShortageError: the machine lacks the memory for a photo, also with nothing else going on.
    """
    stages = _Stages(options, generator, workers, name_faces)
    room = 2 * (workers.decode + workers.generator * generator.batch_size + workers.encode)
    waiting = iter(tasks)
    flying = 0
    again: list[Task] = []  # memory ran short with these: each is tried alone, once the others are done
    exhausted = False
    try:
        while flying or again or not exhausted:
            paused = False
            while flying < room + stages.calling and not exhausted and not paused and not again:
                try:
                    task = next(waiting)
                except StopIteration:
                    exhausted = True
                    break
                paused = task is None
                if task is not None:
                    stages.take(_Job(task))
                    flying += 1
            if again and not flying:
                stages.take(_Job(again.pop(), alone=True))
                flying = 1
            if flying > _HANDFUL:
                stages.use_all_generators()
            for _ in range(stages.departures.qsize() if paused else min(flying, 1)):
                job = stages.departures.get()
                flying -= 1
                if job.short and not job.alone:
                    again.append(job.task)
                else:
                    yield _result(job)
    finally:
        stages.close()


class _Stages:
    """The three pools of threads and the queues between them."""

    def __init__(self, options: Options, generator: Generator, workers: Workers, name_faces: NameFaces) -> None:
        self.options = options
        self.generator = generator
        self.name_faces = name_faces
        self.detectors = Detectors()
        self.closing = False
        self._fetchers = self._callers = 0
        self._memory = Allowance(_HELD_BYTES)
        self._loading, self._hiring = threading.Lock(), threading.Lock()
        self.named: queue.Queue[_Job | None] = queue.Queue()
        self.arrivals: queue.Queue[_Job | None] = queue.Queue()
        self.decoded: queue.Queue[_Job | None] = queue.Queue()
        self.painted: queue.Queue[_Job | None] = queue.Queue()
        self.departures: queue.Queue[_Job] = queue.Queue()
        self._threads: list[threading.Thread] = []
        self._spare_generators = workers.generator - 1
        self._turns = Turns(options, workers.decode, lambda: self._start("decode", 1, lambda number: self._decoder()))
        self._start("decode", workers.decode, lambda number: self._decoder())
        self._start("generator", 1, lambda number: self._generate(generator))
        self._encoders = workers.encode
        self._start("encode", workers.encode, lambda number: self._run(self.painted, self._encode, self.departures))

    def take(self, job: _Job) -> None:
        """Send a photo on its way."""
        far = at(job.task.source.path).far, at(job.task.out).far
        if far[0] and not self._fetchers:
            self._fetchers = _CALLERS
            self._start("fetch", _CALLERS, lambda number: self._run(self.named, self._fetch, self.arrivals))
        if far[1] and not self._callers:
            self._callers = max(1, _CALLERS // 2 - self._encoders)
            self._start("encode", self._callers, lambda number: self._run(self.painted, self._encode, self.departures))
        (self.named if far[0] else self.arrivals).put(job)

    @property
    def calling(self) -> int:
        """The number of photos that wait for a store, beside those that the stages work on."""
        return _CALLERS if self._fetchers or self._callers else 0

    def use_all_generators(self) -> None:
        """Start the other generators, one after the other, as long as photos wait for them."""
        if self._spare_generators:
            self._start("generator", self._spare_generators, lambda number: self._generate(self._another()))
            self._spare_generators = 0

    def close(self) -> None:
        """End all threads; drop the photos on their way before they are written."""
        with self._hiring:
            self.closing = True
        self._memory.open()
        self._turns.end()
        for _ in self._threads:
            for stage in (self.named, self.arrivals, self.decoded, self.painted):
                stage.put(None)
        for thread in self._threads:
            thread.join()

    def _start(self, name: str, count: int, work: Callable[[int], None]) -> None:
        with self._hiring:
            for number in range(0 if self.closing else count):
                thread = threading.Thread(target=work, args=(number,), name=f"{name}-{number}", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:
                    raise ShortageError(f"memory ran short ({error})", _SHORT) from error
                self._threads.append(thread)

    def _run(
        self,
        source: queue.Queue[_Job | None],
        work: Callable[[_Job], None],
        target: queue.Queue[_Job | None] | queue.Queue[_Job],
    ) -> None:
        """Do one stage's work on each photo of a queue; a photo that failed goes straight to the departures."""
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
        """Read an object into memory, once there is room for it."""
        self._memory.take(job.task.source.size)
        job.started = time.perf_counter()
        try:
            job.data = at(job.task.source.path).fetch()
        except BaseException:
            self._memory.give(job.task.source.size)
            raise

    def _decoder(self) -> None:
        """Decode photos and look for their faces, in one thread."""
        card = self.generator.card
        options = self.options
        size = (card.input.width, card.input.height)
        fit = options.fit or card.fit

        def find(picture: NDArray[np.uint8], smallest: float) -> list[Face]:
            try:
                return self.detectors.find(picture, smallest)
            except ModelError as error:
                raise PhotoError("model", str(error)) from error

        search = search_of(options, find, card.face)

        def decode_one(job: _Job) -> None:
            source = job.task.source
            fetched = job.data
            if fetched is None:
                job.started = time.perf_counter()
            met = (source.size, source.mtime_ns) if options.watch else None  # as it came to rest
            limits = self._turns.limits(job.alone)
            try:
                links = options.ray is not None  # another node may reach IN by other links than this one
                data = fetched if fetched is not None else Path(str(source.path) if links else source.target)
                with self._turns.decoding():
                    metadata = options.keep_metadata
                    job.photo = decode(data, size, fit, options.size, metadata, search, met, links, limits)
            finally:
                if fetched is not None:
                    job.data = None
                    self._memory.give(source.size)

        self._run(self.arrivals, decode_one, self.decoded)

    def _generate(self, generator: Generator | None) -> None:
        """Run photos through a generator, batch by batch, in one thread."""
        while generator is not None and (batch := self._batch(generator.batch_size)):
            if not self._paint(generator, batch) and len(batch) > 1:
                for job in batch:  # it may have been one of them: the others must not fail with it
                    job.error, job.short = None, False
                    self._paint(generator, [job])
            for job in batch:
                job.ended = time.perf_counter()
                (self.departures if job.error else self.painted).put(job)

    def _paint(self, generator: Generator, batch: list[_Job]) -> bool:
        """Have the generator paint the parts of some photos; where it fails, all of them have."""
        try:
            parts = [part.pixels for job in batch if job.photo for part in job.photo.parts]
            painted = iter(answers_of(generator, parts))
            for job in batch:
                job.painted = list(islice(painted, job.count))
        except Exception as error:
            blamed = isinstance(error, ModelError) and not lacks_memory(error)
            for job in batch:
                job.fail(PhotoError("model", str(error)) if blamed else error)
            return False
        return True

    def _another(self) -> Generator | None:
        """Load one more generator like the first; return None at the end, or where memory does not allow it."""
        first = self.generator
        with self._loading:
            while self.decoded.qsize() <= first.batch_size:  # loading pays only where photos wait
                if self.closing:
                    return None
                time.sleep(_FILL_SECONDS)
            try:
                batch, threads = first.batch_size, first.threads
                return Generator(first.card.path, device=first.device, threads=threads, batch_size=batch)
            except Exception:  # whatever it is, the other generators go on
                return None

    def _batch(self, size: int) -> list[_Job]:
        """Return the next photos to run together: at least one, and those that come soon; none at the end."""
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
        """Make the outputs of a photo and write them."""
        assert job.photo is not None
        options = self.options
        photo = job.photo
        images = finish(photo, job.painted, keep_alpha=FORMATS[options.format].alpha)
        files = [encode(image, options.format, options.effective_quality, photo.exif) for image in images]
        portraits = bool(photo.faces) and photo.canvas is None
        names = self.name_faces(job.task, len(files)) if portraits else [job.task.name]
        out = job.task.out
        for name, data in zip(names, files, strict=True):
            at(out / name).write(data, out, fresh=job.task.fresh and not portraits)
        job.outputs = tuple(Output(name, len(data)) for name, data in zip(names, files, strict=True))


def _result(job: _Job) -> Result:
    """Return the result of a job; raise the errors that end the run."""
    if isinstance(job.error, StorageError | ShortageError):
        raise job.error
    seconds = job.ended - job.started
    sha256, faces, note = (job.photo.sha256, job.photo.faces, job.photo.note) if job.photo else ("", (), "")
    return Result(job.task, seconds, sha256, job.outputs, faces, job.error, job.trace, note)
