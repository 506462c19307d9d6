"""`lungct split`: write a split manifest, or check that one is still what its own rule gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ..classes import HELP as CLASSES
from ..errors import UsageError
from ..files import check_place

if TYPE_CHECKING:
    import numpy as np

    from ..cohort import Cohort


def split(
    data: Annotated[
        str, typer.Argument(help="A folder, zip archive, parquet, or a Hub data set OWNER/NAME[@REVISION].")
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="The manifest to write (CSV).")] = None,
    check: Annotated[
        Path | None, typer.Option(help="Instead of writing: make this manifest again from its own rule and compare.")
    ] = None,
    grouping: Annotated[
        str | None,
        typer.Option(
            help="linked, similarity, file-blocks:N or column:NAME. Default: a patient column if there is one, else "
            "linked."
        ),
    ] = None,
    classes: Annotated[str | None, typer.Option(help=f"Classes: {CLASSES}. Default: as the data say.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Table of labels by file, SOP instance, series, study or patient.")
    ] = None,
    slices: Annotated[str, typer.Option(help="Of volumes: all, positions like 0.2-0.8, or listed.")] = "all",
    window: Annotated[str | None, typer.Option(help="CENTRE,WIDTH in HU for DICOM and NIfTI.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="grouped (default), image (leaks near-copies) or given (the data's own).")
    ] = None,
    folds: Annotated[int | None, typer.Option(help="How many folds. Default: 5.")] = None,
    fold: Annotated[
        int | None, typer.Option(help="Which fold is the test set; the next one is validation. Default: 0.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Which of the possible assignments. Default: 0.")] = None,
    margin: Annotated[
        float | None,
        typer.Option(help="Drop training slices whose thumbnail correlates with a test slice above this (0 to 1)."),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="Link by features of an ImageNet MobileNetV2 as well: imagenet1k-v2, or a weight file."),
    ] = None,
    on_bad_file: Annotated[str, typer.Option(help="What an unreadable file does: refuse or skip.")] = "refuse",
    force: Annotated[bool, typer.Option("--force", help="Overwrite the manifest if it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of the tables.")] = False,
) -> None:
    """Divide a data set into training, validation and test slices so that no group is on two sides."""
    if (output is None) == (check is None):
        raise UsageError("Name either the manifest to write (--output split.csv) or the one to check (--check).")
    said = {"grouping": grouping, "protocol": protocol, "folds": folds, "fold": fold, "seed": seed, "margin": margin}
    if check is not None and (force or any(value is not None for value in said.values())):
        raise UsageError(f"--check takes the {', '.join(said)} from the manifest. Fix: leave the others out.")
    if output is not None:
        check_place(output)
    if output is not None and output.exists() and not force:
        raise UsageError(f"{output} exists. Fix: another --output, or --force to overwrite it.")
    protocol = "grouped" if protocol is None else protocol
    if protocol not in ("grouped", "image", "given"):
        raise UsageError(f'--protocol is "{protocol}"; needed: grouped, image or given.')
    if backbone not in (None, "imagenet1k-v2") and not Path(str(backbone)).expanduser().is_file():
        raise UsageError(f"--backbone {backbone}: no such file. Needed: imagenet1k-v2, or a .pth/.safetensors file.")
    from ..cohort import load_cohort, make_split, regroup
    from ..cohort.recheck import check_manifest
    from ..cohort.rule import with_backbone
    from ..cohort.summary import summarise
    from ..slices.window import Window

    progress = not as_json
    how: dict[str, Any] = {
        "classes": classes,
        "labels": None if labels is None else str(labels),
        "slices": slices,
        "window": None if window is None else Window.parse(window),
        "on_bad_file": on_bad_file,
    }

    def features_of(cohort: Cohort) -> tuple[np.ndarray, str]:
        return _features(cohort, str(backbone), progress)

    if check is not None:
        made = check_manifest(check, data, features_of=features_of if backbone else None, progress=progress, **how)
        facts = summarise(made) | {"checked": check.name}
    else:
        cohort = load_cohort(data, grouping=grouping, progress=progress, **how)
        if backbone:
            with_backbone(cohort.grouping)
            features, weights = features_of(cohort)
            cohort = regroup(cohort, cohort.grouping, features=features, weights=weights, progress=progress)
        numbers = {"fold": fold, "folds": folds, "seed": seed}
        chosen = {name: number for name, number in numbers.items() if number is not None}
        made = make_split(cohort, protocol, margin=margin, **chosen)
        made.write_csv(cast(Path, output))
        facts = summarise(made) | {"output": str(output), "notes": list(cohort.notes)}
    typer.echo(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else "\n".join(_tables(facts)))


def _features(cohort: Cohort, backbone: str, progress: bool) -> tuple[np.ndarray, str]:
    from ..model.features import backbone_features
    from ..model.imagenet import load_init

    init = load_init(backbone)
    pictures = (cohort.read(i) for i in range(len(cohort)))
    features = backbone_features(pictures, init, total=len(cohort), progress=progress)
    return features, str(init.sha256)[:12]


def _tables(facts: dict[str, Any]) -> list[str]:
    rule = f" ({facts['rule']})" if facts["rule"] else ""
    lines = [f"{facts['slices']} slices in {facts['groups']} groups: {facts['grouping']}{rule}"]
    made = f"Protocol {facts['protocol']}, seed {facts['seed']}"
    if facts["protocol"] != "given":
        made += f": fold {facts['fold']} of {facts['folds']} is the test set"
    lines += [made if facts["margin"] is None else f"{made}; margin {facts['margin']}", ""]
    names = list(facts["all"])
    width = max(14, *(len(name) + 2 for name in names))
    lines.append(f"{'slices / groups':16s}" + "".join(f"{name:>{width}s}" for name in names))
    for part, counts in {**facts["parts"], "all": facts["all"]}.items():
        if counts["all"]["slices"] or part != "dropped":
            cells = [f"{counts[name]['slices']} / {counts[name]['groups']}" for name in names]
            lines.append(f"{part:16s}" + "".join(f"{cell:>{width}s}" for cell in cells))
    lines += ["", "Largest groups:"]
    for entry in facts["largest_groups"]:
        classes = ", ".join(f"{count} {label}" for label, count in entry["classes"].items())
        lines.append(f"  {entry['group']}: {classes}; first {entry['first']}")
    links = ", ".join(f"{count} {kind}" for kind, count in facts["links"].items())
    lines += [
        f"Slices by what ties them to their group: {links or 'not recorded'}",
        f"Groups both in test and outside it: {facts['groups_crossing']}",
        f"Groups both in training and in validation: {facts['groups_in_training_and_validation']}",
        f"Hash {facts['hash']}",
    ]
    lines += [f"Note: {note}." for note in facts.get("notes", ())]
    lines.append(
        f"{facts['checked']} is what its own rule gives." if "checked" in facts else f"Wrote {facts['output']}"
    )
    return lines
