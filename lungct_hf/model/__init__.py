"""The network: ImageNet start weights, the Hub-compatible classifier, and the files a model repo holds."""

from .torch_stack import check_torch_stack

check_torch_stack()

from .classifier import LungCTClassifier  # noqa: E402
from .imagenet import InitWeights, load_init  # noqa: E402
from .network import build_network  # noqa: E402

__all__ = ["InitWeights", "LungCTClassifier", "build_network", "load_init"]
