"""A published model as anyone can run it: slices in, calibrated decisions out, on ONNX Runtime and without torch."""

from .lungct import LungCT
from .prediction import Prediction, Study

__all__ = ["LungCT", "Prediction", "Study"]
