"""What ends a run before its last step: losses that are no numbers, generators that have collapsed, and signals."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train.errors import TrainError

Array = NDArray[np.float32]

CONSTANT = 0.01  # standard deviation of a picture in [-1, 1] below which it shows nothing
CERTAIN = 1e-5  # loss of the discriminators below which the generators learn nothing


class Watch:
    """Stops a run that cannot come back: a loss that is not a number, or generators that have collapsed."""

    def __init__(self, patience: int, discriminators: Sequence[str]) -> None:
        self.patience, self.discriminators = patience, discriminators
        self.constant = self.certain = 0

    def check(self, step: int, losses: dict[str, float], flat: bool) -> None:
        broken = [name for name, value in losses.items() if not math.isfinite(value)]
        if broken:
            raise TrainError(f"step {step}: the loss {broken[0]} is not a number; the last checkpoint is kept")
        self.constant = self.constant + 1 if flat else 0
        scores = [losses[name] for name in self.discriminators if name in losses]
        self.certain = self.certain + 1 if scores and sum(scores) < CERTAIN else 0
        kept = f"for {self.patience} steps, up to step {step}; the last checkpoint is kept"
        if self.constant >= self.patience:
            raise TrainError(f"a generator has collapsed: its pictures are of one colour {kept}")
        if self.certain >= self.patience:
            raise TrainError(f"the discriminators have won: they are certain of every picture {kept}")


def is_flat(made: Sequence[Array]) -> bool:
    """Whether a generated picture is of one colour; `made`: batches of (N, 3, H, W) in [-1, 1]."""
    return min(float(np.std(picture)) for pictures in made for picture in pictures) < CONSTANT


@contextmanager
def interruption() -> Iterator[list[int]]:
    """A list that SIGINT or SIGTERM makes true; a second one ends the process as usual."""
    received: list[int] = []
    previous: dict[int, Any] = {}  # a handler, a constant, or None where C set it

    def receive(number: int, frame: FrameType | None) -> None:
        received.append(number)
        signal.signal(number, previous[number])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, receive)
    except ValueError:  # not in the main thread: nothing to catch
        pass
    try:
        yield received
    finally:
        for caught, handler in previous.items():
            signal.signal(caught, handler)
