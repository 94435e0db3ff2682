"""A run: what is still to do goes into the pipeline, what became of it onto the ledger, and is told."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Generator as Yields
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

from h2a_batch.convert import Result, cluster, convert, load
from h2a_batch.errors import H2AError, PhotoError, StorageError
from h2a_batch.events import Event, FileResult, Summary, notify
from h2a_batch.gallery import Item, look
from h2a_batch.inference import Generator
from h2a_batch.ledger import (
    NOBODY,
    Ledger,
    Row,
    Task,
    claim,
    claim_faces,
    in_the_way,
    is_current,
    is_known,
    write_table,
)
from h2a_batch.options import Options
from h2a_batch.places import Address, at
from h2a_batch.run.disposal import Disposal
from h2a_batch.run.present import Presenter
from h2a_batch.sources import SETTLE_SECONDS, Found, Ignored, Scan, Settling, Unusable, Watcher, scan, wait_until

Convert = Callable[[Iterable[Task | None]], Yields[Result, None, None]]

_CLAIMS = 32  # names that are made durable together, before their photos start
_MOMENT = 0.05  # seconds
_UPKEEP, _UPKEEP_SHARE = 60.0, 50  # seconds between two reports of a watch, or times what the last one took


class Run:
    """One run over the inputs: what is still to do goes in, what became of it is counted and told."""

    def __init__(
        self,
        inputs: list[Address],
        options: Options,
        ledger: Ledger,
        originals: list[str],
        tell: Callable[[FileResult], None],
        tell_event: Callable[[Event], None],
        stop: threading.Event,
    ) -> None:
        self.inputs, self.options, self.ledger, self.originals = inputs, options, ledger, originals
        self.tell, self.tell_event, self.stop = tell, tell_event, stop
        self.summary = Summary()
        self.met = 0  # photos that were come by, whatever became of them
        self.full = False  # a failure with --fail-fast: no more photos, and no interruption
        self.folders = [path for path in (at(address).path for address in inputs) if path]  # all, for a watch or sheet
        self.presenter = Presenter(ledger, options, self.folders, self.looks, stop)
        if not options.dry_run:
            self.presenter.check()
        self.how = Scan(
            suffix=options.suffix,
            format=options.format,
            recursive=options.recursive,
            out=ledger.out,
            is_output=ledger.is_output,
            exclude=ledger.sheets(),
            originals=originals,
            avoid=frozenset(map(os.path.realpath, filter(None, (options.archive, options.failures)))),
            watching=options.watch,
        )
        self.disposal = Disposal(ledger, options, inputs, tell_event)
        self.watcher = self.watching() if options.watch else None
        self.blocked = False  # in a watch: OUT is full
        self.unsaved: list[Result] = []  # recorded, and not yet durable
        self.upkeep, self.reported = time.monotonic() + _UPKEEP, (0, 0)
        self.left = options.limit

    def watching(self) -> Watcher:
        """What gives out the photos of a watch."""
        options, seconds = self.options, self.options.settle
        settling = Settling(SETTLE_SECONDS if seconds is None else seconds)
        known, stop = partial(is_known, self.ledger), self.stop
        poll, idle = options.poll, options.max_idle
        return Watcher(self.folders, self.how, settling, known, poll, idle, self.tell_event, stop)

    def work(self, model: Path, generator: Generator | None) -> None:
        """Convert what is to be converted; then write report and contact sheet."""
        started = time.perf_counter()
        if not self.options.dry_run:
            self.ledger.clean()
            self.disposal.recover()
        tasks = self.tasks()
        first = None if self.watcher else next(tasks, None)
        if self.options.dry_run:
            for task in filter(None, chain([first], tasks)):
                self.note(FileResult(task.source.path, "planned", task.output))
            return
        try:
            if first or self.watcher:  # a run with nothing to do need not load a model
                self.convert(chain([first], tasks), self.converter(model, generator))
        finally:
            self.summary.seconds = time.perf_counter() - started
            self.summary.interrupted = self.stop.is_set()
            if self.watcher:
                self.watcher.close()
                notify("STOPPING=1")
            with contextlib.suppress(StorageError):
                self.dispose()
                self.summary.report = write_table(self.ledger)
            self.summary.kept = len(self.disposal.refused)
        if (self.options.contact_sheet or self.options.report) and not self.summary.interrupted:
            self.presenter.write(self.summary)

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
        """Convert what there is; a watch goes on when OUT was full and can be written again."""
        if self.watcher:
            self.watcher.start()
            more = f"and {len(self.inputs) - 1} more" if len(self.inputs) > 1 else ""
            self.tell_event(Event("ready", self.inputs[0], self.ledger.out, more))
            notify("READY=1")
        while True:
            try:
                with contextlib.closing(converter(tasks)) as results:
                    for result in results:
                        self.record(result)
                return
            except StorageError as error:
                if not self.watcher:
                    raise
                if not self.outlast(error):
                    return
                tasks = self.tasks()

    def outlast(self, error: StorageError) -> bool:
        """Wait until OUT can be written again; what was on its way is then met anew.

        Raises:
            StorageError: OUT is another folder now, or none.
        """
        self.ledger.check_place()
        if not self.blocked:
            message = f"{error.message}; waiting until it can be written again"
            self.tell_event(Event("full", self.ledger.out, message=message))
        self.blocked = True
        if not wait_until(self.catch_up, self.stop):
            return False
        if self.watcher:
            self.watcher.start_over()
        self.disposal.resume()
        return True

    def catch_up(self) -> bool:
        """Whether OUT can be written again; if so, what was told is on record again, though it was lost."""
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
                if self.stop.is_set() or self.full:
                    return
                if task is None:
                    self.pause()
                yield task
            together = min(2 * together, _CLAIMS)

    def found(self) -> Iterator[Found | None]:
        """The line that a watch differs in: a source of photos that never ends."""
        return self.watcher.found() if self.watcher else scan(self.inputs, self.how)

    def claims(self) -> Iterator[Task | None]:
        for found in self.found():
            if self.stop.is_set() or self.full or self.left == 0:
                return
            if found is None:
                yield None
                continue
            if isinstance(found, Ignored):
                self.summary.ignored += 1
                continue
            self.met += 1
            if isinstance(found, Unusable):
                self.ledger.unusable(found.path, found.message)
                self.note(FileResult(found.path, "failed", kind=found.kind, message=found.message))
            elif not self.options.overwrite and is_current(self.ledger, found):
                self.note(FileResult(found.path, "skipped", self.ledger.output_of(found), "unchanged"))
                self.disposal.resume(found)
                if self.watcher:
                    self.watcher.finished(found)
            elif task := claim(self.ledger, found, self.options.overwrite, self.originals):
                self.left = self.left - 1 if self.left is not None else None
                yield task
                while self.left == 0 and self.watcher and self.watcher.gave and not self.stop.wait(_MOMENT):
                    yield None  # what was given out may be taken back
            else:
                path = in_the_way(self.ledger, found)
                message = f"{path} is of other origin or was edited; --overwrite replaces it"
                self.note(FileResult(found.path, "skipped", path, "exists", message))
                if self.watcher:
                    self.watcher.left(found)

    def record(self, result: Result) -> None:
        """Put on record what became of a photo, and tell it."""
        task, error = result.task, result.error
        if self.watcher and error and self.watcher.takes_back(task.source, error):  # it may just not be complete yet
            self.ledger.failed(task, str(error), result.seconds)
            self.left = self.left + 1 if self.left is not None else None
            return
        self.unsaved.append(result)
        try:
            self.write_down(result)
        finally:  # should OUT be full just now, a watch catches up on that
            self.note(self.told(result))
        if self.watcher:
            self.watcher.left(task.source) if error and not self.is_passed(error) else self.watcher.finished(
                task.source
            )
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

    def pause(self) -> None:
        """In a watch there is nothing to do for now: make the last results durable, once a minute tidy up."""
        self.dispose()
        started = time.monotonic()
        if started < self.upkeep:
            return
        self.disposal.retry()
        counts = (self.summary.converted, self.summary.failed)
        if counts != self.reported:
            write_table(self.ledger)
        ended = time.monotonic()
        self.upkeep, self.reported = ended + max(_UPKEEP, _UPKEEP_SHARE * (ended - started)), counts

    def dispose(self) -> None:
        """Make the results durable, and then do with the photos what was asked for."""
        self.save()
        self.saved()

    def saved(self) -> None:
        """The results are durable: do with the photos what was asked for."""
        self.unsaved.clear()
        self.disposal.carry_out()
        if self.blocked:
            self.blocked = False
            self.tell_event(Event("free", self.ledger.out, message="it can be written again; going on"))

    def note(self, result: FileResult) -> None:
        """Count a result and pass it on."""
        if result.state == "failed":
            self.summary.failed += 1
            self.full = self.full or self.options.fail_fast
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
