"""What a run shows of itself: the log, the plot of its losses, the samples, the draft of a card."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from h2a_batch.files import replacing
from train.config import Config
from train.cyclegan import DISCRIMINATOR_LOSSES, GENERATOR_LOSSES, CycleGAN
from train.data import to_picture

Array = NDArray[np.float32]
Curve = list[tuple[float, float]]

LOSSES = (*GENERATOR_LOSSES, *DISCRIMINATOR_LOSSES)
COLUMNS = ("step", *LOSSES, "rate", "images_per_second")
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#7f7f7f", "#17becf", "#bcbd22")
PLOT, PANEL = (960, 280), (60, 24, 700, 240)


class Log:
    """log.csv: one line for the mean of the steps since the last; lines after a resumed checkpoint are dropped."""

    def __init__(self, out: Path, first: int) -> None:
        self.path = out / "log.csv"
        kept = [row for row in read_log(self.path) if int(row["step"]) < first]
        with replacing(self.path) as file:
            lines = [",".join(COLUMNS), *(",".join(row[c] for c in COLUMNS) for row in kept)]
            file.write(("\n".join(lines) + "\n").encode())
        self.since: list[dict[str, float]] = []
        self.images, self.started = 0, time.monotonic()

    def add(self, step: int, losses: dict[str, float], rate: float, images: int) -> None:
        self.since.append({"step": step, **losses, "rate": rate})
        self.images += images

    def write(self) -> str:
        """Appends the line; returns it in short, for the progress bar."""
        speed = self.images / max(time.monotonic() - self.started, 1e-9)
        mean = {name: self._mean(name) for name in LOSSES}
        last = self.since[-1]
        row = [int(last["step"]), *(f"{mean[n]:.9g}" for n in LOSSES), f"{last['rate']:.6g}", f"{speed:.4g}"]
        with self.path.open("a", encoding="utf-8") as file:
            file.write(",".join(map(str, row)) + "\n")
        self.since, self.images, self.started = [], 0, time.monotonic()
        short = {"gan": ("gan_ab", "gan_ba"), "cycle": ("cycle_a", "cycle_b"), "d": ("d_a", "d_b")}
        return " ".join(f"{k} {sum(mean[n] for n in v):.3f}" for k, v in short.items()) + f", {speed:.2f} images/s"

    def _mean(self, name: str) -> float:
        # A term that is not computed in every step is 0 in the others.
        values = [row[name] for row in self.since]
        values = [v for v in values if v] or values
        return float(np.mean(values))


def read_log(path: Path) -> list[dict[str, str]]:
    """The whole lines of a log: one that a crash cut short is left out."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if all(row.get(column) for column in COLUMNS)]


def samples(out: Path, model: CycleGAN, fixed: tuple[Array, Array], step: int) -> None:
    """samples/step-NNNNNN.png, rows: faces, the average G of them, anime, the average F of them; and losses.png."""
    x, y = fixed
    rows = [x, translated(model.ema_ab, x), y, translated(model.ema_ba, y)]
    size = x.shape[2]
    sheet = Image.new("RGB", (size * max(len(row) for row in rows), size * len(rows)), "white")
    for line, row in enumerate(rows):
        for place, picture in enumerate(row):
            sheet.paste(to_picture(picture), (place * size, line * size))
    folder = out / "samples"
    folder.mkdir(exist_ok=True)
    for name, image in ((f"step-{step:06d}.png", sheet), ("losses.png", plot(read_log(out / "log.csv")))):
        with replacing(folder / name) as file:
            image.save(file, "PNG")


def translated(generator: Any, pictures: Array) -> Array:
    """One by one, so that the memory of a step is enough."""
    return np.concatenate([generator(Tensor(picture[None], ms.float32)).asnumpy() for picture in pictures])


def plot(rows: list[dict[str, str]]) -> Image.Image:
    """The losses of the generators and of the discriminators over the steps, a panel each."""
    image = Image.new("RGB", (PLOT[0], 2 * PLOT[1]), "white")
    for panel, names in enumerate((GENERATOR_LOSSES, DISCRIMINATOR_LOSSES)):
        curves = {name: [(float(row["step"]), float(row[name])) for row in rows] for name in names}
        shown = {name: curve for name, curve in curves.items() if any(value for _, value in curve)}
        _panel(ImageDraw.Draw(image), panel * PLOT[1], shown)
    return image


def _panel(draw: ImageDraw.ImageDraw, top: int, curves: dict[str, Curve]) -> None:
    left, above, right, below = PANEL
    points = [point for curve in curves.values() for point in curve]
    start, end = min((x for x, _ in points), default=0), max((x for x, _ in points), default=1)
    highest = max((y for _, y in points), default=1) or 1
    draw.rectangle((left, top + above, right, top + below), outline="#888888")
    for text, place in ((f"{highest:.3g}", above), ("0", below - 10)):
        draw.text((8, top + place), text, "black")
    draw.text((left, top + below + 6), f"step {start:.0f}", "black")
    draw.text((right - 90, top + below + 6), f"{end:.0f}", "black")
    for number, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[LOSSES.index(name) % len(COLOURS)]
        line = [
            (
                left + (x - start) / max(end - start, 1) * (right - left),
                top + below - y / highest * (below - above),
            )
            for x, y in _thinned(curve)
        ]
        draw.line(line, colour, 2)
        draw.text((right + 16, top + above + 18 * number), f"{name} {curve[-1][1]:.3g}", colour)


def _thinned(curve: Sequence[tuple[float, float]], most: int = 400) -> Curve:
    """Means of equal stretches, so that a long run stays readable."""
    if len(curve) <= most:
        return list(curve)
    parts = np.array_split(np.array(curve), most)
    return [(float(part[:, 0].mean()), float(part[:, 1].mean())) for part in parts]


def card(config: Config) -> str:
    """A card for `export`, with what only people can say still to be written."""
    side = f'width = {config.size}\nheight = {config.size}\nlayout = "NCHW"\norder = "RGB"\nrange = [-1.0, 1.0]\n'
    options = "".join(f"{name} = {json.dumps(value)}\n" for name, value in config.generator_options.items())
    return (
        f"name = {json.dumps(config.name)}\n"
        'description = "A generator trained by `python -m train fit`; not described yet."\nframing = "pad"\n\n'
        f"[input]\n{side}mean = [0, 0, 0]\nstd = [1, 1, 1]\n\n[output]\n{side}\n"
        f"[generator]\nnetwork = {json.dumps(config.generator)}\n\n[generator.options]\n{options}\n"
        f'[weights]\nsource = "python -m train fit, config {config.name}"\n'
        f"steps = {config.steps}\nbatch = {config.batch}\n"
    )
