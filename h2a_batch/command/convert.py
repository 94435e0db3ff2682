"""The command line: arguments in, exit code out. It parses and shows; `convert_folder` does all work."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from types import FrameType

from h2a_batch.command.console import Console, Parser, forsake, print_error, quiet_libraries, unforeseen
from h2a_batch.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED, H2AError, StreamError
from h2a_batch.gallery import REPORT_SUFFIXES
from h2a_batch.inference import known_models
from h2a_batch.options import (
    FACES,
    LARGE_SMALLEST,
    MOST_FACES,
    NO_FACE,
    SHEET_SUFFIXES,
    USUAL_SMALLEST,
    Options,
    with_settings,
)
from h2a_batch.photos import FITS, FORMATS, USUAL_MEMORY, USUAL_SECONDS
from h2a_batch.places import sweep_scratch
from h2a_batch.run import convert_folder
from h2a_batch.sources import SETTLE_SECONDS
from h2a_batch.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``h2a-batch`` and return its exit code: 0, 1 (files failed), 2 (nothing could run), 130 (interrupted)."""
    given_words = sys.argv[1:] if arguments is None else list(arguments)
    if given_words[:1] == ["compare"] and (not os.path.lexists("compare") or _names_sheet(given_words)):
        from h2a_batch.command.sheet import main as compare

        return compare(given_words[1:], "h2a-batch compare")
    if given_words[:1] == ["doctor"] and not os.path.lexists("doctor"):
        from h2a_batch.command.doctor import main as doctor

        return doctor(given_words[1:])
    parser = build_parser()
    given = parser.parse_intermixed_args(arguments)  # options may stand between IN and OUT
    for stream in (sys.stdout, sys.stderr):  # a file name may hold anything; a C locale must not end the run
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    warnings.simplefilter("ignore")  # Pillow's remarks on odd files; what matters comes as an error
    with quiet_libraries(given.verbose):
        try:
            return _run(given)
        except H2AError as error:
            print_error(sys.stderr, error)
            if isinstance(error, StreamError):
                forsake(sys.stdout)
            return error.exit_code
        except BrokenPipeError:  # the reader of our lines went away
            forsake(sys.stdout, sys.stderr)
            return EXIT_INTERRUPTED
        except KeyboardInterrupt:
            return EXIT_INTERRUPTED
        except MemoryError:
            print_error(sys.stderr, "memory ran short; free some, or use fewer --workers, and run it again")
            return EXIT_SOME_FAILED
        except Exception as error:
            return unforeseen(error, given.verbose)


def _names_sheet(words: Sequence[str]) -> bool:
    """Tell whether the last word is a file to make, as ``compare`` wants it, and not the value of an option."""
    made = os.path.splitext(words[-1])[1].lower() in (*SHEET_SUFFIXES, *REPORT_SUFFIXES)
    return made and not words[-1].startswith("-") and words[-2] not in ("--contact-sheet", "--report")


def _run(given: argparse.Namespace) -> int:
    """Run the conversion that the arguments ask for, and return its exit code."""
    options = _options(given)
    if not options.dry_run:
        sweep_scratch()
    console = Console(given.quiet, given.verbose, given.json, options.limit, options.watch)
    stop = threading.Event()
    try:
        with _signals(stop) as received:
            summary = convert_folder(
                given.paths[:-1],
                given.paths[-1],
                options,
                on_file=console.file,
                on_total=console.total if console.shows_bar else None,
                on_event=console.event,
                on_notice=console.notice,
                stop=stop,
            )
    finally:
        console.close()
    served = options.watch and received == [signal.SIGTERM]  # this is how a service ends: no interruption
    console.summary(replace(summary, interrupted=False) if served else summary, options.dry_run)
    return EXIT_OK if served else summary.exit_code


@contextlib.contextmanager
def _signals(stop: threading.Event) -> Iterator[list[int]]:
    """Let the first SIGINT or SIGTERM finish the photos on their way, and the second end the process at once."""
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if received:
            os._exit(EXIT_INTERRUPTED)
        received.append(number)
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _options(given: argparse.Namespace) -> Options:
    fields = {name: getattr(given, name) for name in Options.__dataclass_fields__ if hasattr(given, name)}
    return with_settings(Options(), fields)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser, with its options in groups."""
    parser = Parser(
        prog="h2a-batch",
        usage="%(prog)s [options] IN [IN ...] OUT",
        description="Turn folders of human face photos into anime faces with MindSpore Lite.",
        epilog="Exit codes: 0 all fine, 1 some files failed, 2 nothing could run, 130 interrupted. "
        "Run the same command again to convert only what is new, changed or failed. "
        "'h2a-batch compare IN OUT [OUT ...] FILE' shows results side by side, as h2a-sheet does. "
        "'h2a-batch doctor [OUT]' tells what the program finds on this machine.",
    )
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="IN ... OUT",
        help="folders or files of photos, and the folder for the results; any may be in an object store: s3://BUCKET/FOLDER",
    )
    _add_output(parser.add_argument_group("output"))
    _add_faces(parser.add_argument_group("faces"))
    _add_running(parser.add_argument_group("running"))
    _add_behaviour(parser.add_argument_group("behaviour"))
    _add_watching(parser.add_argument_group("watching"))
    return parser


def _add_output(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--format", choices=FORMATS, default="png", help="of the outputs (default: png)")
    lossy = ", ".join(format.name for format in FORMATS.values() if format.lossy)
    group.add_argument("--quality", type=int, metavar="N", help=f"1 to 100, for {lossy} (default: 92)")
    group.add_argument("--suffix", default="", metavar="TEXT", help="put behind the names, as in --suffix _anime")
    group.add_argument(
        "--size",
        default="model",
        metavar="model|source|N",
        help="what the model gives (default), the photo's own size, or N pixels on the longest side",
    )
    group.add_argument(
        "--fit",
        choices=FITS,
        help="how a photo fills the model's square: pad keeps all of it, crop "
        "takes the middle, stretch ignores proportions (default: the model's own, pad for anime-256)",
    )
    group.add_argument("--keep-metadata", action="store_true", help="copy the photo's EXIF block")
    group.add_argument("--contact-sheet", metavar="FILE", help="write before/after pages: .jpg, .png, .webp or .pdf")
    group.add_argument(
        "--report",
        metavar="FOLDER|FILE",
        help="write a page for the browser, before and after: an .html file, or report.html in a folder",
    )


def _add_faces(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--faces",
        choices=FACES,
        default="crop",
        help="crop: an output for each face, unless the photo is a portrait already (default); "
        "paste: the photo, its faces painted; off: the photo as a whole",
    )
    group.add_argument(
        "--min-face",
        type=int,
        metavar="PIXELS",
        help="leave out faces that are narrower; larger is quicker "
        f"(default: {USUAL_SMALLEST:.0f}, in large photos up to {LARGE_SMALLEST:.0f})",
    )
    group.add_argument(
        "--max-faces",
        type=int,
        default=MOST_FACES,
        metavar="N",
        help=f"of one photo, the largest (default: {MOST_FACES})",
    )
    group.add_argument(
        "--no-face",
        choices=NO_FACE,
        default="convert",
        help="what to do with a photo in which no face is found (default: convert it as a whole)",
    )


def _add_running(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model",
        default="anime-256",
        metavar="NAME|FILE",
        help=f"a shipped model ({', '.join(known_models())}) or any .mindir (default: anime-256)",
    )
    group.add_argument("--device", default="auto", metavar="cpu|ascend[:N]|auto", help="where to run (default: auto)")
    group.add_argument(
        "--batch-size", type=int, metavar="N", help="photos in one predict (default: 1 on CPU, 8 on Ascend)"
    )
    group.add_argument(
        "--workers",
        default="",
        metavar="D:G:E",
        help="threads to decode, generate and encode; G alone sets the generators (default: by cores)",
    )
    group.add_argument(
        "--endpoint",
        default="",
        metavar="URL",
        help="address of the object store, for s3:// anywhere but at Amazon, and for obs://",
    )
    group.add_argument(
        "--ray",
        nargs="?",
        const="auto",
        metavar="HOST:PORT",
        help="run on all nodes of a Ray cluster that see IN and OUT by the same paths "
        "(default without an address: the cluster of this machine)",
    )


def _add_behaviour(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--no-recursive", dest="recursive", action="store_false", help="leave sub-folders alone")
    group.add_argument(
        "--overwrite", action="store_true", help="convert all again, and replace files of other origin in OUT"
    )
    group.add_argument("--fail-fast", action="store_true", help="stop at the first photo that fails")
    group.add_argument("--dry-run", action="store_true", help="list what would be converted, and write nothing")
    group.add_argument("--limit", type=int, metavar="N", help="convert at most N photos")
    group.add_argument(
        "--timeout-per-photo",
        type=float,
        default=USUAL_SECONDS,
        metavar="SECONDS",
        help=f"fail a photo of a suspicious structure or size that takes longer to read (default: {USUAL_SECONDS:g})",
    )
    group.add_argument(
        "--memory-per-photo",
        metavar="MB",
        help="fail a photo that takes more memory to read: MB, or with a unit, as in 4G "
        f"(default: {USUAL_MEMORY >> 20})",
    )
    group.add_argument(
        "--on-success",
        default="keep",
        metavar="RULE",
        help="for a photo that was converted: keep it (default), delete it, or archive=FOLDER",
    )
    group.add_argument(
        "--on-failure",
        default="keep",
        metavar="RULE",
        help="for a photo that failed: keep it (default), or move=FOLDER",
    )
    group.add_argument("--json", action="store_true", help="a JSON line for each photo on standard output")
    volume = group.add_mutually_exclusive_group()
    volume.add_argument("-q", "--quiet", action="store_true", help="show failures alone")
    volume.add_argument("-v", "--verbose", action="store_true", help="show each photo, and the libraries' own log")
    group.add_argument("--version", action="version", version=f"%(prog)s {__version__}")


def _add_watching(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--watch",
        action="store_true",
        help="convert what is there, then what comes, until SIGTERM (exit code 0) or Ctrl-C (130)",
    )
    group.add_argument(
        "--settle",
        type=float,
        metavar="SECONDS",
        help=f"a photo is complete when it has not changed for so long (default: {SETTLE_SECONDS:g})",
    )
    group.add_argument(
        "--poll", action="store_true", help="look every two seconds: for network shares, and wherever no events arrive"
    )
    group.add_argument(
        "--max-idle", type=float, metavar="SECONDS", help="end the watch when there was nothing to do for so long"
    )
