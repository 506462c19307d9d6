"""What a release leaves in the repo about itself: the block `release` of lungct.json and an entry in CHANGELOG.md.

    {"version": "1.1.0", "date": "2026-11-24", "repo": "alice/lung", "message": "...", "package_version": "0.1.0",
     "previous": {"tag": "v1.0.0", "commit": "..."}, "content": "<sha256>", "files": {"model.safetensors": "<sha256>"},
     "allowed": [{"code": "random-init", "sentence": "..."}],
     "rollback": {"tag": "v1.1.0+rollback.1", "replaces": "v1.2.0", "date": "..."}}     # only after a rollback

`content` names what was released: the same run gives the same on every machine, whatever the date. That is how an
interrupted release is found again.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from .. import files
from ..files import sha256_of, write_json
from ..hub.folder import list_files

CARD, CONTRACT, CHANGELOG = "README.md", "lungct.json", "CHANGELOG.md"
# Written last, because they tell of the others.
_UNLISTED = (CARD, CONTRACT, CHANGELOG)
# Follow from the rest, with rounding that another machine may do otherwise.
_DERIVED = re.compile(r"canaries/.*|evaluation/(metrics\.json|\w+\.png)|\.eval_results/.*")
_HEADER = (
    "# Changelog\n\nVersions of this model, newest first, as `lungct release` and `lungct rollback` wrote them.\n"
)

Record = dict[str, Any]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a model repo. Raises LungCTError when it is missing or something else."""
    return files.read_json(path, f"The model has no {path.name}. Fix: name the run that training wrote (runs/NAME).")


def file_hashes(folder: Path) -> dict[str, str]:
    """{path in the repo: sha256} of every file that a release lists."""
    return {name: sha256_of(path) for name, path in list_files(folder).items() if name not in _UNLISTED}


def content_hash(folder: Path) -> str:
    """One sha256 over weights, configs and stored predictions, without what the release itself adds."""
    contract = read_json(folder / CONTRACT)
    contract.pop("release", None)
    digest = hashlib.sha256(json.dumps(contract, sort_keys=True).encode())
    for name, value in sorted(file_hashes(folder).items()):
        if not _DERIVED.fullmatch(name):
            digest.update(f"{value} {name}\n".encode())
    return digest.hexdigest()


def record_of(folder: Path) -> Record | None:
    """The release record of a model directory, None when no release wrote it."""
    found = read_json(folder / CONTRACT).get("release")
    return found if isinstance(found, dict) and "version" in found else None


def tag_of_record(record: Record | None) -> str | None:
    """The tag that is due to the commit which this record is in."""
    if record is None:
        return None
    return (record.get("rollback") or {}).get("tag") or f"v{record['version']}"


def write_record(folder: Path, record: Record) -> None:
    write_json(folder / CONTRACT, read_json(folder / CONTRACT) | {"release": record})


def with_entry(changelog: str, tag: str, date: str, lines: list[str]) -> str:
    """`changelog` with the entry of `tag` on top; an earlier entry of the same tag is replaced."""
    text = re.sub(rf"^## {re.escape(tag)} .*?(?=^## |\Z)", "", changelog, flags=re.MULTILINE | re.DOTALL)
    head, found, entries = text.partition("\n## ")
    entry = f"## {tag} ({date})\n\n" + "\n".join(lines).strip() + "\n"
    kept = f"\n## {entries.strip()}\n" if found else ""
    return f"{head.strip() or _HEADER.strip()}\n\n{entry}{kept}"
