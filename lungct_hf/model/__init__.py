"""The network: how it is built, its ImageNet start weights and its export to ONNX."""

from .torch_stack import check_torch_stack

check_torch_stack()

from .imagenet import InitWeights, check_init, load_init  # noqa: E402
from .network import build_network, check_architecture  # noqa: E402

__all__ = ["InitWeights", "build_network", "check_architecture", "check_init", "load_init"]
