"""Training runs: exact resuming, interruption, ends that are told plainly, what a run leaves, and its model on Lite."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_support import arrays, assert_same
from train_support import PHOTOS, ROOT

from h2a_batch.errors import H2AError
from train.config import Config, config_from, read_config
from train.data.batches import Domain, batches
from train.errors import TrainError
from train.lite import run_on_lite
from train.models.cyclegan import DISCRIMINATOR_LOSSES, PAPER_LOSSES
from train.run import checkpoint, report
from train.run.fit import fit
from train.run.start import held
from train.run.watch import Watch, is_flat
from train.toml import tomllib

SMOKE = ROOT / "train" / "configs" / "smoke.toml"


def smoke(*settings: str) -> Config:
    return read_config(SMOKE, [f"data={PHOTOS}", "save_every=1000", "sample_every=1000", *settings])


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "train", *map(str, arguments)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps in one go."""
    out = tmp_path_factory.mktemp("whole")
    assert fit(smoke("steps=4"), out) == 4
    return out


def test_resuming_is_the_same_as_not_stopping(whole: Path, tmp_path: Path) -> None:
    config = smoke("steps=4")
    assert fit(config, tmp_path, stop_after=3) == 3
    with (tmp_path / "log.csv").open("a") as file:  # what a crash after the checkpoint may leave
        file.write("4,1,1\n")
    assert fit(config, tmp_path, resume=True) == 4
    assert_same(whole, tmp_path)


def test_what_a_run_leaves(whole: Path) -> None:
    rows = report.read_log(whole / "log.csv")
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    assert all(float(row[name]) > 0 for row in rows for name in (*PAPER_LOSSES, *DISCRIMINATOR_LOSSES))
    config = tomllib.loads((whole / "config.toml").read_text())
    assert config_from(config, "config.toml") == smoke("steps=4")
    assert json.loads((whole / "about.json").read_text())["mindspore"]
    with Image.open(whole / "samples" / "step-000004.png") as sheet:
        assert sheet.size == (2 * 64, 4 * 64)
    with Image.open(whole / "samples" / "losses.png") as plot:
        assert len(plot.convert("RGB").getcolors(100000) or []) > 5
    stored = arrays(whole)
    assert stored["pool_a"].shape == (1, 2, 3, 64, 64)
    assert stored["g_optimizer.beta1_power"] == pytest.approx(0.5**4, rel=1e-5)
    assert sum(name.startswith("g_optimizer.moment") for name in stored) == 4 * sum(
        n.startswith("gab.") for n in stored
    )


def test_a_run_is_not_overwritten_and_not_taken_for_another(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="has a run already"):
        fit(smoke("steps=4"), whole)
    with pytest.raises(TrainError, match="nothing to resume"):
        fit(smoke(), tmp_path, resume=True)
    with pytest.raises(TrainError, match="does not fit the networks"):
        fit(smoke("d_width=4"), whole, resume=True)


def test_two_runs_do_not_share_a_folder(whole: Path) -> None:
    """Nor does one that ended, or failed, keep it."""
    before = (whole / checkpoint.CHECKPOINT).read_bytes()
    with held(whole), pytest.raises(H2AError, match=f"another run .process {os.getpid()}. is writing here") as caught:
        fit(smoke("steps=5"), whole, resume=True)
    assert "\n" not in str(caught.value)
    assert (whole / checkpoint.CHECKPOINT).read_bytes() == before
    with held(whole):
        pass


def test_a_run_that_diverges_ends_with_its_checkpoint_kept(tmp_path: Path) -> None:
    """At a rate of 1e30 the weights overflow in the first steps."""
    fit(smoke("steps=3"), tmp_path, stop_after=1)
    kept = (tmp_path / checkpoint.CHECKPOINT).read_bytes()
    with pytest.raises(TrainError, match=r"(NaN|not a number)"):
        fit(smoke("steps=3", "rate=1e30"), tmp_path, resume=True)
    assert (tmp_path / checkpoint.CHECKPOINT).read_bytes() == kept


def test_collapse_ends_a_run() -> None:
    losses, flat, lively = {"d_a": 0.1, "d_b": 0.1}, np.zeros((1, 3, 8, 8)), np.eye(8)[None, None]
    watch = Watch(3, DISCRIMINATOR_LOSSES)
    for step, fake in enumerate([flat, flat, lively, flat, flat]):
        watch.check(step, losses, is_flat([lively, fake]))
    with pytest.raises(TrainError, match="a generator has collapsed"):
        watch.check(6, losses, is_flat([lively, flat]))
    watch = Watch(1, DISCRIMINATOR_LOSSES)
    with pytest.raises(TrainError, match="the discriminators have won"):
        watch.check(1, {"d_a": 0.0, "d_b": 1e-7}, False)
    with pytest.raises(TrainError, match="step 7: the loss d_b is not a number"):
        watch.check(7, {"d_a": 0.1, "d_b": float("nan")}, False)


def test_sigint_saves_and_ends(tmp_path: Path) -> None:
    out = tmp_path / "run"
    settings = ("--set", "steps=100000", "--set", "sample_every=100000", "--set", "save_every=100000")
    with subprocess.Popen(
        command("fit", "--config", SMOKE, "--out", out, *settings), cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as process:
        for _ in range(600):
            if len(report.read_log(out / "log.csv")) >= 2:
                break
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    with np.load(out / checkpoint.CHECKPOINT) as file:
        step = json.loads(str(file["about"]))["step"]
    assert step == int(report.read_log(out / "log.csv")[-1]["step"]) >= 2


def test_the_command_trains_and_its_model_runs_on_lite(tmp_path: Path) -> None:
    """The smoke run of CI: two steps, one of them resumed, exported in both directions."""
    out = tmp_path / "run"
    cached = {**os.environ, "MS_COMPILER_CACHE_ENABLE": "1", "MS_COMPILER_CACHE_PATH": str(tmp_path / "cache")}
    for more in (("--stop-after", "1"), ("--resume",)):
        done = subprocess.run(
            command("fit", "--config", SMOKE, "--out", out, *more), cwd=ROOT, env=cached, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr  # the second would compute NaN
        assert "WARNING" not in done.stderr
    assert "step 2 of 2" in done.stdout
    for network in ("ema", "ema_ba"):
        model = tmp_path / f"{network}.mindir"
        wanted = ("--weights", out / "weights.npz", "--card", out / "card.toml", "--network", network, model)
        done = subprocess.run(command("export", *wanted), cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        y = run_on_lite(model, np.zeros((1, 3, 64, 64), np.float32))
        assert y.shape == (1, 3, 64, 64) and np.isfinite(y).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["colour=1"], "unknown field 'colour'"),
        (["steps=many"], "steps = 'many': must be int"),
        (["steps=true"], "steps = True: must be int"),
        (["steps"], "--set steps: must be FIELD=VALUE"),
        (["gan=wasserstein"], "gan = 'wasserstein': must be one of lsgan, vanilla"),
        (["diffaugment=colour"], "diffaugment = 'colour': must be of color, translation"),
        (["steps=5", "decay_steps=6"], "decay_steps = 6: must not be more than steps"),
        (["size=100"], "size = 100: must be divisible by 16"),
        (["luminance_cell=7"], "luminance_cell = 7: must divide size (64)"),
        (["projected_size=100"], "projected_size = 100: must be divisible by 32"),
        (["own_structure=0.8"], "own_structure = 0.8: needs a batch of 2 or more"),
        (["own_structure=80"], "own_structure = 80.0: must be between 0 and 1"),
        (["own_colour=3", "batch=2", "size=48"], "own_colour = 3.0: needs a size divisible by 32, not 48"),
        (["cycle_noise=-1"], "cycle_noise = -1.0: must not be negative"),
        (["affine_a.spin=1"], "affine_a = {'spin': 1}: must be of turn, zoom, shift"),
        (["affine_b.zoom=[1.2,0.9]"], "affine_b = {'zoom': [1.2, 0.9]}: zoom must be [least, most], above 0"),
        (["affine_b.turn=left"], "affine_b = {'turn': 'left'}: turn must be a number, not negative"),
        (["jitter_a.gray=3"], "jitter_a = {'gray': 3}: gray must be between 0 and 1"),
        (["name.first=1"], "'name' is not a table"),
    ],
)
def test_config_mistakes_name_the_field(settings: list[str], message: str) -> None:
    with pytest.raises(TrainError) as caught:
        read_config(SMOKE, settings)
    assert message in str(caught.value)


def test_settings_reach_everything() -> None:
    config = read_config(SMOKE, ["rate=1e-3", "generator=resnet-6", "generator_options.blocks=3", "name=other"])
    assert (config.rate, config.generator, config.name) == (1e-3, "resnet-6", "other")
    assert config.generator_options["blocks"] == 3
    assert config_from(tomllib.loads(config.toml()), "again") == config
    for file in (ROOT / "train" / "configs").glob("*.toml"):
        assert read_config(file).name == file.stem


def test_mistakes_of_use_are_one_line(tmp_path: Path) -> None:
    for arguments, message in [
        (("--config", tmp_path / "none.toml"), "none.toml: no such file"),
        (("--config", SMOKE, "--data", tmp_path / "none"), "no such folder of pictures"),
        (("--config", SMOKE, "--set", "generator_options.depth=3"), "generator 'fast' with"),
        (
            ("--config", SMOKE, "--set", "generator=unet-256", "--set", "generator_options={width=4}"),
            "a multiple of 256",
        ),
        (("--config", SMOKE, "--device", "Ascend"), "--device Ascend: MindSpore"),
    ]:
        done = subprocess.run(
            command("fit", *arguments, "--out", tmp_path / "run"), cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_batches_are_functions_of_seed_and_step() -> None:
    config = smoke("steps=9", "batch=2")
    straight = {step: (x, y) for step, x, y in batches(config, 1, 5)}
    for step, x, y in batches(config, 3, 5):
        assert np.array_equal(x, straight[step][0]) and np.array_equal(y, straight[step][1])
    x, y = straight[1]
    assert x.shape == (2, 3, 64, 64) and x.dtype == np.float32 and -1 <= x.min() < x.max() <= 1
    assert not np.array_equal(x, y)
    other = next(iter(batches(smoke("seed=1", "batch=2"), 1, 1)))
    assert not np.array_equal(x, other[1])


def test_every_picture_comes_once_in_an_epoch() -> None:
    domain = Domain(PHOTOS, smoke(), 0)
    count = len(domain.files)
    for epoch in range(2):
        places = range(epoch * count, (epoch + 1) * count)
        assert sorted(domain._order(place) for place in places) == list(range(count))
