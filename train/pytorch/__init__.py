"""PyTorch: all that runs on it, to score pictures and to check imports against; loading this room loads PyTorch."""

from train.pytorch.features import extract, load_extractor
from train.pytorch.generators import read_state, rebuild, run

__all__ = [
    "extract",
    "load_extractor",
    "read_state",
    "rebuild",
    "run",
]
