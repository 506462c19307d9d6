"""What a release leaves in the repo about itself: the block `release` of lungct.json and an entry in CHANGELOG.md.

    {"version": "1.1.0", "date": "2026-11-24", "repo": "alice/lung", "message": "...", "package_version": "0.1.0",
     "previous": {"tag": "v1.0.0", "commit": "..."}, "content": "<sha256>", "files": {"model.safetensors": "<sha256>"},
     "signer": {"sha256": "<of the public key>"}, "kept": {"notes.txt": "<sha256>"},
     "allowed": [{"code": "random-init", "sentence": "..."}],
     "rollback": {"tag": "v1.1.0+rollback.1", "replaces": "v1.2.0", "date": "..."}}     # only after a rollback

`content` names what was released: the same run gives the same on every machine, whatever the date. That is how an
interrupted release is found again. `kept` are files of others that were in the repo already and stay. Over all of them
lies the seal (seal.py); records without `seal` are from before there was one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..files import sha256_of, write_json
from ..hub.model_repo import CARD, CHANGELOG, LUNGCT, SEAL, ModelRepo

# Written last, because they tell of the others.
_UNLISTED = (CARD, LUNGCT, CHANGELOG, SEAL)
# Follow from the rest, with rounding that another machine may do otherwise.
_DERIVED = re.compile(r"attestation\.json|canaries/.*|evaluation/(metrics\.json|\w+\.png)|\.eval_results/.*")
_HEADER = (
    "# Changelog\n\nVersions of this model, newest first, as `lungct release` and `lungct rollback` wrote them.\n"
)

Record = dict[str, Any]


def file_hashes(repo: ModelRepo) -> dict[str, str]:
    """{path in the repo: sha256} of every file that a release lists."""
    return {name: sha256_of(path) for name, path in repo.files.items() if name not in _UNLISTED}


def content_hash(repo: ModelRepo, listed: Collection[str] | None = None) -> str:
    """One sha256 over weights, configs and stored predictions, without what the release itself adds.

    Of a published repo only the files `listed` in its record count: what others have put there is no part of it.
    """
    contract = {name: value for name, value in repo.lungct.items() if name != "release"}
    digest = hashlib.sha256(json.dumps(contract, sort_keys=True).encode())
    for name, value in sorted(file_hashes(repo).items()):
        if not _DERIVED.fullmatch(name) and (listed is None or name in listed):
            digest.update(f"{value} {name}\n".encode())
    return digest.hexdigest()


def tag_of_record(record: Record | None) -> str | None:
    """The tag that is due to the commit which this record is in."""
    if record is None:
        return None
    return (record.get("rollback") or {}).get("tag") or f"v{record['version']}"


def write_record(folder: Path, record: Record) -> None:
    """Put the record into the lungct.json of a model directory, in place of an earlier one."""
    write_json(folder / LUNGCT, ModelRepo(folder).lungct | {"release": record})


def with_entry(changelog: str, tag: str, date: str, lines: list[str]) -> str:
    """`changelog` with the entry of `tag` on top; an earlier entry of the same tag is replaced."""
    text = re.sub(rf"^## {re.escape(tag)} .*?(?=^## |\Z)", "", changelog, flags=re.MULTILINE | re.DOTALL)
    head, found, entries = text.partition("\n## ")
    entry = f"## {tag} ({date})\n\n" + "\n".join(lines).strip() + "\n"
    kept = f"\n## {entries.strip()}\n" if found else ""
    return f"{head.strip() or _HEADER.strip()}\n\n{entry}{kept}"
