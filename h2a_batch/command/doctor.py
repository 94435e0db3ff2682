"""The command ``h2a-batch doctor``: a page about this machine and what the program finds on it, to report a fault."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from PIL import features

from h2a_batch.command.console import Parser, forsake, print_error, put, shown
from h2a_batch.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_SOME_FAILED, H2AError
from h2a_batch.inference import cache_folder, find_model, identify, known_models, one_line
from h2a_batch.machine import available_cores, available_memory
from h2a_batch.photos import FORMATS, HEIF, READERS
from h2a_batch.places import address
from h2a_batch.version import __version__

_EXTRAS = {"heif": ("pillow-heif",), "cloud": ("fsspec", "s3fs"), "ray": ("ray",)}  # packages that an extra installs
_PACKAGES = ("numpy", "pillow", "tqdm", "watchdog")
_PATIENCE = 120  # seconds for the first conversion
_WRITTEN = 64 << 20  # bytes that are written to measure OUT
_ASCEND = Path("/dev/davinci_manager")
_CANN = Path("/usr/local/Ascend/ascend-toolkit/latest")
# Another process does it: a library that this processor does not suit may end its process
_TRIAL = """
import time
from h2a_batch.inference import Generator, load_runtime
lite = load_runtime()
print(lite.__version__, lite.__file__, sep="\\n", flush=True)
import numpy
generator = Generator()
pixels = generator.card.input
image = numpy.full((pixels.height, pixels.width, 3), 128, numpy.uint8)
start = time.perf_counter()
generator.paint([image])
print(generator.device, round(1000 * (time.perf_counter() - start)), sep="\\n")
"""


@dataclass(frozen=True)
class Finding:
    """One line of the page.

    Args:
        subject: what was looked at.
        text: what was found there.
        wrong: whether a conversion cannot work like this.
    """

    subject: str
    text: str
    wrong: bool = False


def main(words: Sequence[str]) -> int:
    """Print the page and return the exit code: 0 if a conversion can work here, else 1."""
    parser = Parser(
        prog="h2a-batch doctor", description="Tell what the program finds on this machine, for a report of a fault."
    )
    parser.add_argument("out", nargs="?", metavar="OUT", help="measure how fast this folder can be written")
    given = parser.parse_args(words)
    wrong = False
    try:
        for finding in examine(None if given.out is None else Path(str(address(given.out)))):
            wrong = wrong or finding.wrong
            put(f"{finding.subject + ':':<12} {'WRONG: ' if finding.wrong else ''}{shown(finding.text)}")
    except H2AError as error:
        print_error(sys.stderr, error, "h2a-batch doctor")
        forsake(sys.stdout)
        return error.exit_code
    except BrokenPipeError:
        forsake(sys.stdout)
        return EXIT_INTERRUPTED
    return EXIT_SOME_FAILED if wrong else EXIT_OK


def examine(out: Path | None) -> Iterator[Finding]:
    """Yield all findings, one after the other as they are made."""
    yield Finding("h2a-batch", f"{__version__} in {Path(__file__).parents[1]}")
    yield Finding("Python", f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}")
    yield Finding("packages", ", ".join(f"{name} {_version(name) or 'missing'}" for name in _PACKAGES))
    yield Finding("system", f"{platform.platform()}, {_processor()}")
    yield Finding("machine", f"{available_cores()} of {os.cpu_count()} cores, {available_memory() >> 20} MiB free")
    yield from _runtime()
    yield _ascend()
    yield from _models()
    yield Finding("reads", ", ".join(READERS) + ("" if HEIF in READERS else " (HEIF: install the extra heif)"))
    yield Finding("writes", ", ".join(name for name in FORMATS if name != "avif" or features.check("avif")))
    yield Finding("extras", ", ".join(f"{name}: {_extra(needs)}" for name, needs in _EXTRAS.items()))
    yield _cache()
    if out:
        yield _output(out)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _extra(packages: Sequence[str]) -> str:
    """Return the versions of an extra's packages; "no" where one is missing."""
    versions = [f"{name} {found}" for name in packages if (found := _version(name))]
    return " ".join(versions) if len(versions) == len(packages) else "no"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _runtime() -> Iterator[Finding]:
    """Load MindSpore Lite and convert one gray picture, in a process of its own."""
    environment = {**os.environ, "GLOG_v": "4"}
    try:
        trial = subprocess.run(
            [sys.executable, "-c", _TRIAL], env=environment, capture_output=True, text=True, timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired:
        yield Finding("Lite", f"MindSpore Lite did not convert one picture in {_PATIENCE} seconds", wrong=True)
        return
    facts = trial.stdout.splitlines()
    if len(facts) >= 2:
        yield Finding("Lite", f"MindSpore Lite {facts[0]}, {Path(facts[1]).parent}")
    if len(facts) == 4 and trial.returncode == 0:
        yield Finding("generator", f"one picture takes {facts[3]} ms on {facts[2]}, one thread")
        return
    last = trial.stderr.strip().splitlines()[-1:]
    why = f"its process ended by signal {-trial.returncode}" if trial.returncode < 0 else " ".join(last)
    yield Finding("generator" if facts else "Lite", why or f"exit code {trial.returncode}", wrong=True)


def _ascend() -> Finding:
    """Tell what of Ascend's driver and CANN is there."""
    devices = sorted(path.name for path in Path("/dev").glob("davinci[0-9]*"))
    cann = Path(os.environ.get("ASCEND_HOME_PATH") or _CANN)
    missing = []
    if not _ASCEND.exists() or not devices:
        missing.append(f"no {_ASCEND if not _ASCEND.exists() else '/dev/davinci0'}: no driver or device here")
    if not cann.is_dir():
        missing.append(f"no {cann}: CANN is not installed, or its set_env.sh was not sourced")
    return Finding("Ascend", "; ".join(missing) or f"{', '.join(devices)}; CANN in {cann}")


def _models() -> Iterator[Finding]:
    """Check each shipped model against its card."""
    for name in known_models():
        try:
            path = find_model(name)
            yield Finding("model", f"{name}, {path.stat().st_size >> 10} KiB, sha256 {identify(path)[0]}")
        except (H2AError, OSError) as error:
            yield Finding("model", one_line(error), wrong=True)


def _cache() -> Finding:
    try:
        folder = cache_folder()
        files = [path.stat().st_size for path in folder.glob("*.mindir")]
        return Finding("cache", f"{folder}, {len(files)} optimised models, {sum(files) >> 20} MiB")
    except (OSError, RuntimeError) as error:
        return Finding("cache", f"none: {one_line(error)}")


def _output(out: Path) -> Finding:
    """Measure how fast a folder can be written, with a file that is removed again."""
    block = os.urandom(1 << 20)
    try:
        with tempfile.TemporaryFile(dir=out) as file:
            start = time.perf_counter()
            for _ in range(_WRITTEN // len(block)):
                file.write(block)
            os.fsync(file.fileno())
            seconds = time.perf_counter() - start
    except OSError as error:
        return Finding("OUT", f"{out}: {error.strerror}", wrong=True)
    return Finding("OUT", f"{out}: {_WRITTEN / 1e6 / seconds:.0f} MB/s")
