"""What the stages share."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import Command, tree
from lite_support import ConvTanh
from PIL import Image

from h2a_batch.convert.allowance import Allowance


def test_a_large_object_gets_its_turn_while_small_ones_come() -> None:
    allowance, order = Allowance(100), []
    allowance.take(60)

    def take(size: int) -> None:
        allowance.take(size)
        order.append(size)
        allowance.give(size)

    with ThreadPoolExecutor(3) as pool:
        waiting = []
        for size in (500, 10, 20):
            waiting.append(pool.submit(take, size))
            time.sleep(0.1)
        assert order == [], "the small ones come after it"
        allowance.give(60)
        for done in waiting:
            done.result(10)
    assert order[0] == 500 and sorted(order) == [10, 20, 500]


def test_never_more_is_held_than_allowed_and_all_get_theirs() -> None:
    allowance, lock, held, most = Allowance(100), threading.Lock(), 0, 0

    def take(size: int) -> None:
        nonlocal held, most
        allowance.take(size)
        with lock:
            held += size
            most = max(most, held if size <= 100 else 0)
            assert size <= 100 or held == size, "alone"
        time.sleep(0.001)
        with lock:
            held -= size
        allowance.give(size)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(take, [30, 70, 1, 150, 99, 40] * 20, timeout=30))
    assert held == 0 and most <= 100


@pytest.mark.parametrize("batch", [1, 4])
def test_a_photo_that_the_generator_fails_on_fails_alone(tmp_path: Path, h2a: Command, batch: int) -> None:
    """Infinity for what is bright, as of a network whose weights are broken."""
    (tmp_path / "in").mkdir()
    for number in range(8):
        colour = "white" if number == 3 else (128, 128, 128)
        Image.new("RGB", (16, 16), colour).save(tmp_path / "in" / f"{number}.png")
    model = ConvTanh(last="ReLU", scale=1e38).write(tmp_path / "broken.mindir")
    arguments = ("in", "out", "--model", model, "--faces", "off", "--batch-size", batch, "--json")
    done = h2a(*arguments)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    failed = [line for line in lines if line["state"] == "failed"]
    assert done.returncode == 1 and [Path(line["input"]).name for line in failed] == ["3.png"], done.stdout
    assert failed[0]["kind"] == "model" and "not finite" in failed[0]["message"]
    assert set(tree(tmp_path / "out")) == {f"{number}.png" for number in range(8) if number != 3}
    assert h2a(*arguments).returncode == 1, "it is tried again"
