"""The part of a model card that a person writes: the text between two markers, which no regeneration touches."""

from __future__ import annotations

import re

START, END = "<!-- author:start -->", "<!-- author:end -->"
INVITATION = (
    "*This part is yours: what you write between the two `author` comments here (in this file, or on the Hub's web "
    "page) is kept every time the card is generated or pushed again.*"
)
# Stands in every card we generate, so that a README somebody wrote by hand can be told from one of ours.
SIGNATURE = "<!-- lungct_hf:card -->"
# Stands for the repository in a card until a push knows its name.
PLACEHOLDER = "OWNER/NAME"

_HEADING = "## Notes from the author"
# A block ends at its end marker; when that was deleted, at the next start marker or at the end of the file.
_BLOCK = re.compile(rf"{re.escape(START)}(.*?)(?:{re.escape(END)}|(?={re.escape(START)})|\Z)", re.DOTALL)
# Where the start marker was deleted: what follows our own heading.
_ORPHAN = re.compile(rf"(?<=^{re.escape(_HEADING)}\n)(.*?)(?:{re.escape(END)}|\Z)", re.DOTALL | re.MULTILINE)
_FRONT_MATTER = re.compile(r"\A\s*---\n.*?\n---[ \t]*(?:\n|\Z)", re.DOTALL)


def author_text(markdown: str) -> str:
    """What stands between the markers, or "" when nobody has written anything there.

    Several blocks (a marker was pasted twice) are joined; a missing end marker means the end of the file, a missing
    start marker the heading that a card has above it. The invitation that a new card carries does not count. Line
    ends come back as "\\n".
    """
    body = _unix(markdown)
    blocks = [block.strip() for block in _pattern(body).findall(body)]
    return "\n\n".join(block for block in blocks if block and not _same(block, INVITATION))


def with_author_text(markdown: str, text: str) -> str:
    """`markdown` with `text` (or the invitation, when it is empty) between one pair of markers.

    Extra blocks are removed; without any, one is added at the end. The line ends of `markdown` stay as they are.
    """
    crlf = "\r\n" in markdown
    body, block = _unix(markdown), f"{START}\n{_unix(text).strip() or INVITATION}\n{END}"
    pattern = _pattern(body)
    first = pattern.search(body)
    if first is None:
        body = f"{body.replace(END, '').rstrip()}\n\n{_HEADING}\n\n{block}\n"
    else:
        before, after = body[: first.start()].replace(END, ""), pattern.sub("", body[first.end() :]).replace(END, "")
        body = f"{before}{block}{after}" if pattern is _BLOCK else f"{before}\n{block}{after}"
        body = body if body.endswith("\n") else body + "\n"
    return body.replace("\n", "\r\n") if crlf else body


def foreign_text(markdown: str) -> str:
    """The author's text of a README on the Hub, which may not be one of our cards: then all of its prose is theirs."""
    if author_text(markdown) or SIGNATURE in markdown or START in markdown:
        return author_text(markdown)
    return _FRONT_MATTER.sub("", _unix(markdown), count=1).strip()


def merged(ours: str, theirs: str) -> str:
    """One text out of the local one and the Hub's, losing nothing: a person may have edited either.

    An empty side gives way, a text that holds the other stands for both, otherwise the Hub's follows ours.
    """
    if not theirs or _squeezed(theirs) in _squeezed(ours):
        return ours
    if not ours or _squeezed(ours) in _squeezed(theirs):
        return theirs
    return f"{ours.strip()}\n\n{theirs.strip()}"


def joined(ours: bytes, theirs: bytes | None, repo_id: str) -> bytes:
    """The card `ours` as it is published in `repo_id`, with the author's text of the README on the Hub, `theirs`."""
    text = ours.decode("utf-8", "replace")
    card, kept = text.replace(PLACEHOLDER, repo_id) if SIGNATURE in text else text, author_text(text)
    if theirs is not None:
        kept = merged(kept, foreign_text(theirs.decode("utf-8", "replace")))
    if kept != author_text(card):
        card = with_author_text(card, kept)
    return card.encode() if card != text else ours


def _pattern(body: str) -> re.Pattern[str]:
    return _BLOCK if START in body else _ORPHAN


def _unix(text: str) -> str:
    """Line ends as "\\n", without a byte order mark."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _squeezed(text: str) -> str:
    return " ".join(text.split())


def _same(a: str, b: str) -> bool:
    return _squeezed(a) == _squeezed(b)
