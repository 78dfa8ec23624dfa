"""Repositories of the Hugging Face hub: what is in them at a commit, and their files.

`HF_ENDPOINT` is read by huggingface_hub. The token is the one in `HF_TOKEN`, never a login that the
hub's own tools stored; it goes into the header of requests to the hub and nowhere else.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

from vista.errors import UserError
from vista.fetch.download import (
    PASSING,
    TIMEOUT,
    Busy,
    Checksum,
    Patience,
    Refused,
    RemoteFile,
    client,
    fetch_files,
    inside,
)
from vista.fetch.source import write_source

SOURCE = "source.json"
_INSTEAD = "give a folder that holds a copy with `path`"


@dataclass(frozen=True)
class HubFile:
    """A file of a repository: its size in bytes and its checksum, as the hub states them."""

    name: str
    size: int
    checksum: Checksum


@dataclass(frozen=True)
class Listing:
    """The files of a repository at one commit, by name."""

    repo: str
    commit: str
    files: Mapping[str, HubFile]


def pinned_listing(repo: str, revision: str, work: Path) -> Listing:
    """Ask the hub what `repo` holds at `revision`, and write the commit to source.json in `work`.

    A resumed job goes on with the commit that it began with, also where a branch has moved on.
    Raises UserError as `fetch`, and where there is no such repository or revision.
    """
    note = work / SOURCE
    begun = json.loads(note.read_text(encoding="utf-8"))["commit"] if note.is_file() else revision
    listing = _listing(repo, begun)
    if listing.commit != revision:
        print(f"{repo}: {revision!r} is a name that may move; `revision: {listing.commit}` pins it")
    write_source(note, {"commit": listing.commit, "repo": repo, "revision": revision})
    return listing


def fetch(listing: Listing, names: Iterable[str], folder: Path) -> None:
    """Fetch the files `names` of a repository into `folder`, checked; real files, no links.

    Raises UserError where the hub cannot be reached, a licence has to be accepted, a token is
    missing or refused, the disk is full, or a file differs from what the hub states.
    """
    token = hub_token()
    files = [
        RemoteFile(
            hf_hub_url(listing.repo, name, revision=listing.commit, endpoint=constants.ENDPOINT),
            inside(folder, name),
            listing.files[name].size,
            listing.files[name].checksum,
        )
        for name in names
    ]
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with client() as http:
        try:
            fetch_files(http, files, listing.repo, _INSTEAD, headers)
        except Refused as error:
            raise _refusal(listing.repo, listing.commit, error.status, error.headers) from error


def _listing(repo: str, revision: str) -> Listing:
    # huggingface_hub reads the environment when it is imported, which may be long ago.
    patience = Patience(constants.ENDPOINT, _INSTEAD)
    api = HfApi(endpoint=constants.ENDPOINT, token=hub_token() or False)
    while True:
        try:
            info = api.model_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT)
            break
        except HfHubHTTPError as error:
            answer = error.response
            if answer.status_code < 500 and answer.status_code != 429:
                raise _refusal(repo, revision, answer.status_code, answer.headers) from error
            patience.failed(Busy(f"HTTP status {answer.status_code}"))
        except PASSING as error:
            patience.failed(error)
        except OfflineModeIsEnabled as error:
            raise UserError(
                f"HF_HUB_OFFLINE forbids to fetch {repo}; unset it, or {_INSTEAD}"
            ) from error
        except HFValidationError as error:
            raise UserError(f'{repo!r} is no repository "owner/name"; correct `repo`') from error
        except (ValueError, KeyError) as error:
            raise UserError(
                f"{constants.ENDPOINT} does not answer like a hub; correct HF_ENDPOINT, or log in "
                "to this network"
            ) from error
    files = {}
    for sibling in info.siblings or ():
        # Both are there because `files_metadata` is set.
        assert sibling.size is not None and sibling.blob_id is not None
        if sibling.lfs is not None:
            checksum = Checksum("sha256", sibling.lfs.sha256)
        else:
            checksum = Checksum("git", sibling.blob_id)
        files[sibling.rfilename] = HubFile(sibling.rfilename, sibling.size, checksum)
    assert info.sha is not None, "asked for at a revision"
    return Listing(repo, info.sha, files)


def hub_token() -> str | None:
    token = os.environ.get("HF_TOKEN", "").strip()
    # The HTTP library would print a header that it cannot send.
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise UserError("HF_TOKEN holds characters that no token has; set it again")
    return token or None


def _refusal(repo: str, revision: str, status: int, headers: Mapping[str, str]) -> UserError:
    """Say what a user can do about an answer of the hub."""
    page = f"{constants.ENDPOINT}/{repo}"
    code = headers.get("X-Error-Code", "")
    if code == "GatedRepo":
        return UserError(
            f"{repo} needs its licence accepted at {page} by the account whose token is in HF_TOKEN"
            f" ({'set, but without access' if hub_token() else 'not set'}); accept it, set "
            "HF_TOKEN and run again"
        )
    if code == "RevisionNotFound":
        return UserError(f"{repo} has no revision {revision!r}; take a commit from {page}/commits")
    if code == "EntryNotFound":
        return UserError(f"{repo} lost a file while it was fetched; run again")
    if headers.get("X-Error-Message", "").startswith("Invalid credentials"):
        return UserError(
            f"the hub does not accept the token in HF_TOKEN, asked for {repo}; renew it"
        )
    if code == "RepoNotFound" or status in (401, 404):
        return UserError(
            f"there is no repository {repo} at {constants.ENDPOINT}, or it is private; correct "
            "`repo`, or set HF_TOKEN to a token that may read it"
        )
    if status == 403:
        return UserError(
            f"the token in HF_TOKEN may not read {repo}; give it read access to {page}"
        )
    return UserError(f"the hub refuses {repo} (HTTP status {status}); see {page}")
