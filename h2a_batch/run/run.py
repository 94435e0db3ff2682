"""A run: photos from its feed go into the conversion, what became of them onto the ledger, and is told."""

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
from h2a_batch.errors import H2AError, PhotoError, StorageError
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

_CLAIMS = 32  # names that are made durable together, before their photos start
_MOMENT = 0.05  # seconds
_NOTHING = object()


class Run:
    """One run: what is still to do goes in, what became of it is counted and told.

    Args:
        inputs: as `check_inputs` gives them.
        how: how photos are looked for in them.
        originals: real paths of the folders whose files may be originals; it may grow while the run goes on.
        feed: gives out the photos.
        disposal: does with photos that are converted what was asked for.
        presenter: writes sheet and report.
        tell, tell_event: called with results and with changes of state.
        stop: when set, what is in flight is finished and the run ends.
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
        self.met = 0  # photos that the feed gave, whatever became of them
        self.failed_fast = False  # a failure with --fail-fast: no more photos, and no interruption
        self.unsaved: list[Result] = []  # recorded, and not yet durable
        self.remaining = options.limit

    def work(self, model: Path, generator: Generator | None) -> None:
        """Convert what is to be converted; then write report and contact sheet."""
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
            if first is None or isinstance(first, Task):  # a run with nothing to do need not load a model
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
        """What converts: the pipeline of this process, or a cluster."""
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
        """Convert what there is; where the feed outlasts a full OUT, go on when it can be written again."""
        while True:
            try:
                with contextlib.closing(converter(tasks)) as results:
                    for result in results:
                        self.record(result)
                return
            except StorageError as error:
                if not self.feed.outlasts(error, self.catch_up):
                    return
                tasks = self.tasks()

    def catch_up(self) -> bool:
        """Try whether OUT can be written again; if so, put on record again what was told, though it was lost."""
        if not self.ledger.can_write():
            return False
        with contextlib.suppress(StorageError):
            for result in self.unsaved:
                self.write_down(result)
            return self.save()
        return False

    def save(self) -> bool:
        """Make the results durable."""
        self.ledger.commit()
        self.unsaved.clear()
        return True

    def tasks(self) -> Iterator[Task | None]:
        """The photos to convert, their outputs' names on record before they are handed out; None where none is due."""
        claims, together = self.claims(), 1
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
        """Yield the photos that are to be converted, each with a name for its output; None as the feed does."""
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
        """Give a photo a name for its output, or tell why it is not converted."""
        if isinstance(found, Ignored):
            self.summary.ignored += 1
            return None
        self.met += 1
        if isinstance(found, Unusable):
            self.ledger.unusable(found.path, found.message)
            self.note(FileResult(found.path, "failed", kind=found.kind, message=found.message))
            return None
        overwrite = self.options.overwrite
        if not overwrite and status(self.ledger, found, self.ledger.key).kind == CURRENT:
            self.note(FileResult(found.path, "skipped", self.ledger.output_of(found), "unchanged"))
            self.disposal.resume(found)
            self.feed.done(found)
            return None
        task = claim(self.ledger, found, overwrite, self.originals)
        if task is None:
            path = in_the_way(self.ledger, found)
            message = f"{path} is of other origin or was edited; --overwrite replaces it"
            self.note(FileResult(found.path, "skipped", path, "exists", message))
            self.feed.failed(found, None)
        return task

    def record(self, result: Result) -> None:
        """Put on record what became of a photo, and tell it."""
        photo, error = result.task.source, result.error
        failed = error is not None and not self.is_passed(error)
        if failed and self.feed.failed(photo, error):
            self.ledger.failed(result.task, str(error), result.seconds)
            self.remaining = self.remaining + 1 if self.remaining is not None else None
            return
        self.unsaved.append(result)
        try:
            self.write_down(result)
        finally:  # should OUT be full just now, `catch_up` writes it down
            self.note(self.told(result))
        if not failed:
            self.feed.done(photo)
        if self.ledger.commit(at_once=False):
            self.saved()

    def write_down(self, result: Result) -> None:
        """Put a result on record, and what is to become of the photo."""
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
        """Whether a photo is to be passed over because nobody is in it."""
        return isinstance(error, PhotoError) and error.kind == NOBODY and self.options.no_face == "skip"

    def told(self, result: Result) -> FileResult:
        """A result as people hear of it."""
        path, error = result.task.source.path, result.error
        if error is None:
            files = tuple(result.task.out / output.name for output in result.outputs)
            told = FileResult(path, "converted", files[0], outputs=files, faces=len(result.faces))
        elif self.is_passed(error):
            told = FileResult(path, "skipped", kind=NOBODY, message=error.message)
        else:
            kind = error.kind if isinstance(error, PhotoError) else "internal"
            told = FileResult(path, "failed", kind=kind, message=str(error), trace=result.trace)
        return replace(told, seconds=result.seconds)

    def dispose(self) -> None:
        """Make the results durable, and then do with the photos what was asked for."""
        self.save()
        self.saved()

    def saved(self) -> None:
        """Do with the photos what was asked for: their results are durable."""
        self.unsaved.clear()
        self.disposal.carry_out()
        self.feed.saved()

    def note(self, result: FileResult) -> None:
        """Count a result and pass it on."""
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
        """What became of the photos that this run met, in the order of the inputs."""
        how = replace(self.how, exclude=self.ledger.sheets())
        found = (found for found in scan(self.inputs, how) if not isinstance(found, Ignored))
        for photo in islice(found, self.met):
            yield look(photo, self.inputs, self.ledger)


def _chunk(claims: Iterator[Task | None], most: int) -> list[Task | None]:
    """The next so many, or fewer up to where there is nothing for now."""
    chunk: list[Task | None] = []
    for task in claims:
        chunk.append(task)
        if task is None or len(chunk) == most:
            break
    return chunk
