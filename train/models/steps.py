"""What every model's step is made of: named networks, compiled graphs, moving averages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import mindspore as ms
from mindspore import ParameterTuple, Tensor, nn, ops

from train.config import Config
from train.errors import TrainError
from train.networks import build_generator, total_stride
from train.parallel import ALONE, Workers

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Tensors = tuple[Tensor, ...]
Compiled = Callable[..., Tensors]
T = TypeVar("T", bound="DataclassInstance")


def of_config(kind: type[T], config: Config) -> T:
    """A dataclass of some of the config's fields, by their names: a compiled function cannot read the Config itself."""
    return kind(**{field.name: getattr(config, field.name) for field in dataclasses.fields(kind)})


def generator_of(network: str, options: Mapping[str, Any], size: int, prefix: str = "") -> nn.Cell:
    """The generator that a config names, freshly initialised; `prefix`: of the config's fields that name it.

    Raises:
        TrainError: there is no such generator, or it cannot make pictures of this size.
    """
    try:
        cell = build_generator(network, **options)
    except (ValueError, TypeError) as error:
        raise TrainError(f"{prefix}generator {network!r} with {dict(options)}: {error}") from error
    if size % (stride := total_stride(cell)):
        raise TrainError(f"size = {size}: {prefix}generator {network!r} needs a multiple of {stride}")
    return cell


def by_scale(name: str, discriminators: tuple[nn.Cell, ...]) -> dict[str, nn.Cell]:
    """The discriminators by the names that files of weights use: NAME, NAME2, ..."""
    return {f"{name}{scale if scale > 1 else ''}": cell for scale, cell in enumerate(discriminators, 1)}


def trainable(*cells: nn.Cell) -> ParameterTuple:
    """The parameters of the cells that a step changes."""
    return ParameterTuple([parameter for cell in cells for parameter in cell.trainable_params()])


def compiled_step(
    loss: Compiled, optimizer: nn.Optimizer, parameters: ParameterTuple, workers: Workers = ALONE
) -> Compiled:
    """One graph of forward and backward, one of the update; `loss` returns what to minimise, then what to report.

    Two graphs, because one of both takes half as long again: its updates keep the runtime from overlapping the rest.
    """
    gradients = ms.jit(ms.value_and_grad(loss, None, parameters, has_aux=True))
    current_rate, reducer = optimizer.learning_rate, workers.reducer(parameters)

    @ms.jit
    def update(rate: Tensor, *gradient: Tensor) -> Tensor:
        # In the graph: a compiled graph does not see what set_data does to the parameter later.
        ops.assign(current_rate, rate)
        if reducer is not None:
            gradient = reducer(gradient)
        return ops.depend(rate, optimizer(gradient))

    def step(rate: Tensor, *batch: Tensor) -> Tensors:
        values: Tensors
        values, gradient = gradients(*batch)
        update(rate, *gradient)
        return values

    return step


class Average(nn.Cell):
    """old = old + share (new - old), for two lists of parameters."""

    def __init__(self, old: ParameterTuple, new: ParameterTuple) -> None:
        super().__init__()
        self.old, self.new = old, new

    @ms.jit
    def construct(self, share: Tensor) -> Tensor:
        for i in range(len(self.old)):
            ops.assign(self.old[i], self.old[i] + share * (self.new[i] - self.old[i]))
        return share

    def follow(self, decay: float) -> None:
        """old = decay old + (1 - decay) new, for every weight."""
        self(Tensor(1 - decay, ms.float32))

    def restart(self) -> None:
        """The average starts as what it is to follow."""
        for old, new in zip(self.old, self.new, strict=True):
            old.set_data(Tensor(new.asnumpy()))
