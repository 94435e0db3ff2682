"""Watching: gives out the photos of some folders without an end, each once it has come to rest.

The folders themselves always hold the truth. A notice of the system only says which folder to look at next; besides,
a look around visits all folders every minute. A notice that is lost, late or false costs time, never a photo.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from h2a_batch.errors import PhotoError
from h2a_batch.events import Event
from h2a_batch.places import at, listed, resolved
from h2a_batch.sources.notices import Notices, why
from h2a_batch.sources.scan import roots
from h2a_batch.sources.settle import Settling
from h2a_batch.sources.source import Folder, Found, Scan, Source, Unusable
from h2a_batch.sources.walk import LEADS_OUT, Walk

_PAUSE = 0.25  # seconds to wait where there is nothing to do
_LAP, _LAP_SHARE = 60.0, 50  # seconds between two looks around, or a multiple of what the last one took
_POLL, _POLL_SHARE = 2.0, 10  # the same where the system gives no notices
_LOOK_SHARE = 3  # a folder rests after a look, for this multiple of what the look took
_LONGEST_DELAY = 30.0  # seconds between two tries to write to a full disk
_CHECK = 1.0  # seconds between two checks that the inputs are there
_PASSING = frozenset({"vanished", "changed"})  # no failures: the watch meets the photo again, or it is gone
_INCOMPLETE = frozenset({"empty", "not-an-image", "truncated", "corrupt", "unreadable"})  # it may be half a copy


@dataclass
class _Watched:
    """A folder that the watch knows.

    Args:
        folder: the folder.
        inode: its number at the last look; 0 before the first one.
        rest_until: the monotonic time, in seconds, before which a notice does not make the watch look again.
        lap: the look around that chose this folder; None where a notice did.
    """

    folder: Folder
    inode: int = 0
    rest_until: float = 0.0
    lap: _Lap | None = None


@dataclass
class _Lap:
    """A look around: a walk over all folders, one folder at a time.

    Args:
        waiting: the folders still to visit, the next one last.
        met: the folders visited so far, by their real paths.
        seconds: the time that the visits took.
    """

    waiting: list[Folder]
    met: dict[str, _Watched]
    seconds: float = 0.0


class Watcher:
    """A watch over some folders: it gives out their photos as they come.

    Args:
        inputs: folders alone, as `check_inputs` returns them.
        how: as for `scan`, with ``watching`` set.
        settling: holds photos back until they are complete.
        is_known: tells whether a photo is done, just as it lies there.
        poll: look around every two seconds instead of waiting for notices.
        max_idle: the seconds without anything to do after which the watch ends; None means never.
        tell: called with each change of state.
        stop: when set, the watch gives out no more.
    """

    def __init__(
        self,
        inputs: Sequence[Path],
        how: Scan,
        settling: Settling,
        is_known: Callable[[Source], bool],
        poll: bool,
        max_idle: float | None,
        tell: Callable[[Event], None],
        stop: threading.Event,
    ) -> None:
        self._inputs, self._how = inputs, how
        self._home = {str(path): resolved(path) for path in inputs}  # where each input was at the start
        self._locate()
        self._settling, self._is_known, self._tell, self._stop = settling, is_known, tell, stop
        self._polling, self._max_idle = poll, max_idle
        self._notices = Notices(self._passes_over)
        self._devices = {root.path: os.stat(root.path).st_dev for root in self._roots}
        self._there = {root.path: self._presence(root) for root in self._roots}
        self._places: dict[str, _Watched] = {}
        self._marked: dict[str, None] = {}  # folders to look at soon: a set that keeps its order
        self._lap: _Lap | None = None
        self._next_lap = self._next_check = 0.0
        self._first = True  # until the first look around has met everything
        self._turn = False  # a look around and the marked folders take turns
        self._busy = time.monotonic()

    def start(self) -> None:
        """Ask the system for notices from now on; the first look around meets what is there already."""
        self._watch()
        self._busy = time.monotonic()

    def close(self) -> None:
        """Stop watching."""
        self._notices.stop()

    def found(self) -> Iterator[Found | None]:
        """Yield the photos that are complete and not done, and None wherever there is nothing for now.

        The first look around also yields what is done and what is ignored, for a run to count. The caller answers each
        `Source` by `finished`, `leave` or `takes_back`.
        """
        while not self._stop.is_set() and not self._is_idle():
            self._check_inputs()
            gave = False
            place = self._next_place()
            for item in chain(self._look_at(place) if place else (), self._settling.ready()):
                gave = True
                yield item
            if not gave:
                if not place:
                    self._notices.wait(_PAUSE)
                yield None

    @property
    def gave(self) -> bool:
        """Whether photos were given out that the caller has not answered yet."""
        return self._settling.gave

    def finished(self, source: Source) -> None:
        """Note that a photo is done: converted, or found to be done."""
        if self._settling.close(source):
            self._mark(os.path.dirname(source.real))

    def leave(self, source: Source) -> None:
        """Leave a photo alone until it changes: it cannot be converted as it is."""
        self._settling.leave(source.real)

    def takes_back(self, source: Source, error: Exception) -> bool:
        """Tell whether an unreadable photo may just be incomplete or gone; if so, the watch takes care of it again."""
        kind = error.kind if isinstance(error, PhotoError) else ""
        if kind in _PASSING:
            self.finished(source)
            self._mark(os.path.dirname(source.real))
            return True
        return kind in _INCOMPLETE and self._settling.again(source)

    def start_over(self) -> None:
        """Look at everything again: the photos that were given out are not done."""
        self._settling.forget()
        self._lap = None
        self._next_lap = 0.0

    def _next_place(self) -> _Watched | None:
        """Return the folder to look at next: one that changed, else the next one of a look around, else None."""
        self._take_notices()
        now = time.monotonic()
        self._turn = not self._turn
        if not self._first and not (self._lap and self._turn):
            for real in list(self._marked):
                place = self._places.get(real)
                if place is None or place.rest_until <= now:
                    del self._marked[real]
                    if place:
                        return place
        if self._lap is None and now >= self._next_lap:
            there = [root for root in self._roots if self._there[root.path]]
            self._lap = _Lap(there[::-1], {})
        if self._lap is None:
            return None
        if not self._lap.waiting:
            self._end_lap(self._lap)
            return None
        folder = self._lap.waiting.pop()
        place = self._places.setdefault(folder.real, _Watched(folder))
        self._lap.met[folder.real] = place
        place.lap = self._lap
        return place

    def _look_at(self, place: _Watched) -> Iterator[Found]:
        """Yield what a run must hear of a folder now; remember its new sub-folders for a look of their own."""
        below: list[Folder] = []
        clock = time.monotonic()
        seconds = 0.0
        before = place.inode
        lap = place.lap
        place.lap = None
        with contextlib.suppress(OSError):
            place.inode = os.stat(place.folder.path).st_ino
        for item in self._walk.look(place.folder, below):
            if news := self._sift(item):
                seconds += time.monotonic() - clock
                yield news
                clock = time.monotonic()
        seconds += time.monotonic() - clock
        place.rest_until = time.monotonic() + _LOOK_SHARE * seconds
        if lap:
            lap.seconds += seconds
            lap.waiting += reversed(below)
            return
        for folder in below:
            if folder.real not in self._places or place.inode != before:
                new = self._places[folder.real] = _Watched(folder)
                if self._lap:
                    self._lap.met[folder.real] = new
                self._marked[folder.real] = None

    def _sift(self, item: Found) -> Found | None:
        """Return an item that a run must hear of at once, else None; hold photos back that are new."""
        if isinstance(item, Source):
            if not self._is_known(item):
                self._settling.see(item)
                return None
            return self._settling.give(item) if self._first else None
        path = str(item.path)
        if isinstance(item, Unusable):
            if not os.path.lexists(path) or self._settling.is_left(path):
                return None
            self._settling.leave(path)
            return item
        if item.reason == LEADS_OUT and not self._settling.is_left(path):
            self._settling.leave(path)
            self._tell(Event("ignored", item.path, message=f"{item.reason} is not followed"))
        return item if self._first else None

    def _end_lap(self, lap: _Lap) -> None:
        """End a look around, and set the time of the next one."""
        self._places = lap.met
        self._lap = None
        self._first = False
        self._settling.forget_gone()
        least, share = (_POLL, _POLL_SHARE) if self._polling else (_LAP, _LAP_SHARE)
        self._next_lap = time.monotonic() + max(least, share * lap.seconds)

    def _take_notices(self) -> None:
        """Mark the folders in which the system reports a change."""
        if self._polling:
            return
        try:
            for path in self._notices.take():
                if path in self._places:  # another folder may have taken the name of one that was there before
                    self._marked[path] = None
                self._mark(os.path.dirname(path) if path in self._places else path)
        except OSError as error:
            self._poll(error)

    def _mark(self, real: str) -> None:
        """Look at a folder soon; if the watch does not know it, look at the nearest known folder above it."""
        while real not in self._places:
            parent = os.path.dirname(real)
            if parent == real:
                return
            real = parent
        self._marked[real] = None

    def _check_inputs(self) -> None:
        """Report inputs that went away or came back, and watch anew those that are another folder now."""
        now = time.monotonic()
        if now < self._next_check:
            return
        self._next_check = now + _CHECK
        changed = False
        for root in self._roots:
            before = self._there[root.path]
            after = self._presence(root)
            self._there[root.path] = after
            if before and not after:
                self._tell(Event("gone", Path(root.path), message=f"{self._why_gone(root)}; waiting for it"))
            elif after and after != before:
                changed = True
                self._devices[root.path] = after[0]
                what = "another folder is there now" if before else "it is back"
                self._tell(Event("back", Path(root.path), message=f"{what}; going on"))
        lost = not self._polling and any(self._there.values()) and not self._notices.alive
        if changed or lost:
            self._locate()
            self._watch()
            self._lap = None
            self._next_lap = 0.0

    def _locate(self) -> None:
        """Begin anew with the inputs, where they really were at the start: one of them may be a link."""
        known = roots(self._inputs, len(self._inputs) > 1)
        self._roots = [replace(root, real=self._home[root.path]) for root in known]
        self._walk = Walk(self._how, [root.real for root in self._roots])
        quiet = {at(self._how.out).real, *self._how.avoid}
        self._silent = [place + os.sep for place in quiet if place not in self._walk.roots]

    def _presence(self, root: Folder) -> tuple[int, int] | None:
        """Return the device and inode of an input; None where it is gone, or is the empty folder of a lost volume.

        An input has gone, too, where a link took its place, or the place of a folder above it.
        """
        try:
            with listed(self._home[root.path]) as (handle, entries):
                status = os.fstat(handle)
                if status.st_dev != self._devices[root.path] and next(entries, None) is None:
                    return None
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _why_gone(self, root: Folder) -> str:
        linked = resolved(root.path) != self._home[root.path] and os.path.lexists(root.path)
        return "a link took its place, which is not followed" if linked else "it is not there any more"

    def _watch(self) -> None:
        """Ask the system for notices of the inputs that are there."""
        if self._polling:
            return
        try:
            there = [root.real for root in self._roots if self._there[root.path]]
            self._notices.watch(there, self._how.recursive)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):  # an input has just gone: the next check reports it
                self._notices.stop()
            else:
                self._poll(error)

    def _poll(self, error: OSError) -> None:
        """Give up on notices, and look around often instead."""
        self._notices.stop()
        self._polling = True
        self._next_lap = 0.0
        message = f"{why(error)}; meanwhile all folders are looked at every {_POLL:.0f} seconds"
        self._tell(Event("polling", Path(self._roots[0].path), message=message))

    def _passes_over(self, real: str) -> bool:
        """Tell whether a change is of no interest: of a photo held back, an output, an archive, or a hidden file."""
        if real in self._settling or any((real + os.sep).startswith(place) for place in self._silent):
            return True
        root = next((root for root in self._walk.roots if real.startswith(root + os.sep)), None)
        return root is not None and any(part.startswith(".") for part in real[len(root) + 1 :].split(os.sep))

    def _is_idle(self) -> bool:
        """Tell whether there was nothing to do for `max_idle` seconds."""
        now = time.monotonic()
        if self._first or self._marked or self._settling.busy:
            self._busy = now
        return self._max_idle is not None and now - self._busy >= self._max_idle


def wait_until(succeeds: Callable[[], bool], stop: threading.Event) -> bool:
    """Try with growing pauses until it succeeds; return False if `stop` is set before that."""
    delay = 1.0
    while not stop.wait(delay):
        if succeeds():
            return True
        delay = min(2 * delay, _LONGEST_DELAY)
    return False
