"""The crew of a run on a Ray cluster: a `Node` on each machine, and the photos that they have or are to get."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from h2a_batch.card import identify
from h2a_batch.errors import ClusterError, PhotoError, RuntimeMissingError, StorageError
from h2a_batch.events import Event
from h2a_batch.generator import one_line
from h2a_batch.node import Brief, Node, Question, Report
from h2a_batch.options import Options
from h2a_batch.pipeline import NameFaces, Result
from h2a_batch.records import Task
from h2a_batch.store import Place

_MUSTER = 1.0  # seconds between two looks at the cluster's nodes
_ANSWER = 5.0  # seconds in which a cluster has to answer
_GONE = 15.0  # seconds without the cluster's head, or without any node, after which the run ends
_LONG = 60.0  # seconds without a node that is ready, after which that is told
_DEATHS = 3  # of nodes that had a photo, before it fails; of a node without a result, before it is left alone
_BLIND = ("vanished", "unreadable")  # what a node says of photos that it does not see


@dataclass(eq=False)
class Member:
    """A node that works for this run: its actor, the call that is under way, and the photos that it has."""

    node: str
    address: str
    actor: Any
    call: Any
    room: int = 0
    given: dict[str, Task] = field(default_factory=dict)


class Crew:
    """The nodes of the cluster, one actor each, and the photos that no node has yet."""

    def __init__(self, options: Options, model: Path, out: Place, mark: str, tell: Callable[[Event], None]) -> None:
        self.options, self.out, self.mark, self.tell = options, out, mark, tell
        self.ray = load_ray()
        self.sha256 = identify(model)[0]
        files = [path for path in (model, model.with_suffix(".json")) if path.is_file()]
        self.model = self.ray.put({path.name: path.read_bytes() for path in files})
        self.queue: deque[Task] = deque()
        self.suspects: deque[Task] = deque()  # photos that two nodes died with: each is tried alone
        self.lost: deque[Task] = deque()  # photos that are given up
        self.members: list[Member] = []
        self.refused: dict[str, str] = {}
        self.deaths: Counter[str] = Counter()  # by node, without a result since
        self.losses: Counter[str] = Counter()  # by photo
        self.manned = self.answered = time.monotonic()
        self.mustered, self.told = 0.0, False

    def close(self) -> None:
        """Let all nodes go; what they still have is dropped."""
        for member in self.members:
            self._dismiss(member)

    def muster(self) -> None:
        """Put every node of the cluster that has none to work.

        Raises:
            ClusterError: there is none, and none will come.
        """
        if time.monotonic() < self.mustered + _MUSTER:
            return
        self.mustered = time.monotonic()
        if not self._answers():
            return
        nodes = {node["NodeID"]: node for node in self.ray.nodes() if node["Alive"]}
        able = {node for node, facts in nodes.items() if facts["Resources"].get("CPU", 0) >= 1}
        for node in able - {member.node for member in self.members} - set(self.refused):
            self.members.append(self._member(nodes[node]))
        if any(member.room for member in self.members):
            self.manned, self.told = self.mustered, False
        if able <= set(self.refused) and (able or self.mustered > self.manned + _GONE):
            why = next(iter(self.refused.values()), "it has no node with a CPU")
            raise ClusterError(f"no node of the Ray cluster can do the work: {why}")
        if self.mustered > self.manned + _LONG and not self.told:
            self.told = True
            message = "no node of the Ray cluster is ready: other work may have its CPUs; waiting"
            self.tell(Event("waiting", self.out, message=message))

    def _answers(self) -> bool:
        """Whether the cluster's head is there; without it Ray ends this process after a minute.

        Raises:
            ClusterError: it has not been for a while.
        """
        head = self.ray.get_runtime_context().gcs_address
        try:
            reach(head)
        except OSError as error:
            if self.mustered > self.answered + _GONE:
                raise ClusterError(f"{head}: the Ray cluster went away", "run again when it is back") from error
            return False
        self.answered = self.mustered
        return True

    def has_room(self) -> bool:
        """Whether more photos can be handed out than there are."""
        return sum(member.room - len(member.given) for member in self.members) > len(self.queue) + len(self.suspects)

    def busy(self) -> bool:
        """Whether a node has a photo."""
        return any(member.given for member in self.members)

    def hand_out(self) -> None:
        """Give the photos to the nodes that have most room."""
        ready = [member for member in self.members if member.room]
        ready = [member for member in ready if not any(self.losses[name] > 1 for name in member.given)]
        parcels: dict[Member, list[Task]] = {}
        if self.suspects and ready:
            alone = min(ready, key=lambda member: len(member.given))
            ready.remove(alone)
            if not alone.given:
                parcels[alone] = [self.suspects.popleft()]
        while self.queue and ready:
            member = min(ready, key=lambda member: (len(member.given) + len(parcels.get(member, ()))) / member.room)
            parcel = parcels.setdefault(member, [])
            if len(member.given) + len(parcel) >= member.room:
                break
            parcel.append(self.queue.popleft())
        for member, parcel in parcels.items():
            member.given |= {task.name: task for task in parcel}
            member.actor.give.remote(parcel, {})
            member.call = member.call or member.actor.take.remote()

    def reports(self, patience: float) -> Iterator[tuple[Member, Report]]:
        """What nodes have to say by now, or after at most so many seconds."""
        calls = {member.call: member for member in self.members if member.call is not None}
        if not calls:
            time.sleep(patience)
            return
        self.ray.wait(list(calls), timeout=patience)
        for call in self.ray.wait(list(calls), num_returns=len(calls), timeout=0)[0]:
            member = calls[call]
            if member not in self.members:
                continue
            try:
                report: Report = self.ray.get(call)
            except Exception as error:  # Ray has a dozen kinds, for actors, nodes and networks
                self._lose(member, error)
                continue
            member.call = None
            member.room = report.room
            yield member, report

    def heard(self, member: Member, report: Report, name_faces: NameFaces) -> list[Result]:
        """Answer a node's report, ask for the next, and return its results.

        Raises:
            StorageError: the node, or the ledger, could not write to OUT.
        """
        if isinstance(report.error, StorageError):
            raise report.error
        results = [result for result in report.results if result.task.name in member.given]
        blind = next((result.task.source.path for result in results if _is_blind(result)), None)
        if report.error or blind:
            self._refuse(member, str(report.error or f"it does not see {blind}; mount IN there by the same path"))
            return []
        if names := {question.task.name: _names(member, question, name_faces) for question in report.questions}:
            member.actor.give.remote([], names)
        done = [replace(result, task=member.given.pop(result.task.name)) for result in results]
        for result in done:
            self.losses.pop(result.task.name, None)
            self.deaths[member.node] = 0
        if member.given:
            member.call = member.actor.take.remote()
        return done

    def hopeless(self) -> Iterator[Result]:
        """Photos that too many nodes died with, as failures."""
        while self.lost:
            message = f"the process that converted it ended {_DEATHS} times"
            yield Result(self.lost.popleft(), 0.0, error=PhotoError("internal", message, "convert it without --ray"))

    def _member(self, facts: dict[str, Any]) -> Member:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node, cores = facts["NodeID"], int(facts["Resources"]["CPU"])
        actor = self.ray.remote(Node).options(
            num_cpus=min(cores, self.options.workers.generator or cores),
            max_concurrency=4,  # `give` and `hello` go on while `take` waits
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        made = actor.remote(Brief(self.options, cores, self.sha256, self.out, self.mark), self.model)
        return Member(node, facts["NodeManagerAddress"], made, made.hello.remote())

    def _lose(self, member: Member, error: Exception) -> None:
        """A node is gone, or its process; what it had is given to others."""
        self._dismiss(member)
        self.deaths[member.node] += 1
        tasks, member.given = list(member.given.values()), {}
        for task in tasks:
            self.losses[task.name] += 1
            deaths = self.losses[task.name]
            (self.lost if deaths == _DEATHS else self.suspects if deaths > 1 else self.queue).append(task)
        if self.lost:  # it was the photo, and not the node
            self.deaths[member.node] = 0
        if getattr(error, "actor_init_failed", False):
            self._refuse(member, _reason(error))
        elif self.deaths[member.node] == _DEATHS:
            self._refuse(member, f"its process ended {_DEATHS} times; Ray's log there may say why")
        elif member.room:
            having = f"; the {len(tasks)} photos that it had are given to others" if tasks else ""
            self.tell(Event("lost", Path(member.address), message=f"a node of the Ray cluster was lost{having}"))

    def _refuse(self, member: Member, why: str) -> None:
        """Leave a node alone for the rest of the run; what it had is given to others."""
        self._dismiss(member)
        self.refused[member.node] = f"{member.address}: {why}"
        self.tell(Event("refused", Path(member.address), message=f"this node of the Ray cluster is not used: {why}"))
        self.queue.extendleft(member.given.values())
        member.given = {}

    def _dismiss(self, member: Member) -> None:
        self.members = [other for other in self.members if other is not member]
        with contextlib.suppress(Exception):  # it may be gone already
            self.ray.kill(member.actor)


def _names(member: Member, question: Question, name_faces: NameFaces) -> Sequence[str]:
    return name_faces(member.given[question.task.name], question.count)


def _is_blind(result: Result) -> bool:
    """Whether a node says of a photo that it cannot be read, and the driver can."""
    if not isinstance(result.error, PhotoError) or result.error.kind not in _BLIND:
        return False
    source = result.task.source
    if not isinstance(source.path, Path):  # in an object store there is nothing to mount
        return False
    try:
        with open(source.path, "rb") as file:
            status = os.fstat(file.fileno())
            return (status.st_size, status.st_mtime_ns) == (source.size, source.mtime_ns) and bool(file.read(1))
    except OSError:
        return False


def _reason(error: Exception) -> str:
    """Why an actor could not be made, in one line."""
    if "No module named 'h2a_batch" in str(error):
        return "h2a-batch is not installed for its Python"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return one_line(Exception(lines[-1] if lines else type(error).__name__))


def load_ray() -> Any:
    """The package.

    Raises:
        RuntimeMissingError: it is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise RuntimeMissingError("--ray needs the package ray", "pip install 'h2a-batch[ray]'") from error
    return ray


def reach(address: str) -> None:
    """Make sure that something answers at HOST:PORT.

    Raises:
        OSError, ValueError, OverflowError: nothing does, or it is no address.
    """
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), _ANSWER).close()
