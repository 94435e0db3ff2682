"""h2a-batch converts folders of human face photos into anime faces, offline, on MindSpore Lite.

from h2a_batch import convert_folder, convert_image
summary = convert_folder("photos", "anime", format="jpg")
anime = convert_image("photo.jpg")   # a Pillow image; `Generator` keeps the model open for more
"""

from typing import TYPE_CHECKING, Any

from h2a_batch.version import __version__

if TYPE_CHECKING:
    from h2a_batch.convert import convert_image
    from h2a_batch.errors import (
        BrokenModelError,
        BusyError,
        ClusterError,
        H2AError,
        LedgerError,
        ModelError,
        PhotoError,
        RuntimeMissingError,
        ShortageError,
        StorageError,
        UsageError,
    )
    from h2a_batch.events import Event, FileResult, Summary
    from h2a_batch.inference import Generator
    from h2a_batch.options import Options, Workers
    from h2a_batch.run import convert_folder

__all__ = [
    "BrokenModelError",
    "BusyError",
    "ClusterError",
    "Event",
    "FileResult",
    "Generator",
    "H2AError",
    "LedgerError",
    "ModelError",
    "Options",
    "PhotoError",
    "RuntimeMissingError",
    "ShortageError",
    "StorageError",
    "Summary",
    "UsageError",
    "Workers",
    "__version__",
    "convert_folder",
    "convert_image",
]
_HOMES = {
    "Event": "events",
    "FileResult": "events",
    "Generator": "inference",
    "Options": "options",
    "Summary": "events",
    "Workers": "options",
    "convert_folder": "run",
    "convert_image": "convert",
}


def __getattr__(name: str) -> Any:
    """Load a public name on its first use, so that the command sets up its signals before Pillow and NumPy load.

    Raises:
        AttributeError: the package has no such name.
    """
    from importlib import import_module

    home = _HOMES.get(name, "errors" if name.endswith("Error") else "")
    if name not in __all__ or not home:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
