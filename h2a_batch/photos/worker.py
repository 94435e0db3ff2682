"""The other end of `apart`: a process that reads one photo, within limits that the system keeps."""

from __future__ import annotations

import contextlib
import ctypes
import io
import math
import os
import pickle
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, BinaryIO

import numpy as np

from h2a_batch.errors import H2AError
from h2a_batch.machine import available_cores, lacks_memory, used_addresses

READY, QUESTION, ANSWER, DONE, FAILED, NO_MEMORY, CRASHED = (
    "ready question answer done failed no-memory crashed".split()
)
_PR_SET_PDEATHSIG = 1  # Linux: a signal when the parent ends
_SLACK = 1.5  # the parent ends a process that exceeds its memory; the system's limit is for what outruns it


@dataclass(frozen=True)
class Work:
    """What a process is to do.

    Args:
        function: called with the open file, a function that asks the parent, and the arguments.
        arguments: of the function.
        file: the number of the open file, or the bytes of one.
        memory: the bytes that the call may take.
        seconds: the time that it may take.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    file: int | bytes
    memory: int
    seconds: float


def send(connection: Connection, value: Any) -> None:
    """Send a value; the pixels in it go as they are, without a copy."""
    buffers: list[pickle.PickleBuffer] = []
    text = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    connection.send_bytes(text)
    connection.send_bytes(str(len(buffers)).encode())
    for buffer in buffers:
        connection.send_bytes(buffer.raw())


def receive(connection: Connection) -> Any:
    """Return a value that the other end sent.

    Raises:
        EOFError, OSError: the other end is gone.
    """
    text = connection.recv_bytes()
    count = int(connection.recv_bytes())
    return pickle.loads(text, buffers=[connection.recv_bytes() for _ in range(count)])


def serve() -> None:
    """Do the work that comes by standard input, once, and end."""
    parent = os.getppid()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    connection = Connection(os.dup(0))
    work: Work = receive(connection)

    def ask(question: Any) -> Any:
        send(connection, (QUESTION, question))
        return receive(connection)[1]

    file: BinaryIO = io.BytesIO(work.file) if isinstance(work.file, bytes) else os.fdopen(work.file, "rb")
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("1000")  # where memory runs short, the system is to end this process, and not its parent
    np.eye(2) @ np.eye(2)  # OpenBLAS takes its memory now: later, where there is none, it would try for ever
    ours = _limit(work)
    send(connection, (READY, None))
    try:
        answer = (DONE, work.function(file, ask, *work.arguments))
    except H2AError as error:
        answer = (FAILED, error)
    except Exception as error:
        answer = (NO_MEMORY, ours) if lacks_memory(error) else (CRASHED, f"{type(error).__name__}: {error}")
    send(connection, answer)


def _limit(work: Work) -> bool:
    """Have the system limit this process, and tell whether no earlier limit on its memory is closer."""
    seconds = math.ceil(work.seconds * available_cores()) + 60  # where the parent's death goes unnoticed
    _lower(resource.RLIMIT_CPU, seconds)
    more = int(_SLACK * work.memory)
    used = used_addresses()
    return all([_lower(resource.RLIMIT_AS, used[0] + more), _lower(resource.RLIMIT_DATA, used[1] + more)])


def _lower(what: int, most: int) -> bool:
    """Lower a limit, and tell whether it was not lower before."""
    soft, hard = resource.getrlimit(what)
    if any(limit != resource.RLIM_INFINITY and limit < most for limit in (soft, hard)):
        return False
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(what, (most, hard))
    return True
