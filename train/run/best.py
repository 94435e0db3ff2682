"""The best weights of a run: its pictures of test faces are scored while it trains, and the best ones are kept.

`scores.csv` has a line for each scoring: KID against the test anime faces, own structure and diversity
(`train.scoring`), of pictures in the run's own size, so that the figures compare within runs of one size only.
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
from train.config import Config
from train.data import held_out, to_picture
from train.foreign import FEATURE_SIZE, load_weights, normalised
from train.models import Model
from train.networks import EfficientNetLite
from train.run.checkpoint import save_weights
from train.scoring import diversity, has_collapsed, kid, luminance, own_structure

Array = NDArray[np.float32]

SCORES, BEST = "scores.csv", "best.npz"
BATCH = 10


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
        return not has_collapsed(self.diversity, self.own_structure)

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
        own = own_structure(self.before, _luminances(made))
        scores = Scores(step, kid(found, self.real), own, diversity(found, self.real))
        least = min((s.kid for s in self.done if s.counts), default=float("inf"))
        if scores.counts and scores.kid < least:
            save_weights(self.out / BEST, model)
        self.done.append(scores)
        self._write()
        return scores

    def _features(self, pictures: Array) -> NDArray[np.float64]:
        """(N, 3, H, W) in [-1, 1] -> (N, 1280), in batches of one size, for which one graph is compiled."""
        size = (FEATURE_SIZE, FEATURE_SIZE)
        large = [to_picture(p).resize(size, Image.Resampling.LANCZOS) for p in pictures]
        scaled = normalised(np.stack([np.asarray(picture) for picture in large]))
        padded = np.concatenate([scaled, np.zeros((-len(scaled) % BATCH, *scaled.shape[1:]), np.float32)])
        rows = [
            self._pooled(Tensor(np.ascontiguousarray(padded[i : i + BATCH]))).asnumpy()
            for i in range(0, len(padded), BATCH)
        ]
        features: NDArray[np.float64] = np.concatenate(rows)[: len(pictures)].astype(np.float64)
        return features

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
    return np.stack([luminance(np.asarray(to_picture(picture))) for picture in pictures])
