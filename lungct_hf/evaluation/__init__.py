"""What a model is worth: metrics, stored predictions and the baselines every figure stands beside."""

from .baselines import nearest_neighbour
from .metrics import METRICS, score
from .predictions import read_predictions, write_predictions

__all__ = ["METRICS", "nearest_neighbour", "read_predictions", "score", "write_predictions"]
