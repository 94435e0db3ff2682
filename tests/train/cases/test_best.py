"""Scoring while a run trains: features are those of `train evaluate`; collapsed generators are never the best."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mindspore import Tensor
from PIL import Image
from train_support import PHOTOS, ROOT

from train.config import Config, read_config
from train.data.batches import to_picture
from train.pytorch.features import extract, load_extractor
from train.run.best import BEST, FEATURE_SIZE, Scorer, read_scores
from train.run.fit import fit
from train.run.start import model_of
from train.weights import read_weights

SETTINGS = ("steps=3", "score_every=1", "score_pictures=4", "sample_every=9", "generator_options.channels=[4,4,8]")


def tiny(*more: str) -> Config:
    return read_config(ROOT / "train/configs/smoke.toml", [f"data={PHOTOS}", *SETTINGS, *more])


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    return Scorer(tiny(), tmp_path_factory.mktemp("run"), 1)


def test_features_are_those_that_evaluate_compares(scorer: Scorer) -> None:
    size = (FEATURE_SIZE, FEATURE_SIZE)
    large = [np.asarray(to_picture(face).resize(size, Image.Resampling.LANCZOS)) for face in scorer.faces]
    expected = extract(load_extractor(), large)
    np.testing.assert_allclose(scorer._features(scorer.faces), expected, atol=2e-3)
    assert scorer.real.shape == expected.shape == (4, 1280)


def test_one_face_for_everybody_is_never_the_best(scorer: Scorer) -> None:
    model = model_of(tiny())
    for parameter in model.networks()["ema"].get_parameters():
        parameter.set_data(Tensor(np.zeros(parameter.shape, np.float32)))
    scores = scorer.score(1, model)
    assert scores.diversity == pytest.approx(0, abs=1e-3) and not scores.counts
    assert "one face for everybody" in str(scores) and not (scorer.out / BEST).exists()
    assert [kept.step for kept in read_scores(scorer.out)] == [1]


def test_a_run_keeps_its_best_and_a_resumed_one_goes_on(tmp_path: Path) -> None:
    config = tiny("save_every=2")
    assert fit(config, tmp_path, stop_after=2) == 2
    assert [scores.step for scores in read_scores(tmp_path)] == [1, 2]
    with (tmp_path / "scores.csv").open("a") as file:
        file.write("3,-999,0.9,0.9\n")  # of steps that a crash took back
    assert fit(config, tmp_path, resume=True) == 3
    found = read_scores(tmp_path)
    assert [scores.step for scores in found] == [1, 2, 3] and found[2].kid > -999
    if any(scores.counts for scores in found):
        assert read_weights(tmp_path / BEST).keys() == read_weights(tmp_path / "weights.npz").keys()
    else:
        assert not (tmp_path / BEST).exists()
