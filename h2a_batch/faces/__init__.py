"""Faces: found, framed, put back, and which of them count."""

from h2a_batch.faces.blend import paste
from h2a_batch.faces.detector import Detector, Detectors, check_detector, usual_smallest
from h2a_batch.faces.framing import Face, frame_of, is_portrait
from h2a_batch.faces.search import Search, search_of

__all__ = [
    "Detector",
    "Detectors",
    "Face",
    "Search",
    "check_detector",
    "frame_of",
    "is_portrait",
    "paste",
    "search_of",
    "usual_smallest",
]
