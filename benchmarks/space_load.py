"""The Space under load, beside a plain gr.Interface over a transformers pipeline: throughput, latency, errors, memory.

    python benchmarks/space_load.py runs/NAME/model                             # small: 4 users, 10 s each app
    python benchmarks/space_load.py runs/NAME/model --users 50 --seconds 60 --requests 2000

Both apps run on loopback, one after the other, with the same model, the same generated slice as an upload for every
request, and the same three HTTP requests (upload, call, answer). Every answer is checked. `--requests` goes on with
the first app alone until it has answered that many, and reports its memory on the way. One line of JSON on stdout.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import numpy as np
import psutil
from PIL import Image

from lungct_hf.slices.phantom import draw_phantom
from lungct_hf.slices.window import LUNG_WINDOW

ROOT = Path(__file__).resolve().parent.parent
PLAIN = """
import sys
import gradio as gr
from transformers import pipeline

classify = pipeline("image-classification", model=sys.argv[1])


def predict(image):
    return {row["label"]: row["score"] for row in classify(image)}


gr.Interface(predict, gr.Image(type="pil"), gr.Label(), api_name="predict").launch(quiet=True)
"""


@contextmanager
def serving(name: str, model: Path, folder: Path) -> Iterator[tuple[str, psutil.Process]]:
    """One of the apps, up, as (address, process)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if name == "plain":
        (folder / "plain.py").write_text(PLAIN)
        command = [sys.executable, str(folder / "plain.py"), str(model)]
    else:
        command = [sys.executable, str(ROOT / "space" / "app.py")]
    settings = {
        "GRADIO_SERVER_PORT": str(port),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(folder / name),
        "HF_HUB_OFFLINE": "1",
        "LUNGCT_MODEL": str(model),
        "LUNGCT_RATE": "0",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(command, env=os.environ | settings, stdout=subprocess.DEVNULL, cwd=folder)
    try:
        ready = "/health" if name == "space" else "/"
        for _ in range(3000):
            try:
                if httpx.get(url + ready, timeout=5).status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            if process.poll() is not None:
                raise SystemExit(f"error: the app {name} did not start")
            time.sleep(0.1)
        yield url, psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


async def ask(client: aiohttp.ClientSession, name: str, content: bytes) -> bool:
    """One upload and its answer; whether the answer is one."""
    form = aiohttp.FormData()
    form.add_field("files", content, filename="slice.png", content_type="image/png")
    async with client.post("/gradio_api/upload", data=form) as reply:
        path = (await reply.json())[0]
    data: list[Any] = [{"path": path, "meta": {"_type": "gradio.FileData"}}]
    call = {"data": data + (["", False] if name == "space" else [])}
    async with client.post("/gradio_api/call/predict", json=call) as reply:
        event = (await reply.json())["event_id"]
    async with client.get(f"/gradio_api/call/predict/{event}") as reply:
        text = await reply.text()
    return "event: complete" in text and ("p_malignant" if name == "space" else "confidences") in text


async def load(url: str, name: str, content: bytes, users: int, stop: Any) -> tuple[list[float], int]:
    """Latencies in seconds of the answers, and the number of errors, while `stop(answers)` is false."""
    latencies: list[float] = []
    errors = 0

    async def user() -> None:
        nonlocal errors
        timeout = aiohttp.ClientTimeout(total=120)
        # aiohttp, because what the load generator takes of the cores is missing where more is answered.
        async with aiohttp.ClientSession(url, timeout=timeout, raise_for_status=True) as client:
            while not stop(len(latencies)):
                begun = time.perf_counter()
                try:
                    good = await ask(client, name, content)
                except (aiohttp.ClientError, TimeoutError, KeyError, ValueError):
                    good = False
                errors += not good
                latencies.append(time.perf_counter() - begun)

    await asyncio.gather(*(user() for _ in range(users)))
    return latencies, errors


def measure(url: str, name: str, content: bytes, users: int, seconds: float) -> dict[str, float]:
    asyncio.run(load(url, name, content, users, lambda done: done >= 2 * users))  # warm
    begun = time.perf_counter()
    latencies, errors = asyncio.run(load(url, name, content, users, lambda _: time.perf_counter() - begun >= seconds))
    spent = time.perf_counter() - begun
    return {
        "requests": len(latencies),
        "errors": errors,
        "per_second": round(len(latencies) / spent, 2),
        "p50_ms": round(1000 * float(np.median(latencies)), 1),
        "p95_ms": round(1000 * float(np.quantile(latencies, 0.95)), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a model directory with onnx/model.onnx")
    parser.add_argument("--users", type=int, default=4, help="users at once (default 4)")
    parser.add_argument("--seconds", type=float, default=10.0, help="per app (default 10)")
    parser.add_argument("--requests", type=int, default=0, help="go on to this many and watch the memory (default 0)")
    chosen = parser.parse_args()
    encoded = io.BytesIO()
    Image.fromarray(LUNG_WINDOW.apply(draw_phantom("malignant", 0, 0.0, size=512))).save(encoded, "PNG")
    content, found = encoded.getvalue(), dict[str, Any]()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for app in ("plain", "space"):
            with serving(app, chosen.model.resolve(), folder) as (url, process):
                found[app] = measure(url, app, content, chosen.users, chosen.seconds)
                found[app]["memory_mb"] = round(process.memory_info().rss / 2**20)
                if app == "space" and chosen.requests:
                    memory, done = [], 0
                    while done < chosen.requests:
                        part = min(250, chosen.requests - done)
                        _, errors = asyncio.run(load(url, app, content, chosen.users, lambda n, p=part: n >= p))
                        found[app]["errors"] += errors
                        done += part
                        memory.append(round(process.memory_info().rss / 2**20))
                    found[app]["memory_mb_every_250"] = memory
                print(app, found[app], file=sys.stderr, flush=True)
    found["throughput_ratio"] = round(found["space"]["per_second"] / found["plain"]["per_second"], 2)
    print(json.dumps(found | {"users": chosen.users, "seconds": chosen.seconds}))


if __name__ == "__main__":
    main()
