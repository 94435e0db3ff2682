"""Losses: terms of pictures and of scores, a picture's own structure, and what discriminators are shown."""

from train.losses.diffaugment import Draw, augment, draw
from train.losses.structure import Controller, own_colour, own_structure
from train.losses.terms import hinge, hinge_generator, l1, lsgan, luminance, over_scales

__all__ = [
    "Controller",
    "Draw",
    "augment",
    "draw",
    "hinge",
    "hinge_generator",
    "l1",
    "lsgan",
    "luminance",
    "over_scales",
    "own_colour",
    "own_structure",
]
