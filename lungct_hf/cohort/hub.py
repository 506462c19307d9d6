"""List a data set on the Hub, resolved to one commit first so that a run says exactly what it read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LungCTError, UsageError
from .folder import Wanted, list_tree
from .listing import Listing
from .names import METADATA_NAMES
from .table import list_tables
from .tree import Tree, is_slice_name

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_HUB_ID = re.compile(r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
_TABLES = (".parquet", ".arrow", ".csv", ".json", ".jsonl", ".zip", ".tar", ".tar.gz")


def parse_hub_id(data: str) -> tuple[str, str | None] | None:
    """("owner/name", revision or None) if `data` looks like a Hub id, else None."""
    match = _HUB_ID.fullmatch(data)
    return (match["repo"], match["revision"]) if match else None


def list_hub(repo: str, revision: str | None, wanted: Wanted) -> Listing:
    """List every split of the data set `repo` at `revision` (branch, tag or commit; default: the main branch).

    Repos of plain pictures, DICOM files or volumes are fetched and read as a folder, so that labels and splits are not
    guessed from names; all others go through `datasets.load_dataset`.

    Raises:
        LungCTError: the Hub, the repo or the revision cannot be reached, or the data set does not load.
    """
    import datasets
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    commit, files = resolve_dataset(HfApi(), repo, revision)
    source = f"{repo}@{commit}"
    slices = [name for name in files if is_slice_name(name) and not name.endswith(".zip")]
    try:
        if slices and not any(_is_table(name) for name in files):
            needed = [*slices, *(name for name in files if name.rsplit("/", 1)[-1] in METADATA_NAMES)]
            folder = snapshot_download(repo, repo_type="dataset", revision=commit, allow_patterns=needed)
            return list_tree(Tree.of_folder(Path(folder)), source, wanted, kind="hub")
        tables = datasets.load_dataset(repo, revision=commit)
    except (
        HfHubHTTPError,
        HTTPError,
        OfflineModeIsEnabled,
        OSError,
        ValueError,
        datasets.exceptions.DatasetsError,
    ) as e:
        cause = e.__cause__ or e
        reason = str(cause).strip().split("\n")[0] or type(cause).__name__
        raise LungCTError(f'The Hub data set "{source}" could not be loaded: {reason}') from e
    return list_tables(dict(tables), "hub", source, wanted, root=None)


def resolve_dataset(api: HfApi, repo: str, revision: str | None) -> tuple[str, list[str]]:
    """The commit that `revision` means now, and the names of its files."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    here = f'There is no file or folder "{repo}" here'
    try:
        info = api.dataset_info(repo, revision=revision)
    except GatedRepoError as error:
        raise LungCTError(
            f'The Hub data set "{repo}" is gated. Fix: ask for access on its page, then log in with `hf auth login`.'
        ) from error
    except RepositoryNotFoundError as error:
        raise UsageError(
            f"{here}, and no data set of that name on the Hub that you may read. Fix: correct the path or id; for a "
            f"private data set log in with `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise UsageError(
            f'The Hub data set "{repo}" has no revision "{revision}". Fix: name one that it has.'
        ) from error
    except OfflineModeIsEnabled as error:
        raise LungCTError(
            f"{here}, and the Hub may not be asked because HF_HUB_OFFLINE is set. Fix: correct the path or unset it."
        ) from error
    except (HfHubHTTPError, HTTPError, OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise LungCTError(
            f"{here}, and the Hub cannot be asked for such a data set ({reason}). Fix: correct the path, or check the "
            f"network and HF_ENDPOINT."
        ) from error
    if info.sha is None:
        raise LungCTError(f'The Hub did not say which commit of "{repo}" is current. Fix: name one ({repo}@COMMIT).')
    return info.sha, [file.rfilename for file in info.siblings or []]


def _is_table(name: str) -> bool:
    return name.endswith(_TABLES) and name.rsplit("/", 1)[-1] not in METADATA_NAMES
