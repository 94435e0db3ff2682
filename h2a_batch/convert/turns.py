"""Turns: which photos are read in a process of their own at once, while others go on being decoded in threads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from h2a_batch.convert.allowance import Allowance
from h2a_batch.errors import ShortageError
from h2a_batch.machine import available_memory
from h2a_batch.options import Options
from h2a_batch.photos import Limits


class Turns:
    """Lets so many threads decode at once, and so many processes.

    A thread that waits for a process does not decode meanwhile, so another thread takes its place.

    Args:
        options: the options of the run.
        count: how many photos to decode at once.
        hire: starts one more thread that decodes.
    """

    def __init__(self, options: Options, count: int, hire: Callable[[], None]) -> None:
        self._options, self._hire = options, hire
        self._memory_of_one = options.most_memory
        self._decoding = threading.Semaphore(count)
        self._processes = threading.Semaphore(count)
        self._memory = Allowance(available_memory() // 2)
        self._lock = threading.Lock()
        self._threads = count  # those that are not waiting for a process, and those that will be waiting no more
        self._apart = 0
        self._ended = False
        self._count = count

    @contextlib.contextmanager
    def decoding(self) -> Iterator[None]:
        """Be one of the threads that decode."""
        self._decoding.acquire()
        try:
            yield
        finally:
            self._decoding.release()

    def limits(self, alone: bool) -> Limits:
        """Return the limits of a photo; one that is `alone` after a lack of memory is read in a process anyway."""
        return Limits(self._options.timeout_per_photo, self._memory_of_one, self._turn, lambda: self._ended, alone)

    def end(self) -> None:
        """Let nobody wait any longer, and end the processes."""
        self._ended = True
        self._memory.open()

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for a process, in a thread that decodes."""
        self._decoding.release()
        try:
            with self._lock:
                self._apart += 1
                hire = self._threads - self._apart < self._count
                self._threads += hire
            if hire:
                with contextlib.suppress(ShortageError):  # the others decode more slowly then
                    self._hire()
            with self._processes:
                self._memory.take(self._memory_of_one)
                try:
                    yield
                finally:
                    self._memory.give(self._memory_of_one)
        finally:
            with self._lock:
                self._apart -= 1
            self._decoding.acquire()
