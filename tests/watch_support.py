"""A watcher as the tests use it: the real command in the background, and what it has told so far."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pytest
from conftest import PHOTOS, command_line
from PIL import Image

PORTRAITS = sorted(PHOTOS.glob("*.jpg"))
SETTLE = 0.4  # seconds


class Watch:
    """``h2a-batch IN ... OUT --watch --json`` in the background.

    Args:
        arguments: of the command; a further ``--settle`` stands over the one given here.
        before: a command that starts the command.
    """

    def __init__(self, *arguments: object, before: Sequence[str] = (), **keywords: Any) -> None:
        self.source, self.out = Path(str(arguments[0])), Path(str(arguments[1]))
        self.process = subprocess.Popen(
            [*before, *command_line("--settle", SETTLE, *arguments, "--watch", "--json")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            **keywords,
        )
        self.lines: list[dict[str, Any]] = []
        self.errors: list[str] = []
        self._readers = [
            self._follow(self.process.stdout, lambda line: self.lines.append(json.loads(line))),
            self._follow(self.process.stderr, self.errors.append),
        ]

    @staticmethod
    def _follow(stream: IO[str] | None, take: Callable[[str], None]) -> threading.Thread:
        def work() -> None:
            for line in stream or ():
                take(line)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def wait(self, condition: Callable[[], object], seconds: float = 90) -> None:
        """Wait until something holds."""
        end = time.monotonic() + seconds
        while not condition():
            told = f"{self.lines[-5:]} {''.join(self.errors[-5:])}"
            assert time.monotonic() < end, f"it did not happen in time: {told}"
            assert self.process.poll() is None or condition(), f"the watcher ended: {told}"
            time.sleep(0.05)

    def states(self, path: Path) -> list[str]:
        """What was told of a photo, in order."""
        return [line["state"] for line in list(self.lines) if line.get("input") == str(path)]

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """The events of these kinds that were told, in order."""
        return [line for line in list(self.lines) if line.get("event") in kinds]

    def until(self, path: Path, *states: str) -> None:
        """Wait until exactly this was told of a photo."""
        self.wait(lambda: self.states(path) == list(states))

    def ready(self) -> Watch:
        """Wait until the watch has begun."""
        self.wait(lambda: self.events("ready"))
        return self

    def end(self, number: int = signal.SIGTERM) -> int:
        """End it with a signal; its exit code."""
        self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """Wait for its end; its exit code."""
        code = self.process.wait(90)
        for reader in self._readers:
            reader.join(10)
        assert "Traceback" not in "".join(self.errors)
        return code

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()


Start = Callable[..., Watch]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts watchers; what still runs at the end of the test is killed."""
    started: list[Watch] = []

    def run(*arguments: object, **keywords: Any) -> Watch:
        started.append(Watch(*arguments, **keywords))
        return started[-1]

    yield run
    for watch in started:
        watch.kill()


def picture(number: int, side: int = 96) -> bytes:
    """A small JPEG of a portrait; each number gives other content."""
    with Image.open(PORTRAITS[number % len(PORTRAITS)]) as image:
        small = image.resize((side, side)).rotate(number // len(PORTRAITS))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=60)
    return data.getvalue()


def drop(path: Path, number: int) -> Path:
    """Put a picture there, at once and whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(number))
    return path
