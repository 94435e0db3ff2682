"""Seconds of a training step of each config: forward, backward and optimizer, and PyTorch float32 beside it.

    scripts/bench_train [--steps N] [--set FIELD=VALUE] [--torch-python PYTHON] [CONFIG.toml ...]

PyTorch runs in a process of its own (bench_train_torch.py), of this Python or of --torch-python, on the same layers,
loss terms and thread count; rounds of the two alternate, so that other work on the machine meets both. The minimum and
the median are shown. `taskset -c 0 env OMP_NUM_THREADS=1 scripts/bench_train` keeps both to one core.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("GLOG_v", "3")
STRUCTURE = 2.0  # the controller's factor; its value takes no time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", type=Path, metavar="CONFIG", help="default: coarse-64.toml")
    parser.add_argument("--steps", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="a field of the configs")
    parser.add_argument("--torch-python", default=sys.executable, metavar="PYTHON", help="a Python that has torch")
    options = parser.parse_args()
    for path in options.configs or [ROOT / "train" / "configs" / "coarse-64.toml"]:
        bench(path, options.set, options.steps, options.torch_python)


def bench(path: Path, settings: list[str], rounds: int, python: str) -> None:
    import numpy as np

    from train.config import read_config
    from train.models import CycleGAN, factors_at

    config = read_config(path, ["start=", *settings])
    model = CycleGAN(config)
    # Of a step in the middle of a run, when luminance has ended and the controller has settled.
    factors = factors_at(config, config.steps // 2, STRUCTURE)
    shape = (config.batch, 3, config.size, config.size)
    x, y = (np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32) for seed in (0, 1))
    parts = mindspore_parts(model, x, y, factors)
    with subprocess.Popen(
        [python, str(ROOT / "scripts" / "benchmarks" / "bench_train_torch.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as torch_side:
        ask(torch_side, json.dumps(plan(config, model, factors)))
        for _ in range(2):  # compiles, then meets caches as later steps do
            for part in parts.values():
                part()
        times: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, part in parts.items():
                times.setdefault(name, []).append(seconds(part))
            for name, value in json.loads(ask(torch_side, "step") or "{}").items():
                times.setdefault(f"torch {name}", []).append(value)
    show(path.stem, times)


def mindspore_parts(model: Any, x: Any, y: Any, factors: dict[str, float]) -> dict[str, Callable[[], object]]:
    """What is timed: the steps as the training loop takes them, on pictures of the right size."""
    import numpy as np

    random, features = np.random.default_rng(0), {}

    def generators() -> None:
        features["of"] = model.train_generators(x, y, 1e-6, factors, random=random)[3]

    parts: dict[str, Callable[[], object]] = {
        "G step": generators,
        "D step": lambda: model.train_discriminators(x, y, y, x, 1e-6, random=random),
    }
    if model.projected:
        parts["projected step"] = lambda: model.train_projected(y, features["of"], 1e-6, random=random)
    return parts


def plan(config: Any, model: Any, factors: dict[str, float]) -> dict[str, Any]:
    """The same networks and terms as plain data, for PyTorch to build."""
    return {
        "shape": (config.batch, 3, config.size, config.size),
        "g": layers(model.g_ab),
        "d_a": layers(model.d_a[0]),
        "d_b": layers(model.d_b[0]),
        "scales": config.d_scales,
        "factors": factors,
        "few": max(1, int(config.batch * config.identity_share)) if factors["identity_a"] else 0,
        "noise": config.cycle_noise,
        "cell": config.luminance_cell,
        "policy": config.diffaugment,
        "projected": projected_plan(model.projected) if model.projected else None,
    }


def projected_plan(cell: Any) -> dict[str, Any]:
    """Shapes of the frozen features' blocks, of the mixing and of the heads."""
    from mindspore import nn

    from train.foreign import load_weights
    from train.models import FEATURES

    network = load_weights(FEATURES)
    blocks = [
        {
            "shapes": [part.weight.shape for part in (block.expand, block.depthwise, block.project) if part],
            "stride": block.stride,
            "adds": block.adds,
            "kept": kept,
        }
        for block, kept in zip(network.blocks, cell.lite.outputs, strict=True)
    ]
    heads = [
        [(part.in_channels, part.out_channels) for part in head.layers if isinstance(part, nn.Conv2d)]
        for head in cell.heads
    ]
    mix, down = ([conv.weight.shape for conv in convs] for convs in (cell.mixing.mix, cell.mixing.down))
    stem = network.stem.weight.shape
    return {"size": cell.size, "stem": stem, "blocks": blocks, "mix": mix, "down": down, "heads": heads}


def layers(cell: Any) -> list[Any]:
    """The layers of a network as plain data, for PyTorch to build the same."""
    from mindspore import nn

    from train import networks

    if isinstance(cell, networks.ResidualBlock):
        return [["residual", layers(cell.first) + layers(cell.second)]]
    if isinstance(cell, networks.ConvBlock):
        return layers(cell.conv) + layers(cell.norm) + layers(cell.activation)
    if isinstance(cell, networks.InstanceNorm):
        return [["norm", cell.gamma.size]]
    if isinstance(cell, (nn.Conv2d, nn.Conv2dTranspose)):
        kind = "up" if isinstance(cell, nn.Conv2dTranspose) else "conv"
        mirrored = isinstance(cell, networks.ReflectConv2d)
        return [[kind, cell.in_channels, cell.out_channels, cell.kernel_size[0], cell.stride[0], mirrored]]
    if isinstance(cell, nn.SequentialCell):
        return [layer for part in cell for layer in layers(part)]
    simple = {nn.ReLU: "relu", nn.LeakyReLU: "leaky", nn.Tanh: "tanh"}
    if type(cell) in simple:
        return [[simple[type(cell)]]]
    return layers(cell.layers) if hasattr(cell, "layers") else []


def ask(process: subprocess.Popen[str], line: str) -> str:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return process.stdout.readline()


def seconds(part: Callable[[], object]) -> float:
    start = time.perf_counter()
    part()
    return time.perf_counter() - start


def show(name: str, times: dict[str, list[float]]) -> None:
    print(f"{name}, seconds: minimum (median) of {len(times['G step'])}")
    totals: dict[str, list[float]] = {}
    for side in ("", "torch "):
        if f"{side}G step" not in times:
            print("  no PyTorch to compare with (see --torch-python)")
            continue
        parts = [part for part in times if part.startswith("torch ") == bool(side)]
        row = {part.removeprefix("torch "): times[part] for part in parts}
        print(f"  {'PyTorch float32' if side else 'MindSpore'}")
        for part, values in row.items():
            print(f"    {part:24s} {min(values):7.3f} ({statistics.median(values):.3f})")
        steps = [row[part] for part in ("G step", "D step", "projected step") if part in row]
        totals[side] = [sum(values) for values in zip(*steps, strict=True)]
        print(f"    {'whole step':24s} {min(totals[side]):7.3f} ({statistics.median(totals[side]):.3f})")
    if len(totals) == 2:
        own, twin = totals[""], totals["torch "]
        rounds = statistics.median(a / b for a, b in zip(own, twin, strict=True))
        print(f"  ratio: {min(own) / min(twin):.2f} of the minima, {rounds:.2f} the median of the rounds", flush=True)


if __name__ == "__main__":
    main()
