"""The feed of a watch: gives out photos as they come, waits while the disk is full, and does the upkeep meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from h2a_batch.errors import StorageError
from h2a_batch.events import Event
from h2a_batch.ledger import CURRENT, Ledger, status, write_table
from h2a_batch.options import Options
from h2a_batch.run.disposal import Disposal
from h2a_batch.run.systemd import notify
from h2a_batch.sources import SETTLE_SECONDS, Found, Scan, Settling, Source, Watcher, wait_until

_UPKEEP, _UPKEEP_SHARE = 60.0, 50  # seconds between two rounds of upkeep, or times what the last one took


class Live:
    """The photos of some folders, as they come.

    Args:
        folders: absolute paths.
        how: how to look for photos, with ``watching`` set.
        options: the options of the run.
        ledger: the ledger of OUT.
        disposal: moves or deletes photos after their conversion.
        tell: called with changes of state.
        stop: when set, the feed gives out no more.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        how: Scan,
        options: Options,
        ledger: Ledger,
        disposal: Disposal,
        tell: Callable[[Event], None],
        stop: threading.Event,
    ) -> None:
        self._folders, self._ledger, self._disposal = folders, ledger, disposal
        self._tell, self._stop = tell, stop
        settling = Settling(SETTLE_SECONDS if options.settle is None else options.settle)
        poll = options.poll
        idle = options.max_idle
        self._watcher = Watcher(folders, how, settling, self._is_known, poll, idle, tell, stop)
        self._blocked = False  # OUT is full
        self._answered = 0  # photos so far
        self._reported = 0  # photos at the last table
        self._next_upkeep = time.monotonic() + _UPKEEP

    def photos(self) -> Iterator[Found | None]:
        self._watcher.start()
        return self._watcher.found()

    def ready(self) -> None:
        more = f"and {len(self._folders) - 1} more" if len(self._folders) > 1 else ""
        self._tell(Event("ready", self._folders[0], self._ledger.out, more))
        notify("READY=1")

    def done(self, photo: Source) -> None:
        self._answered += 1
        self._watcher.finished(photo)

    def failed(self, photo: Source, error: Exception | None) -> bool:
        if error and self._watcher.takes_back(photo, error):  # the photo may still be incomplete
            return True
        self._answered += 1
        self._watcher.leave(photo)
        return False

    @property
    def waits(self) -> bool:
        return self._watcher.gave

    def idle(self) -> None:
        """Once a minute try again to dispose of photos that the system refused, and write the table of all files."""
        started = time.monotonic()
        if started < self._next_upkeep:
            return
        self._disposal.retry()
        if self._answered != self._reported:
            write_table(self._ledger)
        ended = time.monotonic()
        self._next_upkeep = ended + max(_UPKEEP, _UPKEEP_SHARE * (ended - started))
        self._reported = self._answered

    def saved(self) -> None:
        if self._blocked:
            self._blocked = False
            self._tell(Event("free", self._ledger.out, message="it can be written again; going on"))

    def outlasts(self, error: StorageError, writable: Callable[[], bool]) -> bool:
        self._ledger.check_place()
        if not self._blocked:
            message = f"{error.message}; waiting until it can be written again"
            self._tell(Event("full", self._ledger.out, message=message))
        self._blocked = True
        if not wait_until(writable, self._stop):
            return False
        self._watcher.start_over()
        self._disposal.resume()
        return True

    def close(self) -> None:
        self._watcher.close()
        notify("STOPPING=1")

    def _is_known(self, photo: Source) -> bool:
        """Tell whether a photo is on record as done, just as it lies there."""
        return status(self._ledger, photo, self._ledger.key, look=False).kind == CURRENT
