"""The driver of a run on a Ray cluster: its `convert` does what the one of `pipeline` does, by the nodes of a `Crew`.

The driver alone looks for photos, names outputs and keeps the ledger. It gives each node so many photos that the node
always has some at hand, and more as results come back. The photos of a node that is lost go to other nodes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Generator as Yields
from pathlib import Path
from typing import Any

from h2a_batch.convert.cluster.crew import Crew, Naming, load_ray, reach
from h2a_batch.convert.cluster.node import MARK
from h2a_batch.convert.pipeline import Result
from h2a_batch.errors import UsageError
from h2a_batch.events import Event
from h2a_batch.inference import one_line
from h2a_batch.ledger import LEDGER_FOLDER, Task
from h2a_batch.options import Options
from h2a_batch.places import Address, at

_MOMENT = 0.1  # seconds for which the driver looks for photos before it looks for results


@contextlib.contextmanager
def joined(address: str) -> Iterator[None]:
    """Join a Ray cluster for a while; use the caller's connection, and keep it, where there is one.

    Args:
        address: HOST:PORT of the cluster's head, or ``auto`` for the cluster of this machine.

    Raises:
        RuntimeMissingError: Ray is not installed.
        UsageError: there is no such cluster, or it cannot be joined.
    """
    ray = load_ray()
    if ray.is_initialized():
        yield
        return
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    _check_address(address)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except SystemExit as error:  # Ray turns SIGTERM into this
        raise KeyboardInterrupt from error
    except Exception as error:
        if address == "auto" and isinstance(error, ConnectionError):
            raise UsageError(
                "--ray: no Ray cluster runs on this machine", "start one with: ray start --head, or give HOST:PORT"
            ) from error
        raise UsageError(
            f"--ray {address}: {one_line(error)}", "run this on a machine of the cluster: ray start --address HOST:PORT"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
    with _silent(ray):
        try:
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _silent(ray: Any) -> Iterator[None]:
    """Keep Ray's messages about its processes off standard output; Ray may rename this function without notice."""
    worker = getattr(getattr(ray, "_private", None), "worker", None)
    name = "print_to_stdstream"
    printing = getattr(worker, name, None)
    if printing is None:
        yield
        return
    setattr(worker, name, lambda *lines, **how: None)
    try:
        yield
    finally:
        setattr(worker, name, printing)


def convert(
    tasks: Iterable[Task | None],
    options: Options,
    model: Path,
    out: Address,
    naming: Naming,
    tell: Callable[[Event], None],
    stop: threading.Event,
) -> Yields[Result, None, None]:
    """Convert photos on the cluster that was `joined`, and yield a result for each as it is done.

    Args:
        tasks: pulled one by one as nodes have room; None says that there is nothing for now.
        options: the options of the run.
        model: the model's file.
        out: OUT.
        naming: gives the faces of a photo their names in OUT; called in this thread.
        tell: called in this thread with changes of the nodes' state.
        stop: when set, the driver drops the photos that no node has yet.

    Raises:
        StorageError: the output volume is full or gone. Photos on their way are dropped.
        ClusterError: the cluster went away, or none of its nodes can work.
    """
    waiting = iter(tasks)
    exhausted = False
    with _marked(out) as mark, contextlib.closing(Crew(options, model, out, mark, tell)) as crew:
        while True:
            crew.recruit()
            paused = exhausted
            until = time.monotonic() + _MOMENT
            while not paused and crew.has_room() and time.monotonic() < until:
                task = next(waiting, _END)
                exhausted = task is _END
                paused = exhausted or task is None
                if isinstance(task, Task):
                    crew.queue.append(task)
            if not stop.is_set():
                crew.hand_out()
            if not crew.busy() and (stop.is_set() or (exhausted and not crew.queue and not crew.suspects)):
                return
            for member, report in crew.reports(0.0 if not exhausted and crew.has_room() else 2 * _MOMENT):
                yield from crew.take_report(member, report)
            crew.answer(naming)
            yield from crew.give_up()


_END = object()


@contextlib.contextmanager
def _marked(out: Address) -> Iterator[str]:
    """Keep a mark in OUT while the cluster works: its nodes see by it that they have the same folder."""
    mark = uuid.uuid4().hex
    file = out / LEDGER_FOLDER / MARK
    at(file).write(mark.encode(), out)
    try:
        yield mark
    finally:
        with contextlib.suppress(OSError):
            at(file).remove()


def _check_address(address: str) -> None:
    """Check that something answers at an address, since Ray itself would try for minutes.

    Raises:
        UsageError: nothing answers, or the address belongs to Ray's client mode.
    """
    if address == "auto":
        return
    if "://" in address:
        raise UsageError(
            f"--ray {address}: Ray's client mode does not do", "give HOST:PORT, on a machine of the cluster"
        )
    try:
        reach(address)
    except (OSError, ValueError, OverflowError) as error:
        raise UsageError(
            f"--ray {address}: no Ray cluster answers there ({error})", "start one with: ray start --head"
        ) from error
