"""A real S3 endpoint for the tests: moto's server, another process, over HTTP on loopback."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, command_line

MISSING = [name for name in ("s3fs", "moto", "flask", "flask_cors") if importlib.util.find_spec(name) is None]
needs_store = pytest.mark.skipif(
    bool(MISSING), reason=f"{', '.join(MISSING)} missing: .venv/bin/python -m pip install -e '.[cloud,test-cloud]'"
)
KEYS = {
    "AWS_ACCESS_KEY_ID": "a-key",
    "AWS_SECRET_ACCESS_KEY": "a-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Bucket:
    """A bucket of its own on a running endpoint, seen through botocore and not through the code under test."""

    def __init__(self, endpoint: str, name: str, state: Path) -> None:
        import botocore.session

        self.endpoint, self.name, self.state = endpoint, name, state
        self.client: Any = botocore.session.get_session().create_client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )
        self.client.create_bucket(Bucket=name)

    def url(self, key: str) -> str:
        """That of a key or prefix."""
        return f"s3://{self.name}/{key}"

    def put(self, key: str, data: bytes) -> None:
        """Write an object."""
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def put_all(self, objects: dict[str, bytes]) -> None:
        """Write many objects."""
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda key: self.put(key, objects[key]), objects))

    def put_tree(self, folder: Path, prefix: str) -> None:
        """Write all files of a folder."""
        self.put_all({f"{prefix}/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*.*")})

    def get(self, key: str) -> bytes:
        """Read an object."""
        data: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return data

    def delete(self, key: str) -> None:
        """Remove an object."""
        self.client.delete_object(Bucket=self.name, Key=key)

    def tree(self, prefix: str, hidden: bool = False) -> dict[str, bytes]:
        """All objects below a prefix that are not hidden, by their keys below it."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=f"{prefix}/")
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return {key[len(prefix) + 1 :]: self.get(key) for key in keys if hidden or "/." not in key}

    @property
    def environment(self) -> dict[str, str]:
        """For a process that reads and writes here."""
        return {**os.environ, **KEYS, "AWS_ENDPOINT_URL": self.endpoint, "XDG_STATE_HOME": str(self.state)}

    def run(self, h2a: Command, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        """The real command; further variables of its environment as keywords."""
        return h2a(*arguments, env={**self.environment, **variables})

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """The real command, left to run."""
        return subprocess.Popen(command_line(*arguments), env=self.environment, stderr=subprocess.PIPE, text=True)


@contextmanager
def throttled(endpoint: str, every: int) -> Iterator[str]:
    """The address of a store that passes requests on to another one, but for each so many'th, which it refuses."""
    numbers = count(1)

    class Gate(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if next(numbers) % every == 0:
                self.answer(
                    503, {}, b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
                )
                return
            request = urllib.request.Request(
                endpoint + self.path, body or None, dict(self.headers), method=self.command
            )
            try:
                with urllib.request.urlopen(request) as answer:
                    self.answer(answer.status, dict(answer.headers), answer.read())
            except urllib.error.HTTPError as error:
                self.answer(error.code, dict(error.headers), error.read())

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                if name not in ("Connection", "Transfer-Encoding"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words: object) -> None:
            pass

    for verb in ("GET", "PUT", "HEAD", "DELETE"):
        setattr(Gate, f"do_{verb}", Gate.pass_on)
    with ThreadingHTTPServer(("127.0.0.1", 0), Gate) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def served(folder: Path, **variables: str) -> Iterator[str]:
    """The address of an endpoint, for as long as it is used; further variables of its environment as keywords."""
    port = free_port()
    with open(folder / "moto.log", "wb") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **variables})
    try:
        _wait_for(port, process, folder / "moto.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError("the endpoint did not start")
