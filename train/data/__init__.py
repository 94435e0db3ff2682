"""Data: the pictures of a step, read, augmented and worn; a function of the seed and the step."""

from train.data.batches import POOLS, batches, held_out, random_of, to_picture
from train.data.worn import cell_means, worn

__all__ = [
    "POOLS",
    "batches",
    "cell_means",
    "held_out",
    "random_of",
    "to_picture",
    "worn",
]
