"""Scratch: folders for temporary files. What a killed process leaves of them, the next one removes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from pathlib import Path

from h2a_batch.places.files import lock_dead

_PREFIX = "h2a-batch-tmp-"
_NAME = re.compile(r"h2a-batch-tmp-[a-z0-9_]{8}")


class Scratch(tempfile.TemporaryDirectory[str]):
    """A new folder in the system's folder for temporary files; it is a context manager, and removed at the end."""

    def __init__(self) -> None:
        super().__init__(prefix=_PREFIX)
        self._guard: int | None = os.open(self.name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(self._guard, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def cleanup(self) -> None:
        """Remove the folder and what is in it."""
        super().cleanup()
        if self._guard is not None:
            os.close(self._guard)
            self._guard = None


def sweep_scratch() -> None:
    """Remove the folders that this user's killed processes left."""
    with contextlib.suppress(OSError):
        top = tempfile.gettempdir()
        for name in [name for name in os.listdir(top) if _NAME.fullmatch(name)]:
            _sweep(Path(top, name))


def _sweep(path: Path) -> None:
    with contextlib.suppress(OSError):
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(folder).st_uid == os.geteuid() and lock_dead(folder):
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(folder)
