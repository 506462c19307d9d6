"""torchvision's MobileNetV2 and timm's are one function under two sets of names."""

import pytest
import timm
import torch
import torchvision

from helpers import wake_up
from lungct_hf.errors import LungCTError
from lungct_hf.model.names import rename_to_timm


@pytest.fixture(scope="module")
def torchvision_network() -> torch.nn.Module:
    torch.manual_seed(0)
    return wake_up(torchvision.models.mobilenet_v2(weights=None), 96)


def test_equal_logits_for_the_same_state_dict(torchvision_network: torch.nn.Module) -> None:
    network = timm.create_model("mobilenetv2_100", pretrained=False).eval()
    network.load_state_dict(rename_to_timm(torchvision_network.state_dict()), strict=True)
    inputs = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        theirs, ours = torchvision_network(inputs), network(inputs)
    assert (theirs[0] - theirs[1]).abs().max() > 0.05  # the input matters, so equality means something
    assert (theirs - ours).abs().max() < 1e-4


def test_a_swapped_weight_is_noticed_by_the_comparison(torchvision_network: torch.nn.Module) -> None:
    state = rename_to_timm(torchvision_network.state_dict())
    state["blocks.1.1.bn1.weight"], state["blocks.1.1.bn2.weight"] = (
        state["blocks.1.1.bn2.weight"],
        state["blocks.1.1.bn1.weight"],
    )
    network = timm.create_model("mobilenetv2_100", pretrained=False).eval()
    network.load_state_dict(state, strict=True)
    inputs = torch.randn(1, 3, 96, 96)
    with torch.inference_mode():
        assert (torchvision_network(inputs) - network(inputs)).abs().max() > 1e-4


@pytest.mark.parametrize("change", ["drop", "add"])
def test_other_weights_are_refused(torchvision_network: torch.nn.Module, change: str) -> None:
    state = dict(torchvision_network.state_dict())
    if change == "drop":
        del state["features.3.conv.2.weight"]
    else:
        state["layer1.0.conv1.weight"] = torch.zeros(1)
    with pytest.raises(LungCTError, match="features.3.conv.2.weight|layer1.0.conv1.weight"):
        rename_to_timm(state)
