"""A folder in, a folder out: puts feed, ledger and conversion together. The command line is a thin coat over this."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

from h2a_batch.convert import cluster, load
from h2a_batch.errors import H2AError, UsageError
from h2a_batch.events import Event, FileResult, Summary
from h2a_batch.inference import Generator, find_model, identify
from h2a_batch.ledger import Ledger, ledger_folder
from h2a_batch.options import Options, with_settings
from h2a_batch.places import Address, absolute, address, at
from h2a_batch.run.disposal import Disposal, check_rules
from h2a_batch.run.feed import Feed, Once
from h2a_batch.run.live import Live
from h2a_batch.run.present import Presenter
from h2a_batch.run.run import Run
from h2a_batch.sources import Ignored, Scan, check_inputs, is_image_name, scan

IN_PLACE_SUFFIX = "_anime"
_NAMED = 20  # inputs that the notice names


def convert_folder(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    options: Options | None = None,
    *,
    on_file: Callable[[FileResult], None] | None = None,
    on_total: Callable[[int], None] | None = None,
    on_event: Callable[[Event], None] | None = None,
    on_notice: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
    **settings: Any,
) -> Summary:
    """Convert photos to anime faces, as ``h2a-batch IN OUT`` does.

    Args:
        inputs: a folder, a file, or several of them; in an object store by URL.
        out: the folder for the outputs; it is made if it is missing.
        options: the options of the run.
        on_file: called in this thread with the result of each photo.
        on_total: called from another thread with the number of photos, once it is known; not in a watch.
        on_event: called in this thread with changes of state, see `Event`.
        on_notice: called in this thread, before anything happens, with a line on the folders that the run empties.
        stop: when set, the run finishes the photos on their way and ends.
        settings: fields of `Options` as keywords: ``convert_folder("in", "out", format="jpg")``.

    Returns:
        the counts; a photo that fails does not raise.

    Raises:
        UsageError, ModelError, RuntimeMissingError, BusyError, LedgerError: nothing could run.
        StorageError, ShortageError, ClusterError: disk, memory or cluster does not suffice; the next run goes on there.
        BrokenModelError: the model gave no picture for many photos in a row; the photos stay as they are.
    """
    options = with_settings(options or Options(), settings)
    paths, target, options = _checked(inputs, os.fspath(out), options)
    originals = _folders_of(paths)
    ended = stop or threading.Event()
    tell, tell_event = on_file or (lambda result: None), on_event or (lambda event: None)
    joined = cluster.joined(options.ray) if options.ray and not options.dry_run else contextlib.nullcontext()
    with joined, _opened(target, options, originals) as (ledger, model, generator):
        presenter = Presenter(ledger, options, _on_disk(paths), ended)
        presenter.check()
        how = _how(options, ledger)
        disposal = Disposal(ledger, options, paths, tell_event)
        if on_notice and (notice := _notice(paths, options)):
            on_notice(notice)
        feed = _feed(paths, how, originals, options, ledger, disposal, tell_event, ended)
        run = Run(paths, how, originals, options, ledger, feed, disposal, presenter, tell, tell_event, ended)
        with _counting(run, None if options.watch else on_total):
            run.work(model, generator)
    return run.summary


def _feed(
    paths: Sequence[Address],
    how: Scan,
    originals: list[str],
    options: Options,
    ledger: Ledger,
    disposal: Disposal,
    tell: Callable[[Event], None],
    stop: threading.Event,
) -> Feed:
    """Return where the run has its photos from: nothing else here or below tells a watch from a run."""
    if options.watch:
        return Live(_on_disk(paths), how, options, ledger, disposal, tell, stop)
    return Once(paths, how, originals.append)


def _checked(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], out: str, options: Options
) -> tuple[list[Address], Address, Options]:
    """Return the inputs, OUT and the options of a run that can begin.

    Raises:
        UsageError: the run cannot begin.
    """
    given = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    for what, name in (*(("IN", os.fspath(path)) for path in given), ("OUT", out)):
        if not name:  # as of a shell variable that is not set
            raise UsageError(f"{what} is an empty name", "write . for the current folder")
    target = absolute(address(out, options.endpoint))
    addresses = [address(os.fspath(path), options.endpoint) for path in given]
    _check_stores([*addresses, target], options)
    paths = check_inputs(addresses, options.recursive)
    _check_out(target)
    _check_watched(paths, options)
    if at(target).real in _folders_of(paths) and not options.suffix:
        options = replace(options, suffix=IN_PLACE_SUFFIX)
    return paths, target, options


def _notice(paths: Sequence[Address], options: Options) -> str:
    """Say which folders a run will empty, and how; an empty text where photos stay where they are."""
    fates = {
        "deleted once they are converted": options.on_success == "delete",
        f"moved to {options.archive} once they are converted": options.archive,
        f"moved to {options.failures} if they fail": options.failures,
    }
    what = " and ".join(fate for fate, asked in fates.items() if asked)
    named = [str(path) if at(path).real == str(path) else f"{path} ({at(path).real})" for path in paths]
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    will = "would" if options.dry_run else "will"
    return f"photos in {', '.join(named[:_NAMED])}{more} {will} be {what}" if what else ""


def _folders_of(paths: Sequence[Address]) -> list[str]:
    """Return the real paths of the folders that hold originals."""
    return [at(path if at(path).is_folder() else path.parent).real for path in paths]


def _how(options: Options, ledger: Ledger) -> Scan:
    """Return how to look for photos."""
    return Scan(
        suffix=options.suffix,
        format=options.format,
        recursive=options.recursive,
        out=ledger.out,
        is_output=ledger.is_output,
        exclude=ledger.sheets(),
        avoid=frozenset(map(os.path.realpath, filter(None, (options.archive, options.failures)))),
        watching=options.watch,
    )


def _on_disk(paths: Sequence[Address]) -> list[Path]:
    """Return the inputs that lie on a disk; for a watch or a sheet these are all."""
    return [path for path in (at(address).path for address in paths) if path]


@contextlib.contextmanager
def _opened(
    out: Address, options: Options, originals: Sequence[str]
) -> Iterator[tuple[Ledger, Path, Generator | None]]:
    """Open OUT's ledger, and yield it with the model's file and, in a first run, the generator.

    A first run loads the generator before it makes OUT: a model that does not load leaves no trace there.
    """
    model = find_model(options.model)
    sha256, fit, rule = identify(model)
    first_run = not ledger_folder(out).exists() and not options.dry_run
    generator = load(model, options) if first_run and not options.ray else None
    if not options.dry_run:
        check_rules(options, out, originals)
    try:
        ledger = Ledger(out, options.settings(sha256, fit, astuple(rule)), read_only=options.dry_run)
    except OSError as error:
        if at(out).far:
            what = f"{ledger_folder(out)}: the ledger cannot be kept there ({error.strerror})"
            raise UsageError(what, "set XDG_STATE_HOME to a folder that can be written") from error
        raise UsageError(f"{out}: cannot be written ({error.strerror})", "choose another OUT") from error
    with ledger:
        ledger.name_model(sha256, model.stem)
        yield ledger, model, generator


@contextlib.contextmanager
def _counting(run: Run, on_total: Callable[[int], None] | None) -> Iterator[None]:
    """Count the photos beside the run, so that it need not wait for a large or slow folder."""
    ended = threading.Event()

    def work() -> None:
        with contextlib.suppress(H2AError, OSError):  # the run itself meets the same and says so
            found = takewhile(lambda item: not ended.is_set(), scan(run.inputs, run.how))
            total = sum(not isinstance(item, Ignored) for item in found)
            if on_total and not ended.is_set():
                on_total(total)

    if on_total:
        threading.Thread(target=work, name="count", daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _check_stores(addresses: Sequence[Address], options: Options) -> None:
    """Refuse the options that need files, where an input or OUT is in an object store."""
    stores = [remote for remote in (at(address).remote for address in addresses) if remote]
    asked = {
        "--watch": options.watch,
        "--on-success": options.on_success != "keep",
        "--on-failure": options.on_failure != "keep",
        "--contact-sheet": options.contact_sheet is not None,
        "--report": options.report is not None,
    }
    for name in (name for name in asked if asked[name] and stores):
        raise UsageError(f"{stores[0]}: {name} is for folders, and this is in an object store", f"leave {name} out")
    if {"s3", "obs"} <= {store.protocol for store in stores}:  # with one endpoint, one object would have two names
        raise UsageError("s3:// and obs:// name the same store here", "write all URLs with one of them")


def _check_watched(paths: Sequence[Address], options: Options) -> None:
    files = [path for path in paths if options.watch and not at(path).is_folder()]
    if files:
        raise UsageError(f"{files[0]}: --watch is for folders, and this is a file", "name the folder that it lies in")


def _check_out(out: Address) -> None:
    at(out).check_output()
    if not at(out).far and not at(out).is_folder() and is_image_name(out.name):
        raise UsageError(f"{out}: OUT is a folder, and this looks like a file", "name a folder for the results")
