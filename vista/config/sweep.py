"""The sweep: which projectors a run combines its models, weights and seeds into; its controls."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Self

from pydantic import Field, model_validator

from vista.config.base import Settings, later
from vista.config.control_base import ControlSettings
from vista.config.controls import Controls
from vista.config.projector import PretrainedProjector, RecipeChange


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
    recipe: RecipeChange | None = later(
        None,
        description="what projectors of this block have in another way than `projector` says. A "
        "point has one projector: to compare two, give the encoder a second name in `encoders`",
    )
    controls: Controls = later(
        Controls(),
        description="controls that are measured beside the points: what scale alone does, floors "
        "and ceilings. They share features and projectors with their points",
    )

    @model_validator(mode="after")
    def _plain(self) -> Self:
        for name in ("encoders", "llms", "sae_weights", "seeds"):
            values = getattr(self, name)
            if values is not None and (not values or len(set(values)) != len(values)):
                raise ValueError(f"{name} must name at least one value, and none twice")
            if self.projector is not None and (values is None or len(values) != 1):
                raise ValueError(f"a pretrained projector is one point: give {name} one value")
        if self.projector is not None and self.recipe is not None:
            raise ValueError(
                "a pretrained projector is not trained: remove `recipe` or `projector`"
            )
        if min(self.sae_weights) < 0:
            raise ValueError("sae_weights must not be negative")
        for name, control in self.controls.chosen():
            if control.needs_baseline and (0 not in self.sae_weights or max(self.sae_weights) == 0):
                raise ValueError(
                    f"controls.{name} compares a weight with 0: sae_weights of the block must "
                    "name 0 and a positive weight"
                )
            if self.projector is not None and control.trains:
                raise ValueError(f"controls.{name} trains projectors: remove it or `projector`")
            if self.recipe is not None and control.trains:
                raise ValueError(f"controls.{name} trains by `projector`: remove it or `recipe`")
        return self

    def controls_of(self, encoder: str, llm: str) -> Iterator[tuple[Point, ControlSettings, Point]]:
        """Yield the controls of one encoder and language model: the point that its figures stand
        at, its settings, and the point whose projector it reads."""
        weights = tuple(map(float, self.sae_weights))
        for name, control in self.controls.chosen():
            named, seeds = weights, self.seeds
            if control.once:
                named, seeds = weights[:1], seeds[:1]
            elif control.trains:
                named = tuple(map(float, getattr(control, "weights")))  # noqa: B009
            elif control.needs_baseline:
                named = tuple(weight for weight in weights if weight > 0)
            for weight in named:
                for seed in seeds:
                    read = 0.0 if control.needs_baseline else weight
                    base = Point(encoder, llm, read, seed)
                    yield Point(encoder, llm, weight, seed, name), control, base


class Point(NamedTuple):
    """One projector of the sweep, or a control of one."""

    encoder: str
    llm: str
    sae_weight: float
    seed: int
    control: str | None = None


def controls_of_sweep(
    blocks: Iterable[Block], encoders: Sequence[str], llms: Sequence[str]
) -> dict[Point, tuple[ControlSettings, Point]]:
    """Return the controls of a sweep by the point that their figures stand at, each with its
    settings and the point whose projector it reads.

    `encoders` and `llms` are combined by blocks that name none. Raises ValueError where two blocks
    give different settings for one control.
    """
    controls: dict[Point, tuple[ControlSettings, Point]] = {}
    for block in blocks:
        pairs = itertools.product(block.encoders or encoders, block.llms or llms)
        for point, settings, base in itertools.chain(*itertools.starmap(block.controls_of, pairs)):
            if controls.setdefault(point, (settings, base)) != (settings, base):
                raise ValueError(
                    f"sweep gives two different controls {point.control!r} for {point.encoder}, "
                    f"{point.llm}, weight {point.sae_weight:g}"
                )
    return controls
