"""Distillation: its losses against numpy, what it learns, exact resuming, its mistakes, and a student on Lite."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from PIL import Image
from run_support import arrays, assert_same
from train_support import PHOTOS, ROOT, Array, shake

from h2a_batch.places import sha256_of
from train.config import Config, config_from, read_config
from train.data.batches import held_out, to_picture
from train.errors import TrainError
from train.lite import run_on_lite
from train.models.distill import GENERATOR_LOSSES, Distillation, evenly, same_size, teacher_of
from train.networks import PatchDiscriminator, build_generator
from train.run import checkpoint, report
from train.run.fit import fit
from train.run.start import model_of
from train.run.watch import Watch
from train.toml import tomllib
from train.weights import network_arrays, read_weights, write_weights

SMOKE = ROOT / "train" / "configs" / "smoke.toml"
TEACHER = ["teacher_generator=resnet-6", "teacher_options.width=4", 'teacher_options.padding="zeros"']
FACES_ONLY = ["domain_b=there is none"]
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator and a discriminator with weights that matter."""
    path = tmp_path_factory.mktemp("teacher") / "teacher.npz"
    generator = shake(build_generator("resnet-6", width=4, padding="zeros"))
    write_weights(path, {"ema": generator, "db": shake(PatchDiscriminator(8), 1)})
    return path


@pytest.fixture(scope="module")
def whole(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps in one go, with all that draws random numbers."""
    out = tmp_path_factory.mktemp("whole")
    assert fit(smoke(teacher, *EVERYTHING), out) == 3
    return out


EVERYTHING = ["steps=3", "pool=1", "d_scales=2", "diffaugment=color,translation", "save_every=1000", *FACES_ONLY]


def smoke(teacher: Path, *settings: str) -> Config:
    return read_config(SMOKE, [f"data={PHOTOS}", f"teacher={teacher}", *TEACHER, *settings])


def pictures(seed: int) -> Array:
    return np.random.default_rng(seed).uniform(-1, 1, (1, 3, 64, 64)).astype(np.float32)


def layer_by_layer(generator: object, x: Array) -> list[Array]:
    """What each layer gives."""
    result, y = [], Tensor(x)
    for cell in generator.layers:
        y = cell(y)
        result.append(y.asnumpy().copy())
    return result


def train(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "train", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_losses_are_the_papers(teacher: Path) -> None:
    """L1 and features compared with the teacher's, and a discriminator of pairs, written out in numpy."""
    model = Distillation(smoke(teacher, "adversarial=2", "recon=30", "distill=0.5", "distill_layers=2"))
    for cell in (model.student, model.adapt, *model.discriminators):
        shake(cell, 5)
    x = pictures(0)
    taught, tapped = model.teach(Tensor(x))
    truth, *features = [t.asnumpy().copy() for t in (taught, *tapped)]
    theirs, ours = layer_by_layer(model.teacher, x), layer_by_layer(model.student, x)
    np.testing.assert_allclose(truth, theirs[-1], atol=1e-5)
    assert model.taps == ((2, 3), (2, 8))  # the trunk's input and its end
    distill = 0.0
    for i, (own, other) in enumerate(zip(*model.taps, strict=True)):
        np.testing.assert_allclose(features[i], theirs[other], atol=1e-4)
        pooled = theirs[other].reshape(1, 16, 8, 2, 8, 2).mean((3, 5))  # at 1/4 size; the student's trunk is at 1/8
        weight, bias = model.adapt[i].weight.asnumpy()[:, :, 0, 0], model.adapt[i].bias.asnumpy()
        mapped = np.einsum("ts,nshw->nthw", weight, ours[own]) + bias[:, None, None]
        distill += ((mapped - pooled) ** 2).mean()
    recon = np.abs(ours[-1] - truth).mean()
    pair = np.concatenate((x, ours[-1]), 1)
    score = model.discriminators[0](Tensor(pair)).asnumpy()
    total, *terms, fake = model.generator_loss(Tensor(x), Tensor(truth), *map(Tensor, features))
    assert [float(t) for t in terms] == pytest.approx([((score - 1) ** 2).mean(), recon, distill], rel=1e-3)
    assert float(total) == pytest.approx(2 * ((score - 1) ** 2).mean() + 30 * recon + 0.5 * distill, rel=1e-3)
    np.testing.assert_allclose(fake.asnumpy(), ours[-1], atol=1e-4)
    real = np.concatenate((x, truth), 1)
    expected = 0.5 * (((model.discriminators[0](Tensor(real)).asnumpy() - 1) ** 2).mean() + (score**2).mean())
    assert float(model.discriminator_loss(Tensor(real), Tensor(pair))[0]) == pytest.approx(expected, rel=1e-3)


def test_the_student_comes_nearer_to_its_teacher(teacher: Path) -> None:
    """On one batch, by its pictures and by its features; the teacher stays as it is."""
    ms.set_seed(0)
    model = Distillation(smoke(teacher, "rate=5e-3", "steps=100", "distill=1"))
    before = network_arrays(model.teacher)
    x = pictures(0)
    losses = [model.step(step, x, x, RANDOM)[0] for step in range(1, 26)]
    assert losses[-1]["recon"] < 0.75 * losses[0]["recon"]
    assert losses[-1]["distill"] < 0.75 * losses[0]["distill"]
    after = network_arrays(model.teacher)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert model.networks().keys() == {"gab", "dab", "adapt", "ema"}


def test_without_a_discriminator_it_is_regression(teacher: Path) -> None:
    model = Distillation(smoke(teacher, "adversarial=0", "distill=0", "generator_options.blocks=0"))
    before = network_arrays(model.discriminators[0])
    losses, _ = model.step(1, pictures(0), pictures(1), RANDOM)
    assert losses.keys() == set(GENERATOR_LOSSES) and losses["gan"] == losses["distill"] == 0 < losses["recon"]
    after = network_arrays(model.discriminators[0])
    assert all(np.array_equal(before[name], after[name]) for name in before)
    Watch(1, model.discriminator_losses).check(1, losses, False)  # nobody has won


def test_resuming_is_the_same_as_not_stopping(teacher: Path, whole: Path, tmp_path: Path) -> None:
    config = smoke(teacher, *EVERYTHING)
    assert fit(config, tmp_path, stop_after=2) == 2
    assert fit(config, tmp_path, resume=True) == 3
    assert_same(whole, tmp_path)


def test_what_a_run_leaves(teacher: Path, whole: Path) -> None:
    log = report.read_log(whole / "log.csv")
    assert [row["step"] for row in log] == ["1", "2", "3"]
    assert all(float(row[name]) > 0 for row in log for name in ("gan", "recon", "distill", "d", "rate"))
    stored = arrays(whole)
    assert stored["pool_b"].shape == (1, 1, 6, 64, 64)
    assert stored["adapt.0.weight"].shape == (16, 16, 1, 1)
    assert not any(name.startswith("teacher") for name in stored)
    assert set(read_weights(whole / "weights.npz")) == {"gab", "dab", "dab2", "adapt", "ema"}
    assert json.loads((whole / "about.json").read_text())["teacher_sha256"] == sha256_of(teacher)
    with Image.open(whole / "samples" / "step-000003.png") as sheet:
        assert sheet.size == (2 * 64, 3 * 64)
        rows = [np.asarray(sheet.crop((0, 64 * i, 64, 64 * i + 64))).astype(int) for i in range(3)]
    config = smoke(teacher)
    face = held_out(config, config.samples)[0][0]
    taught = teacher_of(config, read_weights(teacher)["ema"])(Tensor(face[None])).asnumpy()[0]
    for row, picture in zip(rows, (face, taught), strict=False):
        assert np.abs(row - np.asarray(to_picture(picture))).max() <= 1
    assert rows[2].std() > 0 and np.abs(rows[2] - rows[1]).mean() > 1


def test_the_command_trains_a_student_that_runs_on_lite(teacher: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "run", tmp_path / "student.mindir"
    settings = [argument for setting in (*TEACHER, *FACES_ONLY) for argument in ("--set", setting)]
    done = train("fit", "--config", SMOKE, "--teacher", teacher, "--out", out, *settings)
    assert done.returncode == 0, done.stderr
    assert "step 2 of 2" in done.stdout and "WARNING" not in done.stderr
    done = train("export", "--weights", out / "weights.npz", "--card", out / "card.toml", model)
    assert done.returncode == 0, done.stderr
    origin = json.loads(model.with_suffix(".json").read_text())["weights"]["distilled_from"]
    assert origin == {"file": "teacher.npz", "network": "ema", "sha256": sha256_of(teacher)}
    y = run_on_lite(model, pictures(3))
    assert y.shape == (1, 3, 64, 64) and np.isfinite(y).all()


def test_against_real_anime_the_discriminator_is_the_teachers(teacher: Path) -> None:
    model = Distillation(smoke(teacher, "reals=domain_b"))
    assert model.networks().keys() == {"gab", "db", "adapt", "ema"}
    given, own = read_weights(teacher)["db"], network_arrays(model.discriminators[0])
    assert given and all(np.array_equal(array, own[f"db.{name}"]) for name, array in given.items())
    x, y = pictures(0), pictures(1)
    losses, (fake,) = model.step(1, x, y, RANDOM)
    judge = shake(PatchDiscriminator(8), 1)
    scores = [judge(Tensor(z)).asnumpy() for z in (y, fake)]
    assert losses["d"] == pytest.approx(0.5 * (((scores[0] - 1) ** 2).mean() + (scores[1] ** 2).mean()), rel=1e-3)
    with pytest.raises(TrainError, match="its discriminator 'db' does not fit d_width"):
        Distillation(smoke(teacher, "reals=domain_b", "d_width=4"))


def test_a_student_starts_from_earlier_weights(teacher: Path, whole: Path, tmp_path: Path) -> None:
    """Its own, with discriminators and all, or those of a CycleGAN, of which it takes the one generator."""
    earlier = read_weights(whole / "weights.npz")
    model = model_of(smoke(teacher, "d_scales=2", f"start={whole / 'weights.npz'}"))
    for name, cell in model.networks().items():
        own = network_arrays(cell)
        assert all(np.array_equal(array, own[f"{name}.{layer}"]) for layer, array in earlier[name].items())
    options = {"channels": [8, 8, 16], "blocks": 1, "last": 8}
    networks = {name: shake(build_generator("fast", **options), i) for i, name in enumerate(("ema", "gba"))}
    write_weights(tmp_path / "cyclegan.npz", networks)
    model = model_of(smoke(teacher, f"start={tmp_path / 'cyclegan.npz'}"))
    expected = network_arrays(networks["ema"])
    for name in ("gab", "ema"):
        own = network_arrays(model.networks()[name])
        assert all(np.array_equal(array, own[f"{name}.{layer}"]) for layer, array in expected.items())


def test_features_are_taken_evenly_over_the_trunk() -> None:
    """As the released code does for nine blocks: input, third, sixth, ninth."""
    fast, resnet = (build_generator(*kind) for kind in (("fast",), ("resnet-9",)))
    assert evenly(fast, resnet, 4) == ((2, 5, 7, 10), (2, 5, 8, 11))
    assert evenly(resnet, resnet, 1) == ((11,), (11,))
    assert evenly(build_generator("fast", blocks=1), resnet, 4) == ((2, 3), (2, 11))


def test_the_larger_features_are_averaged() -> None:
    small, large = (np.random.default_rng(side).normal(size=(2, 3, side, 2 * side)) for side in (4, 8))
    mean = large.reshape(2, 3, 4, 2, 8, 2).mean((3, 5))
    for pair in ((small, large), (large, small)):
        result = same_size(*(Tensor(a, ms.float32) for a in pair))
        for given, got in zip(pair, result, strict=True):
            np.testing.assert_allclose(got.asnumpy(), small if given is small else mean, atol=1e-6)


def test_pairs_have_no_pool_unless_asked_for() -> None:
    config = read_config(ROOT / "train" / "configs" / "distill-256.toml")
    assert (config.pool, config.recon, config.distill, config.adversarial) == (0, 10, 0.01, 1)
    assert config_from({"name": "x", "teacher": "t.npz", "pool": 5}, "here").pool == 5
    assert config_from({"name": "x"}, "here").pool == 50
    config = read_config(SMOKE, ["teacher=t.npz", *TEACHER])
    assert config_from(tomllib.loads(config.toml()), "again") == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["teacher=none.npz"], "none.npz: no such file"),
        (["teacher_network=gab"], "has no network 'gab' (teacher_network): it has ema, db"),
        (["teacher_generator=resnet-9"], "network 'ema' is no 'resnet-9' with"),
        (["teacher_options.width=8"], "(teacher_generator, teacher_options): weights do not fit"),
        (["teacher_options.depth=8"], "teacher_generator 'resnet-6' with"),
        (["generator=vgg"], "generator 'vgg' with"),
        (["generator=unet-256", "generator_options={}"], "size = 64: generator 'unet-256' needs a multiple of 256"),
        (
            ["generator=unet-256", "generator_options={depth = 5, width = 4}"],
            "only generators with residual blocks have features to compare; set distill = 0",
        ),
        (["reals=both"], "reals = 'both': must be one of teacher, domain_b"),
        (["recon=-1"], "recon = -1.0: must not be negative"),
    ],
)
def test_wrong_combinations_are_one_line(teacher: Path, settings: list[str], message: str) -> None:
    with pytest.raises(TrainError) as caught:
        model_of(smoke(teacher, *settings))
    assert message in str(caught.value)


def test_a_distillation_and_a_cyclegan_do_not_resume_each_other(teacher: Path, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="is a run of a distillation, from --teacher"):
        fit(read_config(SMOKE), whole, resume=True)
    (tmp_path / checkpoint.CHECKPOINT).write_bytes(b"")
    (tmp_path / "config.toml").write_text(read_config(SMOKE).toml())
    with pytest.raises(TrainError, match="is a run of CycleGAN, without a teacher"):
        fit(smoke(teacher), tmp_path, resume=True)
