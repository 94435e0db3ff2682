"""What the stages share."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from h2a_batch.convert.pipeline import _Allowance


def test_a_large_object_gets_its_turn_while_small_ones_come() -> None:
    allowance, order = _Allowance(100), []
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
    allowance, lock, held, most = _Allowance(100), threading.Lock(), 0, 0

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
