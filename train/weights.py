"""Weights of the project's networks as plain `.npz` files, read into MindSpore cells and written from them.

A file holds any number of networks. Its arrays are named `NETWORK.LAYER`, as the PyTorch twin writes them:
`ema.m.0.0.weight` is the first convolution of the network `ema`. Convolutions are (out, in, height, width), transposed
ones (in, out, height, width), in PyTorch and in MindSpore alike; vectors (biases, the factors of a norm) are (C,).

A path that ends in `.ckpt` is MindSpore's own checkpoint of the same networks, with the cell's names and shapes:
`ema.layers.0.conv.weight`, and (1, C, 1, 1) for the factors of a norm.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn
from numpy.typing import NDArray

from h2a_batch.places import replacing
from train.errors import TrainError

Arrays = dict[str, NDArray[np.float32]]

# A cell's attribute, and what the files call it: the twin is built of anonymous nn.Sequential.
FILE_TERMS = {
    "layers": "m",
    "first": "a",
    "second": "b",
    "conv": "0",
    "norm": "1",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
# PyTorch's batch norms count their batches in files, which nothing reads.
COUNTER = ".num_batches_tracked"


class WeightsError(TrainError):
    """The file does not hold the weights of this network."""


def file_name(parameter: str) -> str:
    """The name in a weights file of a cell's parameter: `layers.3.first.norm.gamma` -> `m.3.a.1.weight`."""
    return ".".join(FILE_TERMS.get(term, term) for term in parameter.split("."))


def read_weights(path: str | Path) -> dict[str, Arrays]:
    """All networks of a file, as float32 arrays by the names of a `.npz` file: {"ema": {"m.0.0.weight": ...}, ...}."""
    if Path(path).suffix == ".ckpt":
        return _read_checkpoint(Path(path))
    networks: dict[str, Arrays] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                network, dot, layer = name.partition(".")
                if not dot:
                    raise WeightsError(f"{path}: array {name!r} is not named NETWORK.LAYER")
                if not layer.endswith(COUNTER):
                    networks.setdefault(network, {})[layer] = file[name].astype(np.float32)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such file") from None
    except (OSError, EOFError, zipfile.BadZipFile, TypeError) as error:
        raise WeightsError(f"{path}: not a .npz file of weights ({error})") from error
    except ValueError as error:
        raise error if isinstance(error, WeightsError) else WeightsError(f"{path}: {error}") from error
    return _named(networks)


def read_parts(paths: Sequence[Path]) -> dict[str, Arrays]:
    """All networks of several files, of which each may hold a part of a network; no array may come twice."""
    networks: dict[str, Arrays] = {}
    for path in paths:
        for network, arrays in read_weights(path).items():
            known = networks.setdefault(network, {})
            if twice := known.keys() & arrays.keys():
                raise WeightsError(f"{path}: has {network}.{min(twice)}, which an earlier file has, too")
            known |= arrays
    return networks


def load_network(cell: nn.Cell, arrays: Mapping[str, NDArray[np.float32]]) -> None:
    """Sets every parameter of the cell from the arrays; every array must be used once, all shapes must fit.

    The cell is untouched when anything is wrong.
    """
    parameters = {file_name(p.name): p for p in cell.get_parameters()}
    missing, unknown = parameters.keys() - arrays.keys(), arrays.keys() - parameters.keys()
    if missing or unknown:
        parts = [f"{label} {_some(names)}" for label, names in (("lacks", missing), ("has unknown", unknown)) if names]
        raise WeightsError(f"weights do not fit {type(cell).__name__}: the file {' and '.join(parts)}")
    values = {name: _fitting(name, parameters[name], arrays[name]) for name in parameters}
    for name, value in values.items():
        parameters[name].set_data(Tensor(value))


def network_arrays(cell: nn.Cell) -> Arrays:
    """The cell's parameters as a weights file holds them: the inverse of `load_network`."""
    return {file_name(p.name): _file_layout(p.asnumpy()) for p in cell.get_parameters()}


def write_weights(path: str | Path, networks: Mapping[str, nn.Cell]) -> None:
    """Writes the cells to one `.npz` or `.ckpt` file, float32, as `read_weights` reads it; whole or not at all."""
    arrays = {f"{name}.{layer}": a for name, cell in networks.items() for layer, a in network_arrays(cell).items()}
    with replacing(Path(path)) as file:
        if Path(path).suffix == ".ckpt":
            file.write(_checkpoint_bytes(networks))
        else:
            np.savez(file, **arrays)


def _named(networks: dict[str, Arrays]) -> dict[str, Arrays]:
    """A file of the fine half alone need not name it: its arrays (`head.weight`, ...) are those of `ema`."""
    if not {"head", "body", "tail"} <= networks.keys():
        return networks
    return {"ema": {f"{first}.{rest}": array for first, part in networks.items() for rest, array in part.items()}}


def _read_checkpoint(path: Path) -> dict[str, Arrays]:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file")
    try:
        parameters = ms.load_checkpoint(str(path))
    except Exception as error:  # ValueError as a rule, but also what a broken size or type makes of it
        raise WeightsError(f"{path}: not a checkpoint of MindSpore ({error})") from error
    networks: dict[str, Arrays] = {}
    for name, parameter in parameters.items():
        network, dot, layer = name.partition(".")
        if not dot:
            raise WeightsError(f"{path}: parameter {name!r} is not named NETWORK.LAYER")
        networks.setdefault(network, {})[file_name(layer)] = _file_layout(parameter.float().asnumpy())
    return networks


def _checkpoint_bytes(networks: Mapping[str, nn.Cell]) -> bytes:
    saved = [
        {"name": f"{name}.{parameter.name}", "data": parameter}
        for name, cell in networks.items()
        for parameter in cell.get_parameters()
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.ckpt")
        ms.save_checkpoint(saved, str(path))
        return path.read_bytes()


def _fitting(name: str, parameter: Parameter, array: NDArray[np.float32]) -> NDArray[np.float32]:
    expected = _file_layout(np.empty(parameter.shape, np.float32)).shape
    if array.shape != expected:
        raise WeightsError(f"weights do not fit: {name} is {array.shape}, the network wants {expected}")
    if not np.isfinite(array).all():
        raise WeightsError(f"weights are broken: {name} holds NaN or infinity")
    return np.ascontiguousarray(array.reshape(parameter.shape), np.float32)


def _file_layout(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """(1, C, 1, 1), the factors of a norm, is kept as (C,); everything else as it is."""
    per_channel = array.ndim == 4 and array.shape[0] == array.shape[2] == array.shape[3] == 1
    return array.reshape(-1).copy() if per_channel else array.copy()


def _some(names: set[str], most: int = 3) -> str:
    listed = ", ".join(sorted(names)[:most])
    return listed if len(names) <= most else f"{listed} and {len(names) - most} more"
