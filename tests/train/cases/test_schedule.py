"""What changes with the step: rates, factors of the loss terms, the average's decay."""

from __future__ import annotations

import dataclasses

import pytest

from train.config import Config
from train.models.schedule import factors_at

PLAIN = Config("x", steps=10, decay_steps=4, rate=1.0)


def test_the_rate_is_constant_then_falls_to_zero() -> None:
    assert [PLAIN.rate_at(step) for step in range(1, 11)] == pytest.approx([1] * 6 + [0.8, 0.6, 0.4, 0.2])


def test_the_rate_rises_and_falls_to_its_floor() -> None:
    config = dataclasses.replace(PLAIN, warmup_steps=4, rate_floor=0.5)
    rates = [config.rate_at(step) for step in range(1, 11)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 0.8, 0.6, 0.5, 0.5])


def test_terms_have_their_own_schedules() -> None:
    config = Config("x", identity_every=4, luminance=0.5, luminance_start=4.0, luminance_steps=100)
    assert [step for step in range(1, 10) if config.identity_at(step)] == [4, 8]
    assert [config.luminance_at(step) for step in (0, 50, 100, 500)] == [4, 2, 0.5, 0.5]
    assert dataclasses.replace(config, start="w.npz").luminance_at(50) == 0.5


def test_the_averages_decay_rises() -> None:
    config = Config("x")
    assert (config.ema_at(500), config.ema_at(501)) == (0.95, 0.998)
    slow = Config("x", ema=0.999, ema_warmup=20)
    assert [slow.ema_at(step) for step in (1, 30, 10**6)] == pytest.approx([2 / 21, 31 / 50, 0.999])
    for warm in (config, slow):
        assert dataclasses.replace(warm, start="w.npz").ema_at(1) == warm.ema


def test_factors_are_the_papers_unless_asked_for_more() -> None:
    """A term with 0 is not computed."""
    for step in (1, 1000):
        factors = {name: value for name, value in factors_at(Config("x"), step, 2.0).items() if value}
        assert factors == {"cycle_a": 10, "cycle_b": 10, "identity_a": 5, "identity_b": 5}


def test_factors_of_asked_terms() -> None:
    config = Config(
        "x",
        batch=2,
        cycle=4.0,
        cycle_start=8.0,
        cycle_steps=100,
        cycle_b=0.5,
        identity=1.0,
        identity_start=5.0,
        identity_steps=40,
        own_structure=0.8,
        own_colour=3.0,
        projected=0.25,
    )
    middle = factors_at(config, 20, 6.0)
    assert middle == pytest.approx(
        {
            "cycle_a": 7.2,
            "cycle_b": 3.6,
            "identity_a": 3.0,
            "identity_b": 3.0,
            "luminance": 0.0,
            "structure_a": 6.0,
            "structure_b": 3.0,
            "colour": 3.0,
            "projected": 0.25,
        }
    )
    end = factors_at(config, 100, 6.0)
    assert (end["cycle_a"], end["cycle_b"], end["identity_a"]) == (4.0, 2.0, 1.0)
