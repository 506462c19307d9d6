"""Every entry point ends in a sentence: what came, what is needed, the fix; never a traceback."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from lungct_hf import LungCT
from runtime.small_model import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("errors") / "model")


def lungct(*words: str | Path, **environment: str | None) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    command = [sys.executable, "-m", "lungct_hf.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=120)


def ends_in_a_sentence(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert all(word in sentence for word in words), sentence


def test_a_proxy_whose_package_is_missing(tmp_path: Path) -> None:
    done = lungct("versions", "owner/name", ALL_PROXY="socks5://127.0.0.1:9", HF_ENDPOINT="http://127.0.0.1:9")
    ends_in_a_sentence(done, "SOCKS", "Fix:")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
def test_a_terminal_that_cannot_show_a_name(model: Path, tmp_path: Path, encoding: str) -> None:
    picture = tmp_path / "肺.png"
    Image.new("RGB", (96, 96), "red").save(picture)
    done = lungct("predict", picture, "--model", model, PYTHONIOENCODING=encoding)
    assert done.returncode == 0 and "refused" in done.stdout and "Traceback" not in done.stderr
    missing = lungct("predict", picture, "--model", tmp_path / "没有", PYTHONIOENCODING=encoding)
    ends_in_a_sentence(missing, "no directory", "Give an existing")


def test_no_home_folder(tmp_path: Path) -> None:
    code = (
        "import os, pwd, sys\n"
        "os.environ.pop('HOME', None)\n"
        "def nobody(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = nobody\n"
        "sys.argv = ['lungct', 'predict', '~/slice.png', '--model', '~/model']\n"
        "from lungct_hf.cli import main; main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    ends_in_a_sentence(done, "Fix:", "HOME")


def test_a_git_lfs_pointer_is_called_so(model: Path, tmp_path: Path) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{64 * '0'}\nsize 12345\n"
    (tmp_path / "slice.png").write_text(pointer)
    done = lungct("predict", tmp_path / "slice.png", "--model", model, "--format", "csv")
    assert (
        done.returncode == 0
        and "Git LFS pointer" in LungCT.from_pretrained(model).predict(tmp_path / "slice.png")[0].detail
    )
    copy = Path(shutil.copytree(model, tmp_path / "model"))
    for name in ("onnx/model.onnx", "lungct.json"):
        (copy / name).write_text(pointer)
        ends_in_a_sentence(
            lungct("predict", tmp_path / "slice.png", "--model", copy), "Git LFS pointer", "git lfs pull"
        )
    (tmp_path / "data.parquet").write_text(pointer)
    ends_in_a_sentence(lungct("audit", tmp_path / "data.parquet"), "Git LFS pointer", "git lfs pull")


def test_a_system_without_posix_locks(model: Path, tmp_path: Path) -> None:
    Image.new("L", (96, 96)).save(tmp_path / "slice.png")
    code = (
        "import sys\n"
        "sys.modules['fcntl'] = sys.modules['resource'] = None\n"
        f"sys.argv = ['lungct', 'predict', {str(tmp_path / 'slice.png')!r}, '--model', {str(model)!r}]\n"
        "from lungct_hf.cli import main; main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    ends_in_a_sentence(done, "Linux or macOS", "LungCT.predict")
