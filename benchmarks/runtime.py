"""This project beside its peers on the same slices, in one run: latency, throughput, cold start, memory.

    python benchmarks/runtime.py --model runs/NAME/model                        # 600 phantoms as JPEG files
    python benchmarks/runtime.py --model DIR --slices DIR --repeats 5 --json runtime.json --plot runtime.png
    python benchmarks/runtime.py --model DIR --venv base=/path/to/venv          # and how large an installation is

Every figure comes from a fresh process, peers take turns, and medians over the turns are compared, so that a busy
machine hurts all alike. Peers that are not installed are left out and named.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

Answer = Callable[[Sequence[str]], int]  # paths to the number of answers
BATCH = 32


class Model(NamedTuple):
    """What is measured: its folder, and the size of its squares, which the peers do not have to look up."""

    folder: str
    size: int


def open_lungct(model: Model) -> tuple[Answer, Answer]:
    from lungct_hf import LungCT

    loaded = LungCT.from_pretrained(model.folder)

    def whole_folder(paths: Sequence[str]) -> int:
        from lungct_hf.pipeline.run import Options, predict_files

        with tempfile.TemporaryDirectory() as place:
            return int(predict_files(loaded, paths, Options(Path(place) / "rows.csv"))["rows"])

    return lambda paths: len(loaded.predict(list(paths))), whole_folder


def open_pipeline(model: Model) -> tuple[Answer, Answer]:
    from transformers import pipeline

    pipe = pipeline("image-classification", model=model.folder)
    return (lambda paths: len(pipe(list(paths))),) * 2


def open_timm(model: Model) -> tuple[Answer, Answer]:
    import timm
    import torch
    from PIL import Image

    network = timm.create_model(f"local-dir:{model.folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=network))

    @torch.inference_mode()
    def answer(paths: Sequence[str]) -> int:
        count = 0
        for start in range(0, len(paths), BATCH):
            part = [transform(Image.open(path).convert("RGB")) for path in paths[start : start + BATCH]]
            count += len(network(torch.stack(part)).softmax(-1))
        return count

    return answer, answer


def decode(path: str, size: int) -> np.ndarray:
    """What a plain loop does: Pillow, one resize, ImageNet's mean and deviation."""
    from PIL import Image

    image = Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    scaled = np.asarray(image, np.float32) / 255
    return ((scaled - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).astype(np.float32).transpose(2, 0, 1)


def plain_loop(run: Callable[[np.ndarray], Any], size: int) -> tuple[Answer, Answer]:
    def answer(paths: Sequence[str]) -> int:
        for start in range(0, len(paths), BATCH):
            run(np.stack([decode(path, size) for path in paths[start : start + BATCH]]))
        return len(paths)

    return answer, answer


def open_onnxruntime(model: Model) -> tuple[Answer, Answer]:
    import onnxruntime

    session = onnxruntime.InferenceSession(f"{model.folder}/onnx/model.onnx", providers=["CPUExecutionProvider"])
    return plain_loop(lambda batch: session.run(["logits"], {"pixel_values": batch}), model.size)


def open_openvino(model: Model) -> tuple[Answer, Answer]:
    import openvino

    compiled = openvino.Core().compile_model(f"{model.folder}/onnx/model.onnx", "CPU")
    return plain_loop(lambda batch: compiled({"pixel_values": batch})["logits"], model.size)


def open_tensors(model: Model) -> tuple[Answer, Answer]:
    """ONNX Runtime alone, fed with tensors that are ready: what nobody who starts from files can beat."""
    import onnxruntime

    session = onnxruntime.InferenceSession(f"{model.folder}/onnx/model.onnx", providers=["CPUExecutionProvider"])
    ready = np.random.default_rng(0).normal(size=(BATCH, 3, model.size, model.size)).astype(np.float32)

    def answer(paths: Sequence[str]) -> int:
        for start in range(0, len(paths), BATCH):
            session.run(["logits"], {"pixel_values": ready[: min(BATCH, len(paths) - start)]})
        return len(paths)

    return answer, answer


PEERS: dict[str, tuple[str, str, Callable[[Model], tuple[Answer, Answer]]]] = {
    "lungct": ("lungct_hf", "LungCT, lungct predict", open_lungct),
    "pipeline": ("transformers", "transformers pipeline", open_pipeline),
    "timm": ("timm", "timm, eager", open_timm),
    "onnxruntime": ("onnxruntime", "Pillow + ONNX Runtime", open_onnxruntime),
    "openvino": ("openvino", "Pillow + OpenVINO", open_openvino),
    "tensors": ("onnxruntime", "ONNX Runtime, ready tensors", open_tensors),
}


def measure(peer: str, model: Model, paths: list[str], what: str) -> dict[str, float]:
    """In a fresh process: one peer's figures."""
    start = time.perf_counter()
    single, many = PEERS[peer][2](model)
    single(paths[:1])
    if what == "cold":
        return {"loaded_s": time.perf_counter() - start}
    if what == "latency":
        times = []
        for path in paths:
            begin = time.perf_counter()
            single([path])
            times.append(1000 * (time.perf_counter() - begin))
        return {"p50_ms": float(np.quantile(times, 0.5)), "p99_ms": float(np.quantile(times, 0.99)), **memory()}
    begin, cpu = time.perf_counter(), cpu_seconds()
    count = many(paths)
    seconds = time.perf_counter() - begin
    return {"per_s": count / seconds, "cpu_ms": 1000 * (cpu_seconds() - cpu) / count, **memory()}


def cpu_seconds() -> float:
    """Of this process and of those of its children that have ended."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(use.ru_utime + use.ru_stime for use in map(resource.getrusage, who))


def memory() -> dict[str, float]:
    """Largest resident memory of this process; of readers, the largest of one."""
    unit = 1 if sys.platform == "darwin" else 1024
    own, child = (
        resource.getrusage(who).ru_maxrss * unit / 1e6 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {"peak_mb": own, "reader_peak_mb": child}


def fresh(peer: str, model: Model, listing: Path, what: str) -> dict[str, float]:
    command = [
        sys.executable,
        __file__,
        "--model",
        model.folder,
        "--size",
        str(model.size),
        "--peer",
        peer,
        "--what",
        what,
        "--listing",
        str(listing),
    ]
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    if done.returncode:
        raise SystemExit(f"{peer}: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found | ({"cold_s": time.perf_counter() - begin} if what == "cold" else {})


def import_seconds(module: str) -> float:
    """Of an import alone, in a process that has started."""
    code = f"import time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def draw_slices(folder: Path, count: int) -> list[str]:
    """Phantoms of 512 x 512 as JPEG files; the same twelve drawings, turned a little each time."""
    from PIL import Image

    from lungct_hf.known_sets import phantoms
    from lungct_hf.slices.phantom import draw_phantom
    from lungct_hf.slices.window import LUNG_WINDOW

    labels = phantoms().classes
    hu = [draw_phantom(labels[n % len(labels)], n, 0.0, size=512) for n in range(12)]
    drawn = [Image.fromarray(LUNG_WINDOW.apply(one)) for one in hu]
    paths = []
    for number in range(count):
        paths.append(str(folder / f"{number:05d}.jpg"))
        turned = drawn[number % 12].rotate(number / 40, fillcolor=41, resample=Image.Resampling.BILINEAR)
        turned.convert("RGB").save(paths[-1], quality=90)
    return paths


def size_mb(venv: Path) -> float:
    """Of the packages of a virtual environment, pip left out."""
    files = (file for file in venv.rglob("site-packages/**/*") if file.is_file() and "/pip" not in str(file))
    return sum(file.stat().st_size for file in files) / 1e6


def plot(figures: dict[str, dict[str, float]], path: Path) -> None:
    from lungct_hf.evaluation.plots import new_figure

    panels = (("per_s", "slices a second from files"), ("p50_ms", "one slice, p50 ms"), ("cold_s", "cold start, s"))
    figure = new_figure(figsize=(11, 2.8))
    axes = figure.subplots(1, len(panels), sharey=True)
    for axis, (name, title) in zip(axes, panels, strict=True):
        bars = axis.barh([PEERS[peer][1] for peer in figures], [one[name] for one in figures.values()])
        axis.bar_label(bars, fmt="%.3g")
        axis.set_title(title)
        axis.margins(x=0.2)  # room for the numbers
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=120)


def report(figures: dict[str, dict[str, float]]) -> list[str]:
    names = ("per_s", "cpu_ms", "p50_ms", "p99_ms", "cold_s", "import_s", "peak_mb", "reader_peak_mb")
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for peer, one in figures.items():
        lines.append(f"| {PEERS[peer][1]} | " + " | ".join(f"{one[name]:.3g}" for name in names) + " |")
    ours, lines = figures["lungct"], [*lines, ""]
    for peer, name, sentence, target in (
        ("pipeline", "per_s", "times the throughput of transformers' pipeline", "at least 6"),
        ("tensors", "per_s", "of the throughput of ONNX Runtime fed with ready tensors", "at least 0.8"),
        ("onnxruntime", "p50_ms", "times the latency of Pillow + ONNX Runtime", "at most 1.35"),
        ("pipeline", "cold_s", "times the cold start of the pipeline", "at most 0.2"),
    ):
        if peer in figures:
            lines.append(f"{ours[name] / figures[peer][name]:.2f} {sentence} (target: {target})")
    lines.append(f"cold start {ours['cold_s']:.2f} s (target: below 1.5), import {ours['import_s']:.3f} s (below 0.2)")
    return lines


def main(
    model: Annotated[Path, typer.Option(help="A model directory with an ONNX file.")],
    slices: Annotated[Path | None, typer.Option(help="A folder of JPEG or PNG slices. Default: phantoms.")] = None,
    count: Annotated[int, typer.Option(min=2, help="Slices.")] = 600,
    repeats: Annotated[int, typer.Option(min=1, help="Turns of every peer.")] = 3,
    venv: Annotated[list[str] | None, typer.Option(help="NAME=DIR of an environment to weigh.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures here.")] = None,
    plot_file: Annotated[Path | None, typer.Option("--plot", help="Write a picture (PNG) here.")] = None,
    peer: Annotated[str | None, typer.Option(hidden=True)] = None,
    what: Annotated[str, typer.Option(hidden=True)] = "",
    listing: Annotated[Path | None, typer.Option(hidden=True)] = None,
    size: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Measure all peers and print a table and the ratios."""
    if peer and listing:
        print(json.dumps(measure(peer, Model(str(model), size), json.loads(listing.read_text()), what)))
        return
    # Not at the top: the peers' processes are to be measured without it. What it switches off, they inherit.
    from lungct_hf.hub import ModelRepo

    repo = ModelRepo.in_folder(model)
    asked = Model(str(repo.path), repo.contract.preprocessing.size)
    peers = [name for name, (module, _, _) in PEERS.items() if importlib.util.find_spec(module)]
    for name in PEERS.keys() - set(peers):
        print(f"left out, not installed: {name}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as place:
        (scratch := Path(place) / "slices").mkdir()
        found = sorted(map(str, slices.rglob("*.[jp][pn]g"))) if slices else draw_slices(scratch, count)
        listing = Path(place) / "listing.json"
        listing.write_text(json.dumps(found[:count]))
        turns: dict[str, list[dict[str, float]]] = {name: [] for name in peers}
        for _ in range(repeats):
            for name in peers:
                one = {
                    key: value
                    for kind in ("latency", "cold")
                    for key, value in fresh(name, asked, listing, kind).items()
                }
                one |= fresh(name, asked, listing, "throughput") | {"import_s": import_seconds(PEERS[name][0])}
                turns[name].append(one)
                print(f"{name}: {one['per_s']:.1f}/s, {one['p50_ms']:.1f} ms, {one['cold_s']:.2f} s", file=sys.stderr)
    figures = {name: {key: statistics.median(t[key] for t in seen) for key in seen[0]} for name, seen in turns.items()}
    weights = {name: size_mb(Path(folder)) for name, _, folder in (one.partition("=") for one in venv or [])}
    print("\n".join([*report(figures), *(f"environment {name}: {size:.0f} MB" for name, size in weights.items())]))
    if json_file:
        facts = {
            "slices": min(count, len(found)),
            "repeats": repeats,
            "cores": os.cpu_count(),
            "load": os.getloadavg(),
        }
        json_file.write_text(
            json.dumps(facts | {"medians": figures, "turns": turns, "environments_mb": weights}, indent=2)
        )
    if plot_file:
        plot(figures, plot_file)


if __name__ == "__main__":
    typer.run(main)
