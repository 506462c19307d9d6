"""The seal over every file: what was changed since is named, and only the signer can make it fit again."""

from __future__ import annotations

import gzip
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from command_here import run_here
from hub_server import HubServer
from lungct_hf.arrays import packed, unpacked
from lungct_hf.errors import UsageError
from lungct_hf.files import write_json
from lungct_hf.hub import ModelRepo, write_card
from lungct_hf.release.attestation import write_attestation
from lungct_hf.release.record import content_hash, file_hashes, write_record
from lungct_hf.release.seal import check_private_key, every_file, fingerprint, read_seal, statement, write_seal
from lungct_hf.release.verify import Verification, verify

REPO = "alice/lung"
# Put together here, so that this file does not look like a leak itself.
TOKEN = ".".join(("eyJhbGciOiJIUzI1NiIsInR5cCI6", "eyJzdWIiOiIxMjM0NTY3ODkwIn0", "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9Pl"))


class Keys:
    """A private key and its public one, as files."""

    def __init__(self, folder: Path, name: str, curve: str = "prime256v1") -> None:
        self.private, self.public = folder / f"{name}.pem", folder / f"{name}.pub"
        run = ["openssl", "ecparam", "-name", curve, "-genkey", "-noout", "-out", str(self.private)]
        subprocess.run(run, check=True)
        run = ["openssl", "ec", "-in", str(self.private), "-pubout", "-out", str(self.public)]
        subprocess.run(run, check=True, capture_output=True)


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"), "alice")


@pytest.fixture(scope="session")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"), "mallory", "secp384r1")


@pytest.fixture
def signed(published: Path, keys: Keys) -> Path:
    """The released folder, signed by alice."""
    record = (ModelRepo(published).release or {}) | {"signer": {"sha256": check_private_key(keys.private)}}
    write_record(published, record)
    write_card(published, REPO)
    write_seal(published, keys.private)
    return published


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    record = json.loads(path.read_text())
    change(record)
    write_json(path, record)


def remake(folder: Path, key: Path | None = None) -> None:
    """What a forger does who may write to the repo: record, card and seal made anew around what was changed."""
    write_attestation(folder)
    repo = ModelRepo(folder)
    record = (repo.release or {}) | {"files": file_hashes(repo)}
    record["content"] = content_hash(repo, record["files"])
    record["kept"] = {}
    if key is not None:
        record["signer"] = {"sha256": check_private_key(key)}
    write_record(folder, record)
    write_card(folder, REPO)
    write_seal(folder, key)


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Verification]:
    """`verify` without the steps that cost seconds and are tested elsewhere: figures and loaders."""
    import lungct_hf.release.verify as module

    monkeypatch.setattr(module, "_answers", lambda repo, found: None)
    monkeypatch.setattr(module, "_evidence", lambda repo, found: None)
    return lambda folder, key=None: verify(str(folder), key=key)


def codes(found: Verification) -> set[str]:
    return {reason.code for reason in found.false}


def rewrite(name: str, text: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(text)


def plant(name: str, content: bytes = b"x") -> Callable[[Path], object]:
    def do(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return do


def objects(folder: Path) -> None:
    np.save(folder / "extra.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def archive_of_objects(folder: Path) -> None:
    np.savez(folder / "extra.npz", a=np.array([{"a": 1}], dtype=object))


def lungct(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def do(folder: Path) -> None:
        edit(folder / "lungct.json", change)
        write_card(folder, REPO)

    return do


def config(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    return lambda folder: edit(folder / "config.json", change)


def scaled(record: dict[str, Any]) -> None:
    for source in record["calibration"]["abstain"]["distance"]["sources"]:
        source["whitening"] = packed(unpacked(source["whitening"]) / 1000)


def appended(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text((folder / name).read_text() + text)


def replaced_plot(folder: Path) -> None:
    Image.new("L", (8, 8), 77).save(folder / "evaluation" / "roc.png")


SMALL = {"a": [1, 2]}
TAMPERING: dict[str, Callable[[Path], object]] = {
    "the guard's whitening": lungct(scaled),
    "a lower confidence": lungct(lambda r: r["calibration"]["abstain"].update(min_confidence=-1.0)),
    "a larger distance": lungct(lambda r: r["calibration"]["abstain"].update(max_distance=1e9)),
    "another temperature": lungct(lambda r: r["calibration"].update(temperature=2.0)),
    "another window": lungct(lambda r: r["window"].update(width=400)),
    "other start weights": lungct(lambda r: r["provenance"]["init"].update(kind="random")),
    "another command": lungct(lambda r: r["provenance"].update(command="training/train.py --data better")),
    "another repo in the record": lungct(lambda r: r["release"].update(repo="mallory/lung")),
    "another date": lungct(lambda r: r["release"].update(date="2020-01-01")),
    "an override put in": lungct(lambda r: r["release"].update(allowed=[{"code": "regression", "sentence": "x"}])),
    "another message": lungct(lambda r: r["release"].update(message="Now 99 %.")),
    "auto_map": config(lambda r: r.update(auto_map={"AutoModel": "evil.Model"})),
    "labels turned": config(lambda r: r.update(label_names=list(reversed(r.get("label_names") or ["a"])))),
    "the mean of pixels": config(lambda r: r["pretrained_cfg"].update(mean=[0, 0, 0])),
    "a program": plant("modeling_evil.py"),
    "a program in a folder": plant("tools/run.sh"),
    "a notebook": plant("demo.ipynb", b"{}"),
    "a library": plant("lib.so.1"),
    "a script without a suffix": plant("run", b"#!/bin/sh\necho\n"),
    "a plot": replaced_plot,
    "a plot more": plant("evaluation/more.png"),
    "a figure in CHANGELOG": appended("CHANGELOG.md", "- Balanced accuracy 99.9 %.\n"),
    "CHANGELOG gone": lambda folder: (folder / "CHANGELOG.md").unlink(),
    "a pickle of protocol 0": plant("state.dat", pickle.dumps(SMALL, protocol=0)),
    "a pickle of protocol 1": plant("state.dat", pickle.dumps(SMALL, protocol=1)),
    "a pickle that calls": plant("state.txt", b"cos\nsystem\n(S'true'\ntR.trailing"),
    "a pickle packed": plant("weights.pkl.gz", gzip.compress(pickle.dumps(SMALL))),
    "a pickle packed under another name": plant("weights.gz", gzip.compress(pickle.dumps(SMALL, protocol=0))),
    "joblib": plant("model.joblib"),
    "an array of objects": objects,
    "an archive of objects": archive_of_objects,
    "a hidden file": plant(".hidden"),
    "a hidden folder": plant(".github/workflows/x.yml"),
    "a file in .cache": plant("sub/.cache/x"),
    "a temporary file": plant("model.tmp"),
    "a cached program": plant("__pycache__/x.pyc"),
    "a JSON web token": plant("notes.txt", f"token {TOKEN}\n".encode()),
    "other results": plant(".eval_results/more.yaml", b"- {value: 1.0}\n"),
    "the attestation": lambda folder: edit(folder / "attestation.json", lambda r: r["predicate"].update(x=1)),
    "the attestation gone": lambda folder: (folder / "attestation.json").unlink(),
    "a canary's picture": lambda folder: next((folder / "canaries").glob("*.png")).write_bytes(b"x"),
    "one bit of the weights": lambda folder: flip(folder / "model.safetensors"),
    "one bit of the ONNX file": lambda folder: flip(folder / "onnx" / "model.onnx"),
    "the split": appended("evaluation/split.csv", "\n"),
    "a preprocessor": plant("preprocessor_config.json", b'{"do_rescale": false}'),
    "a link to a folder": lambda folder: (folder / "more").symlink_to(folder / "evaluation"),
    "a link to nothing": lambda folder: (folder / "more").symlink_to(folder / "nothing"),
    "git's attributes": plant(".gitattributes", b"*.py filter=evil\n"),
    "the seal emptied": plant("seal.json", b"{}"),
    "the seal gone": lambda folder: (folder / "seal.json").unlink(),
    "no letter outside the author's text": lambda folder: (folder / "README.md").write_text(
        (folder / "README.md").read_text().replace("Research software", "Clinical software", 1)
    ),
}
# Of these the content itself speaks, whatever anybody makes anew around it.
FOUND_BY_CONTENT = {
    "auto_map": "code",
    "a program": "code",
    "a program in a folder": "code",
    "a notebook": "code",
    "a library": "code",
    "a script without a suffix": "code",
    "a cached program": "code",
    "a pickle of protocol 0": "pickle",
    "a pickle of protocol 1": "pickle",
    "a pickle that calls": "pickle",
    "a pickle packed": "pickle",
    "a pickle packed under another name": "pickle",
    "joblib": "pickle",
    "an array of objects": "pickle",
    "an archive of objects": "pickle",
    "a JSON web token": "secret",
    "other results": "metrics-mismatch",
    "git's attributes": "file-changed",
    "a link to a folder": "file-changed",
    "a link to nothing": "file-changed",
    "the attestation": "file-changed",
}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("what", TAMPERING)
def test_whatever_is_changed_in_a_signed_release_is_found(
    signed: Path, keys: Keys, strangers: Keys, look: Callable[..., Verification], what: str
) -> None:
    assert not look(signed, keys.public).false
    before = {name: path.read_bytes() for name, path in every_file(signed).items()}
    TAMPERING[what](signed)
    after = {name: path.read_bytes() for name, path in every_file(signed).items() if path.is_file()}
    found = look(signed)
    assert found.false and found.seal.state in ("broken", "no seal"), what
    for name in before.keys() ^ after.keys():
        assert name in " ".join(map(str, found.false)) or "seal" in what
    if what in FOUND_BY_CONTENT:
        assert FOUND_BY_CONTENT[what] in codes(found)
    assert look(signed, keys.public).false
    if "link" in what or what in ("a canary's picture", "the attestation", "the attestation gone"):
        return
    # Made anew by whoever may write: to a reader without the key it is a release, unsigned; to one with it, none.
    remake(signed)
    anew = look(signed)
    assert anew.seal.state != "signed" and ("not-signed" in codes(look(signed, keys.public)) or anew.false)
    remake(signed, strangers.private)
    assert look(signed, keys.public).false and look(signed).seal.state != "signed"


def test_three_states_and_a_fourth_are_told_apart(
    published: Path, keys: Keys, strangers: Keys, look: Callable[..., Verification]
) -> None:
    unsigned = look(published)
    assert unsigned.seal.state == "unsigned" and "could have remade all of it" in unsigned.seal.sentence
    assert not unsigned.false and codes(look(published, keys.public)) == {"not-signed"}
    remake(published, keys.private)
    found = look(published, keys.public)
    assert not found.false and found.seal.state == "signed" and keys.public.name in found.seal.sentence
    unchecked = look(published)
    assert not unchecked.false and unchecked.seal.state == "signature not checked"
    assert fingerprint(keys.public) in unchecked.seal.sentence and "--key" in unchecked.seal.sentence
    assert codes(look(published, strangers.public)) == {"not-signed"}
    (published / "notes.txt").write_text("x")
    (published / "evaluation" / "roc.png").unlink()
    (published / "CHANGELOG.md").write_text("# Other\n")
    broken = look(published)
    assert broken.seal.state == "broken" and broken.seal.changes.added == ("notes.txt",)
    assert broken.seal.changes.missing == ("evaluation/roc.png",)
    assert broken.seal.changes.changed == ("CHANGELOG.md",)


def test_a_signature_that_was_moved_or_bent_is_none(
    signed: Path, keys: Keys, look: Callable[..., Verification]
) -> None:
    path = signed / "seal.json"
    record = json.loads(path.read_text())
    for change in (
        lambda r: r["dsseEnvelope"]["signatures"][0].update(
            sig="MEUCIQ" + r["dsseEnvelope"]["signatures"][0]["sig"][6:]
        ),
        lambda r: r["dsseEnvelope"].update(signatures=[]),
        lambda r: r["dsseEnvelope"]["signatures"][0].update(sig=""),
        lambda r: r["dsseEnvelope"].update(payloadType="text/plain"),
        lambda r: r["verificationMaterial"].update(publicKey={"hint": ""}),
        lambda r: r.update(verificationMaterial={}),
    ):
        bent = json.loads(json.dumps(record))
        change(bent)
        write_json(path, bent)
        assert codes(look(signed, keys.public)) & {"not-signed", "seal-broken"}
    write_json(path, record)
    assert not look(signed, keys.public).false


def test_the_authors_words_may_change_and_that_is_told(
    signed: Path, keys: Keys, look: Callable[..., Verification]
) -> None:
    card = (signed / "README.md").read_text()
    (signed / "README.md").write_text(card.replace("<!-- author:end -->", "We saw more.\n<!-- author:end -->"))
    found = look(signed)
    assert not found.false and "changed since: the author's text" in found.seal.sentence
    assert codes(look(signed, keys.public)) == {"seal-broken"}  # KEY has not signed those words


def test_the_seal_is_that_of_the_tool_which_it_is_named_after(published: Path, keys: Keys, tmp_path: Path) -> None:
    import base64

    unsigned = statement(every_file(published), "model")
    write_seal(published, keys.private)
    there = json.loads((published / "seal.json").read_text())
    theirs = json.loads(base64.b64decode(there["dsseEnvelope"]["payload"]))
    for found in (unsigned, theirs):
        found["predicate"]["serialization"]["ignore_paths"] = sorted(
            found["predicate"]["serialization"]["ignore_paths"]
        )
    theirs["subject"][0]["name"] = "model"
    assert theirs == unsigned
    assert read_seal(published / "seal.json").signer == fingerprint(keys.public) == fingerprint(keys.private)
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(published)]
    command += ["--signature", str(published / "seal.json"), "--public_key", str(keys.public)]
    done = subprocess.run([*command, "--ignore-git-paths"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_keys_that_cannot_sign_are_a_sentence(keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked, rsa, text = tmp_path / "locked.pem", tmp_path / "rsa.pem", tmp_path / "text.pem"
    command = ["openssl", "ec", "-in", str(keys.private), "-aes256", "-passout", "pass:secret", "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True)
    subprocess.run(["openssl", "genrsa", "-out", str(rsa), "2048"], check=True, capture_output=True)
    text.write_text("no key")
    for path in (locked, rsa, text, tmp_path / "nothing.pem", keys.public):
        with pytest.raises(UsageError, match="Fix: "):
            check_private_key(path)
    monkeypatch.setenv("LUNGCT_KEY_PASSWORD", "secret")
    assert check_private_key(locked) == fingerprint(keys.public)


def test_a_release_without_a_seal_is_said_to_have_none(
    published: Path, keys: Keys, look: Callable[..., Verification]
) -> None:
    (published / "seal.json").unlink()
    (published / "attestation.json").unlink()
    repo = ModelRepo(published)
    old = {key: value for key, value in (repo.release or {}).items() if key not in ("seal", "kept")}
    write_record(published, old | {"files": file_hashes(repo)})
    found = look(published)
    assert not found.false and found.seal.state == "no seal" and "without seals" in found.seal.sentence
    assert codes(look(published, keys.public)) == {"not-signed"}
    edit(published / "lungct.json", scaled)
    assert codes(look(published)) == {"content-changed"}


def test_signed_on_the_hub_copied_elsewhere_and_downloaded(
    hub: HubServer, clean_run: Path, keys: Keys, tmp_path: Path
) -> None:
    home = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.add_user("alice"), "HF_HOME": str(tmp_path / "home")}
    (tmp_path / "run").symlink_to(clean_run)
    command = ["release", "run", "--repo", REPO, "--version", "1.0.0", "--sign", str(keys.private)]
    code, said = run_here(command, tmp_path, home)
    assert code == 0, said
    code, said = run_here(["verify", f"{REPO}@v1.0.0", "--key", str(keys.public)], tmp_path, home)
    assert code == 0 and f"signed by {keys.public.name}" in said and "Only the data" in said, said
    code, said = run_here(["verify", REPO, "--json"], tmp_path, home)
    found = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert code == 0 and found["seal"]["state"] == "signature not checked"
    assert not any("tag" in line for line in found["compared"])  # nobody asked for one
    folder = tmp_path / "downloaded"
    for name, content in hub.files(REPO).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    (folder / ".cache" / "huggingface" / "left.lock").write_text("")
    code, said = run_here(["verify", str(folder), "--key", str(keys.public)], tmp_path, home)
    assert code == 0 and "signed by" in said, said
    hub.store.create_repo("alice/copy")
    hub.store.put("alice/copy", hub.files(REPO), title="Mine")
    code, said = run_here(["verify", "alice/copy"], tmp_path, home)
    assert code == 0 and "a copy under another name: alice/copy holds what was released as alice/lung" in said, said
    hub.store.put(REPO, {"handler.py": b"x"}, title="Add a handler")
    code, said = run_here(["verify", REPO, "--key", str(keys.public)], tmp_path, home)
    assert code == 1 and "handler.py" in said and "code: " in said, said
    command[5] = "1.0.1"
    code, said = run_here(command, tmp_path, home)
    assert code == 3 and "in the repo on the Hub handler.py is a program" in said, said
