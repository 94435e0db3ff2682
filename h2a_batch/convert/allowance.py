"""An allowance: a number of bytes of memory that threads share."""

from __future__ import annotations

import threading


class Allowance:
    """A number of bytes that all threads share, first come, first served; a larger request waits to be alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._used = 0
        self._open = False
        self._freed = threading.Condition()
        self._line: list[object] = []  # who waits, in turn: or small requests would keep a large one waiting for ever

    def take(self, size: int) -> None:
        """Wait until there are `size` bytes to take, and take them."""
        with self._freed:
            self._line.append(turn := object())
            self._freed.wait_for(lambda: self._open or (self._line[0] is turn and self._has(size)))
            self._line.remove(turn)
            self._used += size
            self._freed.notify_all()

    def give(self, size: int) -> None:
        """Give `size` bytes back."""
        with self._freed:
            self._used -= size
            self._freed.notify_all()

    def open(self) -> None:
        """Let everybody through from now on."""
        with self._freed:
            self._open = True
            self._freed.notify_all()

    def _has(self, size: int) -> bool:
        return not self._used or self._used + size <= self._most
