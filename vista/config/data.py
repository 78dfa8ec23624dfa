"""Settings of the images and texts that a run reads: `data:` and `text:` of a config.

`data` is one of four kinds, told apart by its key `kind`:

- `drawn`   scenes that the run draws itself (no download, exact masks);
- `coco`    a folder of images with COCO instance and caption files;
- `llava`   a folder of images with a LLaVA conversation file;
- `folder`  a plain folder of images, optionally one sub-folder a class.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Fractions(_Settings):
    """Shares of the images in each split; an image's split follows from a hash of its id."""

    train: float = Field(0.8, ge=0, le=1, description="Share of images to train on.")
    validation: float = Field(0.1, ge=0, le=1, description="Share of images to tune on.")
    test: float = Field(0.1, ge=0, le=1, description="Share of images to judge on.")

    @model_validator(mode="after")
    def _sum_to_one(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1.0) > 1e-6:
            raise ValueError(f"the three fractions must sum to 1, got {total:g}")
        return self


class SceneCounts(_Settings):
    """How many scenes are drawn for each split."""

    train: int = Field(3000, ge=1, description="Scenes to train on.")
    validation: int = Field(300, ge=1, description="Scenes to tune on.")
    test: int = Field(400, ge=1, description="Scenes to judge on.")


class DocumentCounts(_Settings):
    """How many documents the language corpus of the drawn world has."""

    train: int = Field(24_000, ge=1, description="Documents to train the language models on.")
    heldout: int = Field(2_000, ge=1, description="Documents that no model is trained on.")


class DrawnData(_Settings):
    """Scenes drawn by the run: one to three tinted objects on a textured ground."""

    kind: Literal["drawn"] = "drawn"
    objects: Literal["glyphs", "digits"] = Field(
        "glyphs",
        description="What is drawn: glyphs of DejaVu Sans, or scikit-learn's scanned digits.",
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


class CocoFiles(_Settings):
    """The annotation files of one set of images. Give `instances`, `captions`, or both."""

    instances: str | None = Field(None, description="COCO instances JSON: boxes and masks.")
    captions: str | None = Field(None, description="COCO captions JSON.")
    conversations: str | None = Field(
        None, description="LLaVA JSON over the same images; replaces the turns made of captions."
    )
    folder: str = Field("", description="Folder of these images below `images`.")

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.instances is None and self.captions is None:
            raise ValueError("give `instances`, `captions`, or both")
        return self


class CocoData(_Settings):
    """A COCO data set: `splits` names files per split, or `files` is divided by `fractions`."""

    kind: Literal["coco"]
    images: str = Field(description="Root folder of the images.")
    splits: dict[Split, CocoFiles] | None = Field(None, description="Annotation files per split.")
    files: CocoFiles | None = Field(None, description="Annotation files of all images together.")
    fractions: Fractions = Field(default_factory=Fractions, description="How `files` is divided.")
    question: str = Field(
        "Describe the image.", description="Question of the turn made of an image's first caption."
    )
    limit: int | None = Field(None, ge=1, description="At most so many images per split.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.splits is None) == (self.files is None):
            raise ValueError("give either `splits` (files per split) or `files` (divided by hash)")
        if self.splits is not None and not self.splits:
            raise ValueError("`splits` is empty: name at least one split")
        return self


class LlavaData(_Settings):
    """LLaVA conversations: `splits` names a file per split, or `file` is divided by `fractions`."""

    kind: Literal["llava"]
    images: str = Field(description="Root folder of the images.")
    splits: dict[Split, str] | None = Field(None, description="Conversation JSON per split.")
    file: str | None = Field(None, description="Conversation JSON of all images together.")
    fractions: Fractions = Field(default_factory=Fractions, description="How `file` is divided.")
    limit: int | None = Field(None, ge=1, description="At most so many rows per split.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.splits is None) == (self.file is None):
            raise ValueError("give either `splits` (a file per split) or `file` (divided by hash)")
        if self.splits is not None and not self.splits:
            raise ValueError("`splits` is empty: name at least one split")
        return self


class FolderData(_Settings):
    """A plain folder of images, optionally with one sub-folder a class."""

    kind: Literal["folder"]
    images: str = Field(description="Root folder of the images.")
    splits: dict[Split, str] | None = Field(
        None, description="Folder below `images` per split; without it `fractions` divides."
    )
    fractions: Fractions = Field(default_factory=Fractions, description="How images are divided.")
    classes: bool = Field(
        False, description="The first folder names the class: an object that fills the image."
    )
    question: str = Field("Describe the image.", description="Question of the turn, if any.")
    answer: str | None = Field(
        None, description='Answer of the turn, e.g. "a photo of a {class}"; none: no turn.'
    )
    limit: int | None = Field(None, ge=1, description="At most so many images per split.")

    @model_validator(mode="after")
    def _class_known(self) -> Self:
        if self.answer is not None and "{class}" in self.answer and not self.classes:
            raise ValueError("`answer` names {class}: set `classes: true`")
        if self.splits is not None and not self.splits:
            raise ValueError("`splits` is empty: name at least one split")
        return self


DataSettings = Annotated[DrawnData | CocoData | LlavaData | FolderData, Field(discriminator="kind")]
DATA_SETTINGS: TypeAdapter[DrawnData | CocoData | LlavaData | FolderData] = TypeAdapter(
    DataSettings
)


class DrawnText(_Settings):
    """The language corpus that the drawn world writes beside its images."""

    kind: Literal["drawn"] = "drawn"


class LinesText(_Settings):
    """Text files, one document a line."""

    kind: Literal["lines"]
    train: str = Field(description="File of documents to label latents on (and train on).")
    heldout: str = Field(description="File of documents to check the dictionaries on.")
    limit: int | None = Field(None, ge=1, description="At most so many documents per split.")


TextSettings = Annotated[DrawnText | LinesText, Field(discriminator="kind")]
TEXT_SETTINGS: TypeAdapter[DrawnText | LinesText] = TypeAdapter(TextSettings)


def records_settings(
    settings: DrawnData | CocoData | LlavaData | FolderData,
) -> dict[str, Any]:
    """What the records depend on. A drawn world is an input of theirs, so its settings are not."""
    if isinstance(settings, DrawnData):
        return {"kind": "drawn"}
    return settings.model_dump(mode="json")


def annotation_files(
    settings: DrawnData | CocoData | LlavaData | FolderData | DrawnText | LinesText,
) -> list[str]:
    """The user's own annotation and text files, sorted: what a rule must watch for changes."""
    names: set[str | None] = set()
    if isinstance(settings, CocoData):
        sources = [*(settings.splits or {}).values(), *([settings.files] if settings.files else [])]
        for files in sources:
            names |= {files.instances, files.captions, files.conversations}
    elif isinstance(settings, LlavaData):
        names = {settings.file, *(settings.splits or {}).values()}
    elif isinstance(settings, LinesText):
        names = {settings.train, settings.heldout}
    return sorted(name for name in names if name is not None)
