"""A run: the training loop, and all that it leaves in its folder."""

from train.run.fit import fit

__all__ = [
    "fit",
]
