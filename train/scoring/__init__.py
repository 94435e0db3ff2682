"""Scoring: sets of pictures against real ones and against the photos they were made from."""

from train.scoring.metrics import diversity, has_collapsed, kid, luminance, own_structure
from train.scoring.scores import KID_NAME, Extractor, features_of, paint_files, pair_up, score, table

__all__ = [
    "KID_NAME",
    "Extractor",
    "diversity",
    "features_of",
    "has_collapsed",
    "kid",
    "luminance",
    "own_structure",
    "paint_files",
    "pair_up",
    "score",
    "table",
]
