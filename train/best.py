"""The best weights of a run: its pictures of test faces are scored while it trains, and the best ones are kept.

`scores.csv` has a line for each scoring: KID against the test anime faces, own structure and diversity
(`train.metrics`), of pictures in the run's own size, so that the figures compare within runs of one size only.
`best.npz` holds the networks with the lowest KID of a generator that does not draw one face for everybody.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor
from numpy.typing import NDArray
from PIL import Image

from h2a_batch.places import replacing
from train import checkpoint, metrics
from train.config import Config
from train.data import Array, held_out, to_picture
from train.efficientnet_weights import load_weights
from train.models import Model
from train.networks.efficientnet_lite import EfficientNetLite

SCORES, BEST = "scores.csv", "best.npz"
FEATURE_SIZE, BATCH = 224, 10
# ImageNet's, on pixels in [0, 1], as `train.efficientnet` has them: with others the figures would not compare.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Scores:
    """One scoring; KID is multiplied by 1000, as usual."""

    step: int
    kid: float
    own_structure: float
    diversity: float

    @property
    def counts(self) -> bool:
        """Whether these may be the best: not where the generator draws one face for everybody."""
        return not metrics.has_collapsed(self.diversity, self.own_structure)

    def __str__(self) -> str:
        text = f"step {self.step}: KID {self.kid:.1f}, own structure {self.own_structure:.3f}, "
        return text + f"diversity {self.diversity:.3f}" + ("" if self.counts else ": one face for everybody")


class Scorer:
    """Scores a run and keeps its best weights; lines of steps from `first` on, of an earlier attempt, are dropped."""

    def __init__(self, config: Config, out: Path, first: int) -> None:
        self.out = out
        network = EfficientNetLite(load_weights("lite0"), FEATURE_SIZE).set_train(False)
        self._pooled = ms.jit(network.pooled)
        self.faces, anime = held_out(config, config.score_pictures)
        self.real = self._features(anime)
        self.before = _luminances(self.faces)
        self.done = [scores for scores in read_scores(out) if scores.step < first]
        self._write()

    def score(self, step: int, model: Model) -> Scores:
        """Scores what the model makes of the test faces; the weights are written where these are the best so far."""
        made = model.paint(self.faces)
        found = self._features(made)
        own = metrics.own_structure(self.before, _luminances(made))
        scores = Scores(step, metrics.kid(found, self.real), own, metrics.diversity(found, self.real))
        least = min((s.kid for s in self.done if s.counts), default=float("inf"))
        if scores.counts and scores.kid < least:
            checkpoint.save_weights(self.out / BEST, model)
        self.done.append(scores)
        self._write()
        return scores

    def _features(self, pictures: Array) -> NDArray[np.float64]:
        """(N, 3, H, W) in [-1, 1] -> (N, 1280), in batches of one size, for which one graph is compiled."""
        size = (FEATURE_SIZE, FEATURE_SIZE)
        large = [to_picture(p).resize(size, Image.Resampling.LANCZOS) for p in pictures]
        scaled = (np.stack(large).astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
        padded = np.concatenate([scaled, np.zeros((-len(scaled) % BATCH, *scaled.shape[1:]), np.float32)])
        rows = [
            self._pooled(Tensor(np.ascontiguousarray(padded[i : i + BATCH].transpose(0, 3, 1, 2)))).asnumpy()
            for i in range(0, len(padded), BATCH)
        ]
        return np.concatenate(rows)[: len(pictures)].astype(np.float64)

    def _write(self) -> None:
        with replacing(self.out / SCORES) as file:
            lines = [f"{s.step},{s.kid:.4f},{s.own_structure:.4f},{s.diversity:.4f}\n" for s in self.done]
            file.write("".join(["step,kid,own_structure,diversity\n", *lines]).encode())


def read_scores(out: Path) -> list[Scores]:
    """The scorings of a run's folder; none where there is no file."""
    if not (out / SCORES).exists():
        return []
    with (out / SCORES).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [Scores(int(r["step"]), float(r["kid"]), float(r["own_structure"]), float(r["diversity"])) for r in rows]


def _luminances(pictures: Array) -> NDArray[np.float64]:
    return np.stack([metrics.luminance(np.asarray(to_picture(picture))) for picture in pictures])
