"""A Hub that is away, a revision that is missing, a self-test that fails: said plainly, and mended later."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError

from hub_server import HubServer
from lungct_hf import __version__
from lungct_hf.known_sets import schema_1_classes
from published import put, write_canaries
from runtime.small_model import TWENTY, write_model
from space_server import APP, LUNGCT


def test_a_missing_revision_is_said_and_served_once_it_is_there(
    serving, hub: HubServer, access: dict[str, str], run_dir: Path, slices: dict[str, Path]
) -> None:
    first = put(hub, run_dir / "model")
    with serving(APP, LUNGCT_REVISION="v1.0.0", **access) as server:
        code, health = server.health()
        assert (code, health["status"], health["model"], health["revision"]) == (503, "failed", "alice/tiny", None)
        assert "no revision 'v1.0.0'" in health["problem"] and "It has: main" in health["problem"]
        client = Client(server.url, verbose=False)
        with pytest.raises(AppError, match="no revision"):
            client.predict(handle_file(str(slices["grey.png"])), api_name="/predict")

        hub.repo("alice/tiny").tags["v1.0.0"] = first
        health = server.wait_for("ready")
        assert health == {
            "status": "ready",
            "problem": None,
            "model": "alice/tiny",
            "revision": first,
            "self_test": "passed",
            "package_version": __version__,
        }
        client = Client(server.url, verbose=False)
        (said,) = client.view_api(return_format="dict", print_info=False)["named_endpoints"]["/predict"]["returns"]
        assert set(said["type"]["properties"]) > {f"p_{name}" for name in schema_1_classes()}, "it came after the page"
        answer = client.predict(handle_file(str(slices["grey.png"])), api_name="/predict")
        assert (answer["model"], answer["revision"], answer["version"]) == (f"alice/tiny@{first}", first, "v1.0.0")
        assert "Traceback" not in server.log.read_text()


def test_another_version_answers_for_who_asks_and_a_bad_one_for_nobody(
    serving, hub: HubServer, access: dict[str, str], run_dir: Path, slices: dict[str, Path], tmp_path: Path
) -> None:
    wrong = shutil.copytree(run_dir / "model", tmp_path / "wrong")
    write_canaries(wrong, shift=0.5)
    bad = put(hub, wrong)
    good = put(hub, run_dir / "model")
    hub.repo("alice/tiny").tags |= {"v1.0.0": bad, "v2.0.0": good}
    with serving(APP, LUNGCT_REVISION="v2.0.0", **access) as server:
        client = Client(server.url, verbose=False)
        info = client.predict(api_name="/model_info")
        assert info["versions"] == {"v2.0.0": good, "v1.0.0": bad} and info["version"] == "v2.0.0"
        with pytest.raises(AppError, match="self-test failed: the logits of 3 known slices"):
            client.predict(handle_file(str(slices["grey.png"])), "v1.0.0", api_name="/predict")
        answer = client.predict(handle_file(str(slices["grey.png"])), good, api_name="/predict")
        assert answer["revision"] == good


def test_a_version_may_have_other_classes(
    serving, hub: HubServer, access: dict[str, str], run_dir: Path, slices: dict[str, Path], tmp_path: Path
) -> None:
    older, newer = put(hub, write_model(tmp_path / "older", classes=TWENTY)), put(hub, run_dir / "model")
    hub.repo("alice/tiny").tags |= {"v1.0.0": older, "v2.0.0": newer}
    photo, study = handle_file(str(slices["colour photo.webp"])), [handle_file(str(slices["study.zip"]))]
    with serving(APP, LUNGCT_REVISION="v2.0.0", **access) as server:
        client = Client(server.url, verbose=False)
        for version, classes in (("v1.0.0", TWENTY), ("v2.0.0", schema_1_classes())):
            info = client.predict(version, api_name="/model_info")
            assert (info["labels"], info["positive"]) == (list(classes), list(classes.positive))
            forced = client.predict(photo, version, True, api_name="/predict")
            case = client.predict(study, version, api_name="/predict_study")
            for row in (forced, client.predict(photo, version, api_name="/predict"), case, *case["slices"]):
                assert [name.removeprefix("p_") for name in row if name.startswith("p_")] == list(classes)
            assert sum(forced[f"p_{name}"] for name in classes) == pytest.approx(1)
        (said,) = client.view_api(return_format="dict", print_info=False)["named_endpoints"]["/predict"]["returns"]
        named = said["type"]["properties"]
        assert named["decision"]["enum"] == [*schema_1_classes(), "abstain", "refused", "error"]
        assert not any(name.startswith("p_") for name in said["type"]["required"]), "another version has others"
        assert "Traceback" not in server.log.read_text()


def test_a_model_that_fails_its_self_test_is_not_served_until_it_passes(
    serving, run_dir: Path, slices: dict[str, Path], tmp_path: Path
) -> None:
    model = shutil.copytree(run_dir / "model", tmp_path / "model")
    write_canaries(model, shift=0.5)
    with serving([*LUNGCT, "demo", str(model)]) as server:
        code, health = server.health()
        assert (code, health["status"]) == (503, "failed") and "self-test failed" in health["problem"]
        assert str(tmp_path) not in str(health), "no path of the server's disk"
        write_canaries(model)
        assert server.wait_for("ready")["self_test"] == "passed"


def test_the_cache_serves_when_the_hub_is_away_and_its_absence_is_said(
    serving, hub: HubServer, access: dict[str, str], run_dir: Path, slices: dict[str, Path], tmp_path: Path
) -> None:
    first = put(hub, run_dir / "model")
    with serving(APP, LUNGCT_REVISION=first, **access) as server:
        assert server.health()[0] == 200
    away = access | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    with serving([*LUNGCT, "demo", f"alice/tiny@{first}"], **away) as server:
        assert server.health()[1]["revision"] == first, "from the cache"
    with serving(APP, **away | {"HF_HOME": str(tmp_path / "empty")}) as server:
        code, health = server.health()
        assert code == 503 and "could not be reached" in health["problem"]
