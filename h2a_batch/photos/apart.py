"""Apart: reads a suspicious photo in a process of its own, which is ended when it takes too much time or memory.

No decoder can be interrupted inside of a process. The process is a new one, not a fork of this one, which has threads
and MindSpore Lite; it reads one photo, and ends with its parent at the latest.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, BinaryIO

from h2a_batch.errors import PhotoError
from h2a_batch.machine import available_memory
from h2a_batch.photos.inspect import Look
from h2a_batch.photos.limits import Limits, most_pixels, spoken, too_many_pixels
from h2a_batch.photos.worker import ANSWER, CRASHED, FAILED, NO_MEMORY, QUESTION, READY, Work, receive, send

_START_SECONDS = 120.0  # for Python and its libraries to load on a busy machine
_END_SECONDS = 2.0  # for a process to end that has said all
_PULSE = 0.02  # seconds between two looks at the process
_CODE = "import sys; sys.path[:] = sys.argv[1:]; from h2a_batch.photos.worker import serve; serve()"
_QUIET = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}  # each thread takes memory, and decoders use none of them
_ADVICE = "if it is a good photo, allow it more with "


def read_apart(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    file: BinaryIO,
    limits: Limits,
    look: Look,
    answer: Callable[[Any], Any] | None = None,
) -> Any:
    """Call a function on an open file in a process of its own, and return what it returns.

    Args:
        function: of a module; it takes the file, a function that asks `answer` here, and the arguments.
        arguments: can be pickled, as the result can.
        file: open for reading; its position is undefined afterwards.
        limits: what the call may take. The time that `answer` takes does not count.
        look: what `inspect` found.
        answer: answers the questions that the function asks.

    Raises:
        PhotoError: the function raised it; or the photo claims to exceed its limits (``too-large``), or exceeded them,
            or crashed its decoder (``hostile``).
        MemoryError: the machine lacks the memory for a photo that is within its limits.
        InterruptedError: nobody wants the photo any more.
    """
    _check_size(look, limits)
    with limits.turn(), _process(file) as (process, connection):
        if limits.ended():
            raise InterruptedError
        watch = _Watch(process, connection, limits, look.why)
        send(connection, Work(function, arguments, _bytes_of(file), limits.memory, limits.seconds))
        watch.wait(_START_SECONDS)
        while True:
            kind, value = watch.take()
            if kind == READY:
                watch.begin()
            elif kind == QUESTION and answer is not None:
                started = time.monotonic()
                send(connection, (ANSWER, answer(value)))
                watch.pause(time.monotonic() - started)
            elif kind == FAILED:
                raise value
            elif kind == NO_MEMORY:
                watch.no_memory(of_its_own=value)
            elif kind == CRASHED:
                raise RuntimeError(value)
            else:
                return value
            watch.wait()


def _check_size(look: Look, limits: Limits) -> None:
    """Refuse a photo whose pixels alone take more memory than it may.

    Raises:
        PhotoError: it is ``too-large``.
    """
    if look.pixels > most_pixels():
        raise too_many_pixels()
    if look.least > limits.memory:
        text = f"its {look.pixels / 1e6:.0f} million pixels take {spoken(look.least)} of memory or more"
        advice = f"allow more than {spoken(limits.memory)} with --memory-per-photo, or make it smaller"
        raise PhotoError("too-large", text, advice)


class _Watch:
    """Watches over a process: its time, its memory, and whether it lives."""

    def __init__(self, process: subprocess.Popen[bytes], connection: Connection, limits: Limits, why: str) -> None:
        self._process, self._connection, self._limits = process, connection, limits
        self._why = f" (it has {why})" if why else ""
        self._used = 0  # bytes of memory before the photo
        self._end = float("inf")

    def begin(self) -> None:
        """Start to count time and memory."""
        self._used = _memory_of(self._process.pid)
        self._end = time.monotonic() + self._limits.seconds

    def pause(self, seconds: float) -> None:
        """Do not count so many seconds."""
        self._end += seconds

    def wait(self, seconds: float = float("inf")) -> None:
        """Wait for the process to say something.

        Raises:
            PhotoError: it exceeded its limits.
            InterruptedError: nobody wants the photo any more.
            MemoryError: it does not even start.
        """
        latest = time.monotonic() + seconds
        while not self._connection.poll(_PULSE):
            now = time.monotonic()
            if self._limits.ended():
                raise InterruptedError
            if self._used and _memory_of(self._process.pid) - self._used > self._limits.memory:
                raise self._too_much()
            if now > self._end:
                text = f"reading it takes longer than {self._limits.seconds:g} s{self._why}"
                raise PhotoError("hostile", text, f"{_ADVICE}--timeout-per-photo")
            if now > latest:
                raise MemoryError("a process does not start")

    def take(self) -> tuple[str, Any]:
        """Return what the process said.

        Raises:
            PhotoError: it crashed.
            MemoryError: the system ended it, as it does where memory runs short.
        """
        try:
            kind, value = receive(self._connection)
        except (EOFError, OSError) as error:
            code = self._process.wait()
            if code == -signal.SIGKILL:
                raise MemoryError("the system ended the process that read the photo") from error
            if code in (-signal.SIGXCPU, -signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGFPE):
                text = f"its decoder crashed ({signal.Signals(-code).name}){self._why}"
                raise PhotoError("hostile", text, "make a new file of it with another program") from error
            raise MemoryError(f"the process that read the photo ended with {code}") from error
        return str(kind), value

    def no_memory(self, of_its_own: bool) -> None:
        """Raise the error for a lack of memory in the process.

        Args:
            of_its_own: whether our limit is the one that the process met.

        Raises:
            PhotoError: the photo is to blame.
            MemoryError: the machine is to blame.
        """
        if of_its_own and available_memory() > self._limits.memory // 4:
            raise self._too_much()
        raise MemoryError("the machine lacks the memory for a photo")

    def _too_much(self) -> PhotoError:
        text = f"reading it takes more than {spoken(self._limits.memory)} of memory{self._why}"
        return PhotoError("hostile", text, f"{_ADVICE}--memory-per-photo")


@contextlib.contextmanager
def _process(file: BinaryIO) -> Iterator[tuple[subprocess.Popen[bytes], Connection]]:
    """Start a process that has the file open, and end it whatever happens.

    Raises:
        MemoryError: the system starts no process.
    """
    ours, theirs = socket.socketpair()
    number = _number_of(file)
    with contextlib.closing(Connection(ours.detach())) as connection:
        try:
            with theirs:
                process = subprocess.Popen(
                    [sys.executable, "-c", _CODE, *(os.path.abspath(path) for path in sys.path)],
                    stdin=theirs.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=() if number is None else (number,),
                    env={**os.environ, **_QUIET},
                    start_new_session=True,  # Ctrl-C is for the parent: photos on their way are finished
                )
        except OSError as error:
            raise MemoryError(f"no process can be started ({error.strerror})") from error
        try:
            yield process, connection
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)
        finally:
            process.kill()
            process.wait()


def _number_of(file: BinaryIO) -> int | None:
    try:
        return file.fileno()
    except OSError:  # it is in memory
        return None


def _bytes_of(file: BinaryIO) -> int | bytes:
    """Return the file's number, by which the process has it, too; the bytes of a file in memory."""
    number = _number_of(file)
    file.seek(0)
    return file.read() if number is None else number


def _memory_of(process: int) -> int:
    """Return the bytes of memory that a process has for itself; 0 where the system does not say."""
    try:
        with open(f"/proc/{process}/statm", "rb") as file:
            _, resident, shared, *_ = (int(pages) for pages in file.read().split())
    except (OSError, ValueError):
        return 0
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
