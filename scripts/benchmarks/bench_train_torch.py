"""PyTorch's side of scripts/bench_train: a plan on the first line of the standard input, then a step for each line.

The same layers, losses and optimizers as CycleGAN in `train.models` has, in plain PyTorch float32 (eager), on as many
threads as this process may use cores. Answers `{}` where there is no PyTorch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

Seconds = dict[str, float]


def main() -> None:
    plan = json.loads(sys.stdin.readline())
    step: Callable[[], Seconds] = dict
    try:
        import torch
    except ImportError:
        pass
    else:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        step = Twin(plan, torch).step
        step()
    print("{}", flush=True)
    for _ in sys.stdin:
        print(json.dumps(step()), flush=True)


class Twin:
    """A CycleGAN in PyTorch with the terms of the plan; `step` answers with its seconds."""

    def __init__(self, plan: dict[str, Any], torch: Any) -> None:
        self.plan, self.torch, self.f = plan, torch, torch.nn.functional
        self.g_ab, self.g_ba = (network(plan["g"], torch) for _ in "ab")
        self.d_a, self.d_b = ([network(plan[name], torch) for _ in range(plan["scales"])] for name in ("d_a", "d_b"))
        self.g_all = [*self.g_ab.parameters(), *self.g_ba.parameters()]
        self.d_all = [p for d in (*self.d_a, *self.d_b) for p in d.parameters()]
        self.projected: Any = None
        if plan["projected"]:
            from bench_train_projected import Projected

            self.projected = Projected(plan["projected"])
        self.p_all = list(self.projected.parameters()) if self.projected else []
        groups = [group for group in (self.g_all, self.d_all, self.p_all) if group]
        self.optimizers = [torch.optim.Adam(group, 1e-6, (0.5, 0.99)) for group in groups]
        self.x, self.y = (torch.rand(plan["shape"]) * 2 - 1 for _ in "ab")

    def step(self) -> Seconds:
        begin = clock()
        for parameter in (*self.d_all, *self.p_all):
            parameter.requires_grad_(False)
        loss, fake_b, fake_a, features = self.generator_loss()
        forward = clock()
        self.optimizers[0].zero_grad()
        loss.backward()
        backward = clock()
        self.optimizers[0].step()
        stepped = clock()
        for parameter in (*self.d_all, *self.p_all):
            parameter.requires_grad_(True)
        self.optimizers[1].zero_grad()
        self.discriminator_loss(fake_a.detach(), fake_b.detach()).backward()
        self.optimizers[1].step()
        judged = clock()
        names = ("G forward", "G forward + backward", "G step")
        times = dict(zip(names, (forward - begin, backward - begin, stepped - begin), strict=True))
        times["D step"] = judged - stepped
        if self.projected:
            self.optimizers[2].zero_grad()
            self.projected_loss([feature.detach() for feature in features]).backward()
            self.optimizers[2].step()
            times["projected step"] = clock() - judged
        return times

    def generator_loss(self) -> tuple[Any, Any, Any, Any]:
        torch, x, y, factors = self.torch, self.x, self.y, self.plan["factors"]
        n, few = len(x), self.plan["few"]
        both_b, both_a = self.g_ab(torch.cat([x, y[:few]])), self.g_ba(torch.cat([y, x[:few]]))
        fake_b, fake_a, same_b, same_a = both_b[:n], both_a[:n], both_b[n:], both_a[n:]
        seen_b, seen_a = self.augment(fake_b), self.augment(fake_a)
        loss = self.adversarial(self.d_b, seen_b, 1) + self.adversarial(self.d_a, seen_a, 1)
        loss = loss + factors["cycle_a"] * l1(self.g_ba(self.noisy(fake_b)), x)
        loss = loss + factors["cycle_b"] * l1(self.g_ab(self.noisy(fake_a)), y)
        if few:
            loss = loss + factors["identity_a"] * l1(same_a, x[:few]) + factors["identity_b"] * l1(same_b, y[:few])
        if factors["luminance"]:
            light = l1(self.luminance(fake_b), self.luminance(x)) + l1(self.luminance(fake_a), self.luminance(y))
            loss = loss + factors["luminance"] * light
        if factors["structure_a"]:
            loss = loss + factors["structure_a"] * (1 - self.correlation(gray(fake_b), gray(x), 32))
            loss = loss + factors["structure_b"] * (1 - self.correlation(gray(fake_a), gray(y), 32))
        if factors["colour"]:
            loss = loss + factors["colour"] * (1 - self.correlation(fake_b - gray(fake_b), x - gray(x), 16))
        features = None
        if self.projected:
            features = self.projected.features(seen_b)
            loss = loss - factors["projected"] * sum(score.mean() for score in self.projected(features)) / 4
        return loss, fake_b, fake_a, features

    def projected_loss(self, fake: list[Any]) -> Any:
        with self.torch.no_grad():
            real = self.projected.features(self.augment(self.y))
        relu = self.f.relu
        loss = sum(relu(1 - score).mean() for score in self.projected(real))
        return (loss + sum(relu(1 + score).mean() for score in self.projected(fake))) / 4

    def discriminator_loss(self, fake_a: Any, fake_b: Any) -> Any:
        loss = 0
        for discriminators, real, fake in ((self.d_a, self.x, fake_a), (self.d_b, self.y, fake_b)):
            loss = loss + 0.5 * self.adversarial(discriminators, self.augment(real), 1)
            loss = loss + 0.5 * self.adversarial(discriminators, self.augment(fake), 0)
        return loss

    def adversarial(self, discriminators: list[Any], x: Any, target: float) -> Any:
        loss = 0
        for scale, discriminator in enumerate(discriminators):
            x = self.f.avg_pool2d(x, 2) if scale else x
            loss = loss + ((discriminator(x) - target) ** 2).mean()
        return loss

    def noisy(self, x: Any) -> Any:
        return x + self.plan["noise"] * self.torch.randn_like(x) if self.plan["noise"] else x

    def luminance(self, x: Any) -> Any:
        return self.f.avg_pool2d(gray(x), self.plan["cell"])

    def correlation(self, made: Any, source: Any, cells: int) -> Any:
        m, s = (self.f.avg_pool2d(v, v.shape[2] // cells).flatten(1) for v in (made, source))
        m, s = (v - v.mean(0, keepdim=True) for v in (m, s))
        m, s = (v - v.mean(1, keepdim=True) for v in (m, s))
        size_m, size_s = m.norm(dim=1), s.norm(dim=1)
        return ((m * s).sum(1) / (size_s * self.torch.maximum(size_m, 0.6 * size_s) + 1e-4)).mean()

    def augment(self, x: Any) -> Any:
        """DiffAugment, in the forms that are fast in PyTorch: a shift by grid_sample, cutout by a mask."""
        torch, (n, _, height, width) = self.torch, x.shape
        if "color" in self.plan["policy"]:
            x = x + torch.rand(n, 1, 1, 1) - 0.5
            mean = x.mean(1, keepdim=True)
            x = (x - mean) * torch.rand(n, 1, 1, 1) * 2 + mean
            mean = x.mean((1, 2, 3), keepdim=True)
            x = (x - mean) * (torch.rand(n, 1, 1, 1) + 0.5) + mean
        if "translation" in self.plan["policy"]:
            shift = ((torch.rand(n, 2) * 2 - 1) * height / 8).round() * (2.0 / height)
            one, zero = torch.ones(n), torch.zeros(n)
            theta = torch.stack([one, zero, shift[:, 0], zero, one, shift[:, 1]], 1).view(n, 2, 3)
            grid = self.f.affine_grid(theta, list(x.shape), align_corners=False)
            x = self.f.grid_sample(x, grid, align_corners=False)
        if "cutout" in self.plan["policy"]:
            rows, columns = (
                (torch.arange(side)[None] - torch.rand(n, 1) * side).abs() < 0.2 * side for side in (height, width)
            )
            rows = rows & (torch.rand(n, 1) < 0.5)
            x = x * ~(rows[:, None, :, None] & columns[:, None, None, :])
        return x


def network(plan: list[Any], torch: Any) -> Any:
    """The layers that `layers` of bench_train.py describes."""
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
        "residual": lambda inner: Residual(network(inner, torch)),
        "relu": lambda: nn.ReLU(True),
        "leaky": lambda: nn.LeakyReLU(0.2, True),
        "tanh": nn.Tanh,
    }
    return nn.Sequential(*[makers[kind](*arguments) for kind, *arguments in plan])


def l1(a: Any, b: Any) -> Any:
    return (a - b).abs().mean()


def gray(x: Any) -> Any:
    return x.mean(1, keepdim=True)


def clock() -> float:
    return time.perf_counter()


if __name__ == "__main__":
    main()
