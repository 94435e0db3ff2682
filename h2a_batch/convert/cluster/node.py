"""A node of a cluster: it runs the pipeline on photos that calls bring, and returns the results to calls.

Nothing here knows Ray: `crew` makes a `Node` an actor, and nobody else calls it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from h2a_batch.convert.pipeline import Result, convert, load
from h2a_batch.errors import H2AError, ModelError, PhotoError, StorageError, UsageError
from h2a_batch.inference import find_model, one_line
from h2a_batch.ledger import LEDGER_FOLDER, Task
from h2a_batch.machine import available_cores
from h2a_batch.options import Options
from h2a_batch.places import Address, at, sha256_of, write_apart
from h2a_batch.version import __version__

MARK = "cluster"  # a file in the ledger's folder in OUT, by which a node knows that it sees the same OUT
_AHEAD = 2  # photos at hand, as a multiple of those on their way in the node's pipeline
_MOMENT = 0.05  # seconds
_GATHER = 0.1  # seconds for which a call gathers results, so that the driver need not ask for each
_PATIENCE = 1.0  # seconds after which a call returns empty
_MARK_SECONDS = 5.0  # a network share may show a new file late


@dataclass(frozen=True)
class Brief:
    """What a node has to know at its start.

    Args:
        options: the options of the run.
        cores: how many of the machine's cores the cluster may use.
        sha256: of the model, in hex.
        out: OUT, by the same address on every node.
        mark: the content of its file MARK.
        writer: marks this node's temporary files: a node that is cut off may still write what others now write, too.
        version: of h2a-batch on the driver.
    """

    options: Options
    cores: int
    sha256: str
    out: Address
    mark: str
    writer: str
    version: str = __version__


@dataclass(frozen=True)
class Question:
    """A node's question for the names of a photo's faces, `count` of them: only the driver has the ledger."""

    task: Task
    count: int


@dataclass(frozen=True)
class Report:
    """What a node reports.

    Args:
        results: of the photos that are done.
        questions: for the names of faces.
        room: how many photos the node takes at once; 0 where it is not ready.
        error: why the node cannot go on; None where it can.
    """

    results: tuple[Result, ...] = ()
    questions: tuple[Question, ...] = ()
    room: int = 0
    error: H2AError | None = None


class Node:
    """A node at work. Its methods raise nothing: the next report carries the error.

    Args:
        brief: what the node has to know.
        model: the bytes of the model's file and of its card by their names, for a node that lacks them.
    """

    def __init__(self, brief: Brief, model: Mapping[str, bytes]) -> None:
        self._arrivals: queue.Queue[Task] = queue.Queue()
        self._outbox: queue.Queue[Result | Question | H2AError] = queue.Queue()
        self._answers: dict[str, queue.SimpleQueue[Sequence[str]]] = {}
        self._options = brief.options
        self._room = 0
        write_apart(brief.writer)
        try:
            _check(brief)
            self._generator = load(_model(brief, model), brief.options)
            cores = min(brief.cores, available_cores())
            self._workers = brief.options.workers.filled(self._generator.device, cores)
            counts = self._workers.decode + self._workers.generator * self._generator.batch_size + self._workers.encode
            self._room = _AHEAD * 2 * counts
            threading.Thread(target=self._work, name="pipeline", daemon=True).start()
        except Exception as error:
            self._outbox.put(_sendable(error))

    def hello(self) -> Report:
        """Report whether the node is ready, or why it is not."""
        return self._report([] if self._room else [self._outbox.get()])

    def give(self, tasks: Sequence[Task], names: Mapping[str, Sequence[str]]) -> None:
        """Accept photos to convert, and answers to questions by the names of their tasks."""
        for name, answer in names.items():
            self._answers.pop(name).put(answer)
        for task in tasks:
            self._arrivals.put(task)

    def take(self) -> Report:
        """Report what there is, as soon as there is something."""
        items: list[Result | Question | H2AError] = []
        until = time.monotonic() + _PATIENCE
        with contextlib.suppress(queue.Empty):
            while not items or isinstance(items[-1], Result):  # a question or an error is urgent
                items.append(self._outbox.get(timeout=max(0.0, until - time.monotonic())))
                if len(items) == 1:
                    until = time.monotonic() + _GATHER
        return self._report(items)

    def _report(self, items: Sequence[Result | Question | H2AError]) -> Report:
        """Return a report of these items."""
        return Report(
            results=tuple(item for item in items if isinstance(item, Result)),
            questions=tuple(item for item in items if isinstance(item, Question)),
            room=self._room,
            error=next((item for item in items if isinstance(item, H2AError)), None),
        )

    def _work(self) -> None:
        """Run the pipeline, and put its results into the outbox."""
        try:
            for result in convert(self._tasks(), self._options, self._generator, self._workers, self._ask):
                self._outbox.put(result)
        except Exception as error:
            self._outbox.put(_sendable(error))

    def _tasks(self) -> Iterator[Task | None]:
        """Yield the photos that arrive, and None wherever there are none for a moment."""
        while True:
            try:
                yield self._arrivals.get(timeout=_MOMENT)
            except queue.Empty:
                yield None

    def _ask(self, task: Task, count: int) -> Sequence[str]:
        """Ask the driver for the names of a photo's faces and return them; a thread that encodes calls this."""
        answer = self._answers[task.name] = queue.SimpleQueue()
        self._outbox.put(Question(task, count))
        return answer.get()


def _sendable(error: Exception) -> H2AError:
    """Return an error as it can be sent to another process, without its causes."""
    if isinstance(error, H2AError):
        return error
    return H2AError(f"unexpected {type(error).__name__}: {one_line(error)}", "please report this")


def _check(brief: Brief) -> None:
    """Check that a node fits the driver, before it gets any photo.

    Raises:
        UsageError: it has another version, does not see OUT, or cannot write there.
    """
    if brief.version != __version__:
        raise UsageError(f"it has h2a-batch {__version__}, and not {brief.version}", "install the same everywhere")
    mark = brief.out / LEDGER_FOLDER / MARK
    until = time.monotonic() + _MARK_SECONDS
    while why := _differs(mark, brief.mark):
        if time.monotonic() > until:
            if at(brief.out).far:
                raise UsageError(f"{brief.out}: it cannot read there ({why})", "give its Ray the store's credentials")
            raise UsageError(f"{brief.out}: it sees no such folder, or another one", "mount OUT there by the same path")
        time.sleep(10 * _MOMENT)
    probe = brief.out / LEDGER_FOLDER / f"{MARK}{brief.writer}"
    try:
        at(probe).write(b"", brief.out)
        at(probe).remove()
    except (StorageError, PhotoError, OSError) as error:
        raise UsageError(str(getattr(error, "message", error)), "run Ray there as the user of this command") from error


def _differs(file: Address, text: str) -> str:
    """Return how a file's content differs from a text; an empty text where it does not."""
    try:
        with at(file).open() as stream:
            return "" if stream.read() == text.encode() else "something else is there"
    except OSError as error:
        return error.strerror or type(error).__name__


def _model(brief: Brief, files: Mapping[str, bytes]) -> Path:
    """Return the path of the model on this node: its own copy where it is the same, else one made of the driver's.

    Raises:
        ModelError: the copy cannot be written, or is not the model.
    """
    with contextlib.suppress(H2AError, OSError):
        own = find_model(brief.options.model)
        if all(own.with_name(name).read_bytes() == data for name, data in files.items()):
            return own
    folder = Path(tempfile.gettempdir()) / f"h2a-batch-{os.getuid()}" / brief.sha256[:16]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.parent.stat().st_uid != os.getuid():
            raise ModelError(f"{folder.parent}: it belongs to another user", "remove it")
        for name, data in files.items():
            _place(folder / name, data)
    except OSError as error:
        raise ModelError(f"{folder}: the model cannot be kept there ({error.strerror})", "free space there") from error
    model = next(folder / name for name in files if name.endswith(".mindir"))
    if sha256_of(model) != brief.sha256:
        raise ModelError(f"{model}: its sha256 is not that of the model", "remove it")
    return model


def _place(path: Path, data: bytes) -> None:
    """Write a file unless it holds these bytes already; several nodes of one machine may do so at once."""
    if path.exists() and path.read_bytes() == data:
        return
    number, temporary = tempfile.mkstemp(dir=path.parent)
    with open(number, "wb") as file:
        file.write(data)
    os.replace(temporary, path)
