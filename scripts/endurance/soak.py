"""Is a drop folder to be trusted? A watcher is treated badly for a while, then every photo is accounted for.

Photos are dropped in every way that programs have: at once, in slow pieces, under another name and renamed, moved in
with whole folders; they are overwritten, touched, cut short, renamed and removed; folders are removed and made again;
all the while the watcher is killed, ended and started. In the end every complete photo must have exactly one output,
of the very bytes that a run of its own makes of it; every broken one must be recorded as failed; nothing in IN may be
lost or changed; no temporary file may be left; no photo is converted more often than it was given, but for what a kill
excuses. A third of the time photos are kept, a third they are archived, and then each must be in the archive once; a
third they are deleted, and then each must have an output. Names of photos that are gone are used again.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from faults import FAULTS, strike
from pool import key_of, pictures

SETTLE = 0.5  # seconds
IN_FLIGHT = 15  # photos that one kill may cost a second conversion, at most
MODES = ("keep", "archive", "delete")
FOLDERS = ("", "a", "b", "b/c", "d/e/f")
COMMAND = [sys.executable, "-m", "h2a_batch"]


def undisturbed(pool: dict[str, bytes], folder: Path) -> dict[str, bytes]:
    """What a run of its own makes of each picture."""
    (folder / "in").mkdir(parents=True)
    for key, data in pool.items():
        (folder / "in" / f"{key}.jpg").write_bytes(data)  # known by content, whatever the name
    subprocess.run([*COMMAND, folder / "in", folder / "out", "-q"], check=True)
    return {key: (folder / "out" / f"{key}.png").read_bytes() for key in pool}


class Watcher:
    """The command, started again and again; what it told is kept as far as it is needed."""

    def __init__(self, source: Path, out: Path, rules: list[str]) -> None:
        self.command = [*COMMAND, source, out, "--watch", "--json", "--settle", SETTLE, *rules]
        self.converted: Counter[tuple[int, str]] = Counter()  # between two kills, by photo
        self.kills = self.ends = 0
        self.problems: list[str] = []
        self.start()

    def start(self) -> None:
        self.ready = False
        self.process = subprocess.Popen(
            list(map(str, self.command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.readers = [
            threading.Thread(target=self.follow, args=(self.process.stdout,), daemon=True),
            threading.Thread(target=self.listen, args=(self.process.stderr,), daemon=True),
        ]
        for reader in self.readers:
            reader.start()

    def follow(self, stream: io.TextIOBase) -> None:
        for line in stream:
            told = json.loads(line) if line.endswith("}\n") else {}  # a kill may cut a line short
            self.ready = self.ready or told.get("event") == "ready"
            if told.get("state") == "converted":
                self.converted[self.kills, told["input"]] += 1

    def listen(self, stream: io.TextIOBase) -> None:
        for line in stream:
            if "Traceback" in line or "report this" in line:
                self.problems.append(f"the watcher said: {line.strip()}")

    def hear(self) -> None:
        """Take in all that was told before the end."""
        for reader in self.readers:
            reader.join()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.hear()
        self.kills += 1

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(120)
        self.hear()
        self.ends += 1
        if code != 0 and self.ready:  # before that, a signal ends Python itself
            self.problems.append(f"SIGTERM ended the watcher with {code}")


class World:
    """IN as it should be, and the hands that change it."""

    def __init__(self, folder: Path, pool: dict[str, bytes], chance: random.Random, mode: str) -> None:
        self.folder, self.pool, self.chance = folder, pool, chance
        self.source, self.out, self.archive = folder / "in", folder / "out", folder / "archive"
        self.source.mkdir(parents=True)
        self.expected: dict[Path, str] = {}  # the content of each file in IN, "" where it is broken
        self.history: dict[Path, set[str]] = {}  # all contents that a path ever had
        self.dropped: Counter[str] = Counter()  # complete photos by content
        self.given: Counter[str] = Counter()  # how often a path got a complete photo
        self.busy: set[Path] = set()
        self.writers: list[threading.Thread] = []
        self.count = 0
        self.mode, self.keeps = mode, mode == "keep"
        rule = f"archive={self.archive}" if mode == "archive" else mode
        self.watcher = Watcher(self.source, self.out, ["--on-success", rule])

    def some_path(self) -> Path:
        """A new name; now and then one beside a namesake, or that of a photo that is gone."""
        gone = [path for path in self.expected if path not in self.busy and not path.exists()]
        if not self.keeps and gone and self.chance.random() < 0.2:
            return self.chance.choice(gone)
        self.count += self.chance.random() < 0.95
        folder = self.chance.choice(FOLDERS)
        name = f"IMG {self.count:05d}.{self.chance.choice(['jpg', 'jpg', 'png', 'JPEG'])}"
        path = self.source / folder / name
        return self.some_path() if path in self.expected or path in self.busy else path

    def some_photo(self) -> Path | None:
        """A photo that is there and that nobody writes to."""
        photos = [path for path, key in self.expected.items() if self.keeps and key and path not in self.busy]
        return self.chance.choice(photos) if photos else None

    def some_content(self, path: Path | None = None) -> str:
        """That of a photo which never was at a path: the same one again would be the same photo."""
        before = self.history.get(path, set()) if path else set()
        return self.chance.choice([key for key in self.pool if key not in before])

    def note(self, path: Path, key: str) -> None:
        """A file is complete at a path; an empty key: it is there, and broken."""
        self.expected[path] = key
        if key:
            self.history.setdefault(path, set()).add(key)
            self.dropped[key] += 1
            self.given[str(path)] += 1

    def drop(self) -> None:
        path = self.some_path()
        key = self.some_content(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.note(path, key)
        path.write_bytes(self.pool[key])

    def drop_slowly(self) -> None:
        """In pieces, with pauses longer than the settle time, open all the while or not, renamed at the end or not."""
        path = self.some_path()
        key = self.some_content(path)
        first = path.with_name(path.name + self.chance.choice([".part", ".crdownload"])) if self.count % 2 else path
        reopens, data = self.chance.random() < 0.5, self.pool[key]
        # a file that is closed for a while, and decodes, is complete for all that anybody can tell
        cuts = sorted(self.chance.sample(range(1, len(data) // 2 if reopens else len(data)), 4))
        pauses = [self.chance.choice([0.02, 0.2, 3 * SETTLE]) for _ in range(5)]
        self.busy.add(path)
        path.parent.mkdir(parents=True, exist_ok=True)

        def work() -> None:
            file = open(first, "wb")  # noqa: SIM115 - closed and opened again on the way
            for begin, end, pause in zip([0, *cuts], [*cuts, len(data)], pauses, strict=True):
                if file.closed:
                    file = open(first, "ab")  # noqa: SIM115
                file.write(data[begin:end])
                file.flush()
                if reopens:
                    file.close()
                time.sleep(pause)
            file.close()
            if first != path:
                first.rename(path)

        thread = threading.Thread(target=work)
        thread.start()
        self.writers.append(thread)
        self.note(path, key)

    def move_in(self) -> None:
        """A photo, or a folder of them, from elsewhere."""
        outside = self.folder / "outside" / f"album {self.count}"
        outside.mkdir(parents=True)
        self.count += 1
        for number in range(self.chance.choice([1, 4])):
            key = self.some_content()
            (outside / f"{number}.jpg").write_bytes(self.pool[key])
            self.note(self.source / outside.name / f"{number}.jpg", key)
        outside.rename(self.source / outside.name)

    def drop_broken(self) -> None:
        path, data = self.some_path(), self.pool[self.some_content()]
        path.parent.mkdir(parents=True, exist_ok=True)
        self.note(path, "")
        path.write_bytes(self.chance.choice([b"", data[: len(data) // 2], b"no picture"]))

    def overwrite(self) -> None:
        path, key = self.some_photo(), self.some_content()
        if not path:
            return
        self.note(path, key)
        if self.chance.random() < 0.5:
            path.write_bytes(self.pool[key])
        else:
            beside = path.with_name(".replacement")
            beside.write_bytes(self.pool[key])
            beside.rename(path)

    def touch(self) -> None:
        if path := self.some_photo():
            path.touch()

    def cut_short(self) -> None:
        if path := self.some_photo():
            self.note(path, "")
            os.truncate(path, path.stat().st_size // 2)

    def remove(self) -> None:
        if path := self.some_photo():
            del self.expected[path]
            path.unlink()

    def rename(self) -> None:
        if path := self.some_photo():
            new, key = path.with_name(f"renamed {self.count} {path.name}"), self.expected.pop(path)
            self.count += 1
            self.note(new, key)
            path.rename(new)

    def make_folder_again(self) -> None:
        folder = self.source / self.chance.choice(FOLDERS[1:])
        inside = [path for path in self.expected if folder in path.parents]
        if not self.keeps or not folder.exists() or any(folder in path.parents for path in self.busy):
            return
        for path in inside:
            del self.expected[path]
        shutil.rmtree(folder)
        folder.mkdir()

    def disturb(self) -> None:
        """Kill or end the watcher, the first time kill; it is started again at once, or a little later."""
        self.watcher.kill() if not self.watcher.kills or self.chance.random() < 0.6 else self.watcher.end()
        for _ in range(self.chance.choice([0, 5])):
            self.drop()
        self.watcher.start()

    def live(self, seconds: float) -> None:
        """All of it, at random, for a while."""
        hands = {
            self.drop: 30, self.drop_slowly: 12, self.move_in: 6, self.drop_broken: 2, self.overwrite: 8, self.touch: 8,
            self.cut_short: 1, self.remove: 3, self.rename: 4, self.make_folder_again: 1, self.disturb: 1,
        }  # fmt: skip
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if left < seconds / 2 and not self.watcher.kills:
                self.disturb()
            self.writers = [writer for writer in self.writers if writer.is_alive()]
            if not self.writers:
                self.busy.clear()
            self.chance.choices(list(hands), list(hands.values()))[0]()
            time.sleep(self.chance.expovariate(8))
        for writer in self.writers:
            writer.join()


def audit(world: World, fresh: dict[str, bytes]) -> Iterator[str]:
    """All that is not as it should be, a line each."""
    there = {path: path.read_bytes() for path in world.source.rglob("*") if path.is_file()}
    with closing(sqlite3.connect(f"file:{world.out}/.h2a-batch/ledger.sqlite?mode=ro", uri=True)) as db:
        rows = {row[0]: row[1:] for row in db.execute("SELECT source, state, sha256, output FROM files")}
        made = Counter(source for (source,) in db.execute("SELECT source FROM outputs WHERE size IS NOT NULL"))
        owners = dict(db.execute("SELECT name, source FROM outputs"))
    for path, key in world.expected.items():
        state, sha256, output = rows.get(str(path), ("unknown", None, None))
        if not key:
            if state not in ("failed", "started"):  # it may be tried again just now
                yield f"{path}: broken, and {state}"
            if path not in there:
                yield f"{path}: broken, and lost"
        elif world.keeps:
            if path not in there or key_of(there[path]) != key:
                yield f"{path}: lost or changed"
            if state != "done" or sha256 != key:
                yield f"{path}: {state}, its content {'known' if sha256 == key else 'not'}"
            elif (world.out / output).read_bytes() != fresh[key]:
                yield f"{path}: {output} is not what a run of its own makes"
            if made[str(path)] != 1:
                yield f"{path}: {made[str(path)]} outputs"
        elif path in there:
            yield f"{path}: {state}, not archived"
    outputs = {path for path in world.out.rglob("*") if path.is_file() and ".h2a-batch" not in path.parts}
    yield from (f"{path}: left over" for path in world.folder.rglob("*.part"))
    yield from (f"{path}: nobody's" for path in outputs if str(path.relative_to(world.out)) not in owners)
    yield from (f"{path}: unexpected" for path in there if path not in world.expected)
    if world.keeps:
        for path in outputs:
            before = world.history.get(Path(owners.get(str(path.relative_to(world.out)), "/")), set())
            if path.read_bytes() not in [fresh[key] for key in before]:
                yield f"{path}: not the output of anything its photo ever was"
    else:
        archived = Counter(key_of(path.read_bytes()) for path in world.archive.rglob("*") if path.is_file())
        if world.mode == "archive" and archived != world.dropped:
            yield f"the archive has {archived.total()} photos, {world.dropped.total()} were dropped"
        if Counter(path.read_bytes() for path in outputs) != Counter(
            {fresh[key]: number for key, number in world.dropped.items()}
        ):
            yield f"{len(outputs)} outputs, and {world.dropped.total()} photos were dropped"


def audited(world: World, fresh: dict[str, bytes]) -> list[str]:
    try:
        return list(audit(world, fresh))
    except (OSError, sqlite3.Error) as error:  # files come and go while the watcher works
        return [f"the audit could not be ended: {error}"]


def repeated(world: World) -> Iterator[str]:
    """Photos that were converted more often than a kill excuses: without one between, once each time they came."""
    for (_, path), told in world.watcher.converted.items():
        if told > world.given[path]:
            yield f"{path}: given {world.given[path]} times, converted {told} times without a kill"
    told, photos = world.watcher.converted.total(), world.dropped.total()
    if told > photos + IN_FLIGHT * world.watcher.kills:
        yield f"{told} conversions of {photos} photos, with {world.watcher.kills} kills"


def soak(folder: Path, seconds: float, seed: int, mode: str) -> list[str]:
    """One world, from its first photo to its audit; what is wrong with it."""
    pool = pictures()
    fresh = undisturbed(pool, folder / "fresh")
    world = World(folder, pool, random.Random(seed), mode)
    world.live(seconds)
    patience, end = 30 + 10 * SETTLE, time.monotonic() + 60
    problems = audited(world, fresh)
    done = world.watcher.converted.total()
    while problems and time.monotonic() < end:  # as long as there is progress, and a broken photo's time after that
        time.sleep(1)
        problems = audited(world, fresh)
        if (now := world.watcher.converted.total()) != done:
            done, end = now, time.monotonic() + patience + 60
    world.watcher.end()
    problems = [*audited(world, fresh), *repeated(world), *world.watcher.problems]
    again = subprocess.run([*COMMAND, world.source, world.out], capture_output=True, text=True)
    broken = sum(not key for key in world.expected.values())
    if not re.search(rf"^(0 converted, \d+ skipped, {broken} failed|no photos found)", again.stderr, re.MULTILINE):
        problems.append(f"a run found something left to do: {again.stderr.splitlines()[-2:]}")
    print(
        f"{mode}: {world.dropped.total()} photos, {done} conversions, "
        f"{world.watcher.kills} kills, {world.watcher.ends} ends, {len(problems)} problems",
        flush=True,
    )
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(prog="soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, metavar="N", help="of disturbance, in all (default: 60)")
    parser.add_argument("--seed", type=int, default=None, metavar="S", help="repeat a run (default: another each time)")
    parser.add_argument(
        "--faults",
        metavar="LIST",
        help=f"instead, strike runs with these faults and count losses: {','.join(FAULTS)}, or all",
    )
    given = parser.parse_args()
    seed = random.randrange(1_000_000) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    if given.faults:
        names = list(FAULTS) if given.faults == "all" else given.faults.split(",")
        if wrong := [name for name in names if name not in FAULTS]:
            parser.error(f"--faults: no fault is named {wrong[0]}")
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            return 0 if strike(names, Path(folder), list(pictures().values()), given.seconds, seed) else 1
    problems: list[str] = []
    for mode in MODES:
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            problems += soak(Path(folder), given.seconds / len(MODES), seed, mode)
    sys.stderr.writelines(f"{problem}\n" for problem in problems[:40])
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
