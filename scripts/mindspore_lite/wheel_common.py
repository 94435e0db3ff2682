"""What every step of the build shares: its error, its progress line, its cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
LITE_VERSION = "2.0.0"
STALE = 3600.0  # seconds; a build takes less than one hundred


class BuildError(Exception):
    """The wheel cannot be built; the message is one line that also says what to do."""


def say(text: str) -> None:
    """Print one line of progress on stderr (stdout is kept for the wheel's path)."""
    print(f"mindspore-lite: {text}", file=sys.stderr, flush=True)


def cache_folder() -> Path:
    """The user's cache folder for this tool: under XDG_CACHE_HOME where that is set, else under ~/.cache."""
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = configured if configured.is_absolute() else Path.home() / ".cache"
    return base / "h2a-batch" / "mindspore-lite"


def file_sha256(path: Path) -> str:
    """The sha256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def work_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder in the cache: on the same file system, so that files can be renamed into place."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("work-*"):  # of builds that were killed
        if time.time() - old.stat().st_mtime > STALE:
            shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="work-", dir=folder) as temporary:
        yield Path(temporary)


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Let one build at a time use the cache: a second one waits for the first one's wheel."""
    import fcntl  # here, because Windows has none and shall get the platform's error instead

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build")
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks: files are renamed into place, so two builds only cost time
        yield
