"""What a run shows of itself: the log, the plot of its losses, the samples, the draft of a card."""

from __future__ import annotations

import csv
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from tqdm import tqdm

from h2a_batch.places import replacing
from train.config import FINE, JOINED, Config
from train.data import to_picture
from train.models import Model
from train.parallel import Workers
from train.toml import card_text, lines

Array = NDArray[np.float32]
Curve = list[tuple[float, float]]

COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#7f7f7f", "#17becf", "#bcbd22")
PLOT, PANEL = (960, 280), (60, 24, 700, 240)


class Log:
    """log.csv: one line for the mean of the steps since the last; lines after a resumed checkpoint are dropped."""

    def __init__(self, out: Path, first: int, model: Model) -> None:
        self.path = out / "log.csv"
        self.losses, self.summary = tuple(name for names in model.panels for name in names), model.summary
        columns = ("step", *self.losses, "rate", "images_per_second")
        kept = [row for row in read_log(self.path) if int(row["step"]) < first]
        with replacing(self.path) as file:
            lines = [",".join(columns), *(",".join(row.get(c, "0") for c in columns) for row in kept)]
            file.write(("\n".join(lines) + "\n").encode())
        self.since: list[dict[str, float]] = []
        self.images, self.started = 0, time.monotonic()

    def add(self, step: int, losses: dict[str, float], rate: float, images: int) -> None:
        self.since.append({"step": step, **losses, "rate": rate})
        self.images += images

    def write(self) -> str:
        """Appends the line; returns it in short, for the progress bar."""
        speed = self.images / max(time.monotonic() - self.started, 1e-9)
        mean = {name: self._mean(name) for name in self.losses}
        last = self.since[-1]
        row = [int(last["step"]), *(f"{mean[n]:.9g}" for n in self.losses), f"{last['rate']:.6g}", f"{speed:.4g}"]
        with self.path.open("a", encoding="utf-8") as file:
            file.write(",".join(map(str, row)) + "\n")
        self.since, self.images, self.started = [], 0, time.monotonic()
        sums = " ".join(f"{name} {sum(mean[n] for n in names):.3f}" for name, names in self.summary.items())
        return f"{sums}, {speed:.2f} images/s"

    def _mean(self, name: str) -> float:
        # A term that is not computed in every step is 0, or not there, in the others.
        values = [row.get(name, 0.0) for row in self.since]
        values = [v for v in values if v] or values
        return float(np.mean(values))


class Recorder:
    """Log, progress bar, samples and plot of a run, of which the first worker keeps one and the others none."""

    def __init__(
        self, config: Config, out: Path, model: Model, fixed: tuple[Array, Array], first: int, workers: Workers
    ) -> None:
        self.config, self.out, self.model, self.fixed, self.workers = config, out, model, fixed, workers
        self.log = Log(out, first, model) if workers.leads else None
        self.bar = tqdm(total=config.steps, initial=first - 1, desc=config.name, unit="step", disable=not workers.leads)

    def step(self, step: int, losses: dict[str, float], images: int, at_once: bool) -> None:
        """One step is done, on so many pictures of this worker; `at_once`: it is the last."""
        if self.log is None:
            return
        self.log.add(step, losses, self.config.rate_at(step), images * self.workers.size)
        self.bar.update()
        if step % self.config.log_every == 0 or at_once:
            self.bar.set_postfix_str(self.log.write())
        if step % self.config.sample_every == 0 or at_once:
            samples(self.out, self.model, self.fixed, step)

    def say(self, line: str) -> None:
        """A line above the bar."""
        if self.workers.leads:
            self.bar.write(line)


def read_log(path: Path) -> list[dict[str, str]]:
    """The whole lines of a log: one that a crash cut short is left out."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if all(row.values())]


def samples(out: Path, model: Model, fixed: tuple[Array, Array], step: int) -> None:
    """samples/step-NNNNNN.png, the model's rows; and losses.png."""
    rows = model.samples(*fixed)
    size = rows[0].shape[2]
    sheet = Image.new("RGB", (size * max(len(row) for row in rows), size * len(rows)), "white")
    for line, row in enumerate(rows):
        for place, picture in enumerate(row):
            sheet.paste(to_picture(picture), (place * size, line * size))
    folder = out / "samples"
    folder.mkdir(exist_ok=True)
    losses = plot(read_log(out / "log.csv"), model.panels)
    for name, image in ((f"step-{step:06d}.png", sheet), ("losses.png", losses)):
        with replacing(folder / name) as file:
            image.save(file, "PNG")


def plot(rows: list[dict[str, str]], panels: Sequence[Sequence[str]]) -> Image.Image:
    """The losses over the steps, a panel for each group of their names."""
    image = Image.new("RGB", (PLOT[0], len(panels) * PLOT[1]), "white")
    colours = dict(zip([name for names in panels for name in names], itertools.cycle(COLOURS), strict=False))
    for panel, names in enumerate(panels):
        curves = {name: [(float(row["step"]), float(row[name])) for row in rows] for name in names}
        shown = {name: curve for name, curve in curves.items() if any(value for _, value in curve)}
        _panel(ImageDraw.Draw(image), panel * PLOT[1], shown, colours)
    return image


def _panel(draw: ImageDraw.ImageDraw, top: int, curves: dict[str, Curve], colours: dict[str, str]) -> None:
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
        line = [
            (
                left + (x - start) / max(end - start, 1) * (right - left),
                top + below - y / highest * (below - above),
            )
            for x, y in _thinned(curve)
        ]
        draw.line(line, colours[name], 2)
        draw.text((right + 16, top + above + 18 * number), f"{name} {curve[-1][1]:.3g}", colours[name])


def _thinned(curve: Sequence[tuple[float, float]], most: int = 400) -> Curve:
    """Means of equal stretches, so that a long run stays readable."""
    if len(curve) <= most:
        return list(curve)
    parts = np.array_split(np.array(curve), most)
    return [(float(part[:, 0].mean()), float(part[:, 1].mean())) for part in parts]


def card(config: Config, teacher_sha256: str = "") -> str:
    """A card for `export`, with what only people can say still to be written; a distillation's names the teacher."""
    weights = lines(
        {"source": f"python -m train fit, config {config.name}", "steps": config.steps, "batch": config.batch}
    )
    if config.teacher:
        teacher = {"file": Path(config.teacher).name, "network": config.teacher_network, "sha256": teacher_sha256}
        weights += f"distilled_from = {{ {', '.join(lines(teacher).splitlines())} }}\n"
    description = "A generator trained by `python -m train fit`; not described yet."
    network, options = config.generator, config.generator_options
    if network == FINE:  # which is of use behind a coarse half
        network, options = JOINED, {"coarse": config.coarse_options, "fine": options}
    return card_text(config.name, description, config.size, {"network": network}, options, weights)
