"""The base install answers alone: with torch and its kin out of reach, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ABSENT = ("torch", "torchvision", "timm", "transformers", "safetensors", "accelerate", "datasets", "onnx", "scipy")
BLOCK = f"""
import json, sys
class WithoutThem:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {ABSENT} else self.finder.find_spec(name, path, target)
sys.meta_path[:] = [WithoutThem(finder) for finder in sys.meta_path]
"""


def python(code: str, *arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BLOCK + code, *map(str, arguments)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_slices_are_answered(model_dir: Path, slices: list[Path]) -> None:
    code = """
from lungct_hf import LungCT, Prediction
model = LungCT.from_pretrained(sys.argv[1])
rows = model.predict(sys.argv[2:], cam=True, force=True)
assert all(isinstance(row, Prediction) and row.cam.max() == 1 for row in rows)
study = model.predict_study(sys.argv[2:], force=True)
print(json.dumps([[row.to_json() for row in rows], study.to_json(), model.backend]))
"""
    rows, study, backend = json.loads(python(code, model_dir, *slices))
    assert backend == "onnx" and [row["file"] for row in rows] == list(map(str, slices))
    assert all(row["p_normal"] + row["p_benign"] + row["p_malignant"] == pytest.approx(1) for row in rows)
    assert study["used"] == len(slices)


def test_what_needs_torch_names_the_extra(model_dir: Path, torch_only: Path) -> None:
    code = """
from lungct_hf import LungCT, LungCTError
for folder, backend in ((sys.argv[1], "torch"), (sys.argv[2], "auto")):
    try:
        LungCT.from_pretrained(folder, backend=backend)
    except LungCTError as error:
        print(error)
try:
    import lungct_hf
    lungct_hf.LungCTClassifier
except LungCTError as error:
    print(error)
"""
    said = python(code, model_dir, torch_only).splitlines()
    assert len(said) == 3 and all("pip install 'lungct-hf[torch]'" in line for line in said)


def test_a_local_png_loads_nothing_it_does_not_need(model_dir: Path, slices: list[Path]) -> None:
    """What makes a first answer slow: the Hub client, DICOM, the terminal, the card."""
    code = """
from lungct_hf import LungCT
LungCT.from_pretrained(sys.argv[1]).predict(sys.argv[2])
heavy = ("huggingface_hub", "httpx", "pydicom", "nibabel", "rich", "typer", "jinja2", "yaml", "matplotlib", "pyarrow")
print(json.dumps([name for name in heavy if name in sys.modules]))
"""
    assert json.loads(python(code, model_dir, slices[0])) == []


def test_the_package_itself_loads_nothing() -> None:
    code = "import lungct_hf; print([name for name in ('numpy', 'PIL', 'onnxruntime') if name in sys.modules])"
    assert python(code).strip() == "[]"
