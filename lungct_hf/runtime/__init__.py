"""A published model as anyone can run it: slices in, calibrated decisions out, on ONNX Runtime and without torch.

`classifier.py` is the same model as a torch module, and with `torch_session.py` the only one here that imports torch.
"""

from .lungct import LungCT
from .prediction import Prediction, Study

__all__ = ["LungCT", "Prediction", "Study"]
