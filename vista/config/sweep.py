"""The sweep: which projectors a run combines its models, weights and seeds into."""

from __future__ import annotations

from typing import NamedTuple, Self

from pydantic import Field, model_validator

from vista.config.base import Settings
from vista.config.projector import PretrainedProjector


class Block(Settings):
    """One block of the sweep: every combination of its lists."""

    encoders: tuple[str, ...] | None = Field(None, description="names; null: all")
    llms: tuple[str, ...] | None = Field(None, description="names; null: all")
    sae_weights: tuple[float, ...] = Field((0.0, 1.0), description="weights of the SAE term")
    seeds: tuple[int, ...] = Field((0, 1), description="seeds of the projector")
    projector: PretrainedProjector | None = Field(
        None,
        description="`{pretrained: FILE}`: a projector trained elsewhere; the block must be one "
        "encoder, LLM, weight and seed, which say where its figures stand in the table",
    )

    @model_validator(mode="after")
    def _plain(self) -> Self:
        for name in ("encoders", "llms", "sae_weights", "seeds"):
            values = getattr(self, name)
            if values is not None and (not values or len(set(values)) != len(values)):
                raise ValueError(f"{name} must name at least one value, and none twice")
            if self.projector is not None and (values is None or len(values) != 1):
                raise ValueError(f"a pretrained projector is one point: give {name} one value")
        if min(self.sae_weights) < 0:
            raise ValueError("sae_weights must not be negative")
        return self


class Point(NamedTuple):
    """One projector of the sweep."""

    encoder: str
    llm: str
    sae_weight: float
    seed: int
