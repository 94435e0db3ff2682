"""Stores that misbehave: one that accepts and is silent, and a gate before a real one that changes what passes it."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Change = Callable[[str, str, bytes], "bytes | None"]  # of a verb, a path and a body; None where nothing ever comes


def same(verb: str, path: str, body: bytes) -> bytes:
    """Change nothing."""
    return body


def flipped(body: bytes) -> bytes:
    """A body with one bit in its middle flipped."""
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :] if body else body


@contextmanager
def silent() -> Iterator[str]:
    """The address of a store that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        held: list[socket.socket] = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    held.append(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for one in held:
            one.close()


@contextmanager
def gate(
    endpoint: str,
    request: Change = same,
    answer: Change = same,
    strict: bool = False,
    slow: bool = False,
    fails: Callable[[str, str], bool] = lambda verb, path: False,
) -> Iterator[str]:
    """The address of a store that passes requests on to another one.

    `request` changes the bodies of requests, and `answer` those of answers. `strict` refuses a body of another
    Content-MD5, as Amazon does. `slow` sends the photos byte by byte, without an end. `fails` tells
    by verb and path which requests the store fails at (500).
    """
    ended = threading.Event()

    class Gate(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            sent = request(self.command, self.path, body)
            if sent is None:
                ended.wait(60)
                self.close_connection = True
                return
            if fails(self.command, self.path):
                self.reply(500, {}, b"<Error><Code>InternalError</Code><Message>Our fault.</Message></Error>")
                return
            told = self.headers.get("Content-MD5")
            if strict and told and base64.b64decode(told) != hashlib.md5(sent).digest():
                self.reply(400, {}, b"<Error><Code>BadDigest</Code><Message>Not what you promised.</Message></Error>")
                return
            headers = {"Content-Type": "application/octet-stream", **dict(self.headers)}  # or urllib says: a form
            passed = urllib.request.Request(endpoint + self.path, sent or None, headers, method=self.command)
            try:
                with urllib.request.urlopen(passed) as found:
                    self.reply(found.status, dict(found.headers), found.read())
            except urllib.error.HTTPError as error:
                self.reply(error.code, dict(error.headers), error.read())

        def reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
            changed = answer(self.command, self.path, body) if status < 300 else body
            assert changed is not None
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(changed))}.items():
                if name not in ("Connection", "Transfer-Encoding"):
                    self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):
                if slow and self.command == "GET" and self.path.endswith(".jpg"):
                    for byte in changed:
                        self.wfile.write(bytes([byte]))
                        time.sleep(0.05)
                self.wfile.write(changed)

        def log_message(self, *words: object) -> None:
            pass

    for verb in ("GET", "PUT", "HEAD", "DELETE", "POST"):
        setattr(Gate, f"do_{verb}", Gate.pass_on)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Gate)
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
