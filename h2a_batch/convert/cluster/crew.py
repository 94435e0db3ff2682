"""The crew of a run on a Ray cluster: a `Node` on each machine, and the photos that they have or will get."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from h2a_batch.convert.cluster.node import Brief, Node, Question, Report
from h2a_batch.convert.pipeline import NameFaces, Result
from h2a_batch.errors import ClusterError, H2AError, PhotoError, RuntimeMissingError, StorageError
from h2a_batch.events import Event
from h2a_batch.inference import identify, one_line
from h2a_batch.ledger import LEDGER_FOLDER, Task
from h2a_batch.options import Options
from h2a_batch.places import Address, Place, at

_MUSTER = 1.0  # seconds between two looks at the cluster's nodes
_ANSWER = 5.0  # seconds in which the cluster's head has to answer
_GONE = 15.0  # seconds without the head, or without any node, after which the run ends
_LONG = 60.0  # seconds without a ready node, after which the crew reports that it waits
_DEATHS = 3  # of nodes with one photo, before the photo fails; of one node without a result, before it is refused
_PROBE_BYTES = 1 << 18  # a test of whether OUT can be written; larger than most outputs
_BLIND = ("vanished", "unreadable")  # the kinds of failure that a node reports for photos that it does not see


@dataclass(frozen=True)
class Naming:
    """How the faces of photos get their names in OUT.

    Args:
        names: claims the names of one photo's faces.
        commit: makes the names of several photos durable at once.
    """

    names: NameFaces
    commit: Callable[[], None]


@dataclass(eq=False)
class Member:
    """A node that works for this run.

    Args:
        node: its identity in Ray.
        address: its address, for messages.
        actor: its `Node`, as an actor of Ray.
        call: the call that is under way; None where there is none.
        writer: marks its temporary files.
        room: how many photos it takes at once; 0 until it is ready.
        sees: whether it has read a photo yet.
        given: the photos that it has, by the names of their tasks.
    """

    node: str
    address: str
    actor: Any
    call: Any
    writer: str
    room: int = 0
    sees: bool = False
    given: dict[str, Task] = field(default_factory=dict)


class Lookout:
    """A thread that asks the cluster's head once a second for its nodes.

    A call to a head that has just gone takes a minute, after which Ray ends this process.

    Attributes:
        head: its address.
        seen: when it last answered, in seconds of the monotonic clock, and its nodes as Ray describes them.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._ended = threading.Event()
        self.head = str(ray.get_runtime_context().gcs_address)
        self.seen: tuple[float, list[dict[str, Any]]] = (time.monotonic(), ray.nodes())
        self._thread = threading.Thread(target=self._look, name="nodes", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop asking."""
        self._ended.set()
        self._thread.join(_MUSTER)

    def _look(self) -> None:
        while not self._ended.wait(_MUSTER):
            with contextlib.suppress(Exception):  # any error means that there is no answer
                reach(self.head)
                if not self._ended.is_set():
                    self.seen = time.monotonic(), self._ray.nodes()


class Crew:
    """The nodes of the cluster, one actor each, and the photos that no node has yet."""

    def __init__(self, options: Options, model: Path, out: Address, mark: str, tell: Callable[[Event], None]) -> None:
        self.options, self.out, self.mark, self.tell = options, out, mark, tell
        self.ray = load_ray()
        self.sha256 = identify(model)[0]
        files = [path for path in (model, model.with_suffix(".json")) if path.is_file()]
        self.model = self.ray.put({path.name: path.read_bytes() for path in files})
        self.queue: deque[Task] = deque()
        self.suspects: deque[Task] = deque()  # two nodes died with each of these photos: each is tried alone
        self.lost: deque[Task] = deque()  # the crew gives these photos up
        self.members: list[Member] = []
        self.asked: list[tuple[Member, Question]] = []
        self.refused: dict[str, str] = {}
        self.deaths: Counter[str] = Counter()  # by node, since its last result
        self.losses: Counter[str] = Counter()  # by photo
        self.begun: dict[str, list[str]] = {}  # by photo, the writers of lost nodes that had it
        self.lookout = Lookout(self.ray)
        self.staffed = time.monotonic()
        self.recruited = 0.0
        self.warned = False

    def close(self) -> None:
        """Dismiss all nodes; drop the photos that they still have."""
        self.lookout.close()
        for member in self.members:
            self._dismiss(member)

    def recruit(self) -> None:
        """Put every node of the cluster to work that does not work yet.

        Raises:
            ClusterError: there is no node, and none will come; or the cluster went away.
        """
        seen, found = self.lookout.seen
        if seen == self.recruited:
            if time.monotonic() > seen + _GONE:
                raise ClusterError(f"{self.lookout.head}: the Ray cluster went away", "run again when it is back")
            return
        self.recruited = seen
        nodes = {node["NodeID"]: node for node in found if node["Alive"]}
        able = {node for node, facts in nodes.items() if facts["Resources"].get("CPU", 0) >= 1}
        for node in able - {member.node for member in self.members} - set(self.refused):
            self.members.append(self._member(nodes[node]))
        if any(member.room for member in self.members):
            self.staffed, self.warned = self.recruited, False
        if able <= set(self.refused) and (able or self.recruited > self.staffed + _GONE):
            why = next(iter(self.refused.values()), "it has no node with a CPU")
            raise ClusterError(f"no node of the Ray cluster can do the work: {why}")
        if self.recruited > self.staffed + _LONG and not self.warned:
            self.warned = True
            message = "no node of the Ray cluster is ready: other work may have its CPUs; waiting"
            self.tell(Event("waiting", self.out, message=message))

    def has_room(self) -> bool:
        """Tell whether the nodes have room for more photos than the queue holds."""
        return sum(member.room - len(member.given) for member in self.members) > len(self.queue) + len(self.suspects)

    def busy(self) -> bool:
        """Tell whether a node has a photo."""
        return any(member.given for member in self.members)

    def hand_out(self) -> None:
        """Give the photos of the queue to the nodes that have most room."""
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
        """Yield what nodes report by now, or within `patience` seconds."""
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
            except Exception as error:  # Ray raises a dozen kinds, for actors, nodes and networks
                self._lose(member, error)
                continue
            member.call = None
            member.room = report.room
            yield member, report

    def take_report(self, member: Member, report: Report) -> list[Result]:
        """Take in a node's report, ask for the next one, and return its results.

        Raises:
            StorageError: neither the node nor the driver can write to OUT.
        """
        results = {result.task.name: result for result in report.results if result.task.name in member.given}
        if why := self._unfit(member, report.error, results.values()):
            self._refuse(member, why)
            return []
        self.asked += [(member, question) for question in report.questions]
        done = [replace(result, task=member.given.pop(name)) for name, result in results.items()]
        for result in done:
            self.losses.pop(result.task.name, None)
            self.deaths[member.node] = 0
            member.sees = member.sees or bool(result.sha256)
            self._sweep(result)
        if member.given:
            member.call = member.actor.take.remote()
        return done

    def answer(self, naming: Naming) -> None:
        """Answer the nodes' questions so far, all with one commit: a disk manages few commits a second.

        Raises:
            StorageError: the ledger cannot be written.
        """
        asked = [(member, question) for member, question in self.asked if question.task.name in member.given]
        self.asked.clear()
        names: dict[Member, dict[str, Sequence[str]]] = {}
        for member, question in asked:
            task = member.given[question.task.name]
            names.setdefault(member, {})[task.name] = naming.names(task, question.count)
        if names:
            naming.commit()
        for member, answers in names.items():
            member.actor.give.remote([], answers)

    def give_up(self) -> Iterator[Result]:
        """Yield a failure for each photo with which too many nodes died."""
        while self.lost:
            message = f"the process that converted it ended {_DEATHS} times"
            error = PhotoError("internal", message, "convert it without --ray")
            result = Result(self.lost.popleft(), 0.0, error=error)
            self._sweep(result)
            yield result

    def _unfit(self, member: Member, error: H2AError | None, results: Iterable[Result]) -> str:
        """Return why the crew cannot use a node any more; an empty text where it can.

        Raises:
            StorageError: neither the node nor the driver can write to OUT.
        """
        if isinstance(error, StorageError) and not self._can_write():
            raise error
        if error:
            return error.message if isinstance(error, StorageError) else str(error)  # others go on without it
        if self.options.watch and member.sees:  # a share may show a new photo late: the watch tries it again
            return ""
        blind = next((result.task.source.path for result in results if _is_blind(result)), None)
        return f"it does not see {blind}; mount IN there by the same path" if blind else ""

    def _can_write(self) -> bool:
        """Tell whether this machine can write to OUT."""
        probe = self.out / LEDGER_FOLDER / "probe"
        try:
            at(probe).write(bytes(_PROBE_BYTES), self.out)
            at(probe).remove()
        except (H2AError, OSError):
            return False
        return True

    def _sweep(self, result: Result) -> None:
        """Remove the unfinished outputs of a photo that lost nodes may have left."""
        for writer in self.begun.pop(result.task.name, ()):
            for name in {result.task.name, *(output.name for output in result.outputs)}:
                at(self.out / name).remove_unfinished(writer, self.out)

    def _member(self, facts: dict[str, Any]) -> Member:
        """Start a node on a machine of the cluster; `facts` are Ray's description of the machine."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        node = facts["NodeID"]
        cores = int(facts["Resources"]["CPU"])
        actor = self.ray.remote(Node).options(
            num_cpus=min(cores, self.options.workers.generator or cores),
            max_concurrency=4,  # `give` and `hello` go on while `take` waits
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        writer = f"-{uuid.uuid4().hex[:8]}"
        made = actor.remote(Brief(self.options, cores, self.sha256, self.out, self.mark, writer), self.model)
        return Member(node, facts["NodeManagerAddress"], made, made.hello.remote(), writer)

    def _lose(self, member: Member, error: Exception) -> None:
        """Count a node as lost, or its process; give its photos to others."""
        self._dismiss(member)
        self.deaths[member.node] += 1
        tasks = self._taken_back(member)
        for task in tasks:
            self.losses[task.name] += 1
            deaths = self.losses[task.name]
            (self.lost if deaths == _DEATHS else self.suspects if deaths > 1 else self.queue).append(task)
        if self.lost:  # the photo is to blame, not the node
            self.deaths[member.node] = 0
        if getattr(error, "actor_init_failed", False):
            self._refuse(member, _reason(error))
        elif self.deaths[member.node] == _DEATHS:
            self._refuse(member, f"its process ended {_DEATHS} times; Ray's log there may say why")
        elif member.room:
            having = f"; the {len(tasks)} photos that it had are given to others" if tasks else ""
            self.tell(Event("lost", Path(member.address), message=f"a node of the Ray cluster was lost{having}"))

    def _refuse(self, member: Member, why: str) -> None:
        """Leave a node alone for the rest of the run; give its photos to others."""
        self._dismiss(member)
        self.refused[member.node] = f"{member.address}: {why}"
        self.tell(Event("refused", Path(member.address), message=f"this node of the Ray cluster is not used: {why}"))
        self.queue.extendleft(self._taken_back(member))

    def _taken_back(self, member: Member) -> list[Task]:
        """Take all photos from a node, and return them."""
        tasks = list(member.given.values())
        member.given = {}
        for task in tasks:
            self.begun.setdefault(task.name, []).append(member.writer)
        return tasks

    def _dismiss(self, member: Member) -> None:
        """End a node's actor, and strike the node from the members."""
        self.members = [other for other in self.members if other is not member]
        with contextlib.suppress(Exception):  # it may be gone already
            self.ray.kill(member.actor)


def _is_blind(result: Result) -> bool:
    """Tell whether a node cannot read a photo that the driver can read."""
    if not isinstance(result.error, PhotoError) or result.error.kind not in _BLIND:
        return False
    source = result.task.source
    place = at(result.task.source.path)
    if place.far:  # in an object store there is nothing to mount
        return False
    try:
        found = place.stat()
        return found is not None and (found.size, found.changed) == (source.size, source.mtime_ns) and _is_read(place)
    except OSError:
        return False


def _is_read(place: Place) -> bool:
    """Tell whether this machine can read a file."""
    with place.open() as file:
        return bool(file.read(1))


def _reason(error: Exception) -> str:
    """Return, in one line, why an actor could not be made."""
    if "No module named 'h2a_batch" in str(error):
        return "h2a-batch is not installed for its Python, or an older one is"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return one_line(Exception(lines[-1] if lines else type(error).__name__))


def load_ray() -> Any:
    """Return the package ray.

    Raises:
        RuntimeMissingError: Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise RuntimeMissingError("--ray needs the package ray", "pip install 'h2a-batch[ray]'") from error
    return ray


def reach(address: str) -> None:
    """Check that something answers at HOST:PORT.

    Raises:
        OSError: nothing answers.
        ValueError, OverflowError: this is no address.
    """
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), _ANSWER).close()
