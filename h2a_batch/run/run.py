"""A run: takes photos from its feed, converts them, and puts the results into the ledger and before the user."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Generator as Yields
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

from h2a_batch.convert import Result, cluster, convert, load
from h2a_batch.errors import BrokenModelError, H2AError, PhotoError, StorageError
from h2a_batch.events import Event, FileResult, Summary
from h2a_batch.gallery import Item, look
from h2a_batch.inference import Generator
from h2a_batch.ledger import (
    CURRENT,
    NOBODY,
    Ledger,
    Row,
    Task,
    claim,
    claim_faces,
    in_the_way,
    status,
    write_table,
)
from h2a_batch.options import Options
from h2a_batch.places import Address
from h2a_batch.run.disposal import Disposal
from h2a_batch.run.feed import Feed
from h2a_batch.run.present import Presenter
from h2a_batch.sources import Found, Ignored, Scan, Unusable, scan

Convert = Callable[[Iterable[Task | None]], Yields[Result, None, None]]

_CLAIMS = 32  # names that one commit makes durable, before their photos start
_MOMENT = 0.05  # seconds
_MISDRAWN = 20  # photos in a row that a model fails on, after which no other is worth a try
_NOTHING = object()


class Run:
    """One run: it converts the photos that its feed gives, and records, counts and reports the results.

    Args:
        inputs: as `check_inputs` returns them.
        how: how to look for photos in them.
        originals: real paths of the folders whose files may be originals; it may grow during the run.
        options: the options of the run.
        ledger: the ledger of OUT.
        feed: gives out the photos.
        disposal: archives, moves or deletes photos after their conversion.
        presenter: writes sheet and report.
        tell: called with each result.
        tell_event: called with changes of state.
        stop: when set, the run finishes the photos on their way and ends.
    """

    def __init__(
        self,
        inputs: list[Address],
        how: Scan,
        originals: Sequence[str],
        options: Options,
        ledger: Ledger,
        feed: Feed,
        disposal: Disposal,
        presenter: Presenter,
        tell: Callable[[FileResult], None],
        tell_event: Callable[[Event], None],
        stop: threading.Event,
    ) -> None:
        self.inputs, self.how, self.originals = inputs, how, originals
        self.options, self.ledger = options, ledger
        self.feed, self.disposal, self.presenter = feed, disposal, presenter
        self.tell, self.tell_event, self.stop = tell, tell_event, stop
        self.summary = Summary()
        self.met = 0  # photos that the feed gave, whatever their results
        self.failed_fast = False  # a failure with --fail-fast: take no more photos, though nobody interrupts
        self.unsaved: list[Result] = []  # recorded, but not durable yet
        self.misdrawn = 0  # photos in a row for which the model gave no picture
        self.remaining = options.limit  # how many more photos to convert; None for all

    def work(self, model: Path, generator: Generator | None) -> None:
        """Convert the photos; then write table, contact sheet and report."""
        started = time.perf_counter()
        if not self.options.dry_run:
            self.ledger.clean()
            self.disposal.recover()
        tasks = self.tasks()
        if self.options.dry_run:
            for task in filter(None, tasks):
                self.note(FileResult(task.source.path, "planned", task.output))
            return
        try:
            first = next(tasks, _NOTHING)
            if first is None or isinstance(first, Task):  # a run without work need not load a model
                converter = self.converter(model, generator)
                self.feed.ready()
                self.convert(chain([first], tasks), converter)
        finally:
            self.summary.seconds = time.perf_counter() - started
            self.summary.interrupted = self.stop.is_set()
            self.feed.close()
            with contextlib.suppress(StorageError):
                self.dispose()
                self.summary.table = write_table(self.ledger)
            self.summary.kept = len(self.disposal.refused)
        if (self.options.contact_sheet or self.options.report) and not self.summary.interrupted:
            self.presenter.write(self.summary, self.looks)

    def converter(self, model: Path, generator: Generator | None) -> Convert:
        """Return what converts: the pipeline of this process, or a cluster."""
        options = self.options
        name_faces = partial(claim_faces, self.ledger, overwrite=options.overwrite, originals=self.originals)
        if options.ray:
            naming = cluster.Naming(partial(name_faces, durable=False), self.ledger.flush)
            return lambda tasks: cluster.convert(
                tasks, options, model, self.ledger.out, naming, self.tell_event, self.stop
            )
        loaded = generator or load(model, options)
        return lambda tasks: convert(tasks, options, loaded, options.workers.filled(loaded.device), name_faces)

    def convert(self, tasks: Iterable[Task | None], converter: Convert) -> None:
        """Convert the photos; where the feed outlasts a full OUT, continue when OUT can be written again."""
        while True:
            try:
                with contextlib.closing(converter(tasks)) as results:
                    for result in results:
                        self.record(result)
                        self.check_model(result.error)
                return
            except StorageError as error:
                if not self.feed.outlasts(error, self.catch_up):
                    return
                tasks = self.tasks()

    def check_model(self, error: H2AError | None) -> None:
        """Count the photos for which the model gave no picture; photos that did not reach it say nothing of it.

        Raises:
            BrokenModelError: there were many in a row.
        """
        if error is None:
            self.misdrawn = 0
        elif isinstance(error, PhotoError) and error.kind == "model":
            self.misdrawn += 1
            if self.misdrawn == _MISDRAWN:
                what = f"{self.options.model}: no picture for {_MISDRAWN} photos in a row ({error.message})"
                raise BrokenModelError(what, "the photos stay as they are; give another --model")

    def catch_up(self) -> bool:
        """Tell whether OUT can be written again; if so, record again the results that were reported and then lost."""
        if not self.ledger.can_write():
            return False
        with contextlib.suppress(StorageError):
            for result in self.unsaved:
                self.write_down(result)
            return self.save()
        return False

    def save(self) -> bool:
        """Make the results durable, and return True; raise StorageError where OUT is full or gone."""
        self.ledger.commit()
        self.unsaved.clear()
        return True

    def tasks(self) -> Iterator[Task | None]:
        """Yield the photos to convert, once their outputs' names are on record; None where there is nothing for now."""
        claims = self.claims()
        together = 1
        while chunk := _chunk(claims, together):
            self.save()
            for task in chunk:
                if self.stop.is_set() or self.failed_fast:
                    return
                if task is None:
                    self.dispose()
                    self.feed.idle()
                yield task
            together = min(2 * together, _CLAIMS)

    def claims(self) -> Iterator[Task | None]:
        """Yield the photos to convert, each with a name for its output; None where the feed yields None."""
        for found in self.feed.photos():
            if self.stop.is_set() or self.failed_fast or self.remaining == 0:
                return
            task = self.meet(found) if found else None
            if found and not task:
                continue
            self.remaining = self.remaining - 1 if task and self.remaining is not None else self.remaining
            yield task
            while self.remaining == 0 and self.feed.waits and not self.stop.wait(_MOMENT):
                yield None

    def meet(self, found: Found) -> Task | None:
        """Return a photo with a name for its output; return None and report why if it is not converted."""
        if isinstance(found, Ignored):
            self.summary.ignored += 1
            return None
        self.met += 1
        if isinstance(found, Unusable):
            self.ledger.unusable(found.path, found.message)
            self.note(FileResult(found.path, "failed", kind=found.kind, message=found.message))
            return None
        overwrite = self.options.overwrite
        where = None if overwrite else status(self.ledger, found, self.ledger.key)
        if where and where.kind == CURRENT:
            self.note(FileResult(found.path, "skipped", self.ledger.output_of(found), "unchanged"))
            self.disposal.resume(found)
            self.feed.done(found)
            return None
        edited = where.edited if where else None
        task = None if edited else claim(self.ledger, found, overwrite, self.originals)
        if task and (overwrite or self.options.ray):  # two nodes may make one output
            task = replace(task, fresh=False)
        if task is None:
            path = edited or in_the_way(self.ledger, found)
            message = f"{path} is of other origin or was edited; --overwrite replaces it"
            self.note(FileResult(found.path, "skipped", path, "exists", message))
            self.feed.failed(found, None)
        return task

    def record(self, result: Result) -> None:
        """Record the result of a photo, and report it."""
        photo, error = result.task.source, result.error
        failed = error is not None and not self.is_passed(error)
        if failed and self.feed.failed(photo, error):
            self.ledger.failed(result.task, str(error), result.seconds)
            self.remaining = self.remaining + 1 if self.remaining is not None else None
            return
        self.unsaved.append(result)
        try:
            self.write_down(result)
        finally:  # if OUT is full just now, `catch_up` records the result
            self.note(self.reported(result))
        if not failed:
            self.feed.done(photo)
        if self.ledger.commit(at_once=False):
            self.saved()

    def write_down(self, result: Result) -> None:
        """Record a result, and what is to be done with the photo."""
        task, error, seconds = result.task, result.error, result.seconds
        with self.ledger.together():
            if error is None:
                self.ledger.done(task, result.sha256, result.outputs, seconds, result.faces)
            elif self.is_passed(error):
                self.ledger.nobody(task, seconds)
                return
            else:
                self.ledger.failed(task, str(error), seconds)
            self.disposal.plan(task, error)

    def is_passed(self, error: H2AError) -> bool:
        """Tell whether an error means that a photo is skipped because it shows no face."""
        return isinstance(error, PhotoError) and error.kind == NOBODY and self.options.no_face == "skip"

    def reported(self, result: Result) -> FileResult:
        """Return a result in the form that is reported."""
        path, error = result.task.source.path, result.error
        if error is None:
            files = tuple(result.task.out / output.name for output in result.outputs)
            shown = FileResult(path, "converted", files[0], "", result.note, outputs=files, faces=len(result.faces))
        elif self.is_passed(error):
            shown = FileResult(path, "skipped", kind=NOBODY, message=error.message)
        else:
            kind = error.kind if isinstance(error, PhotoError) else "internal"
            shown = FileResult(path, "failed", kind=kind, message=str(error), trace=result.trace)
        return replace(shown, seconds=result.seconds)

    def dispose(self) -> None:
        """Make the results durable, and then dispose of their photos as the options say."""
        self.save()
        self.saved()

    def saved(self) -> None:
        """Dispose of the photos as the options say: their results are durable."""
        self.unsaved.clear()
        self.disposal.carry_out()
        self.feed.saved()

    def note(self, result: FileResult) -> None:
        """Count a result and report it."""
        if result.state == "failed":
            self.summary.failed += 1
            self.failed_fast = self.failed_fast or self.options.fail_fast
        elif result.state == "skipped":
            self.summary.skipped += 1
            self.summary.exist += result.kind == "exists"
            self.summary.faceless += result.kind == NOBODY
        else:
            self.summary.converted += 1
            self.summary.faces += result.faces
        self.tell(result)

    def looks(self) -> Iterator[tuple[list[Item], Row | None]]:
        """Yield the items and the record of each photo that this run met, in the order of the inputs."""
        how = replace(self.how, exclude=self.ledger.sheets())
        found = (found for found in scan(self.inputs, how) if not isinstance(found, Ignored))
        for photo in islice(found, self.met):
            yield look(photo, self.inputs, self.ledger)


def _chunk(claims: Iterator[Task | None], most: int) -> list[Task | None]:
    """Return the next `most` tasks, or fewer up to the first None."""
    chunk: list[Task | None] = []
    for task in claims:
        chunk.append(task)
        if task is None or len(chunk) == most:
            break
    return chunk
