"""Settling: holds new photos back until no program writes to them any more."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import heapq
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from h2a_batch.places import open_file
from h2a_batch.sources.source import Source

SETTLE_SECONDS = 2.0  # the default
_SHORTEST_PATIENCE = 30.0  # seconds: a stalled copy goes on within them; later the photo is reported as broken
_PATIENCE = 10  # in settle times, where these are longer
_F_SETSIG = 10  # some builds of Python lack fcntl.F_SETSIG

_REMOTE = ("nfs", "cifs", "smb", "fuse", "9p", "ceph", "afs", "virtiofs")

Mark = tuple[object, ...]


@dataclass
class _Candidate:
    """A photo that is held back.

    Args:
        source: the photo.
        since: the monotonic time, in seconds, since when the photo has not changed.
        due: the monotonic time when to look at it next.
        tries: how often it could not be read.
    """

    source: Source
    since: float
    due: float
    tries: int = 0


class Settling:
    """Photos between their arrival and their conversion, and photos to leave alone until they change.

    A photo is ready when its size and time of change have been the same for `seconds`, and no program has it
    open for writing, where the system can tell. A photo that is done leaves no trace here.

    Args:
        seconds: how long a photo must have been at rest.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.patience = max(_SHORTEST_PATIENCE, _PATIENCE * seconds)
        self._waiting: dict[str, _Candidate] = {}
        self._given: dict[str, _Candidate] = {}
        self._order: list[tuple[float, str]] = []
        self._left: dict[str, Mark] = {}

    def __contains__(self, real: str) -> bool:
        return real in self._waiting

    @property
    def busy(self) -> bool:
        """Whether photos are held back or being converted."""
        return bool(self._waiting or self._given)

    @property
    def gave(self) -> bool:
        """Whether photos are being converted."""
        return bool(self._given)

    def see(self, source: Source) -> None:
        """Hold a photo back that is not done, unless it is being converted or is to be left alone."""
        if source.real in self._given or self.is_left(source.real):
            return
        known = self._waiting.get(source.real)
        now = time.monotonic()
        if known is None or _stamp(known.source) != _stamp(source):
            self._hold(_Candidate(source, now, now + self.seconds))
        else:
            known.source = source  # the natural name of its output may have changed

    def give(self, source: Source) -> Source:
        """Count a photo as being converted without holding it back, and return it."""
        self._waiting.pop(source.real, None)
        self._given[source.real] = _Candidate(source, time.monotonic(), 0.0)
        return source

    def ready(self) -> Iterator[Source]:
        """Yield the photos that have come to rest; from then on they count as being converted."""
        while self._order and self._order[0][0] <= time.monotonic():
            due, real = heapq.heappop(self._order)
            candidate = self._waiting.get(real)
            if candidate is None or candidate.due != due:  # the photo was held back anew since then
                continue
            now = time.monotonic()
            stamp = _stamp_of(real)
            if stamp is None:
                del self._waiting[real]
            elif stamp != _stamp(candidate.source):
                size, mtime_ns = stamp
                source = replace(candidate.source, size=size, mtime_ns=mtime_ns)
                self._hold(_Candidate(source, now, now + self.seconds))
            elif now - candidate.since < self.patience and is_open_for_writing(candidate.source.target):
                candidate.due = now + self.seconds
                self._hold(candidate)
            else:
                self._given[real] = self._waiting.pop(real)
                yield candidate.source

    def again(self, source: Source) -> bool:
        """Hold a photo back once more that could not be read to its end.

        The intervals grow until the photo has been unchanged for the whole of `patience`.

        Returns:
            False when that time is over: the photo is broken.
        """
        candidate = self._given.pop(source.real)
        now = time.monotonic()
        stamp = _stamp_of(source.real)
        if stamp is None:
            return True
        if stamp != _stamp(source):
            size, mtime_ns = stamp
            self._hold(_Candidate(replace(source, size=size, mtime_ns=mtime_ns), now, now + self.seconds))
            return True
        last = candidate.since + self.patience
        if now >= last:
            return False
        tries = candidate.tries + 1
        due = min(last, now + max(0.1, self.seconds) * 2**tries)
        self._hold(_Candidate(source, candidate.since, due, tries))
        return True

    def close(self, source: Source) -> bool:
        """Forget a photo that was converted, and tell whether it has changed since it was given out."""
        self._given.pop(source.real, None)
        stamp = _stamp_of(source.real)
        return stamp is not None and stamp != _stamp(source)

    def leave(self, real: str) -> None:
        """Leave a file alone until it changes."""
        self._given.pop(real, None)
        self._waiting.pop(real, None)
        self._left[real] = _mark(real)

    def is_left(self, real: str) -> bool:
        """Tell whether a file is left alone and has not changed since."""
        if real not in self._left:
            return False
        if self._left[real] == _mark(real):
            return True
        del self._left[real]
        return False

    def forget(self) -> None:
        """Forget the photos that were given out: they are not done, and the next look meets them again."""
        self._given.clear()

    def forget_gone(self) -> None:
        """Forget the files that are left alone and no longer there."""
        self._left = {real: mark for real, mark in self._left.items() if os.path.lexists(real)}

    def _hold(self, candidate: _Candidate) -> None:
        self._waiting[candidate.source.real] = candidate
        heapq.heappush(self._order, (candidate.due, candidate.source.real))


def is_open_for_writing(path: str) -> bool:
    """Tell whether a program has a file open for writing, as `has_writer` does; False for a link."""
    try:
        with open_file(path) as file:
            return has_writer(file.fileno())
    except OSError:
        return False


def has_writer(file: int) -> bool:
    """Tell whether a program has a file open for writing; False where the system cannot tell.

    The kernel grants a read lease only on a local file of this user that nobody has open for writing. A program that
    opens the file while we hold the lease waits until `file` is closed. Network file systems refuse leases for other
    reasons.

    Args:
        file: a descriptor of the file, open for reading alone.
    """
    try:
        fcntl.fcntl(file, _F_SETSIG, signal.SIGURG)  # sent if the lease breaks: SIGIO would end us
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN and not _is_remote(os.fstat(file).st_dev)
    return False


def _is_remote(device: int) -> bool:
    """Tell whether a volume belongs to a network or a program, by its device number in the list of mounts."""
    number = f"{os.major(device)}:{os.minor(device)}"
    with contextlib.suppress(OSError), open("/proc/self/mountinfo", errors="replace") as mounts:
        for line in mounts:  # 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw
            about, _, file_system = line.partition(" - ")
            if about.split()[2] == number:
                return file_system.startswith(_REMOTE)
    return False


def _stamp(source: Source) -> tuple[int, int]:
    return source.size, source.mtime_ns


def _stamp_of(real: str) -> tuple[int, int] | None:
    try:
        status = os.stat(real)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _mark(real: str) -> Mark:
    """Return a mark that changes with a file, its permissions, and whether it is a link that leads anywhere."""
    try:
        status = os.lstat(real)
    except OSError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, os.path.exists(real)
