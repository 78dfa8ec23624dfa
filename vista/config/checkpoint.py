"""Where a pretrained model comes from: what encoders and language models have in common."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from vista.config.base import Settings


def refuse_unclear_place(
    path: str | None, repo: str | None, revision: str | None, what: str = "a folder"
) -> None:
    """Refuse settings that name no place, two, or a repository that may change. Raises ValueError.

    `what` is the kind of thing that `path` names.
    """
    if (path is None) == (repo is None):
        raise ValueError(f"give either `path` ({what}) or `repo` (a repository)")
    if repo is not None and revision is None:
        raise ValueError("`repo` needs a `revision`: the commit that the run is pinned to")
    if path is not None and revision is not None:
        raise ValueError("`revision` belongs to `repo`, not to `path`")


class Checkpoint(Settings):
    """A pretrained model: a folder, or a repository fetched beforehand."""

    kind: Literal["checkpoint"]
    path: str | None = Field(None, description="save_pretrained folder; or give `repo`.")
    repo: str | None = Field(None, description='Hugging Face repository, "owner/name".')
    revision: str | None = Field(None, description="Commit of the repository.")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        refuse_unclear_place(self.path, self.repo, self.revision)
        return self
