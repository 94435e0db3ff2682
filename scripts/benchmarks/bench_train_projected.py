"""The projected discriminator of `train.networks.projected` in PyTorch, for bench_train_torch.py.

Shapes come from the plan, weights are random: what is measured does not depend on them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as f

Layer = tuple[Tensor, Tensor]


class Projected(nn.Module):
    """Frozen features and the heads' scores of them, as `ProjectedDiscriminator`."""

    def __init__(self, plan: dict[str, Any]) -> None:
        super().__init__()
        self.plan = plan
        self.heads = nn.ModuleList(Head(shapes) for shapes in plan["heads"])
        self.stem = frozen(plan["stem"])
        self.blocks = [[frozen(shape) for shape in block["shapes"]] for block in plan["blocks"]]
        self.mix, self.down = ([frozen(shape)[0] for shape in plan[name]] for name in ("mix", "down"))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        return [head(feature) for head, feature in zip(self.heads, features, strict=True)]

    def features(self, x: Tensor) -> list[Tensor]:
        x = f.interpolate(x, (self.plan["size"],) * 2, mode="bilinear", align_corners=False)
        x, kept = f.relu6(same(x, self.stem, 2)), []
        for block, layers in zip(self.plan["blocks"], self.blocks, strict=True):
            y = x
            for place, layer in enumerate(layers):
                last, depthwise = place == len(layers) - 1, place == len(layers) - 2
                y = same(y, layer, block["stride"] if depthwise else 1)
                y = y if last else f.relu6(y)
            x = x + y if block["adds"] else y
            kept += [x] * block["kept"]
        mixed = [f.conv2d(feature, weight) for feature, weight in zip(kept, self.mix, strict=True)]
        for scale in (2, 1, 0):
            top = f.interpolate(mixed[scale + 1], mixed[scale].shape[2:], mode="bilinear", align_corners=False)
            mixed[scale] = mixed[scale] + f.conv2d(top, self.down[scale], padding=1)
        return mixed


class Head(nn.Module):
    """The discriminator of one scale; `shapes`: (inputs, outputs) of its convolutions but the last."""

    def __init__(self, shapes: list[tuple[int, int]]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in shapes[:-1]:
            layers += [Spectral(inputs, outputs, 4, 2, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2, True)]
        self.layers = nn.Sequential(*layers, Spectral(*shapes[-1], 3, 1), nn.LeakyReLU(0.2, True))
        self.last = Spectral(shapes[-1][1] + 1, 1, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(x)
        spread = (x.var(0, unbiased=False) + 1e-6).sqrt().mean().expand(len(x), 1, *x.shape[2:])
        scores: Tensor = self.last(torch.cat([x, spread], 1))
        return scores


class Spectral(nn.Conv2d):
    """A convolution divided by its largest singular value, which one step of the power iteration estimates."""

    u: Tensor

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, kernel, stride, 1, bias=bias)
        self.register_buffer("u", f.normalize(torch.randn(outputs), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.weight.flatten(1)
        with torch.no_grad():
            v = f.normalize(matrix.t() @ self.u, dim=0)
            u = f.normalize(matrix @ v, dim=0)
            self.u.copy_(u)
        return f.conv2d(x, self.weight / (u @ (matrix @ v)), self.bias, self.stride, self.padding)


def frozen(shape: list[int]) -> Layer:
    """Weight and bias, of He's size, so that no feature vanishes."""
    return torch.randn(*shape) * (2 / (shape[1] * shape[2] * shape[3])) ** 0.5, torch.zeros(shape[0])


def same(x: Tensor, layer: Layer, stride: int) -> Tensor:
    """With TensorFlow's SAME padding, depthwise where the weight has one channel."""
    weight, bias = layer
    kernel, groups = weight.shape[2], len(weight) if weight.shape[1] == 1 else 1
    if stride == 1:
        return f.conv2d(x, weight, bias, 1, kernel // 2, 1, groups)
    total = max((-(-x.shape[2] // stride) - 1) * stride + kernel - x.shape[2], 0)
    before, after = total // 2, total - total // 2
    return f.conv2d(f.pad(x, (before, after, before, after)), weight, bias, stride, 0, 1, groups)
