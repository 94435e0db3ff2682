"""h2a-batch: folders of human face photos into anime faces, offline, on MindSpore Lite.

from h2a_batch import convert_folder
summary = convert_folder("photos", "anime", format="jpg")

from h2a_batch import Generator
anime = Generator("anime-256").paint([pixels])[0]   # uint8 RGB, (256, 256, 3)
"""

__version__ = "0.1.0"

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from h2a_batch.errors import H2AError
    from h2a_batch.events import Event, FileResult, Summary
    from h2a_batch.inference import Generator
    from h2a_batch.options import Options, Workers
    from h2a_batch.run import convert_folder

__all__ = [
    "Event",
    "FileResult",
    "Generator",
    "H2AError",
    "Options",
    "Summary",
    "Workers",
    "__version__",
    "convert_folder",
]
_HOMES = {
    "Event": "events",
    "FileResult": "events",
    "Generator": "inference",
    "H2AError": "errors",
    "Options": "options",
    "Summary": "events",
    "Workers": "options",
    "convert_folder": "run",
}


def __getattr__(name: str) -> Any:
    """Load a name when it is first asked for, so that the command can set up its signals before Pillow and NumPy."""
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
