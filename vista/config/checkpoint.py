"""Where a pretrained model comes from: what encoders and language models have in common."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from vista.config.base import Settings


class Checkpoint(Settings):
    """A pretrained model: a folder, or a repository fetched beforehand."""

    kind: Literal["checkpoint"]
    path: str | None = Field(None, description="save_pretrained folder; or give `repo`.")
    repo: str | None = Field(None, description='Hugging Face repository, "owner/name".')
    revision: str | None = Field(None, description="Commit of the repository.")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.path is None) == (self.repo is None):
            raise ValueError("give either `path` (a folder) or `repo` (a repository)")
        if self.repo is not None and self.revision is None:
            raise ValueError("`repo` needs a `revision`: the commit that the run is pinned to")
        if self.path is not None and self.revision is not None:
            raise ValueError("`revision` belongs to `repo`, not to `path`")
        return self
