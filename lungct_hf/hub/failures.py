"""What can go wrong between here and a Hub, told as one sentence: what came, what is needed, the fix.

The messages of the client and of the server are long, and a server may echo what it was sent, so none of them is
passed on unread: `explain` writes its own sentence and takes any token out of what it quotes.
"""

from __future__ import annotations

import errno
import logging
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from ..errors import LungCTError, UsageError, is_homeless

logger = logging.getLogger("lungct_hf")

T = TypeVar("T")

# The client's own base classes, so that this holds whichever HTTP library the client was built on. A cut connection
# reaches us as that library's raw error, a short download as OSError, a failed upload wrapped in a RuntimeError.
HUB_ERRORS: tuple[type[Exception], ...] = (*HfHubHTTPError.__bases__, RuntimeError, ValueError)
PAUSE = 0.5  # seconds before the second attempt
_BUSY = {408, 429, 500, 502, 503, 504}
_LOCAL_ERRNO = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "no permission",
    errno.EROFS: "the file system is read-only",
}
_LOGIN = "Fix: run `hf auth login`, or set HF_TOKEN to a token from {endpoint}/settings/tokens"


@dataclass(frozen=True)
class Target:
    """What a call was about; the words of its error come from here."""

    repo_id: str
    revision: str | None = None
    token: str | None = None
    writing: bool = False


def usable_token(token: str | None) -> str | None:
    """The token to send: the one given, else the one in the usual places (HF_TOKEN, `hf auth login`), else None.

    Raises LungCTError if it holds characters that no HTTP header can carry: the HTTP library would print it.
    """
    found = token
    if found is None and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN:
        found = get_token()
    if found is None or not found.strip():
        return None
    found = found.strip()
    if not (found.isascii() and found.isprintable()) or " " in found:
        raise LungCTError(
            "The access token holds spaces or characters that cannot be sent, so it was probably copied badly. "
            + _LOGIN.format(endpoint=constants.ENDPOINT)
        )
    return found


def check_repo_id(repo_id: str) -> str:
    """`repo_id` itself, or UsageError."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UsageError(
            f"{repo_id!r} is not a repository name: write OWNER/NAME with letters, digits, '-', '_' and '.' only."
        ) from error
    return repo_id


def chain(error: BaseException) -> list[BaseException]:
    """The error and what it was raised from, outermost first."""
    out: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in out:
        out.append(current)
        current = current.__cause__ or current.__context__
    return out


def answer_of(error: BaseException) -> HfHubHTTPError | None:
    """What the server answered, if it was the server that spoke: the outermost answer in the chain."""
    return next((link for link in chain(error) if isinstance(link, HfHubHTTPError)), None)


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error, if it was the server that spoke."""
    answer = answer_of(error)
    return answer.response.status_code if answer is not None else None


def is_passing(error: BaseException) -> bool:
    """Whether trying again may help: the server is busy, or the connection failed."""
    status = status_of(error)
    if status is not None:
        return status in _BUSY
    links = chain(error)
    if any(isinstance(e, OSError) and e.errno in _LOCAL_ERRNO for e in links):
        return False
    # The HTTP library's base class, without the client's subclasses, is what a broken connection raises.
    network = (HfHubHTTPError.__bases__[0], ConnectionError)
    short = any("Consistency check failed" in str(e) for e in links)
    return short or any(isinstance(e, network) and not isinstance(e, OfflineModeIsEnabled) for e in links)


def rest(attempt: int) -> None:
    """Wait before the next attempt, longer each time."""
    time.sleep(PAUSE * 2 ** (attempt - 1))


class Waiting(logging.Filter):
    """Turns the client's many lines on attempts that failed into one on stderr now and then, without an address.

    with Waiting("uploading"):
        api.create_commit(...)
    """

    EVERY = 20.0  # seconds between two lines
    _SPEAKER = "huggingface_hub.utils._http"
    _STATUS = re.compile(r"HTTP Error (\d+)")

    def __init__(self, what: str) -> None:
        super().__init__()
        self._what, self._failed, self._said, self._why = what, 0, float("-inf"), "the connection failed"

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if " thrown while requesting " not in text:
            return False
        self._failed += 1
        found = self._STATUS.match(text)
        self._why = f"it answers {found[1]}" if found else "the connection fails"
        now = time.monotonic()
        if now - self._said >= self.EVERY:
            self._said = now
            times = "once" if self._failed == 1 else f"{self._failed} times"
            sys.stderr.write(f"{constants.ENDPOINT}, {self._what}: {self._why} ({times}); trying again ...\n")
        return False

    def __enter__(self) -> Waiting:
        logging.getLogger(self._SPEAKER).addFilter(self)
        return self

    def __exit__(self, *exc: object) -> None:
        logging.getLogger(self._SPEAKER).removeFilter(self)


def patiently(call: Callable[[], T], *, attempts: int = 3) -> T:
    """`call()`, tried again while what fails is passing; only for calls that change nothing on the Hub."""
    for attempt in range(1, attempts + 1):
        try:
            return call()
        except HUB_ERRORS as error:
            if attempt == attempts or not is_passing(error):
                raise
            logger.debug("attempt %d of %d failed (%s), trying again", attempt, attempts, type(error).__name__)
            rest(attempt)
    raise AssertionError("unreachable")


def explain(error: Exception, target: Target, endpoint: str | None = None) -> LungCTError:
    """The one sentence for `error`. Raise it `from None`: the client's text may hold signed addresses."""
    endpoint = endpoint or constants.ENDPOINT
    repo, login = target.repo_id, _LOGIN.format(endpoint=endpoint)
    answer, status, known = answer_of(error), status_of(error), target.token is not None
    said = _said(error, target.token)
    local = next((e for e in chain(error) if isinstance(e, OSError) and e.errno in _LOCAL_ERRNO), None)
    if local is not None:
        where = f" ({local.filename})" if local.filename else ""
        text = f"A file here could not be read or written{where}: {_LOCAL_ERRNO[local.errno or 0]}. "
        text += "Make room or choose another cache folder (HF_HOME), then try again."
    elif any(is_homeless(e) for e in chain(error)):
        text = "There is no home folder for what is fetched. Fix: set HF_HOME to a folder that you may write to."
    elif isinstance(answer, GatedRepoError):
        text = (
            f"{repo} is gated: its owner decides who may read it. Ask for access at {endpoint}/{repo}, then try again."
        )
        text += "" if known else f" You are not signed in. {login}"
    elif isinstance(answer, RevisionNotFoundError):
        text = f"{repo} has no revision {target.revision!r}. Give one of its branches, tags or commits."
    elif status == 401 and known and not isinstance(answer, RepositoryNotFoundError):
        text = f"{endpoint} refused the access token ({said or 'invalid'}): it is wrong or has expired. {login}"
    elif isinstance(answer, RepositoryNotFoundError):
        who = "the account that your access token belongs to" if known else "you, because you are not signed in"
        text = f"{endpoint} has no repository {repo}, or it is private and hidden from {who}."
        text += " Check the name." if known else f" Check the name. {login}"
    elif status in (401, 403) and target.writing:
        what = "the access token" if known else "you, because you are not signed in"
        text = f"{endpoint} does not let {what} write to {repo} ({said or status}). It takes a token with the write "
        text += f"role, of an account that owns the repository. {login}"
    elif status == 402:
        text = f"{endpoint} asks for a payment before it takes this ({said or status})."
    elif status in (413, 507):
        text = f"{endpoint} has no room for this ({said or status}): a file or the storage of the account is over its "
        text += "limit. Make room there, or use a smaller model."
    elif status == 412:
        text = f"Someone else committed to {repo} meanwhile. Look at what is there, then try again."
    elif status is not None and status in _BUSY:
        text = f"{endpoint} answered {status} ({said or 'server error'}) several times. Try again later."
    elif status is not None:
        text = f"{endpoint} refused the request for {repo} with {status} ({said or 'no reason given'})."
    elif is_passing(error) or any(isinstance(link, LocalEntryNotFoundError) for link in chain(error)):
        text = f"{endpoint} could not be reached, or the connection was cut ({type(chain(error)[-1]).__name__}). "
        text += "Check the network and HF_ENDPOINT, then try again."
    else:
        text = f"{repo} at {endpoint}: {said or type(error).__name__}."
    return LungCTError(redact(text, target.token))


def redact(text: str, token: str | None) -> str:
    return text.replace(token, "<token>") if token else text


def _said(error: BaseException, token: str | None) -> str:
    """What the server, or failing that the error itself, said: one short line."""
    answer = answer_of(error)
    if answer is not None:
        text = answer.response.headers.get("X-Error-Message") or answer.server_message or ""
    else:
        # A wrapper names the file, what it wraps may quote a signed address: of that only the kind is told.
        inner = chain(error)[-1]
        text = str(error) if inner is error else f"{error} ({type(inner).__name__})"
    return " ".join(redact(text, token).split())[:200].rstrip(".")
