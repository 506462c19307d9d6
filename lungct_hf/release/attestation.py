"""attestation.json: how the model came about, as an in-toto statement with SLSA's predicate for provenance.

It repeats what training noted in lungct.json where tools for supply chains look for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..files import sha256_of, write_json
from ..hub.model_repo import ATTESTATION, CONFIG, PREDICTIONS, SPLIT, WEIGHTS, ModelRepo

_STATEMENT, _PREDICATE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"
_SUBJECTS = (WEIGHTS, CONFIG, PREDICTIONS, SPLIT)


def write_attestation(folder: Path) -> None:
    """Write attestation.json beside the model in `folder`, from its lungct.json and its files."""
    write_json(folder / ATTESTATION, statement(ModelRepo(folder)))


def statement(repo: ModelRepo) -> dict[str, Any]:
    """The in-toto statement about `repo`; what training did not note is left out."""
    noted = repo.provenance
    data, split, init = (noted.get(name) or {} for name in ("data", "split", "init"))
    inputs = [
        # A fingerprint is the sha256 over the sorted sha256 of the slices, not that of one file.
        _input(data.get("source"), {"lungctSlices": data.get("fingerprint")}, slices=data.get("slices")),
        _input(SPLIT, {"lungctSplit": split.get("hash")}, protocol=split.get("protocol")),
        _input(init.get("source") or init.get("kind"), {"sha256": init.get("sha256")}, kind=init.get("kind")),
        _input("lungct-hf", {"gitCommit": noted.get("git_commit")}, version=noted.get("package_version")),
    ]
    return {
        "_type": _STATEMENT,
        "subject": [
            {"name": name, "digest": {"sha256": sha256_of(repo.file(name))}} for name in _SUBJECTS if repo.has(name)
        ],
        "predicateType": _PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:lungct-hf:training:1",
                "externalParameters": _known(command=noted.get("command"), recipe=noted.get("recipe")),
                "internalParameters": _known(seed=noted.get("seed")),
                "resolvedDependencies": [row for row in inputs if row],
            },
            "runDetails": {
                "builder": {"id": "urn:lungct-hf", "version": noted.get("versions") or {}},
                "metadata": _known(finishedOn=noted.get("created")),
            },
        },
    }


def _input(name: str | None, digest: dict[str, str | None], **annotations: Any) -> dict[str, Any] | None:
    known = _known(**digest)
    if not name or not (known or _known(**annotations)):
        return None
    row: dict[str, Any] = {"name": name}
    return row | _known(digest=known or None, annotations=_known(**annotations) or None)


def _known(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
