"""Photos: bytes to pixels and back, with the tables of fits and of output formats."""

from h2a_batch.photos.apart import read_apart
from h2a_batch.photos.colour import to_srgb
from h2a_batch.photos.fit import FITS, Box, Placement, Size, extent, fit_photo, step_back
from h2a_batch.photos.formats import FORMATS, encode
from h2a_batch.photos.frame import Frame, Matrix, Pixels, Point, cut
from h2a_batch.photos.inspect import Look, inspect
from h2a_batch.photos.kinds import HEIF, sniff
from h2a_batch.photos.limits import USUAL_MEMORY, USUAL_SECONDS, Limits, parse_memory, spoken
from h2a_batch.photos.png import encode_png
from h2a_batch.photos.reader import (
    AGAIN,
    HAVE_HEIF,
    READERS,
    Reader,
    Scaled,
    cut_alpha,
    cut_out,
    explained,
    extent_of,
    is_complete,
)

__all__ = [
    "AGAIN",
    "FITS",
    "FORMATS",
    "HAVE_HEIF",
    "HEIF",
    "READERS",
    "USUAL_MEMORY",
    "USUAL_SECONDS",
    "Box",
    "Frame",
    "Limits",
    "Look",
    "Matrix",
    "Pixels",
    "Placement",
    "Point",
    "Reader",
    "Scaled",
    "Size",
    "cut",
    "cut_alpha",
    "cut_out",
    "encode",
    "encode_png",
    "explained",
    "extent",
    "extent_of",
    "fit_photo",
    "inspect",
    "is_complete",
    "parse_memory",
    "read_apart",
    "sniff",
    "spoken",
    "step_back",
    "to_srgb",
]
