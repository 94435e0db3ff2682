"""The command ``h2a-sheet``: sheets and reports of earlier runs' results, and comparisons of several runs."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from h2a_batch.command.console import Parser, forsake, print_error, print_lines, shown, unforeseen
from h2a_batch.errors import EXIT_INTERRUPTED, EXIT_OK, H2AError, UsageError
from h2a_batch.gallery import (
    DONE,
    FAILED,
    LABELS,
    NOBODY,
    REPORT_SUFFIXES,
    THEMES,
    Facts,
    Items,
    Look,
    Sheet,
    Tally,
    check_page,
    check_report,
    check_writable,
    column_names,
    files_of,
    open_ledger,
    plan_sheet,
    read_photos,
    stale_pages,
    summarise,
    title_of,
    undrawn,
    write_report,
    write_sheet,
)
from h2a_batch.options import SHEET_SUFFIXES
from h2a_batch.places import address, is_url, sweep_scratch
from h2a_batch.sources import LEDGER_FOLDER, check_inputs
from h2a_batch.version import __version__

_NONE = {DONE: "no photo is done", FAILED: "no photo failed", NOBODY: "no photo is without a face"}


@dataclass(frozen=True)
class _Job:
    """What the user asks for.

    Args:
        inputs: the photos, as `check_inputs` returns them.
        outs: the OUTs that know them.
        file: the sheet or report to make.
        recursive: whether to go into sub-folders.
        only: the state of the photos to show; None for all.
        limit: how many photos to show; None for all.
    """

    inputs: list[Path]
    outs: list[Path]
    file: Path
    recursive: bool
    only: str | None
    limit: int | None

    def photos(self) -> Iterator[Sequence[Items]]:
        """Yield the photos to show, each with its rows."""
        photos = read_photos(self.inputs, self.outs, self.recursive)
        wanted = ([row for row in rows if self._wants(row)] for rows in photos)
        return islice((rows for rows in wanted if rows), self.limit)

    def rows(self) -> Iterator[Items]:
        """Yield all rows to show."""
        return chain.from_iterable(self.photos())

    def _wants(self, row: Items) -> bool:
        states = {item.state for item in row}
        return states == {DONE} if self.only == DONE else self.only is None or self.only in states


def main(arguments: Sequence[str] | None = None, name: str = "h2a-sheet") -> int:
    """Run ``h2a-sheet``; return its exit code: 0, 1 (disk full), 2 (nothing could be made), 130 (interrupted)."""
    given = build_parser(name).parse_intermixed_args(arguments)
    for stream in (sys.stdout, sys.stderr):  # a file name may hold anything; a C locale must not end the run
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    warnings.simplefilter("ignore")  # Pillow's remarks on odd files
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sweep_scratch()
    try:
        _run(given)
    except H2AError as error:
        print_error(sys.stderr, error, name)
        return error.exit_code
    except (KeyboardInterrupt, BrokenPipeError):
        forsake(sys.stdout)
        return EXIT_INTERRUPTED
    except Exception as error:
        return unforeseen(error, given.verbose, name)
    return EXIT_OK


def build_parser(name: str) -> argparse.ArgumentParser:
    """Return the parser, with its options in groups."""
    parser = Parser(
        prog=name,
        usage="%(prog)s [options] IN [IN ...] OUT [OUT ...] FILE",
        description="Show what h2a-batch made of photos, before and after: on pages, or as a page for the browser.",
        epilog="FILE ends in .jpg, .png or .webp (sheet.jpg, sheet-2.jpg, ...), .pdf (all pages in one file) or .html "
        "(a gallery to look through). Several OUTs of the same photos are compared, a column for each model. "
        "Nothing but FILE is written. Exit codes: 0 made, 1 disk full, 2 nothing could be made, 130 interrupted.",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="IN ... OUT ... FILE",
        help="the photos, the folders that h2a-batch wrote its results to, and the file to make",
    )
    look = parser.add_argument_group("look of pages")
    look.add_argument("--title", metavar="TEXT", help="at the top (default: IN's name); '' leaves the header out")
    look.add_argument("--labels", choices=LABELS, help="under each photo (default: name)")
    look.add_argument("--theme", choices=THEMES, help="default: light")
    look.add_argument("--columns", type=int, metavar="N", help="photos side by side (default: to suit)")
    look.add_argument("--cell", type=int, metavar="PIXELS", help="a picture's longest side (default: to suit)")
    look.add_argument("--pairs-per-page", type=int, metavar="N", help="photos on a page (default: to suit)")
    which = parser.add_argument_group("which photos")
    which.add_argument("--only", choices=_NONE, help="those that failed, that did not, or in which no face was found")
    which.add_argument("--limit", type=int, metavar="N", help="the first N")
    which.add_argument("--no-recursive", dest="recursive", action="store_false", help="leave sub-folders alone")
    rest = parser.add_argument_group("behaviour")
    rest.add_argument("--overwrite", action="store_true", help="replace an earlier sheet; no other file ever")
    volume = rest.add_mutually_exclusive_group()
    volume.add_argument("-q", "--quiet", action="store_true", help="say nothing unless something is wrong")
    volume.add_argument("-v", "--verbose", action="store_true", help="show tracebacks of internal errors")
    rest.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def _run(given: argparse.Namespace) -> None:
    """Make the sheet or report that the arguments ask for; raise UsageError where that is impossible."""
    fields = {name: getattr(given, name) for name in Look.__dataclass_fields__ if getattr(given, name) is not None}
    look = Look(**fields)
    job = _job(given)
    facts = summarise(job.inputs, job.outs, job.recursive)
    total = facts[0].photos
    if not total:
        raise _none_found(job)
    if job.only or job.limit:
        facts = _of_shown(facts, job.photos())
    photos, count = facts[0].photos, facts[0].rows
    if not count:
        print_lines(sys.stderr, f"{_NONE[job.only or DONE]}: nothing was written")
        return
    bar: tqdm[Any] = tqdm(total=count, unit=" pair", file=sys.stderr, disable=given.quiet or not sys.stderr.isatty())
    with bar:
        if job.file.suffix.lower() in REPORT_SUFFIXES:
            made = _report(job, facts, look, fields, bar)
        else:
            made = _sheet(Sheet(job.file, facts, count, title_of(job.inputs), look, total), job, given.overwrite, bar)
    if not given.quiet:
        more = f" and {len(made) - 1} more page{'s' * (len(made) > 2)}" if len(made) > 1 else ""
        pairs = f", {count:,} pairs" if count > photos else ""
        print_lines(sys.stderr, f"{shown(made[0])}{more}: {photos:,} photo{'s' * (photos != 1)}{pairs}")
        for page in stale_pages(job.file, len(made)):
            print_lines(sys.stderr, f"{shown(page)} is left of an earlier sheet; delete it if it is not wanted")
        if undrawn():
            print_lines(sys.stderr, undrawn())


def _of_shown(facts: Sequence[Facts], photos: Iterator[Sequence[Items]]) -> list[Facts]:
    """Return the same facts with the counts of some photos alone."""
    tallies = [Tally() for _ in facts]
    for rows in photos:
        for tally, items in zip(tallies, zip(*rows, strict=True), strict=True):
            tally.add(items, len(rows))
    return [tally.counted(fact) for tally, fact in zip(tallies, facts, strict=True)]


def _none_found(job: _Job) -> UsageError:
    """Return the error for an empty sheet: the photos were converted and are gone, or there never were any."""
    folders = tuple(os.path.join(os.path.realpath(path), "") for path in job.inputs)
    with ExitStack() as stack:
        ledgers = [stack.enter_context(open_ledger(out)) for out in job.outs]
        if any(row.source.startswith(folders) for ledger in ledgers for row in ledger.rows()):
            return UsageError(f"{job.inputs[0]}: its photos are gone", "name the folder where they are now")
    return UsageError(f"{job.inputs[0]}: no photos found", "name the folder that was converted")


def _job(given: argparse.Namespace) -> _Job:
    """Tell INs from OUTs: an OUT has a ledger in it. The first path is always an IN, as it may be both.

    Raises:
        UsageError: a word on the command line cannot be used.
    """
    if urls := [text for text in given.paths if is_url(text)]:
        raise UsageError(
            f"{urls[0]}: sheets are made of folders, and this is in an object store", "copy it to a folder"
        )
    *paths, file = (Path(str(address(text))) for text in given.paths)
    if given.limit is not None and given.limit < 1:
        raise UsageError(f"--limit {given.limit}: choose 1 or more")
    if file.suffix.lower() not in (*SHEET_SUFFIXES, *REPORT_SUFFIXES):
        known = ", ".join((*SHEET_SUFFIXES, REPORT_SUFFIXES[0]))
        raise UsageError(f"{file}: the last name is that of the file to make", f"let it end in {known}")
    if len(paths) < 2:
        raise UsageError("too few names", "name the photos, the folder of the results, and the file to make")
    first = len(paths)
    while first > 1 and (paths[first - 1] / LEDGER_FOLDER).is_dir():
        first -= 1
    first = min(first, len(paths) - 1)  # if none is an OUT, the user means the last one
    inputs = check_inputs(paths[:first], given.recursive)
    outs = list(dict.fromkeys(Path(os.path.abspath(path)) for path in paths[first:]))
    return _Job(inputs, outs, Path(os.path.abspath(file)), given.recursive, given.only, given.limit)


def _sheet(sheet: Sheet, job: _Job, overwrite: bool, bar: tqdm[Any]) -> list[Path]:
    """Write the pages; first check that each of them can be written."""
    check_writable(sheet.path, job.outs)
    grid = plan_sheet(sheet, job.rows())
    with ExitStack() as stack:
        ledgers = [stack.enter_context(open_ledger(out)) for out in job.outs]
        for page in files_of(sheet, grid):
            check_page(page, ledgers, job.inputs, overwrite)
    made = []
    for file, rows in write_sheet(sheet, grid, job.rows()):
        made += [file] if file else []
        bar.update(rows)
    return made


def _report(job: _Job, facts: Sequence[Facts], look: Look, given: dict[str, object], bar: tqdm[Any]) -> list[Path]:
    """Write the page for the browser."""
    if unfit := sorted(set(given) - {"title"}):
        raise UsageError(f"--{unfit[0].replace('_', '-')}: this is for pages", f"leave it out for {job.file.name}")
    check_report(job.file, job.outs)

    def rows() -> Iterator[Items]:
        for row in job.rows():
            yield row
            bar.update()

    title, words = look.title or title_of(job.inputs), [fact.words for fact in facts]
    if len(facts) == 1:
        write_report(rows(), job.file, title=title, facts=words[0], outs=job.outs)
    else:
        write_report(rows(), job.file, headings=column_names(facts), title=title, details=words, outs=job.outs)
    return [job.file]


if __name__ == "__main__":
    sys.exit(main())
