"""Export: a trained network to a MINDIR and its card, and to ONNX, verified before it is written."""

from train.export.centerface import export_centerface
from train.export.generator import Picture, export_generator, mindir_bytes, read_pictures, synthetic_pictures
from train.export.inference import inference_form
from train.export.onnx_export import onnx_bytes

__all__ = [
    "Picture",
    "export_centerface",
    "export_generator",
    "inference_form",
    "mindir_bytes",
    "onnx_bytes",
    "read_pictures",
    "synthetic_pictures",
]
