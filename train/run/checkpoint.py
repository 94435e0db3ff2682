"""Everything that a run is made of in one file, written whole or not at all; and its generators as plain weights.

`checkpoint.npz`: `NETWORK.PARAMETER` for the networks, `g_optimizer.*`, `d_optimizer.*` (moments, powers of beta,
counters) and what else `optimizers` has, `pool_*` (workers, pictures, 3, H, W), and `about` (JSON: step, versions,
time). Random numbers are functions of the seed and the step, so the step is their state. `weights.npz` holds the
networks alone, for `train.weights`.
"""

from __future__ import annotations

import json
import platform
import time
import zipfile
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor

from h2a_batch.places import replacing
from train.errors import TrainError
from train.models import Model
from train.parallel import ALONE, Workers
from train.weights import network_arrays

CHECKPOINT, WEIGHTS = "checkpoint.npz", "weights.npz"


def save(folder: Path, model: Model, step: int, workers: Workers = ALONE) -> None:
    """Replaces the folder's checkpoint and weights; TrainError, and nothing written, when a value is not finite.

    All workers call it: the first writes, with the pools of all, and the others wait until that is done.
    """
    arrays = {name: parameter.asnumpy() for name, parameter in _parameters(model).items()}
    broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if broken:
        raise TrainError(f"step {step}: NaN or infinity in {broken[0]} and {len(broken) - 1} more; nothing was saved")
    about = {"step": step, "time": time.time(), **versions()}
    for name, pool in model.pools.items():
        arrays[f"pool_{name}"] = workers.gather(np.array(pool.images, np.float32))
    if workers.leads:
        with replacing(folder / CHECKPOINT) as file:
            np.savez(file, about=np.array(json.dumps(about)), **arrays)
        save_weights(folder / WEIGHTS, model)
    workers.mean([0.0])


def save_weights(path: Path, model: Model) -> None:
    """Writes the networks alone, as `train.weights` reads them; whole or not at all."""
    with replacing(path) as file:  # the parameters' names begin with their network's
        np.savez(file, **{k: v for cell in model.networks().values() for k, v in network_arrays(cell).items()})


def load(folder: Path, model: Model, workers: Workers = ALONE) -> int:
    """The folder's checkpoint into the model; returns its step."""
    path = folder / CHECKPOINT
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        step = int(json.loads(str(arrays.pop("about")))["step"])
    except FileNotFoundError:
        raise TrainError(f"{path}: no such file, so there is nothing to resume") from None
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise TrainError(f"{path}: not a checkpoint ({error})") from error
    pools = {name: arrays.pop(f"pool_{name}", np.empty((workers.size, 0))) for name in model.pools}
    if any(len(images) != workers.size for images in pools.values()):
        was = len(next(iter(pools.values())))
        raise TrainError(f"{path}: of a run with {was} worker(s), not {workers.size}; resume it with as many")
    parameters = _parameters(model)
    wrong = sorted(parameters.keys() ^ arrays.keys())
    wrong += [name for name in parameters.keys() & arrays.keys() if parameters[name].shape != arrays[name].shape]
    if wrong:
        raise TrainError(f"{path}: does not fit the networks of this config: {wrong[0]} and {len(wrong) - 1} more")
    for name, parameter in parameters.items():
        parameter.set_data(Tensor(arrays[name], parameter.dtype))
    for name, pool in model.pools.items():
        pool.images = list(pools[name][workers.rank])
    return step


def versions() -> dict[str, Any]:
    return {"mindspore": ms.__version__, "numpy": np.__version__, "python": platform.python_version()}


def _parameters(model: Model) -> dict[str, Any]:
    """All parameters that a step reads or writes, by a name of their own."""
    result = {p.name: p for cell in model.networks().values() for p in cell.get_parameters()}
    for name, optimizer in model.optimizers.items():
        own = [p for p in optimizer.get_parameters() if p.name not in result]
        result |= {f"{name}.{p.name}": p for p in own}
    return result
