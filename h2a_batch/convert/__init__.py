"""Conversion: photos in, a result for each out, in this process or on a cluster."""

from h2a_batch.convert import cluster
from h2a_batch.convert.image import convert_image
from h2a_batch.convert.parts import decode
from h2a_batch.convert.photo import Photo
from h2a_batch.convert.pipeline import Result, convert, load

__all__ = [
    "Photo",
    "Result",
    "cluster",
    "convert",
    "convert_image",
    "decode",
    "load",
]
