"""Settings of a world that the run draws itself: what is in it, and how it looks."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from vista.config.base import Settings, later

Colour = Literal["blue", "cyan", "green", "orange", "purple", "red", "white", "yellow"]
Ground = Literal["grass", "sand", "stone", "water", "wood"]
Pattern = Literal["checks", "dots", "static", "stripes"]


class SceneCounts(Settings):
    """How many scenes are drawn for each split."""

    train: int = Field(3000, ge=1, description="Scenes to train on.")
    validation: int = Field(300, ge=1, description="Scenes to tune on.")
    test: int = Field(400, ge=1, description="Scenes to judge on.")


class DocumentCounts(Settings):
    """How many documents the language corpus of the drawn world has."""

    train: int = Field(24_000, ge=1, description="Documents to train the language models on.")
    heldout: int = Field(2_000, ge=1, description="Documents that no model is trained on.")


class DrawnData(Settings):
    """Scenes drawn by the run: one to three tinted objects on a textured ground."""

    kind: Literal["drawn"] = "drawn"
    objects: Literal["glyphs", "digits", "nothing"] = Field(
        "glyphs",
        description="What is drawn: glyphs of DejaVu Sans, scikit-learn's scanned digits, or "
        "nothing but the ground.",
    )
    nouns: tuple[int, int] | None = Field(
        None,
        description="Only the objects from the first to before the second place of the alphabet, "
        "counted from 0; null: all.",
    )
    colours: tuple[Colour, ...] | None = Field(
        None, min_length=1, description="Colours of objects; null: all."
    )
    grounds: tuple[Ground | Pattern, ...] | None = Field(
        None,
        min_length=1,
        description="Grounds; null: grass, sand, stone, water, wood. The patterns checks, dots, "
        "static and stripes look like none of them, in any colour.",
    )
    noise: float = Field(
        0.0, ge=0, description="Standard deviation of noise on every pixel, grey levels of 255."
    )
    seed: int = Field(475, ge=0, description="Seed of all scenes and documents.")
    scenes: SceneCounts = Field(default_factory=SceneCounts, description="Scenes per split.")
    image_size: int = Field(48, ge=24, le=1024, description="Side of the square images, pixels.")
    object_size: tuple[int, int] = Field(
        (16, 24), description="Smallest and largest longer side of an object, pixels."
    )
    align: int = Field(
        8,
        ge=1,
        description="Cells of objects start at multiples of this and are as large, pixels; small "
        "stand-ins learn objects on their patch grid much sooner. 1: anywhere, any size.",
    )
    object_counts: tuple[float, float, float] = Field(
        (0.4, 0.35, 0.25), description="Shares of scenes with one, two and three objects."
    )
    documents: DocumentCounts = Field(
        default_factory=DocumentCounts, description="Documents of the language corpus."
    )
    text_grid: int = Field(
        6, ge=2, le=64, description="Patch words a side that open half of the documents."
    )
    image_openings: bool = later(
        True,
        description="half of the documents open with the image's grid of patches written as words, "
        "at the place of the visual tokens; false: language models never see an image as words",
    )
    noun_share: float = Field(
        0.65, ge=0, le=1, description="Share of an object's patch words that are its noun."
    )
    noise_share: float = Field(
        0.05, ge=0, le=1, description="Share of patch words swapped for a random word."
    )

    @property
    def object_sizes(self) -> list[int]:
        """The sides that an object's cell can have, pixels."""
        low, high = self.object_size
        return [size for size in range(low, high + 1) if size % self.align == 0]

    @model_validator(mode="after")
    def _drawable(self) -> Self:
        low, high = self.object_size
        if self.nouns is not None and not 0 <= self.nouns[0] < self.nouns[1]:
            raise ValueError(f"nouns {list(self.nouns)} must be [first, end] with first < end")
        if not 8 <= low <= high:
            raise ValueError(f"object_size must be [low, high], 8 <= low <= high; got {low, high}")
        if self.object_counts[1] + self.object_counts[2] > 0 and 2 * low + 1 > self.image_size:
            raise ValueError(
                f"two objects of {low} px do not fit side by side in {self.image_size} px: "
                "lower object_size or raise image_size"
            )
        if not self.object_sizes:
            raise ValueError(f"no multiple of align {self.align} lies in object_size {low, high}")
        if high > self.image_size:
            raise ValueError(f"object_size {high} is larger than image_size {self.image_size}")
        if min(self.object_counts) < 0 or abs(sum(self.object_counts) - 1.0) > 1e-6:
            raise ValueError(
                f"object_counts must be shares that sum to 1; got {self.object_counts}"
            )
        return self
