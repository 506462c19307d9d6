"""A Space that shows one version of a model: its variables, and the restart that makes them count."""

from __future__ import annotations

from collections.abc import Callable

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import RepositoryNotFoundError

from ..errors import LungCTError
from ..hub.failures import HUB_ERRORS, Target, explain, patiently

Say = Callable[[str], None]
MODEL, REVISION = "LUNGCT_MODEL", "LUNGCT_REVISION"
_SET = "Set by lungct."
# Stands in the revision's description from before the change until the restart was asked for, so that a call that was
# interrupted between the two is finished by the next one.
_PENDING = "Set by lungct; the restart is still to come."


def pin_space(space: str, repo_id: str, revision: str, token: str, say: Say, *, restart: bool = False) -> bool:
    """Make the Space `space` serve `repo_id` at `revision` and restart it; whether anything had to change.

    `restart`: its files changed, so restart it in any case.

    Raises LungCTError when there is no such Space or the token may not change it.
    """
    api = HfApi(endpoint=constants.ENDPOINT, token=token)
    target = Target(f"spaces/{space}", None, token, writing=True)
    try:
        found = patiently(lambda: api.get_space_variables(space))
        pending = REVISION in found and found[REVISION].description == _PENDING
        wanted = {MODEL: repo_id, REVISION: revision}
        differing = [key for key, value in wanted.items() if key not in found or found[key].value != value]
        if not (differing or pending or restart):
            say(f"The Space {space} serves {repo_id}@{revision} already.")
            return False
        # Setting a variable to what it is changes nothing, so each of these may be sent again.
        patiently(lambda: api.add_space_variable(space, REVISION, revision, description=_PENDING))
        patiently(lambda: api.add_space_variable(space, MODEL, repo_id, description=_SET))
        patiently(lambda: api.restart_space(space))
        patiently(lambda: api.add_space_variable(space, REVISION, revision, description=_SET))
    except RepositoryNotFoundError:
        raise LungCTError(
            f"There is no Space {space}, or your token may not see it. Fix: check the name, or make it with "
            f"`lungct space deploy {space} --model {repo_id}@{revision}`."
        ) from None
    except HUB_ERRORS as error:
        raise explain(error, target) from None
    say(f"The Space {space} serves {repo_id}@{revision} and was restarted.")
    return True
