"""The console: shows a run as a bar, a line for each failure and a summary; or as JSON lines for a program."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import traceback
from collections.abc import Iterator
from typing import IO, Any, NoReturn

from tqdm import tqdm

from h2a_batch.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED, EXIT_UNUSABLE, StreamError
from h2a_batch.events import Event, FileResult, Summary
from h2a_batch.gallery import printable, undrawn
from h2a_batch.places import Address


def shown(path: object) -> str:
    """Return a path or message on one line, as `printable` does."""
    return printable(str(path))


class Parser(argparse.ArgumentParser):
    """A parser whose messages show the user's words as `shown` does: they may be names from anywhere."""

    def error(self, message: str) -> NoReturn:
        super().error(shown(message))

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print help or version; end the process where standard output cannot be written."""
        if file is not sys.stdout:
            super()._print_message(message, file)
            return
        try:
            put(message.rstrip("\n"))
        except BrokenPipeError as error:  # its reader has seen enough
            forsake(sys.stdout)
            raise SystemExit(EXIT_OK) from error
        except StreamError as error:
            print_error(sys.stderr, error, self.prog)
            forsake(sys.stdout)
            raise SystemExit(error.exit_code) from error


def put(line: str) -> None:
    """Print a line on standard output.

    Raises:
        BrokenPipeError: its reader went away.
        StreamError: it cannot be written.
    """
    try:
        print(line, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _cannot_print(error) from error


def _cannot_print(error: OSError) -> StreamError:
    return StreamError(f"standard output cannot be written ({error.strerror})", "free space there and run again")


def ended(code: int, name: str = "h2a-batch") -> int:
    """Write out what was printed and return the exit code of the process: 1 where standard output cannot be written."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except BrokenPipeError:
        code = EXIT_INTERRUPTED
    except OSError as error:
        if code == EXIT_OK:
            print_error(sys.stderr, _cannot_print(error), name)
            code = EXIT_SOME_FAILED
    else:
        return code
    forsake(sys.stdout)
    return code


def forsake(*streams: IO[str]) -> None:
    """Let what was printed and not written vanish, or Python would try again at the end, and complain."""
    for stream in streams:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def unforeseen(error: Exception, verbose: bool, name: str = "h2a-batch") -> int:
    """Show an error that nobody foresaw, with `verbose` its traceback, and return the exit code."""
    if verbose:
        print_lines(sys.stderr, "".join(traceback.format_exception(error)))
    text = f"unexpected {type(error).__name__}: {error}; please report this, with -v's output"
    print_error(sys.stderr, text, name)
    return EXIT_UNUSABLE


@contextlib.contextmanager
def quiet_libraries(verbose: bool) -> Iterator[None]:
    """Keep the messages that native libraries write straight to file descriptor 2 off the terminal.

    The program's own messages go to a copy of that descriptor.
    """
    if verbose:
        os.environ["GLOG_v"] = "2"  # noqa: SIM112 - glog spells it so
        yield
        return
    try:
        own = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="backslashreplace", buffering=1)
    except OSError:  # the process has no standard error
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - until the end of the process
        yield
        return
    before = sys.stderr
    sys.stderr = own
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            own.flush()
        os.dup2(own.fileno(), 2)
        sys.stderr = before
        with contextlib.suppress(OSError):
            own.close()


class Console:
    """Shows a run as it goes.

    Args:
        quiet: whether to show failures alone.
        verbose: whether to show a line for each file, and the tracebacks of internal errors.
        as_json: whether to print a JSON line for each file on standard output.
        limit: the run's own limit on photos, for the bar's total.
        watch: whether to show a line for each converted photo instead of a bar.
    """

    def __init__(self, quiet: bool, verbose: bool, as_json: bool, limit: int | None, watch: bool = False) -> None:
        self.quiet, self.verbose, self.as_json, self.limit, self.watch = quiet, verbose, as_json, limit, watch
        self.passed = 0
        self.count: int | None = None
        self.bar = tqdm(
            unit=" photo",
            unit_scale=False,
            smoothing=0.05,
            dynamic_ncols=True,
            file=sys.stderr,
            disable=quiet or verbose or watch or not sys.stderr.isatty(),
            bar_format="{desc}{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]",
        )

    @property
    def shows_bar(self) -> bool:
        """Whether there is a bar, which needs the number of photos."""
        return not self.bar.disable

    def total(self, count: int) -> None:
        """Take in the number of photos, once it is known."""
        self.count = count
        self._set_total()

    def _set_total(self) -> None:
        if self.count is not None:
            todo = max(self.count - self.passed, self.bar.n)
            self.bar.total = todo if self.limit is None else min(todo, self.limit)

    def file(self, result: FileResult) -> None:
        """Show the result of one photo."""
        if result.state == "skipped":  # not work: counting it would falsify the rate and the time left
            self.passed += 1
            self._set_total()
        else:
            self.bar.update()
        if self.as_json:
            put(_json(result))
        if result.state == "planned" and not self.as_json:
            put(f"{shown(result.path)} -> {shown(result.output)}")
        if result.state == "failed":
            self.say(f"{shown(result.path)}: {shown(result.message)}")
            if self.verbose and result.trace:
                self.say(result.trace)
        elif self.verbose and result.kind in ("exists", "no-face"):
            self.say(f"{shown(result.path)}: skipped: {shown(result.message)}")
        elif self.watch and result.state == "converted" and not self.quiet:
            self.say(f"{shown(result.path)} -> {_files(result)} ({result.seconds:.2f} s)")
        elif self.verbose and result.state != "planned":
            note = f"; {shown(result.message)}" if result.message else ""
            self.say(f"{shown(result.path)}: {result.state} {_files(result)} {result.seconds:.2f} s{note}")

    def event(self, event: Event) -> None:
        """Show a change of state; the move of a photo as the options asked is shown in JSON or with -v only."""
        if self.as_json:
            put(_json_event(event))
        if event.kind == "ready":
            if not self.quiet:
                more = f" {event.message}" if event.message else ""
                self.say(f"watching {shown(event.path)}{more}, for {shown(event.target)}")
        elif event.message:
            self.say(f"{shown(event.path)}: {shown(event.message)}")
        elif self.verbose:
            self.say(f"{shown(event.path)}: {event.kind} {shown(event.target) if event.target else ''}".rstrip())

    def notice(self, line: str) -> None:
        """Show what will become of the photos in IN."""
        if not self.quiet:
            self.say(shown(line))

    def say(self, line: str) -> None:
        """Print a line on standard error, above the bar."""
        with tqdm.external_write_mode(file=sys.stderr):
            print_lines(sys.stderr, line)

    def close(self) -> None:
        """Remove the bar."""
        self.bar.close()

    def summary(self, summary: Summary, dry_run: bool) -> None:
        """Show the last lines."""
        for line in summary.unwritten:
            self.say(shown(line))
        if self.quiet:
            return
        faces = f" ({summary.faces} face{'s' * (summary.faces != 1)})" if summary.faces else ""
        parts = [
            f"{summary.converted} {'to convert' if dry_run else 'converted'}{faces}",
            f"{summary.skipped} skipped",
            f"{summary.failed} failed",
        ]
        if summary.ignored:
            parts.append(f"{summary.ignored} other files ignored")
        if not any((summary.converted, summary.skipped, summary.failed)):
            parts = ["no photos found", *parts[3:]]
        line = ", ".join(parts)
        if summary.converted and summary.seconds and not dry_run and not self.watch:
            line += f" in {_duration(summary.seconds)} ({summary.converted / summary.seconds:.1f} photos/s)"
        lines = [line]
        if summary.exist:
            lines.append(
                f"{summary.exist} of the skipped: a file of other origin has the output's name; --overwrite replaces it"
            )
        if summary.faceless:
            lines.append(f"{summary.faceless} of the skipped: no face was found")
        if summary.kept:
            lines.append(f"{summary.kept} of the photos stayed in IN: they could not be moved or deleted")
        if summary.table:
            lines.append(f"table: {shown(summary.table)}")
        if summary.sheets:
            more = f" and {count} more page{'s' * (count > 1)}" if (count := len(summary.sheets) - 1) else ""
            lines.append(f"contact sheet: {shown(summary.sheets[0])}{more}")
            lines += filter(None, [undrawn()])
        if summary.page:
            lines.append(f"report: {shown(summary.page)}")
        if summary.interrupted:
            lines.append("interrupted; run the same command again to go on from here")
        for text in lines:
            self.say(text)


def _json(result: FileResult) -> str:
    """Return a result as a JSON object on one line; fields without a value are left out."""
    fields: dict[str, object] = {
        "input": _text(result.path),
        "state": result.state,
        "output": _text(result.output),
    }
    if result.faces:
        fields |= {"outputs": [str(path) for path in result.outputs], "faces": result.faces}
    if result.state == "failed" or result.kind:
        fields |= {"kind": result.kind, "message": result.message}
    elif result.message:
        fields["message"] = result.message
    if result.seconds:
        fields["seconds"] = round(result.seconds, 4)
    return json.dumps(fields)


def _json_event(event: Event) -> str:
    """Return a change of state as a JSON object on one line."""
    fields = {"event": event.kind, "path": _text(event.path)}
    if event.target:
        fields["target"] = _text(event.target)
    if event.message:
        fields["message"] = event.message
    return json.dumps(fields)


def _files(result: FileResult) -> str:
    """Return the first output, and how many more there are."""
    more = f" and {len(result.outputs) - 1} more" if len(result.outputs) > 1 else ""
    return f"{shown(result.output)}{more}"


def _text(path: Address | None) -> str | None:
    return None if path is None else str(path)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def print_error(stream: IO[str], error: object, name: str = "h2a-batch") -> None:
    """Print the one line with which a run ends that cannot go on."""
    print_lines(stream, f"{name}: {shown(error)}")


def print_lines(stream: IO[str], text: str) -> None:
    """Print lines for people, each as `shown` gives it; what cannot be written is lost, and the run goes on."""
    try:
        for line in text.rstrip("\n").split("\n"):
            print(shown(line), file=stream, flush=True)
    except BrokenPipeError:
        raise
    except OSError:
        forsake(stream)
