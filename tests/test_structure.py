"""The rooms import each other only upwards, and the light ones stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "lungct_hf"
# What each room may import of the package, besides itself and the modules every room uses.
COMMON = {
    "allocator",
    "arrays",
    "classes",
    "cores",
    "decision",
    "known_sets",
    "errors",
    "files",
    "guard",
    "resources",
    "silence",
    "__version__",
    "",
}
ALLOWED: dict[str, set[str]] = {
    "slices": set(),
    "contract": {"slices"},
    "hub": {"slices", "contract"},
    "cohort": {"slices"},
    "model": {"slices", "hub", "contract"},
    "runtime": {"slices", "hub", "contract", "model"},  # model, and with it torch, only when a caller asks for torch
    "pipeline": {"slices", "hub", "contract", "cohort", "runtime"},  # cohort only for tables and the Hub
    "serving": {"slices", "hub", "contract", "runtime"},
    "evaluation": {"slices", "hub", "contract", "cohort", "model", "runtime"},
    "fit": {"slices", "hub", "contract", "cohort", "model", "runtime", "evaluation"},
    "audit": {"slices", "cohort", "evaluation"},
    "release": {"slices", "hub", "contract", "runtime", "cohort", "model", "evaluation"},
}


# The commands may use every room, and cli.py the commands as well.
ALLOWED["commands"] = set(ALLOWED) - {"serving"}
ALLOWED["cli"] = set(ALLOWED) - {"serving"}


def imported_rooms(path: Path) -> set[str]:
    """The first part below lungct_hf of everything the file imports, lazy imports included."""
    rooms = set()
    package = ("lungct_hf", *path.relative_to(PACKAGE).parent.parts) if path.is_relative_to(PACKAGE) else ()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("lungct_hf.")}
    return rooms


@pytest.mark.parametrize("room", ALLOWED)
def test_imports_go_upwards(room: str) -> None:
    files = sorted((PACKAGE / room).rglob("*.py")) or [PACKAGE / f"{room}.py"]
    for path in files:
        forbidden = imported_rooms(path) - COMMON - ALLOWED[room] - {room}
        assert not forbidden, f"{path.relative_to(ROOT)} imports {forbidden}"


def test_every_room_is_in_the_order() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert rooms == set(ALLOWED) - {"cli", "contract"}


def test_training_and_space_know_only_the_package() -> None:
    for path in [*(ROOT / "training").rglob("*.py"), *(ROOT / "space").rglob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert "import training" not in text and "from training" not in text
        assert "import space" not in text and "from space" not in text


@pytest.mark.parametrize(
    "module",
    [
        "lungct_hf",
        "lungct_hf.slices.source",
        "lungct_hf.slices.phantom",
        "lungct_hf.hub",
        "lungct_hf.runtime",
        "lungct_hf.pipeline.run",
        "lungct_hf.serving.service",
    ],
)
def test_light_modules_load_no_torch(module: str) -> None:
    code = f"import {module}, sys; print([name for name in ('torch', 'transformers', 'timm') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_library_does_not_print() -> None:
    for path in PACKAGE.rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        printing = [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
        assert not printing or path.name in ("errors.py", "cli.py"), f"{path.relative_to(ROOT)}:{printing}"
