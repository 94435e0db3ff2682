"""Tries: how long a request to a store may take, and how often it is made again."""

from __future__ import annotations

import inspect
import random
import time
from collections.abc import Callable
from itertools import count
from typing import Any, TypeVar

from h2a_batch.places.client import DamagedError, DeniedError, FaultError, HopelessError, patience, unified_errors

Answer = TypeVar("Answer")

_TOTAL = 60.0  # seconds for a try, beside the time for its bytes; no further try begins after as many
_SLOWEST = 100_000  # bytes a second that a connection has to carry
_TRIES = 5
_WAIT = 0.5  # seconds before the second try; each wait after it is twice as long


def allowed(size: int = 0) -> float:
    """Return the seconds that a try may take which carries `size` bytes."""
    return (_TOTAL + size / _SLOWEST) * patience()


def again(work: Callable[[], Answer]) -> Answer:
    """Make a request, and make it again as long as it fails for a reason that may pass.

    Raises:
        OSError: one of the kinds of `client.unified_errors`, from the last try.
    """
    started = time.monotonic()
    for number in count(1):
        try:
            with unified_errors():
                return work()
        except (DeniedError, HopelessError):
            raise
        except (ConnectionError, DamagedError, FaultError):
            if number == _TRIES or time.monotonic() - started > allowed():
                raise
        wait = _WAIT * 2 ** (number - 1) * patience()
        time.sleep(random.uniform(wait / 2, wait))  # or all threads would come back at once
    raise AssertionError


def ask(fs: Any, name: str, *words: Any, size: int = 0, **more: Any) -> Any:
    """Call a method of a client once, and give up after `allowed(size)` where the client can be interrupted.

    Raises:
        Exception: whatever the client raises.
    """
    waiting = getattr(fs, f"_{name}", None)
    if not getattr(fs, "async_impl", False) or not inspect.iscoroutinefunction(waiting):
        return getattr(fs, name)(*words, **more)
    from fsspec.asyn import sync

    return sync(fs.loop, waiting, *words, timeout=allowed(size), **more)
