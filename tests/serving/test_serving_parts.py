"""The parts of a server one by one: batches, limits, the self-test, the guard, the table for a download."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from lungct_hf import LungCT
from lungct_hf.errors import LungCTError, UsageError
from lungct_hf.runtime.overlay import heat_layer
from lungct_hf.runtime.prediction import NOTICE, Prediction
from lungct_hf.serving import limits
from lungct_hf.serving.batcher import Batcher
from lungct_hf.serving.guard import Guard
from lungct_hf.serving.keeper import Keeper
from lungct_hf.serving.limits import RateLimit, check_slice_file, check_study_files
from lungct_hf.serving.self_test import SelfTestError, self_test
from lungct_hf.serving.service import Service
from lungct_hf.serving.tables import study_csv
from lungct_hf.slices.phantom import draw_phantom
from lungct_hf.slices.source import Unreadable, open_slices
from lungct_hf.slices.window import LUNG_WINDOW
from published import write_published
from runtime.small_model import WIDE, drawn_slices, write_model_for


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_published(tmp_path_factory.mktemp("repo") / "model")


@pytest.fixture(scope="module")
def model(model_dir: Path) -> LungCT:
    return LungCT.from_pretrained(model_dir, threads=1)


def test_callers_that_wait_together_are_judged_together_and_get_their_own(model: LungCT) -> None:
    sizes, asked = [], []
    judge = model.judge
    holding = threading.Event()

    class Slow:
        def judge(self, found, **options) -> list[Prediction]:
            sizes.append(len(found))
            holding.wait(30)
            return judge(found, **options)

    slow, batcher = Slow(), Batcher(largest=8)
    frames = [list(open_slices(draw_phantom("malignant", seed, 0.0, size=96))) for seed in range(5)]
    answers: dict[int, list[Prediction]] = {}

    def ask(number: int) -> None:
        answers[number] = batcher.judge(slow, frames[number])  # type: ignore[arg-type]

    for number in range(5):
        asked.append(threading.Thread(target=ask, args=(number,)))
        asked[-1].start()
    holding.set()
    for thread in asked:
        thread.join(60)
    assert sum(sizes) == 5 and len(sizes) < 5, "some went together"
    for number, frame in enumerate(frames):
        (wanted,) = judge(frame)
        assert answers[number][0].probabilities == pytest.approx(wanted.probabilities, abs=1e-6)


def test_a_failure_belongs_to_its_callers_and_the_batcher_lives_on(model: LungCT) -> None:
    class Broken:
        def judge(self, found, **options) -> list[Prediction]:
            raise LungCTError("broken")

    batcher, frame = Batcher(), list(open_slices(draw_phantom("normal", 0, 0.0, size=96)))
    with pytest.raises(LungCTError, match="broken"):
        batcher.judge(Broken(), frame)  # type: ignore[arg-type]
    assert batcher.judge(model, frame)[0].cam is not None


def test_a_server_refuses_what_its_model_did_not_learn_from(tmp_path: Path) -> None:
    keeper = Keeper(str(write_model_for(tmp_path / "model", WIDE)))
    keeper.start()
    keeper.wait_until_ready()
    service = Service(keeper)
    for name, window in (("own", WIDE), ("other", LUNG_WINDOW)):
        drawn_slices(window, 1)[0].save(tmp_path / f"{name}.png")
    assert service.slice(tmp_path / "own.png")[1].decision != "refused"
    assert service.slice(tmp_path / "other.png")[1].reason == "wrong-window"
    study = service.study([tmp_path / "own.png", tmp_path / "other.png"])
    assert [row.decision == "refused" for row in study.slices] == [False, True]


def test_a_full_line_is_said(model: LungCT) -> None:
    stop, started = threading.Event(), threading.Event()

    class Stuck:
        def judge(self, found, **options) -> list[Prediction]:
            started.set()
            stop.wait(60)
            return []

    batcher, stuck = Batcher(largest=1, waiting=1), Stuck()
    threading.Thread(target=batcher.judge, args=(stuck, []), daemon=True).start()
    assert started.wait(30)  # the worker is busy with the first call
    threading.Thread(target=batcher.judge, args=(stuck, []), daemon=True).start()
    while not batcher._jobs.full():  # the second stands in line
        stop.wait(0.01)
    with pytest.raises(LungCTError, match="Too many slices are waiting"):
        batcher.judge(stuck, [])  # type: ignore[arg-type]
    stop.set()


def test_the_self_test_passes_fails_and_is_absent(model: LungCT, model_dir: Path, tmp_path: Path) -> None:
    import shutil

    found = self_test(model, model_dir)
    assert (found.state, found.slices) == ("passed", 3) and found.deviation < 1e-4
    assert self_test(model, tmp_path).state == "no-record"
    folder = shutil.copytree(model_dir / "canaries", tmp_path / "canaries").parent
    record = json.loads((folder / "canaries" / "canaries.json").read_text())
    record["slices"][1]["logits"][0] += 0.01
    (folder / "canaries" / "canaries.json").write_text(json.dumps(record))
    with pytest.raises(SelfTestError, match="up to 0.01 away"):
        self_test(model, folder)
    (folder / "canaries" / record["slices"][0]["file"]).write_bytes(b"other")
    with pytest.raises(SelfTestError, match="damaged"):
        self_test(model, folder)


def test_limits_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.dcm"
    file.write_bytes(b"x" * 2000)
    check_slice_file(file)
    check_study_files([file])
    monkeypatch.setattr(limits, "MAX_SLICE_FILE", 1000)
    with pytest.raises(UsageError, match="single slice"):
        check_slice_file(file)
    monkeypatch.setattr(limits, "MAX_UPLOAD", 3000)
    with pytest.raises(UsageError, match="together"):
        check_study_files([file, file])
    monkeypatch.setattr(limits, "MAX_FILES", 2)
    with pytest.raises(UsageError, match="3 files"):
        check_study_files([file] * 3)


def test_the_rate_limit_counts_by_visitor_and_forgets() -> None:
    rate = RateLimit(2, 60)
    assert [rate.allows("a", now) for now in (0, 1, 2)] == [True, True, False]
    assert rate.allows("b", 2) and rate.allows("a", 61)
    assert all(RateLimit(0).allows("a") for _ in range(1000))


@pytest.mark.parametrize(("behind_proxy", "visitor"), [(True, "9.9.9.9"), (False, "1.1.1.1")])
def test_behind_a_proxy_the_visitor_is_who_the_proxy_saw(behind_proxy: bool, visitor: str) -> None:
    seen: list[str] = []

    class Rate(RateLimit):
        def allows(self, visitor: str, now: float | None = None) -> bool:
            seen.append(visitor)
            return False

    async def app(scope, receive, send) -> None:
        raise AssertionError("it was refused")

    sent: list[dict] = []

    async def send(message) -> None:
        sent.append(message)

    async def receive() -> dict:
        return {"type": "http.request"}

    name = b"x-forwarded-for"
    for headers in ([(name, b"6.6.6.6, 9.9.9.9")], [(name, b"6.6.6.6"), (name, b"9.9.9.9")]):
        scope = {"type": "http", "method": "POST", "path": "/x", "client": ("1.1.1.1", 5), "headers": headers}
        asyncio.run(Guard(app, rate=Rate(1), behind_proxy=behind_proxy)(scope, receive, send))
    assert seen == [visitor] * 2 and sent[0]["status"] == 429


@pytest.mark.parametrize("path", ["call/upload", "run/upload", "api/upload", "call/v2/upload", "call/predict"])
def test_only_the_place_for_uploads_takes_large_bodies(path: str) -> None:
    sent: list[dict] = []

    async def app(scope, receive, send) -> None:
        raise AssertionError("it was refused")

    async def send(message) -> None:
        sent.append(message)

    async def receive() -> dict:
        return {"type": "http.request"}

    scope = {"type": "http", "method": "POST", "path": f"/gradio_api/{path}", "client": ("1.1.1.1", 5)}
    scope["headers"] = [(b"content-length", str(300 * limits.MB).encode())]
    asyncio.run(Guard(app, rate=RateLimit(0))(scope, receive, send))
    assert sent[0]["status"] == 413


def test_all_visitors_uploads_share_the_room_that_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lungct_hf.serving.limits.shutil.disk_usage", lambda _: SimpleNamespace(free=1500 * limits.MB))
    scope = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "client": ("1.1.1.1", 5)}
    scope["headers"] = [(b"content-length", str(300 * limits.MB).encode())]
    sent: list[dict] = []

    async def send(message) -> None:
        sent.append(message)

    async def receive() -> dict:
        return {"type": "http.request"}

    async def upload(guard: Guard) -> None:
        await guard(scope, receive, send)

    async def app(scope, receive, send) -> None:
        if not sent:  # while the first is on its way, a second visitor comes
            await upload(guard)
        await send({"type": "http.response.start", "status": 200})

    guard = Guard(app, rate=RateLimit(0))
    asyncio.run(upload(guard))
    sent.append({})
    asyncio.run(upload(guard))
    assert [message["status"] for message in sent if "status" in message] == [507, 200, 200]
    assert b"no room for uploads" in sent[1]["body"]


def test_the_download_has_the_notice_in_every_row_and_runs_no_formula(model: LungCT) -> None:
    found = list(open_slices(draw_phantom("malignant", 0, 0.0, size=96), file='=HYPERLINK("x")'))
    rows = model.judge([*found, Unreadable("b.dcm", "damaged", "It is damaged.")])
    table = list(csv.DictReader(io.StringIO(study_csv(model.study(rows)))))
    assert [row["notice"] for row in table] == [NOTICE] * 3
    assert [row["file"] for row in table] == ['\'=HYPERLINK("x")', "b.dcm", "(case)"]
    assert float(table[2]["p_normal"]) == pytest.approx(rows[0].probabilities["normal"])


def test_the_heat_map_is_put_back_from_the_letterbox() -> None:
    cam = np.zeros((7, 7), np.float32)
    cam[3, 6] = 1.0  # the right edge, at half height
    wide, tall = heat_layer(cam, 200, 100), heat_layer(cam, 100, 200)
    assert wide.size == (160, 80) and tall.size == (80, 160)
    alpha = np.asarray(wide)[..., 3]
    assert alpha[:, 140:].max() > 200 and alpha[:, :100].max() == 0
    assert abs(int(alpha[:, 150].argmax()) - 40) <= 3
    assert np.asarray(tall)[..., 3].max() < 200, "what lay on the border is not on the slice"
