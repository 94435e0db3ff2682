"""Seconds of a training step of each config: forward, backward and optimizer, and PyTorch float32 beside it.

    scripts/bench_train [--steps N] [--torch-python PYTHON] [CONFIG.toml ...]

PyTorch runs in a process of its own, of this Python or of --torch-python, on the same layers, pictures and thread
count; rounds of the two alternate, so that other work on the machine meets both. The minimum and the median are shown.
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

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("GLOG_v", "3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", type=Path, metavar="CONFIG", help="default: anime-256.toml")
    parser.add_argument("--steps", type=int, default=5, help="rounds (default: %(default)s)")
    parser.add_argument("--torch-python", default=sys.executable, metavar="PYTHON", help="a Python that has torch")
    parser.add_argument("--torch-side", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.torch_side:
        serve_torch(json.loads(sys.stdin.readline()))
        return
    for path in options.configs or [ROOT / "train" / "configs" / "anime-256.toml"]:
        bench(path, options.steps, options.torch_python)


def bench(path: Path, rounds: int, python: str) -> None:
    import numpy as np

    from train.config import read_config
    from train.fit import build

    # The networks and losses of the paper: both sides do the same work.
    config = read_config(path, ["start=", "d_scales=1", "diffaugment="])
    model = build(config)
    shape = (config.batch, 3, config.size, config.size)
    x, y = (np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32) for seed in (0, 1))
    parts = mindspore_parts(model, x, y)
    plan = {"shape": shape, "cycle": config.cycle, "g": layers(model.g_ab), "d": layers(model.d_a[0])}
    command = [python, str(Path(__file__)), "--torch-side"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as torch_side:
        ask(torch_side, json.dumps(plan))
        for part in parts.values():
            part()  # compiles
        times: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, part in parts.items():
                times.setdefault(name, []).append(seconds(part))
            for name, value in json.loads(ask(torch_side, "step") or "{}").items():
                times.setdefault(f"torch {name}", []).append(value)
    show(path.stem, times)


def mindspore_parts(model: Any, x: Any, y: Any) -> dict[str, Callable[[], None]]:
    """What is timed, without identity loss, as most steps of the shipped config are."""
    import mindspore as ms
    import numpy as np
    from mindspore import Tensor

    random = np.random.default_rng(0)
    a, b, zero = Tensor(x), Tensor(y), Tensor(0.0, ms.float32)

    def loss(a: Tensor, b: Tensor) -> Any:
        return model.generator_loss(a, b, zero, False, False)

    forward = ms.jit(loss)
    backward = ms.jit(ms.value_and_grad(loss, None, model.g_parameters, has_aux=True))
    return {
        "G forward": lambda: forward(a, b)[0].asnumpy(),
        "G forward + backward": lambda: [gradient.asnumpy() for gradient in backward(a, b)[1]],
        "G step": lambda: model.train_generators(x, y, 1e-6, False, 0.0, random=random),
        "D step": lambda: model.train_discriminators(x, y, y, x, 1e-6, random=random),
        "G step, identity": lambda: model.train_generators(x, y, 1e-6, True, 0.0, random=random),
    }


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


def serve_torch(plan: dict[str, Any]) -> None:
    """Answers every line of the standard input with the times of one step, {} where there is no PyTorch."""
    try:
        import torch
    except ImportError:
        step: Callable[[], dict[str, float]] = dict
    else:
        step = torch_step(plan, torch)
    print("{}", flush=True)
    for _ in sys.stdin:
        print(json.dumps(step()), flush=True)


def torch_step(plan: dict[str, Any], torch: Any) -> Callable[[], dict[str, float]]:
    torch.set_num_threads(os.cpu_count() or 1)
    g_ab, g_ba, d_a, d_b = (torch_network(plan[kind], torch) for kind in "ggdd")
    g_all, d_all = ([*a.parameters(), *b.parameters()] for a, b in ((g_ab, g_ba), (d_a, d_b)))
    optimizers = torch.optim.Adam(g_all, 1e-6, (0.5, 0.999)), torch.optim.Adam(d_all, 1e-6, (0.5, 0.999))
    x, y = torch.rand(plan["shape"]) * 2 - 1, torch.rand(plan["shape"]) * 2 - 1

    def step() -> dict[str, float]:
        start = time.perf_counter()
        for parameter in d_all:
            parameter.requires_grad_(False)
        fake_b, fake_a = g_ab(x), g_ba(y)
        gan = ((d_b(fake_b) - 1) ** 2).mean() + ((d_a(fake_a) - 1) ** 2).mean()
        loss = gan + plan["cycle"] * ((g_ba(fake_b) - x).abs().mean() + (g_ab(fake_a) - y).abs().mean())
        forward = time.perf_counter()
        optimizers[0].zero_grad()
        loss.backward()
        backward = time.perf_counter()
        optimizers[0].step()
        stepped = time.perf_counter()
        for parameter in d_all:
            parameter.requires_grad_(True)
        real = ((d_a(x) - 1) ** 2).mean() + ((d_b(y) - 1) ** 2).mean()
        d_loss = 0.5 * (real + (d_a(fake_a.detach()) ** 2).mean() + (d_b(fake_b.detach()) ** 2).mean())
        optimizers[1].zero_grad()
        d_loss.backward()
        optimizers[1].step()
        names = ("G forward", "G forward + backward", "G step")
        times = dict(zip(names, (forward - start, backward - start, stepped - start), strict=True))
        return {**times, "D step": time.perf_counter() - stepped}

    step()
    return step


def torch_network(plan: list[Any], torch: Any) -> Any:
    nn = torch.nn

    class Residual(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Any) -> Any:
            return x + self.inner(x)

    makers = {
        "conv": lambda i, o, k, s, mirrored: nn.Conv2d(
            i, o, k, s, (k - 1) // 2, padding_mode="reflect" if mirrored else "zeros"
        ),
        "up": lambda i, o, k, s, _: nn.ConvTranspose2d(i, o, k, s, 1, 4 - k),
        "norm": lambda c: nn.InstanceNorm2d(c, affine=True),
        "residual": lambda inner: Residual(torch_network(inner, torch)),
        "relu": lambda: nn.ReLU(True),
        "leaky": lambda: nn.LeakyReLU(0.2, True),
        "tanh": nn.Tanh,
    }
    return nn.Sequential(*[makers[kind](*arguments) for kind, *arguments in plan])


def ask(process: subprocess.Popen[str], line: str) -> str:
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return process.stdout.readline()


def seconds(part: Callable[[], None]) -> float:
    start = time.perf_counter()
    part()
    return time.perf_counter() - start


def show(name: str, times: dict[str, list[float]]) -> None:
    print(f"{name}, seconds: minimum (median) of {len(times['G step'])}")
    for side in ("", "torch "):
        if f"{side}G step" not in times:
            print("  no PyTorch to compare with (see --torch-python)")
            continue
        own = [part for part in times if part.startswith("torch ") == bool(side)]
        row = {part.removeprefix("torch "): times[part] for part in own}
        print(f"  {'PyTorch float32' if side else 'MindSpore'}")
        for part, values in row.items():
            print(f"    {part:24s} {min(values):7.3f} ({statistics.median(values):.3f})")
        total = [g + d for g, d in zip(row["G step"], row["D step"], strict=True)]
        print(f"    {'whole step':24s} {min(total):7.3f} ({statistics.median(total):.3f})", flush=True)


if __name__ == "__main__":
    main()
