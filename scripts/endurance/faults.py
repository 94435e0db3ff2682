"""What becomes of photos while the worst happens? Faults strike the real command, and then every photo is counted.

links    folders in IN are swapped for links to a folder outside, again and again, while photos are deleted or archived
replace  a new photo takes the place of one in the moment in which that is read, checked, deleted or archived
kill     a run that deletes or archives photos is killed at any moment, and started again
full     the disk of OUT is full while photos are deleted (needs root: it mounts a small one)
stall    an object store accepts connections and never answers

A try is one strike. A loss is a photo that is nowhere, or was touched outside of IN, or a run that says nothing or
never ends. `scripts/soak --faults all --seconds 600` starts this.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import random
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

COMMAND = [sys.executable, "-m", "h2a_batch"]
PATIENCE = 300  # seconds for one run
WATCHED = 12  # seconds for one watch
OPEN, CLOSE, MOVED = 0x20, 0x10, 0x40  # of inotify: opened, closed after reading, renamed to another name
RULES = ("delete", "archive")


@dataclass
class Count:
    """How often a fault struck, and what was lost.

    Args:
        promise: what must hold.
        tries: the number of strikes.
        losses: a line each.
        note: why there were no tries.
    """

    promise: str
    tries: int
    losses: list[str]
    note: str = ""


class Scene:
    """A folder with IN, OUT, an archive, a folder outside, and photos of which each has its own content."""

    def __init__(self, folder: Path, pool: list[bytes], rule: str, photos: int = 24) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.folder = folder.resolve()
        self.source, self.out, self.archive, self.outside = (
            self.folder / name for name in ("in", "out", "archive", "outside")
        )
        for place in (self.source / "sub", self.outside, self.archive):
            place.mkdir(parents=True)
        self.pool, self.photos = pool, {}
        for number in range(photos):
            path = self.source / ("sub" if number % 2 else "") / f"p{number:03d}.jpg"
            self.photos[path] = self.unique(path, f"first {number}")
        self.rules = ["--on-success", rule if rule == "delete" else f"archive={self.archive}", "--faces", "off"]

    def unique(self, path: Path, mark: str) -> str:
        """Write a photo that no other place has, and return its sha256: bytes behind a JPEG's end belong to nothing."""
        data = self.pool[hash(path.name) % len(self.pool)] + mark.encode()
        path.write_bytes(data)
        return hashlib.sha256(data).hexdigest()

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        command = [*COMMAND, self.source, self.out, *self.rules, "-q", *more]
        return subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE)

    def end(self, process: subprocess.Popen[bytes]) -> Iterator[str]:
        """Wait for the end of a run; yield what it should not have said."""
        try:
            said = process.communicate(timeout=PATIENCE)[1].decode(errors="replace")
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            yield "a run did not end"
            return
        yield from (line for line in said.splitlines() if "Traceback" in line or "unexpected" in line)

    def converted(self) -> set[str]:
        """Return the sha256 of every photo that has an output, whole on disk, of those that the ledger knows."""
        ledger = self.out / ".h2a-batch" / "ledger.sqlite"
        if not ledger.exists():
            return set()
        with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
            rows = db.execute("SELECT name, sha256, size FROM outputs WHERE sha256 IS NOT NULL AND size > 0").fetchall()
        files = {self.out / name: (sha256, size) for name, sha256, size in rows}
        return {sha256 for file, (sha256, size) in files.items() if file.exists() and file.stat().st_size == size}

    def missing(self, known: set[str], what: str) -> list[str]:
        """Return a line for each photo of the beginning whose sha256 is not among those known."""
        return [f"{path} is {what}" for path, sha256 in self.photos.items() if sha256 not in known]

    def held(self, *folders: Path) -> set[str]:
        """Return the sha256 of every file in some folders, hidden ones too."""
        files = (path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        return {hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def links(folder: Path, pool: list[bytes], seconds: float, chance: random.Random) -> Count:
    count = Count("outside of IN nothing is moved or deleted where a link comes; a watch reads nothing", 0, [])
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        scene = Scene(folder, pool, chance.choice(RULES))
        alike = chance.random() < 0.5  # the photos outside are those of IN, with their times: only the way differs
        for path in (scene.source / "sub").iterdir():
            if alike:
                shutil.copy2(path, scene.outside)
            else:
                scene.unique(scene.outside / path.name, "outside")
        before = {path: path.read_bytes() for path in scene.outside.iterdir()}
        link, sub = scene.folder / "link", scene.source / "sub"
        link.symlink_to(scene.outside)
        watch = chance.random() < 0.5  # a run takes the photos of a link that it meets, but leaves them there
        process = scene.start(*(["--watch", "--settle", "0.2"] if watch else []))
        last = time.monotonic() + WATCHED
        while process.poll() is None and not (watch and time.monotonic() > last):
            exchange(link, sub)
            count.tries += 1
            time.sleep(chance.expovariate(200))
        process.terminate()
        count.losses += scene.end(process)
        after = {path: path.read_bytes() for path in scene.outside.iterdir()}
        count.losses += [
            f"{path} was touched" for path in before.keys() | after.keys() if before.get(path) != after.get(path)
        ]
        if watch and not alike:
            read = scene.converted() & scene.held(scene.outside)
            count.losses += [f"{sha256} outside was converted" for sha256 in read]
        real = link if sub.is_symlink() else sub
        kept = scene.held(scene.source, real, scene.archive) | scene.converted()
        count.losses += scene.missing(kept, "lost")
    return count


def exchange(one: Path, other: Path) -> None:
    """Let two names change places at once, where the file system can; else one after the other."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2) == 0:
        return
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


@dataclass
class Thief:
    """Somebody who puts a new photo in a photo's place at the first event of its kind.

    Args:
        stage: where the new photos lie, by the names of those that they replace.
        events: for each name, the kind of event of inotify to wait for.
        placed: the names of the photos that were replaced.
    """

    stage: Path
    events: dict[str, int]
    placed: set[str]

    def hear(self, place: Path, name: str, mask: int) -> None:
        """Take note of an event in a folder."""
        if self.events.get(name, 0) & mask and name not in self.placed:
            with contextlib.suppress(OSError):
                os.rename(self.stage / name, place / name)
                self.placed.add(name)


def replace(folder: Path, pool: list[bytes], seconds: float, chance: random.Random) -> Count:
    count = Count("a photo that takes another's place at its disposal is kept, or converted", 0, [])
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        scene = Scene(folder, pool, chance.choice(RULES), photos=40)
        stage = scene.folder / "stage"
        stage.mkdir()
        new = {path.name: scene.unique(stage / path.name, "new") for path in scene.photos}
        thief = Thief(stage, {name: chance.choice((OPEN, CLOSE, MOVED, MOVED)) for name in new}, set())
        stop = threading.Event()
        folders = [scene.source, scene.source / "sub"]
        thread = threading.Thread(target=notify, args=(folders, thief.hear, stop))
        thread.start()
        count.losses += scene.end(scene.start())
        stop.set()
        thread.join()
        count.tries += len(thief.placed)
        converted, archived = scene.converted(), scene.held(scene.archive)
        kept = scene.held(scene.source) | converted | archived
        count.losses += [f"the new {name} is lost" for name in thief.placed if new[name] not in kept]
        unread = archived - converted
        count.losses += [f"the new {name} was archived unread" for name in thief.placed if new[name] in unread]
    return count


def notify(folders: list[Path], struck: Callable[[Path, str, int], None], stop: threading.Event) -> None:
    """Call `struck` with each event of some folders, without any delay: watchdog's would come too late."""
    libc = ctypes.CDLL(None, use_errno=True)
    queue = libc.inotify_init1(os.O_NONBLOCK)
    places = {libc.inotify_add_watch(queue, os.fsencode(folder), OPEN | CLOSE | MOVED): folder for folder in folders}
    while not stop.is_set():
        try:
            data = os.read(queue, 1 << 16)
        except BlockingIOError:
            time.sleep(0.0002)
            continue
        while data:
            watch, mask, _, size = struct.unpack_from("iIII", data)
            name = os.fsdecode(data[16 : 16 + size].rstrip(b"\0"))
            data = data[16 + size :]
            if watch in places:
                struck(places[watch], name, mask)
    os.close(queue)


def kill(folder: Path, pool: list[bytes], seconds: float, chance: random.Random) -> Count:
    count = Count("a kill at any moment loses no photo, and the next run goes on", 0, [])
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        scene = Scene(folder, pool, chance.choice(RULES), photos=60)
        archived: set[str] = set()
        for _ in range(12):
            process = scene.start()
            try:
                process.wait(0.4 + chance.random() * 2)
            except subprocess.TimeoutExpired:
                process.kill()
                count.tries += 1
            process.communicate()
            archived = scene.held(scene.archive)
            kept = scene.held(scene.source) | archived | scene.converted()
            count.losses += scene.missing(kept, "lost")
        count.losses += scene.end(scene.start())
        converted = scene.converted()
        count.losses += scene.missing(converted, "not converted")
        count.losses += [f"{path} is left over" for path in scene.folder.rglob(".h2a-*") if path.name != ".h2a-batch"]
    return count


def full(folder: Path, pool: list[bytes], seconds: float, chance: random.Random) -> Count:
    count = Count("on a full disk no photo is deleted that has no whole output", 0, [])
    if os.getuid() != 0:
        return Count(count.promise, 0, [], "needs root, to mount a small disk")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        scene = Scene(folder, pool, "delete", photos=40)
        scene.out.mkdir()
        size = chance.randrange(300, 2500)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", scene.out], capture_output=True
        )
        if mounted.returncode:
            return Count(count.promise, 0, [], f"cannot mount: {mounted.stderr.decode().strip()}")
        try:
            count.losses += scene.end(scene.start())
            count.tries += 1
            kept = scene.held(scene.source) | scene.converted()
            count.losses += scene.missing(kept, "lost")
            subprocess.run(["mount", "-o", "remount,size=200m", scene.out], check=True)
            count.losses += scene.end(scene.start())
            converted = scene.converted()
            count.losses += [
                f"{path} is not converted" for path, sha256 in scene.photos.items() if sha256 not in converted
            ]
        finally:
            subprocess.run(["umount", "--lazy", scene.out], check=True)
    return count


def stall(folder: Path, pool: list[bytes], seconds: float, chance: random.Random) -> Count:
    count = Count("a store that never answers ends a run with a line", 0, [])
    folder.mkdir(parents=True, exist_ok=True)
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
    environment = {**os.environ, **keys, "H2A_STORE_PATIENCE": "0.02"}
    end = time.monotonic() + seconds
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        while time.monotonic() < end:
            command = [*COMMAND, "s3://bucket/in", str(folder / "out"), "--endpoint", address]
            count.tries += 1
            try:
                done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                count.losses.append("a run did not end")
                continue
            if "pip install" in done.stderr:
                return Count(count.promise, 0, [], "needs the extra cloud")
            if done.returncode in (0, -11) or "Traceback" in done.stderr or not done.stderr.strip():
                count.losses.append(f"exit code {done.returncode}: {done.stderr.strip()[:200]}")
    return count


FAULTS = {"links": links, "replace": replace, "kill": kill, "full": full, "stall": stall}


def strike(names: list[str], folder: Path, pool: list[bytes], seconds: float, seed: int) -> bool:
    """Let each fault strike for its share of the time, print the table, and tell whether nothing was lost."""
    counts = []
    for name in names:
        counts.append(FAULTS[name](folder / name, pool, seconds / len(names), random.Random(seed)))
        print(f"{name}: {counts[-1].tries} tries, {len(counts[-1].losses)} losses", flush=True)
    width = max(len(count.promise) for count in counts)
    print(f"\n{'promise':<{width}}  {'tries':>6}  {'losses':>6}")
    for count in counts:
        print(f"{count.promise:<{width}}  {count.tries:>6}  {len(count.losses):>6}  {count.note}".rstrip())
        sys.stderr.writelines(f"{loss}\n" for loss in count.losses[:10])
    return not any(count.losses for count in counts)
