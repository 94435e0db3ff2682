"""The one kind of error that a user of `python -m train` meets: a clear line, no traceback."""

from __future__ import annotations


class TrainError(ValueError):
    """Something the user gave (weights, a card, a picture, a graph) cannot be used; the text says what and why."""
