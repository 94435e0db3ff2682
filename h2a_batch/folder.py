"""A folder in, a folder out: sources, ledger and pipeline put together. The command line is a thin coat over this."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, islice, takewhile
from pathlib import Path
from typing import Any

from h2a_batch.card import find_model, identify
from h2a_batch.claims import claim, claim_sheet, is_current
from h2a_batch.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_SOME_FAILED,
    H2AError,
    PhotoError,
    StorageError,
    UsageError,
)
from h2a_batch.generator import Generator, resolve_device
from h2a_batch.ledger import Ledger, Task
from h2a_batch.names import is_image_name
from h2a_batch.options import Options, with_settings
from h2a_batch.pipeline import Result, convert
from h2a_batch.sheet import PAIRS_ON_PAGE, Pair, check_writable, write_sheet
from h2a_batch.source import LEDGER_FOLDER, Ignored, Scan, Source, Unusable, check_inputs, scan

IN_PLACE_SUFFIX = "_anime"
_CLAIMS = 32  # names that are made durable together, before their photos start


@dataclass(frozen=True)
class FileResult:
    """What became of one input.

    Args:
        path: the input.
        state: ``converted``, ``skipped`` or ``failed``; ``planned`` in a dry run.
        output: the file made, or found to be there already; None where there is none.
        kind: for a failure, see `PhotoError`; for a skip, ``unchanged`` or ``exists``.
        message: what is wrong and what to do, one line; empty where all is well.
        seconds: time from the first byte read to the last byte written.
        trace: for the kind ``internal`` alone, the traceback.
    """

    path: Path
    state: str
    output: Path | None = None
    kind: str = ""
    message: str = ""
    seconds: float = 0.0
    trace: str = ""


@dataclass
class Summary:
    """Counts of a run. ``ignored`` are files that are no photos; ``exist`` those skipped for a foreign file in OUT."""

    converted: int = 0
    skipped: int = 0
    exist: int = 0
    failed: int = 0
    ignored: int = 0
    seconds: float = 0.0
    interrupted: bool = False
    report: Path | None = None
    sheets: tuple[Path, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 all fine, 1 some files failed, 130 interrupted."""
        if self.interrupted:
            return EXIT_INTERRUPTED
        return EXIT_SOME_FAILED if self.failed else EXIT_OK


def convert_folder(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    options: Options | None = None,
    *,
    on_file: Callable[[FileResult], None] | None = None,
    on_total: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
    **settings: Any,
) -> Summary:
    """Convert photos to anime faces, as ``h2a-batch IN OUT`` does.

    Args:
        inputs: a folder, a file, or several.
        out: the output folder; made if it is not there.
        options: what to do; or give its fields as keywords: ``convert_folder("in", "out", format="jpg")``.
        on_file: called in this thread with what became of each photo.
        on_total: called from another thread, once it is known how many photos there are.
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
    originals = [os.path.realpath(path if path.is_dir() else path.parent) for path in paths]
    if os.path.realpath(target) in originals and not options.suffix:
        options = replace(options, suffix=IN_PLACE_SUFFIX)
    model = find_model(options.model)
    sha256, framing = identify(model)
    first_run = not (target / LEDGER_FOLDER).exists() and not options.dry_run
    generator = _load(model, options) if first_run else None  # a model that does not load leaves no trace in OUT
    try:
        ledger = Ledger(target, options.settings(sha256, framing), read_only=options.dry_run)
    except OSError as error:
        raise UsageError(f"{target}: cannot be written ({error.strerror})", "choose another OUT") from error
    with ledger:
        run = _Run(paths, options, ledger, originals, on_file or (lambda result: None), stop or threading.Event())
        with _counting(run, on_total):
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
        stop: threading.Event,
    ) -> None:
        self.inputs, self.options, self.ledger, self.originals = inputs, options, ledger, originals
        self.tell, self.stop = tell, stop
        self.summary = Summary()
        self.met = 0  # photos that were come by, whatever became of them
        self.full = False  # a failure with --fail-fast: no more photos, and no interruption
        self.sheet = None if options.contact_sheet is None else Path(os.path.abspath(options.contact_sheet))
        if self.sheet is not None and not options.dry_run:
            check_writable(self.sheet)
            claim_sheet(ledger, self.sheet, options.overwrite, originals)
        self.how = Scan(
            suffix=options.suffix,
            format=options.format,
            recursive=options.recursive,
            out=ledger.out,
            is_output=ledger.is_output,
            exclude=ledger.sheets(),
            originals=originals,
        )

    def work(self, model: Path, generator: Generator | None) -> None:
        """Convert what is to be converted; then write report and contact sheet."""
        started = time.perf_counter()
        if not self.options.dry_run:
            self.ledger.clean()
        tasks = self.tasks()
        first = next(tasks, None)
        if self.options.dry_run:
            for task in chain([first] if first else [], tasks):
                self.note(FileResult(task.source.path, "planned", task.output))
            return
        try:
            if first:  # a run with nothing to do need not load a model
                generator = generator or _load(model, self.options)
                workers = self.options.workers.filled(generator.device)
                for result in convert(chain([first], tasks), self.options, generator, workers):
                    self.record(result)
        finally:
            self.summary.seconds = time.perf_counter() - started
            self.summary.interrupted = self.stop.is_set()
            with contextlib.suppress(StorageError):
                self.ledger.commit()
                self.summary.report = self.ledger.write_report()
        if self.sheet is not None and not self.summary.interrupted:
            self.write_sheets(self.sheet)

    def tasks(self) -> Iterator[Task]:
        """The photos to convert, their outputs' names on record before they are handed out."""
        claims, together = self.claims(), 1
        while chunk := list(islice(claims, together)):
            self.ledger.commit()
            for task in chunk:
                if self.stop.is_set() or self.full:
                    return
                yield task
            together = min(2 * together, _CLAIMS)

    def claims(self) -> Iterator[Task]:
        left = self.options.limit
        for found in scan(self.inputs, self.how):
            if self.stop.is_set() or self.full or left == 0:
                return
            if isinstance(found, Ignored):
                self.summary.ignored += 1
                continue
            self.met += 1
            if isinstance(found, Unusable):
                self.ledger.unusable(found.path, found.message)
                self.note(FileResult(found.path, "failed", kind=found.kind, message=found.message))
            elif not self.options.overwrite and is_current(self.ledger, found):
                self.note(FileResult(found.path, "skipped", self.ledger.output_of(found), "unchanged"))
            elif task := claim(self.ledger, found, self.options.overwrite, self.originals):
                left = left - 1 if left is not None else None
                yield task
            else:
                path = self.ledger.out / found.output
                message = f"{path} is of other origin or was edited; --overwrite replaces it"
                self.note(FileResult(found.path, "skipped", path, "exists", message))

    def record(self, result: Result) -> None:
        task, error = result.task, result.error
        if error is None:
            self.ledger.done(task, result.sha256, result.output_size, result.seconds)
            self.note(FileResult(task.source.path, "converted", task.output, seconds=result.seconds))
        else:
            self.ledger.failed(task, str(error), result.seconds)
            kind = error.kind if isinstance(error, PhotoError) else "internal"
            self.note(FileResult(task.source.path, "failed", None, kind, str(error), result.seconds, result.trace))
        self.ledger.commit(at_once=False)

    def note(self, result: FileResult) -> None:
        """Count a result and pass it on."""
        if result.state == "failed":
            self.summary.failed += 1
            self.full = self.full or self.options.fail_fast
        elif result.state == "skipped":
            self.summary.skipped += 1
            self.summary.exist += result.kind == "exists"
        else:
            self.summary.converted += 1
        self.tell(result)

    def write_sheets(self, sheet: Path) -> None:
        """Write the contact sheet of the photos that this run met, a page at a time."""
        pairs = islice(self.pairs(), self.met)
        for number in count(1):
            shown = list(islice(pairs, PAIRS_ON_PAGE))
            if not shown or self.stop.is_set():
                return
            page = sheet if number == 1 else sheet.with_name(f"{sheet.stem}-{number}{sheet.suffix}")
            claim_sheet(self.ledger, page, self.options.overwrite, self.originals)
            write_sheet(shown, page)
            self.summary.sheets += (page,)

    def pairs(self) -> Iterator[Pair]:
        """All photos of the inputs with their outputs, in the order of the inputs."""
        for found in scan(self.inputs, self.how):
            if isinstance(found, Source):
                yield Pair(found.path, self.ledger.output_of(found))
            elif isinstance(found, Unusable):
                yield Pair(found.path, None)


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


def _check_out(out: Path) -> None:
    if os.path.exists(out) and not os.path.isdir(out):
        raise UsageError(f"{out}: OUT is not a folder", "name a folder for the results")
    if not os.path.exists(out) and is_image_name(out.name):
        raise UsageError(f"{out}: OUT is a folder, and this looks like a file", "name a folder for the results")
