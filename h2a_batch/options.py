"""The options of a run: plain data that is checked once and does not change afterwards."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from h2a_batch.errors import UsageError
from h2a_batch.machine import available_cores, available_memory
from h2a_batch.photos import FITS, FORMATS, USUAL_MEMORY, USUAL_SECONDS, parse_memory

FACES = ("off", "crop", "paste")
NO_FACE = ("convert", "skip", "fail")
MOST_FACES = 50  # of a photo
USUAL_SMALLEST, LARGE_SMALLEST = 28.0, 40.0  # pixels across the smallest face that is searched; in large photos
SHEET_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".pdf")
OUTPUT_VERSION = 3  # raise it when the same options come to give other pixels: all photos are then converted again
ARCHIVE, MOVE = "archive=", "move="
MOST_SECONDS = 86_400  # for one photo
LEAST_MEMORY = 64 << 20  # bytes for one photo
_GENERATOR_BYTES = 300_000_000  # the memory of one generator, with room to spare
_CLUSTER = re.compile(r"auto|(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):\d{1,5}")
_DEVICE = re.compile(r"cpu|auto|ascend(:\d+)?")


@dataclass(frozen=True)
class Workers:
    """The number of threads of each stage of the pipeline: decode, generator, encode; 0 leaves a number open."""

    decode: int
    generator: int
    encode: int

    @classmethod
    def parse(cls, text: str) -> Workers:
        """Return the numbers that a text gives: ``D:G:E``, or ``G`` alone; 0 or nothing leaves a number open.

        Raises:
            UsageError: the text has neither form.
        """
        parts = text.split(":")
        if len(parts) == 1:
            parts = ["", parts[0], ""]
        if len(parts) != 3 or not all(part == "" or re.fullmatch(r"\d{1,3}", part) for part in parts):
            raise UsageError(f"--workers {text}: not a number of workers", "write decode:generator:encode, as in 2:4:1")
        return cls(*(int(part or 0) for part in parts))

    def filled(self, device: str, cores: int | None = None) -> Workers:
        """Return the numbers with the open ones filled in, to fit the machine.

        On CPU one one-thread generator a core is fastest, where memory allows; an Ascend card runs one, in batches.

        Args:
            device: ``cpu``, or an Ascend card such as ``ascend:0``.
            cores: the number of cores to use; by default those that this process may use.
        """
        cores = cores or available_cores()
        generators = min(cores, max(1, available_memory() // _GENERATOR_BYTES)) if device == "cpu" else 1
        return Workers(
            decode=self.decode or max(2, math.ceil(cores / 2)),
            generator=self.generator or generators,
            encode=self.encode or max(1, cores // 4),
        )


@dataclass(frozen=True)
class Options:
    """All options of a run, with the names and the meaning of the command line.

    Raises:
        UsageError: a value is out of range, or two values contradict each other.
    """

    format: str = "png"
    quality: int | None = None
    suffix: str = ""
    size: str = "model"
    fit: str | None = None
    recursive: bool = True
    model: str = "anime-256"
    device: str = "auto"
    batch_size: int | None = None
    workers: Workers = Workers(0, 0, 0)
    overwrite: bool = False
    fail_fast: bool = False
    dry_run: bool = False
    limit: int | None = None
    keep_metadata: bool = False
    contact_sheet: Path | None = None
    report: Path | None = None
    watch: bool = False
    settle: float | None = None
    poll: bool = False
    max_idle: float | None = None
    on_success: str = "keep"
    on_failure: str = "keep"
    faces: str = "crop"
    min_face: int | None = None
    max_faces: int = MOST_FACES
    no_face: str = "convert"
    ray: str | None = None
    endpoint: str = ""
    timeout_per_photo: float = USUAL_SECONDS
    memory_per_photo: str | None = None

    def __post_init__(self) -> None:
        _require(self.format in FORMATS, f"--format {self.format}: choose one of {', '.join(FORMATS)}")
        _require(self.quality is None or 1 <= self.quality <= 100, f"--quality {self.quality}: choose 1 to 100")
        _require(
            self.size in ("model", "source") or _is_side(self.size),
            f"--size {self.size}: choose model, source or a number of pixels from 1 to 16384",
        )
        _require(self.fit is None or self.fit in FITS, f"--fit {self.fit}: choose one of {', '.join(FITS)}")
        _require(
            not set(self.suffix) & set("/\\\0") and len(os.fsencode(self.suffix)) <= 64,
            f"--suffix {self.suffix!r}: a suffix has no slashes and at most 64 bytes",
        )
        _require(
            _DEVICE.fullmatch(self.device) is not None,
            f"--device {self.device}: choose cpu, ascend, ascend:N or auto",
        )
        _require(
            self.batch_size is None or 1 <= self.batch_size <= 256,
            f"--batch-size {self.batch_size}: choose 1 to 256",
        )
        _require(
            self.contact_sheet is None or Path(self.contact_sheet).suffix.lower() in SHEET_SUFFIXES,
            f"--contact-sheet {self.contact_sheet}: name a file that ends in {', '.join(SHEET_SUFFIXES)}",
        )
        _require(self.limit is None or self.limit >= 1, f"--limit {self.limit}: choose 1 or more")
        _require(
            self.on_success in ("keep", "delete") or self.archive is not None,
            f"--on-success {self.on_success}: choose keep, delete or {ARCHIVE}FOLDER",
        )
        _require(
            self.on_failure == "keep" or self.failures is not None,
            f"--on-failure {self.on_failure}: choose keep or {MOVE}FOLDER",
        )
        for name in ("contact_sheet", "report"):
            _require(
                getattr(self, name) is None or self.on_success != "delete",
                f"--{name.replace('_', '-')} needs the photos, and --on-success delete deletes them: choose one",
            )
            _require(
                getattr(self, name) is None or (not self.watch and self.on_success == self.on_failure == "keep"),
                f"--{name.replace('_', '-')} needs the photos where they are: "
                "not with --watch, --on-success or --on-failure, but h2a-sheet later",
            )
        _require(
            self.ray is None or _CLUSTER.fullmatch(self.ray) is not None,
            f"--ray {self.ray}: choose HOST:PORT, or write --ray alone and last for the cluster of this machine",
        )
        self._check_faces()
        self._check_watch()
        self._check_limits()

    def _check_faces(self) -> None:
        """Check the options about faces."""
        _require(self.faces in FACES, f"--faces {self.faces}: choose one of {', '.join(FACES)}")
        _require(self.no_face in NO_FACE, f"--no-face {self.no_face}: choose one of {', '.join(NO_FACE)}")
        _require(
            self.min_face is None or 16 <= self.min_face <= 16384,
            f"--min-face {self.min_face}: choose 16 to 16384 pixels",
        )
        _require(1 <= self.max_faces <= 1000, f"--max-faces {self.max_faces}: choose 1 to 1000")

    def _check_watch(self) -> None:
        """Check the options of a watch, and their use without one."""
        for name in ("settle", "max_idle"):
            seconds = getattr(self, name)
            text = f"--{name.replace('_', '-')} {seconds}"
            _require(seconds is None or 0 <= seconds < math.inf, f"{text}: choose a number of seconds, 0 or more")
            _require(seconds is None or self.watch, f"{text}: this is for --watch")
        _require(self.watch or not self.poll, "--poll: this is for --watch")
        _require(
            not (self.watch and self.dry_run),
            "--watch and --dry-run: choose one; without --watch, --dry-run lists what is there",
        )
        _require(
            not (self.watch and self.overwrite),
            "--watch and --overwrite: choose one; run once with --overwrite, then watch without",
        )

    def _check_limits(self) -> None:
        """Check what one photo may take."""
        _require(
            0 < self.timeout_per_photo <= MOST_SECONDS,
            f"--timeout-per-photo {self.timeout_per_photo:g}: choose a number of seconds, up to {MOST_SECONDS}",
        )
        memory = None if self.memory_per_photo is None else parse_memory(self.memory_per_photo)
        _require(
            self.memory_per_photo is None or (memory is not None and memory >= LEAST_MEMORY),
            f"--memory-per-photo {self.memory_per_photo}: choose {LEAST_MEMORY >> 20} MB or more, as in 1500 or 4G",
        )

    @property
    def most_memory(self) -> int:
        """The bytes of memory that reading one photo may take."""
        given = self.memory_per_photo and parse_memory(self.memory_per_photo)
        return given or USUAL_MEMORY

    @property
    def archive(self) -> Path | None:
        """The folder for photos after their conversion; None where they stay."""
        return _folder(self.on_success, ARCHIVE)

    @property
    def failures(self) -> Path | None:
        """The folder for photos that failed; None where they stay."""
        return _folder(self.on_failure, MOVE)

    @property
    def effective_quality(self) -> int:
        """The quality of lossy formats, 1 to 100; lossless formats ignore it."""
        return self.quality if self.quality is not None else 92

    def batch_for(self, device: str) -> int:
        """Return the number of images in one call of the model: one is best on a CPU, several on an Ascend card."""
        return self.batch_size or (1 if device == "cpu" else 8)

    def settings(self, model_sha256: str, fit: str, face_rule: Sequence[float]) -> str:
        """Return, as canonical JSON for the ledger, all that decides the bytes of an output.

        Args:
            model_sha256: the sha256 of the model.
            fit: the model's own fit, used where the options name none.
            face_rule: how the model wants a face framed, the numbers of its `FaceRule`.
        """
        faces = [self.faces, self.min_face, self.max_faces, self.no_face, *face_rule]
        return json.dumps(
            {
                "version": OUTPUT_VERSION,
                "model": model_sha256,
                "format": self.format,
                "quality": self.effective_quality if FORMATS[self.format].lossy else None,
                "size": self.size,
                "fit": self.fit or fit,
                "keep_metadata": self.keep_metadata,
                "faces": None if self.faces == "off" else faces,
            },
            sort_keys=True,
        )


def with_settings(options: Options, settings: dict[str, Any]) -> Options:
    """Return the options with some fields replaced, written as in Python: ``size=512``, ``workers="1:2:1"``.

    Raises:
        UsageError: an option does not exist, or its value cannot be used.
    """
    if unknown := sorted(set(settings) - set(Options.__dataclass_fields__)):
        raise UsageError(f"no option is named {', '.join(unknown)}")
    fields = dict(settings)
    if "size" in fields:
        fields["size"] = str(fields["size"])
    if fields.get("memory_per_photo") is not None:
        fields["memory_per_photo"] = str(fields["memory_per_photo"])
    if "model" in fields:
        fields["model"] = os.fspath(fields["model"])
    if "workers" in fields and not isinstance(fields["workers"], Workers):
        fields["workers"] = Workers.parse(str(fields["workers"]))
    for name in ("contact_sheet", "report"):
        if fields.get(name) is not None:
            _require(fields[name] != "", f"--{name.replace('_', '-')} is an empty name: name a file")
            fields[name] = Path(fields[name])
    try:
        return replace(options, **fields)
    except TypeError as error:
        raise UsageError(f"an option has a value of the wrong type: {error}") from error


def _folder(rule: str, prefix: str) -> Path | None:
    """Return the folder that a rule such as ``archive=FOLDER`` names, from the root; None for a rule without one."""
    name = rule[len(prefix) :] if rule.startswith(prefix) else ""
    return Path(os.path.abspath(os.path.expanduser(name))) if name else None


def _is_side(text: str) -> bool:
    return re.fullmatch(r"\d{1,5}", text) is not None and 1 <= int(text) <= 16384


def _require(holds: bool, message: str) -> None:
    """Raise UsageError with a message unless a condition holds."""
    if not holds:
        raise UsageError(message)
