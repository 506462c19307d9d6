"""What is particular to a data set is data: only known_sets.toml names a class."""

import re
from pathlib import Path

import pytest

from lungct_hf.classes import spelling
from lungct_hf.known_sets import known_sets

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = sorted(
    path
    for folder in ("lungct_hf", "space", "training")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".css", ".js", ".html", ".yaml", ".toml"} and path.name != "known_sets.toml"
) + [ROOT / "model_card.md"]
NAMES = {
    word
    for known in known_sets().values()
    for name in (*known.classes.names, *(other for other, _ in known.classes.aliases))
    for word in spelling(name).split()
    if len(word) > 3
} - {"cell", "left", "lower", "lobe", "hilum", "large", "healthy"}
# "normal" is also the direction of a slice, a distribution and a CSS value: only the name in quotes is a class.
WORD = re.compile(
    rf"(?<![a-z])({'|'.join(sorted(NAMES - {'normal'}))})(?![a-z])|[\"'`]normal[\"'`]|\b(lc-|p_)normal\b",
    re.IGNORECASE,
)
OLD_KEY = "benign_temperature"  # of models and predictions of schema 1, which are still read


@pytest.mark.parametrize("path", PRODUCT, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_product_file_names_a_class(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    naming = [f"{number}: {line}" for number, line in enumerate(lines, 1) if WORD.search(line.replace(OLD_KEY, ""))]
    assert naming == []


def test_the_pattern_finds_what_it_is_for() -> None:
    assert {"malignant", "benign", "bengin", "adenocarcinoma", "squamous", "carcinoma", "covid"} <= NAMES
    assert all(WORD.search(line) for line in ('LABELS = ("normal",)', ".lc-normal {", "a malignant mass", "p_benign"))
    assert not WORD.search("normal = numbers(orientation)  # font-style: normal")
