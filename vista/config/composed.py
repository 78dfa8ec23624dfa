"""Settings of scenes that the run composes of photographs: cut-out objects on grounds."""

from __future__ import annotations

from string import Formatter
from typing import Literal, Self

from pydantic import Field, model_validator

from vista.config.base import Settings
from vista.config.packages import refuse_outside

PLACEHOLDERS = ("object", "objects", "is", "ground")
WORDINGS = (
    "a photo of {objects}.",
    "a photo of {objects} on {ground}.",
    "there {is} {objects} on {ground}.",
    "there {is} {objects} in this picture.",
    "this picture shows {objects}.",
)


class ComposedCounts(Settings):
    """How many scenes are composed for each split."""

    train: int = Field(1000, ge=1, description="Scenes to train on.")
    validation: int = Field(100, ge=1, description="Scenes to tune on.")
    test: int = Field(
        150,
        ge=1,
        description="Scenes to judge on, of the photographs that scenes to train on are made of.",
    )
    held_out: int = Field(
        100,
        ge=0,
        description="Further scenes to judge on, of photographs that no other scene shows; 0: no "
        "photograph is held out.",
    )


class Cutouts(Settings):
    """Photographs of objects that were cut out: PNG files whose alpha channel is the object."""

    map: str = Field(
        description="JSON file that maps each cut-out, by its path below `folder`, to the noun of "
        "what it shows."
    )
    package: str | None = Field(None, description="Entry of `packages` that holds the folder.")
    folder: str = Field(
        "", description="Folder of the cut-outs, below the package if there is one."
    )

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.package is None and not self.folder:
            raise ValueError("name the folder of the cut-outs in `folder`, or a `package`")
        if self.package is not None and self.folder:
            refuse_outside(self.folder, "folder in the package")
        return self


class GroundSource(Settings):
    """What lies behind the objects: a photograph, a folder of photographs, or a plain colour."""

    file: str | None = Field(None, description="A photograph.")
    folder: str | None = Field(None, description="A folder of photographs, PNG, JPEG or WebP.")
    package: str | None = Field(
        None, description="Entry of `packages` that `file` or `folder` lies below."
    )
    colour: tuple[int, int, int] | None = Field(None, description="Red, green and blue, 0 to 255.")
    name: str | None = Field(
        None, min_length=1, description="What captions call it, e.g. grass; null: nothing."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if [self.file, self.folder, self.colour].count(None) != 2:
            raise ValueError("give one of `file`, `folder` and `colour`")
        if self.package is not None and self.colour is not None:
            raise ValueError("a colour lies in no package: remove `package`")
        if self.package is not None:
            refuse_outside(self.file or self.folder or "", "path in the package")
        if self.colour is not None and not all(0 <= value <= 255 for value in self.colour):
            raise ValueError(f"colour {list(self.colour)} must be three numbers from 0 to 255")
        return self


class ComposedData(Settings):
    """Scenes composed by the run: one or two cut-out photographs on a ground, with exact masks of
    what can be seen of each."""

    kind: Literal["composed"]
    cutouts: Cutouts = Field(description="The photographs of objects.")
    nouns: tuple[str, ...] | None = Field(
        None,
        min_length=1,
        description="Nouns of the map that scenes show; null: all with `min_photographs`.",
    )
    min_photographs: int = Field(
        1, ge=1, description="Photographs that a noun needs where `nouns` is null."
    )
    grounds: tuple[GroundSource, ...] = Field(description="Grounds; one is drawn for each scene.")
    scenes: ComposedCounts = Field(
        default_factory=ComposedCounts, description="Scenes per split, and of held-out photographs."
    )
    held_out_share: float = Field(
        0.3,
        gt=0,
        lt=1,
        description="Share of a noun's photographs that is held out: at least one of two or more, "
        "never all. A noun with one photograph is not in the scenes of held-out ones.",
    )
    image_size: int = Field(224, ge=32, le=2048, description="Side of the square images, pixels.")
    pair_share: float = Field(0.3, ge=0, le=1, description="Share of scenes with two objects.")
    object_scale: tuple[float, float] = Field(
        (0.5, 0.85),
        description="Smallest and largest longer side of an object that is alone, in sides of the "
        "image.",
    )
    pair_scale: tuple[float, float] = Field(
        (0.35, 0.6), description="The same of each of two objects."
    )
    max_occlusion: float = Field(
        0.25,
        ge=0,
        lt=1,
        description="Share of the rear one of two objects that the front one may cover.",
    )
    ground_scale: float = Field(
        0.5,
        ge=0.05,
        le=1,
        description="Smallest square that is cut out of a ground, in shorter sides of the ground; "
        "the largest is 1.",
    )
    captions: tuple[str, ...] = Field(
        WORDINGS,
        min_length=1,
        description="Wordings of captions. {object}: the object with its article, only in scenes "
        'of one; {objects}: one or both, "a cat and a dog"; {is}: is or are, as the first noun '
        "asks; {ground}: its name, only in scenes whose ground has one.",
    )
    captions_per_scene: int = Field(
        3, ge=1, description="Captions of a scene, of different wordings as far as there are any."
    )
    question: str = Field(
        "Describe the image.", description="Question of the turn made of a scene's first caption."
    )
    seed: int = Field(475, ge=0, description="Seed of all scenes.")

    @model_validator(mode="after")
    def _composable(self) -> Self:
        if not self.grounds:
            raise ValueError(
                "`grounds` is empty: name a photograph, a folder of them, or a plain colour"
            )
        for key in ("object_scale", "pair_scale"):
            low, high = getattr(self, key)
            if not 0.05 <= low <= high <= 1:
                raise ValueError(
                    f"{key} must be [low, high], 0.05 <= low <= high <= 1; got {low, high}"
                )
        if self.pair_share > 0 and self.pair_scale[0] > 0.5:
            raise ValueError(
                f"two objects of {self.pair_scale[0]:g} sides do not fit side by side: "
                "begin pair_scale at 0.5 or below"
            )
        if self.nouns is not None and len(set(self.nouns)) < len(self.nouns):
            raise ValueError("`nouns` names a noun twice")
        return self

    @model_validator(mode="after")
    def _every_scene_has_a_wording(self) -> Self:
        asked = [_checked(wording) for wording in self.captions]
        all_named = all(ground.name is not None for ground in self.grounds)
        kinds = {"one object": self.pair_share < 1, "two objects": self.pair_share > 0}
        for what in (name for name, wanted in kinds.items() if wanted):
            if not any(usable(names, what == "one object", all_named) for names in asked):
                where = "" if all_named else " on a ground without a name"
                raise ValueError(f"no wording of `captions` is for scenes of {what}{where}")
        return self


def usable(placeholders: frozenset[str], one_object: bool, named_ground: bool) -> bool:
    """Whether a wording with these placeholders can describe such a scene."""
    if "object" in placeholders and not one_object:
        return False
    return named_ground or "ground" not in placeholders


def _checked(wording: str) -> frozenset[str]:
    names = placeholders(wording)
    unknown = sorted(names - set(PLACEHOLDERS))
    if unknown:
        raise ValueError(
            f"caption {wording!r} has {{{unknown[0]}}}; there are "
            + ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        )
    if not names & {"object", "objects"}:
        raise ValueError(f"caption {wording!r} names no object: it needs {{object}} or {{objects}}")
    return names


def placeholders(wording: str) -> frozenset[str]:
    """The names in braces of a wording. Raises ValueError where braces do not pair."""
    try:
        parts = list(Formatter().parse(wording))
    except ValueError as error:
        raise ValueError(f"caption {wording!r}: {error}") from error
    if any(spec or conversion for _, name, spec, conversion in parts if name is not None):
        raise ValueError(f"caption {wording!r}: braces hold a name and nothing else")
    return frozenset(name for _, name, _, _ in parts if name is not None)


class ComposedRecords(Settings):
    """What the records of composed scenes depend on besides the scenes, which are an input."""

    kind: Literal["composed"] = "composed"
    question: str
