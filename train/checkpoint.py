"""Everything that a run is made of in one file, written whole or not at all; and its generators as plain weights.

`checkpoint.npz`: `NETWORK.PARAMETER` for the six networks, `g_optimizer.*` and `d_optimizer.*` (moments, powers of
beta, counters), `pool_a` and `pool_b`, and `about` (JSON: step, versions, time). Random numbers are functions of the
seed and the step, so the step is their state. `weights.npz` holds the networks alone, as `train.weights` reads them.
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

from h2a_batch.files import replacing
from train.cyclegan import CycleGAN, ImagePool
from train.errors import TrainError
from train.weights import load_network, network_arrays, read_weights

Pools = tuple[ImagePool, ImagePool]

CHECKPOINT, WEIGHTS = "checkpoint.npz", "weights.npz"


def save(folder: Path, model: CycleGAN, pools: Pools, step: int) -> None:
    """Replaces the folder's checkpoint and weights; TrainError, and nothing written, when a value is not finite."""
    arrays = {name: parameter.asnumpy() for name, parameter in _parameters(model).items()}
    broken = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if broken:
        raise TrainError(f"step {step}: NaN or infinity in {broken[0]} and {len(broken) - 1} more; nothing was saved")
    about = {"step": step, "time": time.time(), **versions()}
    arrays |= {f"pool_{name}": np.array(pool.images, np.float32) for name, pool in zip("ab", pools, strict=True)}
    with replacing(folder / CHECKPOINT) as file:
        np.savez(file, about=np.array(json.dumps(about)), **arrays)
    with replacing(folder / WEIGHTS) as file:  # the parameters' names begin with their network's
        np.savez(file, **{k: v for cell in model.networks().values() for k, v in network_arrays(cell).items()})


def load(folder: Path, model: CycleGAN, pools: Pools) -> int:
    """The folder's checkpoint into the model and the pools; returns its step."""
    path = folder / CHECKPOINT
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        step = int(json.loads(str(arrays.pop("about")))["step"])
    except FileNotFoundError:
        raise TrainError(f"{path}: no such file, so there is nothing to resume") from None
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise TrainError(f"{path}: not a checkpoint ({error})") from error
    for name, pool in zip("ab", pools, strict=True):
        pool.images = list(arrays.pop(f"pool_{name}", np.empty((0,))))
    parameters = _parameters(model)
    wrong = sorted(parameters.keys() ^ arrays.keys())
    wrong += [name for name in parameters.keys() & arrays.keys() if parameters[name].shape != arrays[name].shape]
    if wrong:
        raise TrainError(f"{path}: does not fit the networks of this config: {wrong[0]} and {len(wrong) - 1} more")
    for name, parameter in parameters.items():
        parameter.set_data(Tensor(arrays[name], parameter.dtype))
    return step


def start_from(path: Path, model: CycleGAN) -> None:
    """The networks of a weights file, as many as it has; an average that it lacks starts as its generator."""
    given = read_weights(path)
    cells = model.networks()
    unknown = sorted(given.keys() - cells.keys())
    if unknown:
        raise TrainError(f"{path}: unknown networks {', '.join(unknown)}; known are {', '.join(cells)}")
    for names in (("gab", "gba", "da", "db"), ("ema", "ema_ba")):
        for name in names:
            if name in given:
                load_network(cells[name], {f"{name}.{layer}": array for layer, array in given[name].items()})
        if "gab" in names:
            model.restart_average()


def versions() -> dict[str, Any]:
    return {"mindspore": ms.__version__, "numpy": np.__version__, "python": platform.python_version()}


def _parameters(model: CycleGAN) -> dict[str, Any]:
    """All parameters that a step reads or writes, by a name of their own."""
    result = {p.name: p for cell in model.networks().values() for p in cell.get_parameters()}
    for name, optimizer in (("g_optimizer", model.g_optimizer), ("d_optimizer", model.d_optimizer)):
        own = [p for p in optimizer.get_parameters() if p.name not in result]
        result |= {f"{name}.{p.name}": p for p in own}
    return result
