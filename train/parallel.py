"""Data parallel training by MindSpore's own launcher `msrun`: every worker its pictures, one mean of the gradients.

All workers start from the same weights and take the same mean gradient, so they stay equal; each has its own pool of
generated images. Everything that a run decides (to stop, that it has collapsed) is decided on means, so that no worker
waits for one that has left.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops
from mindspore.communication import get_group_size, get_rank, init
from numpy.typing import NDArray

from train.errors import TrainError

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Workers:
    """This worker's place among all."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this worker writes what the run leaves."""
        return self.rank == 0

    def mean(self, values: Sequence[float]) -> list[float]:
        """Of each value over all workers."""
        if self.size == 1:
            return list(values)
        summed = ops.AllReduce()(Tensor(np.array(values, np.float32))).asnumpy()
        return [float(value) / self.size for value in summed]

    def gather(self, array: Array) -> Array:
        """(size, *shape): the arrays of all workers, which have one shape."""
        if self.size == 1 or not array.size:
            return np.repeat(array[None], self.size, 0)
        gathered: Array = ops.AllGather()(Tensor(array[None])).asnumpy()
        return gathered

    def reducer(self, parameters: ParameterTuple) -> nn.Cell | None:
        """What averages the gradients of the parameters in a graph; None where there is nothing to average."""
        return nn.DistributedGradReducer(parameters, mean=True, degree=self.size) if self.size > 1 else None


ALONE = Workers()


def join_workers() -> Workers:
    """The place that `msrun` gave this process, once MindSpore's device is set; alone if started otherwise."""
    if os.environ.get("MS_ROLE") not in ("MS_WORKER", "MS_SCHED"):
        return ALONE
    # The scheduler, which msrun starts as it starts the workers, stays in init() until they are done, and ends there.
    try:
        init()
    except (RuntimeError, ValueError) as error:
        raise TrainError(f"this worker could not join the others: {str(error).splitlines()[0]}") from error
    return Workers(get_rank(), get_group_size())
