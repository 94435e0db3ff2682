"""A job's data set: a folder with the pictures of two domains, or a zip or tar of it."""

from __future__ import annotations

import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from job_files import JobError, fetch, one_line, say
from PIL import Image

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
DEEP = 2  # folders above those of pictures that an archive may have

Member = tuple[str, int, "IO[bytes]"]  # name, size, content


def find_data(place: str, domain: str, cache: Path) -> Path:
    """The folder of a data set at `place`, or in the only archive there: it has the folder `domain` with pictures.

    Raises:
        JobError: there is none, or its archive is broken or reaches out of its folder.
    """
    found = fetch(place, cache / "data")
    archives = [found] if found.is_file() else sorted(f for f in found.iterdir() if is_archive(f))
    root = None if found.is_file() else with_pictures(found, domain)
    if root is None and len(archives) == 1:
        folder = cache / "pictures"
        say(f"{archives[0].name}: {extract(archives[0], folder)} files")
        root = with_pictures(folder, domain)
    if root is None:
        names = f" (there are {', '.join(f.name for f in archives)})" if archives else ""
        raise JobError(f"{place}: no folder {domain} with pictures, nor one zip or tar that has it{names}")
    return root


def is_archive(file: Path) -> bool:
    return file.name.lower().endswith(ARCHIVES) and file.is_file()


def with_pictures(folder: Path, domain: str) -> Path | None:
    """The folder itself, or the first one in it, not too deep, that has pictures in its folder `domain`."""
    level = [folder]
    for _ in range(DEEP + 1):
        for candidate in level:
            if has_pictures(candidate / domain):
                return candidate
        level = sorted(child for parent in level if parent.is_dir() for child in parent.iterdir() if child.is_dir())
    return None


def has_pictures(folder: Path) -> bool:
    known = Image.registered_extensions()
    return folder.is_dir() and any(f.suffix.lower() in known and f.is_file() for f in folder.iterdir())


def extract(archive: Path, folder: Path) -> int:
    """Writes the archive's files below `folder`; returns their number. Hidden files are left out.

    Nothing is written outside `folder`, whatever the archive says: links and devices are refused, and so are names that
    are absolute or have `..` in them.
    """
    try:
        with zipfile.ZipFile(archive) if zipfile.is_zipfile(archive) else tarfile.open(archive) as file:
            members = zip_members(file) if isinstance(file, zipfile.ZipFile) else tar_members(file)
            return sum(write(member, folder) for member in members)
    except JobError as error:
        raise JobError(f"{archive.name}: {error}") from error
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise JobError(f"{archive.name}: not a whole archive that can be read: {one_line(error)}") from error


def zip_members(file: zipfile.ZipFile) -> Iterator[Member]:
    for entry in file.infolist():
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise JobError(f"{entry.filename} is a link")
        if not entry.is_dir():
            with file.open(entry) as content:
                yield entry.filename, entry.file_size, content


def tar_members(file: tarfile.TarFile) -> Iterator[Member]:
    for entry in file:
        if entry.isdir():
            continue
        content = file.extractfile(entry) if entry.isreg() else None
        if content is None:
            raise JobError(f"{entry.name} is a link or a device")
        with content:
            yield entry.name, entry.size, content


def write(member: Member, folder: Path) -> int:
    """Writes a file of an archive; returns how many were written, which is 0 for a hidden one."""
    name, size, content = member
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise JobError(f"{name} would be written outside of the data's folder")
    if any(part.startswith((".", "__MACOSX")) for part in path.parts):
        return 0
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if size > shutil.disk_usage(target.parent).free:
        raise JobError(f"no room for {name} ({size:,} bytes) in {folder}; give another --cache")
    with target.open("wb") as copy:
        shutil.copyfileobj(content, copy, 1 << 20)
    return 1
