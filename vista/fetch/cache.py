"""Files of repositories for programs, kept in a folder of this machine between uses."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from vista.errors import UserError
from vista.fetch.hub import Listing, fetch, pinned_listing
from vista.fetch.model_files import wanted
from vista.foreign.text import one_line

FOLDER = "VISTA_CACHE"  # variable of the environment; else ~/.cache/vista
_DONE = ".complete"
_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_.-]{1,96}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def model_snapshot(repo: str, revision: str = "main") -> Path:
    """Return a folder with the files of a pretrained model, fetched unless they are there.

    Raises:
        UserError: As `vista.fetch.hub.fetch`; or the repository has no safetensors weights.
    """
    return snapshot(repo, revision, wanted)


def snapshot(repo: str, revision: str, names: Callable[[Listing], Sequence[str]]) -> Path:
    """Return a folder with files of a repository, fetched unless they are there.

    Args:
        repo: "owner/name" on the Hugging Face hub.
        revision: Branch, tag or commit.
        names: Chooses the files out of all that the repository has.

    Raises:
        UserError: As `vista.fetch.hub.fetch`.
    """
    if not _REPO.fullmatch(repo) or ".." in repo:
        raise UserError(f'{one_line(repo)!r} is no folder here, and no repository "owner/name"')
    folder = _cache() / repo.replace("/", "--")
    # A commit that is here needs no look at the hub.
    if not (_COMMIT.fullmatch(revision) and (folder / revision / _DONE).is_file()):
        with TemporaryDirectory(prefix="vista-") as note:
            listing = pinned_listing(repo, revision, Path(note))
        revision = listing.commit
        if not (folder / revision / _DONE).is_file():
            fetch(listing, names(listing), folder / revision)
            (folder / revision / _DONE).touch()
    return folder / revision


def _cache() -> Path:
    return Path(os.environ.get(FOLDER) or Path.home() / ".cache" / "vista")
