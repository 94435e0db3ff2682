"""Keys of objects: any text may be one, and not every text may be a path."""

from __future__ import annotations

import unicodedata

_LONGEST = 255  # bytes of a file's name, on all usual file systems


def why_no_path(key: str) -> str | None:
    """Return why no file can have a key as its path, in words that follow "its key"; None where one can."""
    parts = key.split("/")
    if "" in parts[:-1]:
        return "has two slashes in a row, or one at its beginning"
    if any(part in (".", "..") for part in parts):
        return "has a folder that is called . or .."
    if any(unicodedata.category(character) == "Cc" for character in key):
        return "has a control character"
    try:
        longest = max(len(part.encode()) for part in parts)
    except UnicodeEncodeError:
        return "is not UTF-8"
    return f"has a name of {longest} bytes, and a file's may have {_LONGEST}" if longest > _LONGEST else None
