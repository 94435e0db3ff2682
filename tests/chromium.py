"""A headless Chromium, driven through its DevTools protocol over a pair of pipes: no package is needed for that."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
KEYS = {
    "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13, "Escape": 27, "Tab": 9,
    "Home": 36, "End": 35, "PageDown": 34, "PageUp": 33, " ": 32,
}  # fmt: skip
# the browser reads commands from descriptor 3 and writes answers to 4
_ON_PIPES = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 20) for end in sys.argv[1:3]]
for place, end in zip((3, 4), ends):
    os.dup2(end, place)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_browser() -> str | None:
    """The path of a Chromium or Chrome; the variable H2A_BROWSER names another."""
    given = os.environ.get("H2A_BROWSER")
    return given or next((path for path in map(shutil.which, NAMES) if path), None)


class Page:
    """One tab. It keeps every request that was made, and everything that was logged as a warning or an error."""

    def __init__(self, process: subprocess.Popen[bytes], to: int, back: int) -> None:
        self._process, self._to, self._back = process, to, back
        self._buffer, self._number = b"", 0
        self._session: str | None = None
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._session = str(self._attach())
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def _attach(self) -> object:
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        return self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._to, data) :]
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return dict(answer["result"])

    def _receive(self, seconds: float = 120) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready = select.select([self._back], [], [], seconds)[0]
            data = os.read(self._back, 1 << 20) if ready else b""
            assert data, f"the browser does not answer (exit code {self._process.poll()})"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, about: dict[str, Any]) -> None:
        if event == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(about["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            self.errors.append(json.dumps(about["args"]))
        elif event == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.errors.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")

    def open(self, url: str) -> None:
        """Go to a page and wait until it is there."""
        self.send("Page.navigate", url=url)
        self.wait(f"document.readyState === 'complete' && location.href !== 'about:blank' && {json.dumps(url)} !== ''")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript; promises are waited for."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 30) -> Any:
        """Wait until an expression is true, and return its value."""
        end = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, f"never true: {expression}"
            time.sleep(0.02)
        return value

    def press(self, *keys: str, shift: bool = False) -> None:
        """Press keys one after the other, by their names; a letter types itself."""
        for key in keys:
            event: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS.get(key, 0)}
            if len(key) == 1:
                event["text"] = key
            elif key == "Enter":
                event["text"] = "\r"
            for kind in ("keyDown", "keyUp"):
                self.send("Input.dispatchKeyEvent", type=kind, modifiers=8 if shift else 0, **event)

    def type(self, text: str) -> None:
        """Put text where the focus is, in any script."""
        self.send("Input.insertText", text=text)

    def drag(self, *points: tuple[float, float]) -> None:
        """Press the mouse at the first point, move it over the others, let go at the last."""
        kinds = ["mousePressed", *["mouseMoved"] * (len(points) - 1), "mouseReleased"]
        for kind, (x, y) in zip(kinds, [*points, points[-1]], strict=True):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def swipe(self, *points: tuple[float, float]) -> None:
        """The same with a finger."""
        kinds = ["touchStart", *["touchMove"] * (len(points) - 1)]
        for kind, (x, y) in zip(kinds, points, strict=True):
            self.send("Input.dispatchTouchEvent", type=kind, touchPoints=[{"x": x, "y": y}])
        self.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def click(self, selector: str) -> None:
        """Click into the middle of an element."""
        box = self.evaluate(
            f"(() => {{ const b = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return [b.left + b.width / 2, b.top + b.height / 2]; })()"
        )
        self.drag((box[0], box[1]))

    def screen(self, width: int, height: int, *, phone: bool = False, dark: bool = False, scale: float = 1) -> None:
        """Set the size of the window in CSS pixels, and what kind of screen it is."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone
        )
        self.send("Emulation.setTouchEmulationEnabled", enabled=phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, path: Path) -> None:
        """Save what is on the screen as PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def paper(self) -> bytes:
        """The page as it is printed, as PDF."""
        return base64.b64decode(self.send("Page.printToPDF", printBackground=False, preferCSSPageSize=True)["data"])


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """Start the browser with a profile of its own in a folder, and end it."""
    program = find_browser()
    assert program, "no browser; see find_browser"
    their_in, our_out = os.pipe()
    our_in, their_out = os.pipe()
    flags = [
        "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={folder / 'profile'}", "--no-first-run",
        "--disable-gpu", "--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--mute-audio", "--hide-scrollbars",
    ]  # fmt: skip
    if os.geteuid() == 0:
        flags.append("--no-sandbox")  # root may not use it
    command = [sys.executable, "-c", _ON_PIPES, str(their_in), str(their_out), program, *flags]
    with open(folder / "browser.log", "wb") as log:
        process = subprocess.Popen(
            command, pass_fds=(their_in, their_out), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    os.close(their_in)
    os.close(their_out)
    try:
        page = Page(process, our_out, our_in)
        page.screen(1280, 900)
        yield page
        page.send("Browser.close") if process.poll() is None else None
    finally:
        os.close(our_out)
        os.close(our_in)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
