"""Notices: the system's reports of changes below some folders. They say where to look, never what is there."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer

if TYPE_CHECKING:
    from watchdog.observers.api import BaseObserver

# no notice of each write: the watch waits for a file from its creation on, and meets a rewritten one at its close
_WANTED: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileMovedEvent,
    FileClosedEvent,
    DirCreatedEvent,
    DirMovedEvent,
]
_LIMITS = {errno.ENOSPC: "max_user_watches", errno.EMFILE: "max_user_instances"}
logging.getLogger("watchdog").addHandler(logging.NullHandler())  # or its warnings reach the terminal


class Notices(FileSystemEventHandler):
    """Collects the folders in which the system reports a change.

    Args:
        passed_over: tells whether a path is of no interest.
    """

    def __init__(self, passed_over: Callable[[str], bool]) -> None:
        self._passed_over = passed_over
        self._observer: BaseObserver | None = None
        self._lock = threading.Lock()
        self._paths: set[str] = set()
        self._woken = threading.Event()
        self._grown = False

    def watch(self, folders: Sequence[str], recursive: bool) -> None:
        """Collect notices of these folders and of all below them, and of no others.

        Args:
            folders: real paths.
            recursive: whether to watch the sub-folders, too.

        Raises:
            OSError: a folder is not there, or the system gives no notices; see `why`.
        """
        self.stop()
        self._observer = Observer()
        self._observer.start()
        for folder in folders:
            self._observer.schedule(self, folder, recursive=recursive, event_filter=_WANTED)
        self._try_one_more()

    def stop(self) -> None:
        """Stop collecting."""
        observer = self._observer
        self._observer = None
        self._woken.clear()  # or `wait` would return at once, since nobody takes the notices any more
        if observer is not None and observer.is_alive():
            with contextlib.suppress(KeyError, OSError):  # watchdog loses count of folders that change places
                observer.stop()
                observer.join()

    @property
    def alive(self) -> bool:
        """Whether the system still watches all folders; it does not watch one that was removed."""
        observer = self._observer
        return observer is not None and observer.is_alive() and all(emitter.is_alive() for emitter in observer.emitters)

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Collect one notice; the observer's thread calls this."""
        paths = set()
        for path in filter(None, map(os.fsdecode, (event.src_path, event.dest_path))):
            if not self._passed_over(path):
                paths.add(os.path.dirname(path))
                if event.is_directory:
                    paths.add(path)
        if paths:
            with self._lock:
                self._paths |= paths
                self._grown = self._grown or event.is_directory
            self._woken.set()

    def take(self) -> set[str]:
        """Return the folders in which something happened since the last call.

        Raises:
            OSError: there are new folders, and the system can watch no more; see `why`. The notices are kept.
        """
        if self._grown:
            self._grown = False
            self._try_one_more()
        with self._lock:
            taken = self._paths
            self._paths = set()
            self._woken.clear()
        return taken

    def wait(self, seconds: float) -> None:
        """Wait at most `seconds` for a notice."""
        self._woken.wait(seconds)

    def _try_one_more(self) -> None:
        """Watch one folder more for a moment: watchdog does not report that it failed to watch a sub-folder."""
        if self._observer is not None and self._observer.is_alive():
            with contextlib.suppress(KeyError):
                handler = FileSystemEventHandler()
                self._observer.unschedule(self._observer.schedule(handler, os.sep, event_filter=_WANTED))


def why(error: OSError) -> str:
    """Return, in one line, the reason why there are no notices and what the user can do."""
    if error.errno not in _LIMITS:
        return f"the system does not tell of changes ({error.strerror or error})"
    name = _LIMITS[error.errno]
    try:
        limit = int(Path("/proc/sys/fs/inotify", name).read_text())
    except (OSError, ValueError):
        limit = 65536
    limit_is, raise_it = f"fs.inotify.{name} ({limit})", f"sudo sysctl fs.inotify.{name}={2 * limit}"
    return f"the limit {limit_is} is reached; start again after: {raise_it}"
