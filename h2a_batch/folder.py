"""A folder in, a folder out: sources, ledger and pipeline put together. The command line is a thin coat over this."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import Any

from h2a_batch.card import find_model, identify
from h2a_batch.claims import claim, claim_faces, is_current, is_known
from h2a_batch.disposal import Disposal, check_rules
from h2a_batch.errors import H2AError, PhotoError, StorageError, UsageError
from h2a_batch.events import Event, FileResult, Summary, notify
from h2a_batch.generator import Generator, resolve_device
from h2a_batch.ledger import NOBODY, Ledger, Row, Task
from h2a_batch.names import is_image_name
from h2a_batch.options import Options, with_settings
from h2a_batch.pipeline import Result, convert
from h2a_batch.present import Presenter
from h2a_batch.results import Item, look, write_table
from h2a_batch.settle import SETTLE_SECONDS, Settling
from h2a_batch.source import LEDGER_FOLDER, Found, Ignored, Scan, Unusable, check_inputs, scan
from h2a_batch.watch import Watcher, wait_until

IN_PLACE_SUFFIX = "_anime"
_CLAIMS = 32  # names that are made durable together, before their photos start
_UPKEEP, _UPKEEP_SHARE = 60.0, 50  # seconds between two reports of a watch, or times what the last one took


def convert_folder(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    options: Options | None = None,
    *,
    on_file: Callable[[FileResult], None] | None = None,
    on_total: Callable[[int], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
    stop: threading.Event | None = None,
    **settings: Any,
) -> Summary:
    """Convert photos to anime faces, as ``h2a-batch IN OUT`` does.

    Args:
        inputs: a folder, a file, or several.
        out: the output folder; made if it is not there.
        options: what to do; or give its fields as keywords: ``convert_folder("in", "out", format="jpg")``.
        on_file: called in this thread with what became of each photo.
        on_total: called from another thread, once it is known how many photos there are; not in a watch.
        on_event: called in this thread with changes of state, see `Event`.
        stop: when set, what is in flight is finished and the run ends.

    Returns:
        the counts; one photo that fails does not raise.

    Raises:
        UsageError, ModelError, RuntimeMissingError, BusyError, LedgerError: nothing could run.
        StorageError: the output volume is full or gone; the next run goes on from there.
    """
    options = with_settings(options or Options(), settings)
    given = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    paths, target = check_inputs([Path(path) for path in given], options.recursive), Path(os.path.abspath(out))
    _check_out(target)
    _check_watched(paths, options)
    originals = [os.path.realpath(path if path.is_dir() else path.parent) for path in paths]
    if os.path.realpath(target) in originals and not options.suffix:
        options = replace(options, suffix=IN_PLACE_SUFFIX)
    model = find_model(options.model)
    sha256, framing, rule = identify(model)
    first_run = not (target / LEDGER_FOLDER).exists() and not options.dry_run
    generator = _load(model, options) if first_run else None  # a model that does not load leaves no trace in OUT
    if not options.dry_run:
        check_rules(options, target, originals)
    try:
        ledger = Ledger(target, options.settings(sha256, framing, rule), read_only=options.dry_run)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written ({error.strerror})", "choose another OUT") from error
    with ledger:
        ledger.name_model(sha256, model.stem)
        tell, on_event = on_file or (lambda result: None), on_event or (lambda event: None)
        run = _Run(paths, options, ledger, originals, tell, on_event, stop or threading.Event())
        with _counting(run, None if options.watch else on_total):
            run.work(model, generator)
    return run.summary


def _load(model: Path, options: Options) -> Generator:
    device = resolve_device(options.device)
    return Generator(model, device=device, batch_size=options.batch_for(device))


class _Run:
    """One run over the inputs: what is still to do goes in, what became of it is counted and told."""

    def __init__(
        self,
        inputs: list[Path],
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
        self.presenter = Presenter(ledger, options, inputs, originals, self.looks, stop)
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
        self.disposal = Disposal(ledger, options, tell_event)
        self.watcher = self.watching() if options.watch else None
        self.blocked = False  # in a watch: OUT is full or gone
        self.unsaved: list[Result] = []  # recorded, and not yet durable
        self.upkeep, self.reported = time.monotonic() + _UPKEEP, (0, 0)
        self.left = options.limit

    def watching(self) -> Watcher:
        """What gives out the photos of a watch."""
        options, seconds = self.options, self.options.settle
        settling = Settling(SETTLE_SECONDS if seconds is None else seconds)
        known, stop = partial(is_known, self.ledger), self.stop
        poll, idle = options.poll, options.max_idle
        return Watcher(self.inputs, self.how, settling, known, poll, idle, self.tell_event, stop)

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
                self.convert(chain([first], tasks), generator or _load(model, self.options))
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

    def convert(self, tasks: Iterable[Task | None], generator: Generator) -> None:
        """Convert what there is; a watch goes on when OUT was full and can be written again."""
        workers = self.options.workers.filled(generator.device)
        name_faces = partial(claim_faces, self.ledger, overwrite=self.options.overwrite, originals=self.originals)
        if self.watcher:
            self.watcher.start()
            more = f"and {len(self.inputs) - 1} more" if len(self.inputs) > 1 else ""
            self.tell_event(Event("ready", self.inputs[0], self.ledger.out, more))
            notify("READY=1")
        while True:
            try:
                with contextlib.closing(convert(tasks, self.options, generator, workers, name_faces)) as results:
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
        """Wait until OUT can be written again; what was on its way is then met anew."""
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
        """Whether OUT can be written again; if so, what was told as done is on record again, though it was lost."""
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
            else:
                path = self.ledger.out / found.output
                message = f"{path} is of other origin or was edited; --overwrite replaces it"
                self.note(FileResult(found.path, "skipped", path, "exists", message))
                if self.watcher:
                    self.watcher.left(found)

    def record(self, result: Result) -> None:
        task, error = result.task, result.error
        if error is None:
            self.unsaved.append(result)
            try:
                self.write_down(result)
            finally:  # should OUT be full just now, a watch catches up on that
                files, faces = tuple(task.out / output.name for output in result.outputs), len(result.faces)
                self.note(
                    FileResult(
                        task.source.path, "converted", files[0], seconds=result.seconds, outputs=files, faces=faces
                    )
                )
            if self.watcher:
                self.watcher.finished(task.source)
        else:
            self.fail(result, error)
        if self.ledger.commit(at_once=False):
            self.unsaved.clear()
            self.disposal.carry_out()
            if self.blocked:
                self.blocked = False
                self.tell_event(Event("free", self.ledger.out, message="it can be written again; going on"))

    def write_down(self, result: Result) -> None:
        """Put a success on record, and what is to become of the photo."""
        with self.ledger.together():
            self.ledger.done(result.task, result.sha256, result.outputs, result.seconds, result.faces)
            self.disposal.plan(result.task, None)

    def fail(self, result: Result, error: H2AError) -> None:
        """Record a failure; in a watch a photo may just not be complete yet, and is then no failure."""
        task, kind = result.task, error.kind if isinstance(error, PhotoError) else "internal"
        if kind == NOBODY and self.options.no_face == "skip":
            self.ledger.nobody(task, result.seconds)
            self.note(FileResult(task.source.path, "skipped", None, kind, error.message, result.seconds))
            if self.watcher:
                self.watcher.finished(task.source)
            return
        self.ledger.failed(task, str(error), result.seconds)
        if self.watcher:
            if self.watcher.takes_back(task.source, error):
                self.left = self.left + 1 if self.left is not None else None
                return
            self.watcher.left(task.source)
        self.disposal.plan(task, error)
        self.note(FileResult(task.source.path, "failed", None, kind, str(error), result.seconds, result.trace))

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
        self.disposal.carry_out()

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


@contextlib.contextmanager
def _counting(run: _Run, on_total: Callable[[int], None] | None) -> Iterator[None]:
    """Count the photos beside the run, so that it need not wait for a large or slow folder."""
    ended = threading.Event()

    def work() -> None:
        with contextlib.suppress(H2AError, OSError, sqlite3.Error):  # the run itself meets the same and says so
            found = takewhile(lambda item: not ended.is_set(), scan(run.inputs, replace(run.how, originals=[])))
            total = sum(not isinstance(item, Ignored) for item in found)
            if on_total and not ended.is_set():
                on_total(total)

    if on_total:
        threading.Thread(target=work, name="count", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _check_watched(paths: Sequence[Path], options: Options) -> None:
    files = [path for path in paths if options.watch and not path.is_dir()]
    if files:
        raise UsageError(f"{files[0]}: --watch is for folders, and this is a file", "name the folder that it lies in")


def _check_out(out: Path) -> None:
    if os.path.exists(out) and not os.path.isdir(out):
        raise UsageError(f"{out}: OUT is not a folder", "name a folder for the results")
    if not os.path.exists(out) and is_image_name(out.name):
        raise UsageError(f"{out}: OUT is a folder, and this looks like a file", "name a folder for the results")
