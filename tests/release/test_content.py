"""What must not be published is found by its content as well as by its name, and nothing harmless is taken for it."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from lungct_hf.release.content import patient_data, pickles, secrets, secrets_in_text

# Put together here, so that this file does not look like a leak itself.
SECRETS = {
    "Hugging Face": "hf_" + "aB3" * 10,
    "GitHub": "ghp_" + "x1Y" * 12,
    "AWS": "AKIA" + "ABCD1234EFGH5678",
    "private key": "-----BEGIN RSA PRIVATE" + " KEY-----",
    "password": "https://bob:" + "hunter22@example.org/x",
}


def write(folder: Path, name: str, content: bytes | str) -> dict[str, Path]:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return {name: path}


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("name", ["notes.txt", "README.md", "logs/run.json", "weights.safetensors"])
def test_a_secret_is_found_in_any_file_and_never_repeated(tmp_path: Path, kind: str, name: str) -> None:
    found = secrets(write(tmp_path, name, f"first\nsecond {SECRETS[kind]}\n".encode() + b"\0\xff"))
    assert [reason.code for reason in found] == ["secret"] and f"{name}, line 2" in str(found[0])
    assert SECRETS[kind] not in str(found[0])


def test_ones_own_token_is_found_whatever_it_looks_like(tmp_path: Path) -> None:
    found = secrets(write(tmp_path, "a.txt", "x my-odd-token x"), token="my-odd-token")
    assert len(found) == 1 and "my-odd-token" not in str(found[0])
    assert secrets_in_text("see my-odd-token", "the message", "my-odd-token")


@pytest.mark.parametrize("name", [".env", "keys/id_rsa", "server.pem"])
def test_files_for_secrets_are_found_by_name(tmp_path: Path, name: str) -> None:
    assert secrets(write(tmp_path, name, "x"))


def test_pickles_are_found_by_name_and_by_content(tmp_path: Path) -> None:
    for protocol in range(2, 6):
        assert pickles(write(tmp_path, "harmless.dat", pickle.dumps({"a": [1]}, protocol=protocol)))
    torch.save({"w": torch.zeros(3)}, tmp_path / "weights.safetensors")
    assert pickles({"weights.safetensors": tmp_path / "weights.safetensors"})
    assert pickles(write(tmp_path, "old.pt", b""))


@pytest.mark.parametrize("start", range(0x20, 0x400, 0x38))
def test_a_safetensors_file_is_no_pickle_whatever_its_length_begins_with(tmp_path: Path, start: int) -> None:
    assert not pickles(write(tmp_path, "model.safetensors", start.to_bytes(8, "little") + b'{"a":{}}'))
    assert not pickles(write(tmp_path, "model.safetensors", (0x280 + start).to_bytes(8, "little") + b"{"))


@pytest.mark.parametrize(
    "name", ["Doe^Jane.txt", "scans/DOE_JANE.png", "Muster_Max.dcm", "a/MEYER-SCHMIDT, ANNA/x.png", "ÖZTÜRK_AYŞE.png"]
)
def test_names_of_persons_are_found_in_paths_and_ids(tmp_path: Path, name: str) -> None:
    path = next(iter(write(tmp_path, "plain.txt", "x").values()))
    assert {reason.code for reason in patient_data({name: path})} == {"patient-data"}
    found = patient_data({}, [name, name, "normal/n01_1.png"])
    assert len(found) == 1 and "1 ids" in str(found[0]) and name not in str(found[0])


def test_dicom_is_found_by_suffix_magic_and_tags(tmp_path: Path) -> None:
    assert patient_data(write(tmp_path, "scan.dcm", b""))
    assert patient_data(write(tmp_path, "scan", b"\0" * 128 + b"DICM"))
    for text in ('{"PatientName": "x"}', "PatientID,PatientBirthDate\n", "(0010,0010) PN", "Patient's Name: x"):
        assert patient_data(write(tmp_path, "table.csv", text)), text


@pytest.mark.parametrize(
    "name",
    [
        "Malignant cases/Malignant case (12).png",
        "Bengin cases/Bengin case (3).jpg",
        "IQ_OTHNCCD/NORMAL_CASE_1.png",
        "CT_LUNG/LEFT_UPPER.png",
        "phantoms/normal/P0001_02.png",
        "evaluation/risk_coverage.png",
        "model_card.md",
        "patient_id_17/slice_003.png",
        "column:patient_id",
        "g0001",
    ],
)
def test_ordinary_names_are_left_alone(tmp_path: Path, name: str) -> None:
    path = next(iter(write(tmp_path, "plain.txt", "patient_id,column\n1.2.840.10008.5\n").values()))
    assert not patient_data({name: path}, [name]) and not secrets({name: path}) and not pickles({name: path})
