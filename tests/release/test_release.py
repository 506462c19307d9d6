"""A run becomes a version: by the real command against a Hub, once and only once, and the way back."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from command_here import run_here
from helpers import run
from hub_server import HubServer
from lungct_hf.hub import ModelRepo
from lungct_hf.release.evidence import card_reasons
from lungct_hf.release.version import Version
from release_runs import write_run

LUNGCT = str(Path(sys.executable).with_name("lungct"))
REPO = "alice/lung"
World = tuple[HubServer, dict[str, str], Path]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A Hub where alice is known, her environment, and a folder with her runs. The tests go on from each other."""
    folder = tmp_path_factory.mktemp("world")
    with HubServer() as hub:
        token = hub.add_user("alice")
        home = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": token, "HF_HOME": str(folder / "home")}
        write_run(folder / "first")
        write_run(folder / "second", seed=1)
        yield hub, home, folder
    assert not hub.crashes, hub.crashes[0]


def lungct(world: World, *words: str | Path, code: int = 0, program: bool = False) -> str:
    """What the command says: as a `program` of its own, or, in a fraction of the time, in this process."""
    hub, home, folder = world
    if program:
        done = run([LUNGCT, *map(str, words)], cwd=folder, **home)
        found, said = done.returncode, done.stdout + done.stderr
    else:
        found, said = run_here(words, folder, home)
    assert found == code, said
    assert home["HF_TOKEN"] not in said and "Traceback" not in said
    return said


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_dry_run_shows_everything_and_changes_nothing(world: World) -> None:
    hub, _, folder = world
    said = lungct(world, "release", "first", "--repo", REPO, "--version", "1.0.0", "--dry-run")
    assert "Gate: passed" in said and "# Lung CT slice classifier" in said and "Nothing was changed." in said
    assert {request.method for request in hub.requests} <= {"GET", "HEAD"} and not hub.store.repos


def test_a_first_version(world: World) -> None:
    hub, _, folder = world
    before = files(folder / "first")
    said = lungct(
        world, "release", "first", "--repo", REPO, "--version", "1.0.0", "-m", "Hello.", "--gated", program=True
    )
    repo = hub.repo(REPO)
    assert [commit.title for commit in repo.history("main")] == ["Release v1.0.0", "initial commit"]
    assert repo.resolve("main").description == "Hello." and repo.gated
    assert repo.tags == {"v1.0.0": repo.branches["main"]} and repo.branches["main"] in said
    assert "Hello." in hub.files(REPO)["CHANGELOG.md"].decode()
    assert files(folder / "first") == before
    lungct(world, "verify", f"{REPO}@v1.0.0")


def test_the_same_release_again_changes_nothing(world: World) -> None:
    hub, _, _ = world
    head, posts = hub.repo(REPO).branches["main"], len([r for r in hub.requests if r.method == "POST"])
    assert "finishing" in lungct(world, "release", "first", "--repo", REPO, "--version", "v1.0.0", "-m", "Again.")
    assert hub.repo(REPO).branches["main"] == head
    assert len([r for r in hub.requests if r.method == "POST"]) == posts


def test_what_the_gate_refuses_is_not_published(world: World) -> None:
    hub, _, folder = world
    head = hub.repo(REPO).branches["main"]
    run_dir = write_run(folder / "third", seed=3, init="random")
    said = lungct(world, "release", run_dir, "--repo", REPO, "--version", "0.9.0", code=3)
    assert "\n  random-init: " in said and "\n  version-not-greater: " in said and "--allow random-init" in said
    assert "tag-exists" in lungct(world, "release", "second", "--repo", REPO, "--version", "1.0.0", code=3)
    for allowed in ("tag-exists", "nonsense"):
        lungct(world, "release", "second", "--repo", REPO, "--version", "1.1.0", "--allow", allowed, code=2)
    assert hub.repo(REPO).branches["main"] == head and set(hub.repo(REPO).tags) == {"v1.0.0"}


def test_an_override_is_told_to_every_reader(world: World) -> None:
    hub, _, folder = world
    said = lungct(
        world,
        "release",
        "third",
        "--repo",
        REPO,
        "--version",
        "1.1.0",
        "--allow",
        "random-init",
        "--allow",
        "regression",
    )
    assert "allowed  random-init" in said and "--allow regression was not needed" in said
    there = hub.files(REPO)
    assert b"let it through" in there["README.md"] and b"`random-init`" in there["README.md"]
    record = json.loads(there["lungct.json"])["release"]
    assert [row["code"] for row in record["allowed"]] == ["random-init"] and record["previous"]["tag"] == "v1.0.0"
    assert "random-init" in there["CHANGELOG.md"].decode() and "## v1.0.0" in there["CHANGELOG.md"].decode()
    lungct(world, "verify", REPO)


def test_versions_and_the_difference_between_two(world: World) -> None:
    hub, _, folder = world
    rows = json.loads(lungct(world, "versions", REPO, "--json"))
    assert [(row["tag"], row["live"], row["init"]) for row in rows] == [
        ("v1.1.0", True, "random"),
        ("v1.0.0", False, "imagenet1k-v2"),
    ]
    assert rows[0]["commit"] == hub.repo(REPO).tags["v1.1.0"] and rows[0]["score"]["low"] < rows[0]["score"]["high"]
    table = lungct(world, "versions", REPO)
    assert "v1.1.0 *" in table and rows[1]["commit"][:7] in table
    found = json.loads(lungct(world, "compare", "second", f"{REPO}@v1.0.0", "--json", "-o", "difference"))
    value = found["difference"]["balanced_accuracy"]
    assert found["paired"] and value["value"] == pytest.approx(value["a"] - value["b"])
    assert value["low"] <= value["value"] <= value["high"]
    assert (folder / "difference" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "difference" / "comparison.json").read_text()) == found
    said = lungct(world, "release", "second", "--repo", REPO, "--version", "1.2.0", "--dry-run")
    assert "changed  model.safetensors" in said and "Differences to v1.1.0" in said and "+++ README.md now" in said


def test_the_way_back(world: World) -> None:
    hub, _, _ = world
    old, repo = hub.files(REPO, "v1.0.0"), hub.repo(REPO)
    assert "v9.9.9" in lungct(world, "rollback", REPO, "9.9.9", code=2)
    lungct(world, "rollback", REPO, "1.0.0", "-m", "The new one sees ghosts.")
    new = hub.files(REPO)
    changed = {name for name in old | new if old.get(name) != new.get(name)}
    assert changed == {"README.md", "lungct.json", "CHANGELOG.md", "seal.json"}
    assert repo.tags["v1.0.0+rollback.1"] == repo.branches["main"] and {"v1.0.0", "v1.1.0"} < set(repo.tags)
    assert "ghosts" in new["CHANGELOG.md"].decode() and "## v1.1.0" in new["CHANGELOG.md"].decode()
    assert b"v1.0.0+rollback.1" in new["README.md"]
    commits = len(repo.history("main"))
    assert "already" in lungct(world, "rollback", REPO, "1.0.0")
    assert len(repo.history("main")) == commits
    lungct(world, "verify", f"{REPO}@v1.0.0+rollback.1")
    assert "tag-moved" not in lungct(world, "verify", f"{REPO}@v1.0.0")
    rows = json.loads(lungct(world, "versions", REPO, "--json"))
    assert [row["tag"] for row in rows if row["live"]] == ["v1.0.0+rollback.1"] and len(rows) == 3


def test_a_push_after_a_rollback_is_rolled_back_as_well(world: World) -> None:
    hub, _, folder = world
    repo = hub.repo(REPO)
    hub.store.put(REPO, {"README.md": hub.files(REPO)["README.md"] + b"\nEdited on the web page.\n"})
    assert "already" in lungct(world, "rollback", REPO, "1.0.0")  # the model on main is still that of the rollback
    rows = json.loads(lungct(world, "versions", REPO, "--json"))
    assert [row["tag"] for row in rows if row["live"]] == ["v1.0.0+rollback.1"]
    model = folder / "second" / "model"
    names = ("model.safetensors", "lungct.json", "README.md")
    pushed = hub.store.put(REPO, {name: (model / name).read_bytes() for name in names}, title="Push a lungct_hf model")
    assert hub.files(REPO)["model.safetensors"] != hub.files(REPO, "v1.0.0")["model.safetensors"]
    assert not any(row["live"] for row in json.loads(lungct(world, "versions", REPO, "--json")))
    assert "main holds something that is no version" in lungct(world, "versions", REPO)
    assert "already" not in lungct(world, "rollback", REPO, "1.0.0")
    assert repo.tags["v1.0.0+rollback.2"] == repo.branches["main"] != pushed
    assert hub.files(REPO)["model.safetensors"] == hub.files(REPO, "v1.0.0")["model.safetensors"]


def test_a_pull_request_is_proposed_once_and_tagged_after_the_merge(
    world: World,
) -> None:
    hub, home, _ = world
    command = ("release", "second", "--repo", REPO, "--version", "2.0.0")
    head = hub.repo(REPO).branches["main"]
    said = lungct(world, *command, "--create-pr")
    assert "/discussions/1" in said and hub.repo(REPO).branches["main"] == head
    assert "proposes this release already" in lungct(world, *command, "--create-pr")
    assert list(hub.repo(REPO).pull_refs) == ["refs/pr/1"] and "v2.0.0" not in hub.repo(REPO).tags
    HfApi(endpoint=hub.endpoint, token=home["HF_TOKEN"]).merge_pull_request(REPO, 1)
    merged = hub.repo(REPO).branches["main"]
    lungct(world, *command)
    assert hub.repo(REPO).tags["v2.0.0"] == merged == hub.repo(REPO).branches["main"]


def test_a_released_model_loads_by_its_tag_and_offline_afterwards(world: World, tmp_path: Path) -> None:
    hub, home, _ = world
    code = "from lungct_hf import LungCT; import sys; print(LungCT.from_pretrained(sys.argv[1]).revision)"
    for extra in ({}, {"HF_HUB_OFFLINE": "1"}):
        done = run([sys.executable, "-c", code, f"{REPO}@v1.1.0"], **home | extra)
        assert done.stdout.strip() == hub.repo(REPO).tags["v1.1.0"], done.stderr
        assert "can change at any time" not in done.stderr


def test_a_private_release_does_not_land_in_a_public_repo(world: World) -> None:
    hub, _, _ = world
    said = lungct(world, "release", "second", "--repo", REPO, "--version", "3.0.0", "--private", code=1)
    assert "public" in said and "v3.0.0" not in hub.repo(REPO).tags


@pytest.mark.parametrize("text", ["1", "1.0", "one", "1.0.0-rc1", "01.0.0", "1.0.0.0", ""])
def test_what_is_no_version(text: str) -> None:
    from lungct_hf.errors import UsageError

    with pytest.raises(UsageError):
        Version.parse(text)


def test_versions_are_ordered_as_numbers_and_rollbacks_follow_theirs() -> None:
    tags = ["v0.9.9", "v1.0.0", "v1.0.0+rollback.2", "v1.0.0+rollback.10", "v1.2.0", "v1.10.0"]
    found = [Version.of_tag(tag) for tag in tags]
    assert found == sorted(found, key=lambda v: v or 0) and [v.tag for v in found if v] == tags
    assert Version.of_tag("v1.0") is None and Version.of_tag("release-1") is None


def test_the_record_names_what_the_folder_holds(sealed: Path) -> None:
    record = ModelRepo(sealed).release or {}
    assert record["version"] == "1.0.0" and set(record["files"]) >= {"model.safetensors", "evaluation/split.csv"}
    assert not card_reasons(ModelRepo(sealed), [REPO])


def test_a_push_is_looked_through_as_a_release_is(world: World) -> None:
    hub, home, folder = world
    model = write_run(folder / "leaky", seed=5) / "model"
    (model / "notes.txt").write_text(f"my token is {home['HF_TOKEN']}")
    (model / "DOE_JANE.png").write_bytes(b"x")
    (model / "load.py").write_text("import os")
    card = (model / "README.md").read_text()
    (model / "README.md").write_text(card.replace("not a medical device", "a medical device", 1))
    said = lungct(world, "push", "leaky", "alice/leaky", code=3)
    for code in ("secret", "patient-data", "code", "card-mismatch"):
        assert f"\n  {code}: " in said
    assert ("model", "alice/leaky") not in hub.store.repos
    for name in ("notes.txt", "load.py", "DOE_JANE.png"):
        (model / name).unlink()
    lungct(world, "push", "leaky", "alice/leaky", "-m", "Mine.", "--allow", "card-mismatch")
    assert hub.repo("alice/leaky").history("main")[0].title == "Mine."


def test_the_licence_is_named_or_stays(world: World) -> None:
    hub, _, _ = world
    card = hub.files(REPO)["README.md"]
    hub.store.put(REPO, {"README.md": card.replace(b"license: apache-2.0", b"license: cc-by-nc-4.0", 1)})
    command = ("release", "second", "--repo", REPO, "--version", "7.0.0", "--dry-run")
    said = lungct(world, *command)
    assert "Licence: cc-by-nc-4.0, as on the Hub." in said and "\nlicense: cc-by-nc-4.0\n" in said
    said = lungct(world, *command, "--license", "mit")
    assert "Licence: mit, in place of cc-by-nc-4.0" in said and "\nlicense: mit\n" in said
    lungct(world, *command, "--license", "My Licence", code=2)
