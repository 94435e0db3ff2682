"""A machine of a cluster: the pipeline of `pipeline`, given photos and emptied of results by calls from elsewhere.

Nothing here knows Ray: `cluster` makes a `Node` an actor, and is the only one to call it.
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

MARK = "cluster"  # a file in OUT's folder of the ledger, by which a node knows that it sees the same OUT
_AHEAD = 2  # photos that a node has at hand, as a multiple of what its pipeline has on its way
_MOMENT = 0.05  # seconds
_GATHER = 0.1  # seconds for which results are gathered, so that the driver need not ask for each
_PATIENCE = 1.0  # seconds after which a call returns with nothing
_MARK_SECONDS = 5.0  # a network share may show a new file late


@dataclass(frozen=True)
class Brief:
    """What a node is told at its start.

    Args:
        options: of the run.
        cores: how many of the machine's cores the cluster may use.
        sha256: the model's.
        out: the output folder, by the same path on every node.
        mark: what its file MARK holds.
        writer: what its temporary files are told by: a node that is cut off may go on writing what is given to others.
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
    """Which names the faces of a photo get: only the driver has the ledger."""

    task: Task
    count: int


@dataclass(frozen=True)
class Report:
    """What a node has to say: results and questions; ``room`` for so many photos at once; why it cannot go on."""

    results: tuple[Result, ...] = ()
    questions: tuple[Question, ...] = ()
    room: int = 0
    error: H2AError | None = None


class Node:
    """A node at work. No method raises: what goes wrong is in the next report.

    Args:
        brief: what to do.
        model: the model's file and its card by their names, for a node that does not have them.
    """

    def __init__(self, brief: Brief, model: Mapping[str, bytes]) -> None:
        self._arrivals: queue.Queue[Task] = queue.Queue()
        self._outbox: queue.Queue[Result | Question | H2AError] = queue.Queue()
        self._answers: dict[str, queue.SimpleQueue[Sequence[str]]] = {}
        self._options, self._room = brief.options, 0
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
            self._outbox.put(_told(error))

    def hello(self) -> Report:
        """Whether the node is ready."""
        return self._report([] if self._room else [self._outbox.get()])

    def give(self, tasks: Sequence[Task], names: Mapping[str, Sequence[str]]) -> None:
        """Take photos to convert, and answers to questions, by the names of their tasks."""
        for name, answer in names.items():
            self._answers.pop(name).put(answer)
        for task in tasks:
            self._arrivals.put(task)

    def take(self) -> Report:
        """What there is to say, as soon as there is something."""
        items: list[Result | Question | H2AError] = []
        until = time.monotonic() + _PATIENCE
        with contextlib.suppress(queue.Empty):
            while not items or isinstance(items[-1], Result):  # the others wait for an answer
                items.append(self._outbox.get(timeout=max(0.0, until - time.monotonic())))
                if len(items) == 1:
                    until = time.monotonic() + _GATHER
        return self._report(items)

    def _report(self, items: Sequence[Result | Question | H2AError]) -> Report:
        return Report(
            results=tuple(item for item in items if isinstance(item, Result)),
            questions=tuple(item for item in items if isinstance(item, Question)),
            room=self._room,
            error=next((item for item in items if isinstance(item, H2AError)), None),
        )

    def _work(self) -> None:
        try:
            for result in convert(self._tasks(), self._options, self._generator, self._workers, self._ask):
                self._outbox.put(result)
        except Exception as error:
            self._outbox.put(_told(error))

    def _tasks(self) -> Iterator[Task | None]:
        while True:
            try:
                yield self._arrivals.get(timeout=_MOMENT)
            except queue.Empty:
                yield None

    def _ask(self, task: Task, count: int) -> Sequence[str]:
        """The names of a photo's faces, from the driver; called by a thread that encodes."""
        answer = self._answers[task.name] = queue.SimpleQueue()
        self._outbox.put(Question(task, count))
        return answer.get()


def _told(error: Exception) -> H2AError:
    """An error as it can be sent, without what led to it."""
    if isinstance(error, H2AError):
        return error
    return H2AError(f"unexpected {type(error).__name__}: {one_line(error)}", "please report this")


def _check(brief: Brief) -> None:
    """Make sure that a node fits the driver, before it is given any photo."""
    if brief.version != __version__:
        raise UsageError(f"it has h2a-batch {__version__}, and not {brief.version}", "install the same everywhere")
    mark, until = brief.out / LEDGER_FOLDER / MARK, time.monotonic() + _MARK_SECONDS
    while why := _differs(mark, brief.mark):
        if time.monotonic() > until:
            if at(brief.out).far:
                raise UsageError(f"{brief.out}: it cannot read there ({why})", "give its Ray the store's credentials")
            raise UsageError(f"{brief.out}: it sees no such folder, or another one", "mount OUT there by the same path")
        time.sleep(10 * _MOMENT)
    probe = brief.out / LEDGER_FOLDER / f"{MARK}{brief.writer}"
    try:
        at(probe).write(b"")
        at(probe).remove()
    except (StorageError, PhotoError, OSError) as error:
        raise UsageError(str(getattr(error, "message", error)), "run Ray there as the user of this command") from error


def _differs(file: Address, text: str) -> str:
    """Why a file does not hold this; nothing where it does."""
    try:
        with at(file).open() as stream:
            return "" if stream.read() == text.encode() else "something else is there"
    except OSError as error:
        return error.strerror or type(error).__name__


def _model(brief: Brief, files: Mapping[str, bytes]) -> Path:
    """The model's file on this node: its own where it is the same, else a copy of the driver's that is kept.

    Raises:
        ModelError: there is no place for a copy.
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
    """Have a file hold this; several nodes of one machine may do so at once."""
    if path.exists() and path.read_bytes() == data:
        return
    number, temporary = tempfile.mkstemp(dir=path.parent)
    with open(number, "wb") as file:
        file.write(data)
    os.replace(temporary, path)
