"""Settings of the images and texts that a run reads: `data:` and `text:` of a config.

`data` is one of eight kinds, told apart by its key `kind`:

- `drawn`       scenes that the run draws itself (no download, exact masks);
- `composed`    scenes that the run composes of cut-out photographs (exact masks);
- `coco`        a folder of images with COCO instance and caption files;
- `refcoco`     a folder of images with COCO instances and files of referring expressions;
- `llava`       a folder of images with a LLaVA conversation file;
- `folder`      a plain folder of images, optionally one sub-folder a class;
- `list`        a folder of images with text files that name image and label on each line;
- `webdataset`  tar shards that hold images with captions or classes beside them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, TypeAdapter, field_validator, model_validator

from vista.config.base import Settings
from vista.config.composed import ComposedData, ComposedRecords
from vista.config.drawn import DrawnData

Split = Literal["train", "validation", "test"]
OnMissing = Literal["refuse", "skip"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Fractions(Settings):
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


class FetchFile(Settings):
    """A file that the run downloads for itself."""

    url: str = Field(description="Address of the file: https, or http on this machine itself.")
    sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="SHA-256 that the file must have, in hex."
    )
    unpack: bool = Field(
        True, description="Unpack .zip, .tar and .tar.gz; any other file is kept as it is."
    )
    folder: str = Field("", description="Folder below the data folder that the file goes into.")

    @field_validator("url")
    @classmethod
    def _safe(cls, url: str) -> str:
        parts = urlsplit(url)
        # It would end up in manifests, and in the message below.
        if parts.username is not None:
            raise ValueError("the address holds a user name or password, which would be written")
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if not parts.hostname or parts.scheme not in (("https", "http") if local else ("https",)):
            raise ValueError(f"{url!r} must be an https address (http only on this machine itself)")
        return url

    @field_validator("folder")
    @classmethod
    def _inside(cls, folder: str) -> str:
        return _below(folder)


class FileData(Settings):
    """Settings that all data in files share."""

    kind: str
    images: str = Field(description="Root folder of the images.")
    every: int = Field(
        1, ge=1, description="Take every nth row of a split: the first, then each nth after it."
    )
    limit: int | None = Field(
        None, ge=1, description="Take the first n rows of a split that `every` leaves, at most."
    )
    missing_images: OnMissing = Field(
        "refuse",
        description="A row whose image file is not there: `refuse` stops at the first; `skip` "
        "lists them all in skipped.parquet and goes on without (they count towards `limit`).",
    )
    max_unreadable: int = Field(
        0,
        ge=0,
        description="Images that may be there and yet unreadable (no image, damaged, cut off). 0: "
        "stop at the first. More: decode every image whole beforehand, list the unreadable in "
        "skipped.parquet and go on without (they count towards `limit`), or stop if there are "
        "more than this. As many annotations may lie wholly outside their image.",
    )
    fetch: tuple[FetchFile, ...] = Field(
        (),
        description="Files to download; every path of this entry is then relative to their folder.",
    )

    def annotation_files(self) -> list[str]:
        """The annotation files that the settings name, sorted."""
        return []

    def holds(self, split: Split) -> bool:
        """Whether the settings put any image into a split."""
        splits: Any = getattr(self, "splits", None)
        if splits is not None:
            return split in splits
        return float(getattr(getattr(self, "fractions", None), split, 0.0)) > 0

    @model_validator(mode="after")
    def _inside_the_fetched(self) -> Self:
        if self.fetch:
            for name in (self.images, *self.annotation_files()):
                _below(name)
        return self


def _below(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise ValueError(f"{name!r} must be relative to the fetched folder and have no `..`")
    return name


def _sorted(names: Iterable[str | None]) -> list[str]:
    return sorted({name for name in names if name is not None})


def _one_source(splits: object, whole: object, key: str) -> None:
    if (splits is None) == (whole is None):
        raise ValueError(f"give either `splits` (files per split) or `{key}` (divided by hash)")
    _not_empty(splits)


def _not_empty(splits: object) -> None:
    if splits is not None and not splits:
        raise ValueError("`splits` is empty: name at least one split")


class CocoFiles(Settings):
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


class CocoData(FileData):
    """A COCO data set: `splits` names files per split, or `files` is divided by `fractions`."""

    kind: Literal["coco"]
    splits: dict[Split, CocoFiles] | None = Field(None, description="Annotation files per split.")
    files: CocoFiles | None = Field(None, description="Annotation files of all images together.")
    fractions: Fractions = Field(default_factory=Fractions, description="How `files` is divided.")
    question: str = Field(
        "Describe the image.", description="Question of the turn made of an image's first caption."
    )

    @model_validator(mode="after")
    def _sourced(self) -> Self:
        _one_source(self.splits, self.files, "files")
        return self

    def annotation_files(self) -> list[str]:
        """The annotation files that the settings name, sorted."""
        sets = [*(self.splits or {}).values(), *([self.files] if self.files else [])]
        return _sorted(
            name
            for files in sets
            for name in (files.instances, files.captions, files.conversations)
        )


class RefCocoData(FileData):
    """Images with referring expressions: RefCOCO, RefCOCO+, RefCOCOg or gRefCOCO.

    The split of an image is that of its expressions: `val` is validation; `testA` and `testB` are
    test, each a group of its own. An image that has expressions of several splits is in the last
    one of train, validation and test, and those of its other splits are left out. Images without
    an expression are left out.
    """

    kind: Literal["refcoco"]
    instances: str = Field(description="COCO instances JSON: boxes and masks by annotation id.")
    references: tuple[str, ...] = Field(
        min_length=1,
        description="Files of expressions: refs.json or grefs(unc).json; a pickled refs(unc).p is "
        "read, too, if it holds nothing but plain values.",
    )

    def annotation_files(self) -> list[str]:
        """The annotation files that the settings name, sorted."""
        return _sorted([self.instances, *self.references])

    def holds(self, split: Split) -> bool:
        """Whether the settings put any image into a split: the files tell."""
        return True


class LlavaData(FileData):
    """LLaVA conversations: `splits` names a file per split, or `file` is divided by `fractions`.

    Rows of text only are left out. A first message from gpt answers nothing and a last one from
    human is not answered: both are dropped, and a row of which nothing is left is left out.
    """

    kind: Literal["llava"]
    splits: dict[Split, str] | None = Field(None, description="Conversation JSON per split.")
    file: str | None = Field(None, description="Conversation JSON of all images together.")
    fractions: Fractions = Field(default_factory=Fractions, description="How `file` is divided.")

    @model_validator(mode="after")
    def _sourced(self) -> Self:
        _one_source(self.splits, self.file, "file")
        return self

    def annotation_files(self) -> list[str]:
        """The annotation files that the settings name, sorted."""
        return _sorted([self.file, *(self.splits or {}).values()])


class FolderData(FileData):
    """A plain folder of images, optionally with one sub-folder a class."""

    kind: Literal["folder"]
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

    @model_validator(mode="after")
    def _class_known(self) -> Self:
        if self.answer is not None and "{class}" in self.answer and not self.classes:
            raise ValueError("`answer` names {class}: set `classes: true`")
        _not_empty(self.splits)
        return self


class ListData(FileData):
    """Text files of `path label` on each line, as OpenOOD's benchmarks have them.

    Paths are relative to `images`. An image with a negative number for a label shows no class.
    """

    kind: Literal["list"]
    splits: dict[Split, str] = Field(min_length=1, description="List of images per split.")
    classes: str | None = Field(
        None,
        description="File of class names, one a line, the first that of label 0; none: a label is "
        "its class's name.",
    )

    def annotation_files(self) -> list[str]:
        """The lists and the file of names, sorted."""
        return _sorted([self.classes, *self.splits.values()])


class WebDatasetData(FileData):
    """Tar shards in WebDataset's form: members of one name, told apart by extension, are a sample.

    An image's id is its shard's name without `.tar`, a slash and its own name without extension;
    where two shards have one name, the shard's folders come before it.
    """

    kind: Literal["webdataset"]
    images: str = Field(description="Folder of the shards.")
    shards: str | tuple[str, ...] = Field(
        "*.tar", description="Shards below `images`: a pattern such as train-*.tar, or their names."
    )
    splits: dict[Split, str | tuple[str, ...]] | None = Field(
        None, description="Shards per split, as in `shards`; without it `fractions` divides."
    )
    fractions: Fractions = Field(default_factory=Fractions, description="How samples are divided.")
    image_keys: tuple[str, ...] = Field(
        ("jpg", "jpeg", "png", "webp"), min_length=1, description="Extensions of image members."
    )
    caption_key: str | None = Field(
        None, description="Field of a sample's .json that is its caption; none: its .txt is."
    )
    classes: tuple[str, ...] | None = Field(
        None,
        description="Class names that numbers in .cls members count; none: .cls is a name.",
    )
    question: str = Field(
        "Describe the image.", description="Question of the turn made of a sample's first caption."
    )

    @model_validator(mode="after")
    def _named(self) -> Self:
        _not_empty(self.splits)
        return self

    def annotation_files(self) -> list[str]:
        """The shards that are named one by one, sorted; those of a pattern are not looked up."""
        chosen = self.splits.values() if self.splits is not None else [self.shards]
        names = [name for shards in chosen if not isinstance(shards, str) for name in shards]
        return _sorted(f"{self.images}/{name}" for name in names)


AnyFiles = CocoData | RefCocoData | LlavaData | FolderData | ListData | WebDatasetData
AnyData = DrawnData | ComposedData | AnyFiles
DataSettings = Annotated[AnyData, Field(discriminator="kind")]
# What records depend on: scenes that the run makes are an input of theirs.
AnyRecords = DrawnData | ComposedRecords | AnyFiles
RecordsSettings = Annotated[AnyRecords, Field(discriminator="kind")]
DATA_SETTINGS: TypeAdapter[AnyData] = TypeAdapter(DataSettings)


def records_settings(settings: AnyData) -> dict[str, Any]:
    """What the records depend on. Scenes of the run are an input of theirs, so their settings are
    not."""
    if isinstance(settings, DrawnData):
        return {"kind": "drawn"}
    if isinstance(settings, ComposedData):
        return ComposedRecords(question=settings.question).model_dump(mode="json")
    return settings.model_dump(mode="json")


def annotation_files(settings: AnyData) -> list[str]:
    """The user's own annotation files, sorted: what a rule must watch for changes.

    Fetched files are none of them: they are an input artifact.
    """
    if isinstance(settings, ComposedData):
        own = [ground.file for ground in settings.grounds if ground.package is None]
        return _sorted([settings.cutouts.map, *own])
    if isinstance(settings, FileData):
        return [] if settings.fetch else settings.annotation_files()
    return []


def reader_module(kind: str) -> str:
    """Return the module that reads data of a kind. Scenes of the run are read as the COCO data they
    are."""
    return f"vista.data.readers.{'coco' if kind in ('drawn', 'composed') else kind}"


def refuse_empty_split(data: AnyData, holder: str, key: str, split: Split, why: str = "") -> None:
    """Refuse a split that a key names, and in which the settings of the data put no image.

    Args:
        data: The data; of files alone the settings tell which splits have images.
        holder: Its place in the config.
        key: The key that names the split.
        split: The split.
        why: Words on the split, after a comma.

    Raises:
        ValueError: No image is in that split.
    """
    if isinstance(data, FileData) and not data.holds(split):
        divided = "fractions" if getattr(data, "splits", None) is None else "splits"
        raise ValueError(
            f"{key} reads split {split!r}{why}, but {holder} has no such images; name another "
            f"split there, or give it images by {holder}.{divided}"
        )
