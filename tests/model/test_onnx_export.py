"""The exported network computes what torch computes, for any batch; what differs is not written."""

import hashlib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from helpers import wake_up
from lungct_hf.contract import ONNX_OUTPUTS
from lungct_hf.errors import LungCTError, UsageError
from lungct_hf.guard import STAGE
from lungct_hf.model import build_network, onnx_export
from lungct_hf.model.network import logits_and_features, network_outputs
from lungct_hf.model.onnx_export import export_onnx, onnx_bytes
from lungct_hf.slices.preprocess import Preprocessing

SIZE = 64
PREPROCESSING = Preprocessing(size=SIZE)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(1)
    made = wake_up(build_network("mobilenetv2_035", 3), SIZE)
    torch.nn.init.normal_(made.classifier.weight, std=0.05)
    return made


@pytest.fixture(scope="module")
def squares() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)


def test_the_file_gives_torchs_outputs_for_any_batch(
    network: torch.nn.Module, squares: np.ndarray, tmp_path: Path
) -> None:
    record = export_onnx(network, PREPROCESSING, squares, tmp_path)
    path = tmp_path / "onnx" / "model.onnx"
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]  # no external data, nothing temporary
    assert record["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest() and record["bytes"] == path.stat().st_size
    assert record["parity"]["slices"] == 5 and 0 < record["parity"]["largest_difference"]["logits"] < 1e-4
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 3, 17):
        inputs = PREPROCESSING.normalise(np.resize(squares, (count, SIZE, SIZE, 3)))
        found = session.run(list(ONNX_OUTPUTS), {"pixel_values": inputs})
        with torch.inference_mode():
            expected = network_outputs(network, torch.from_numpy(inputs))
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.shape == tuple(theirs.shape) and np.abs(ours - theirs.numpy()).max() < 1e-4


def test_the_graph_is_plain_and_names_no_machine(network: torch.nn.Module) -> None:
    content = onnx_bytes(network, PREPROCESSING)
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", onnx_export.OPSET)]
    assert {node.domain for node in model.graph.node} == {""}
    assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)  # folded into the convolutions
    assert str(Path(torch.__file__).parent).encode() not in content
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)  # where stack traces would be
    assert content == onnx_bytes(network, PREPROCESSING)


def test_the_mean_of_the_map_is_the_logit(network: torch.nn.Module, squares: np.ndarray) -> None:
    inputs = torch.from_numpy(PREPROCESSING.normalise(squares))
    with torch.inference_mode():
        logits, cam, features, source = network_outputs(network, inputs)
        assert torch.allclose(cam.mean(dim=(2, 3)), logits, atol=1e-5)
        for output, measured in (("features", features), ("source", source)):
            for ours, theirs in zip((logits, measured), logits_and_features(network, inputs, output), strict=True):
                assert torch.equal(ours, theirs)


def test_the_steps_are_timms_and_the_source_is_mean_and_scatter_of_the_stage(
    network: torch.nn.Module, squares: np.ndarray
) -> None:
    inputs, seen = torch.from_numpy(PREPROCESSING.normalise(squares)), []
    handle = network.blocks[STAGE - 1].register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    with torch.inference_mode():
        logits, _, _, source = network_outputs(network, inputs)
        assert torch.equal(logits, network(inputs))
    handle.remove()
    maps = seen[0].numpy()
    expected = np.concatenate([maps.mean(axis=(2, 3)), maps.std(axis=(2, 3))], axis=1)
    assert source.numpy() == pytest.approx(expected, abs=1e-5)


def test_a_network_in_training_stays_so_and_is_exported_without_dropout(squares: np.ndarray, tmp_path: Path) -> None:
    trained = wake_up(build_network("mobilenetv2_035", 3, drop_rate=0.5), SIZE).train()
    assert export_onnx(trained, PREPROCESSING, squares, tmp_path)["parity"]["largest_difference"]["logits"] < 1e-4
    assert trained.training


def test_what_differs_is_not_written(
    network: torch.nn.Module, squares: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = wake_up(build_network("mobilenetv2_035", 3), SIZE)
    torch.nn.init.normal_(other.classifier.weight, std=0.05)
    wrong = onnx_bytes(other, PREPROCESSING)
    monkeypatch.setattr(onnx_export, "onnx_bytes", lambda *_: wrong)
    with pytest.raises(LungCTError, match="was not written.*5 slices.*differ"):
        export_onnx(network, PREPROCESSING, squares, tmp_path)
    assert not list(tmp_path.iterdir())


def test_weights_that_give_no_number_are_not_written(squares: np.ndarray, tmp_path: Path) -> None:
    broken = wake_up(build_network("mobilenetv2_035", 3), SIZE)
    with torch.no_grad():
        broken.classifier.bias[0] = float("nan")
    with pytest.raises(LungCTError, match="differ from torch's by up to inf"):
        export_onnx(broken, PREPROCESSING, squares, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(1, SIZE, SIZE, 3), (4, 32, 32, 3), (4, 3, SIZE, SIZE)])
def test_parity_needs_slices_of_the_right_shape(
    network: torch.nn.Module, tmp_path: Path, shape: tuple[int, ...]
) -> None:
    with pytest.raises(UsageError, match=f"{SIZE}, {SIZE}, 3"):
        export_onnx(network, PREPROCESSING, np.zeros(shape, np.uint8), tmp_path)
