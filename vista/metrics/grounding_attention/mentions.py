"""Captions that name objects which their images show: the words' tokens and the objects' patches.

Legend of shape suffixes: p patch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vista.data.geometry import ImageGeometry
from vista.data.records import Record, RecordTable
from vista.errors import UserError
from vista.inputs.edit_plan import words_for
from vista.inputs.latents import class_patches
from vista.metrics.ranking import BoolArray
from vista.metrics.spliced_loss.stage import answered, spread_evenly

if TYPE_CHECKING:
    from vista.language.model import LanguageModel
    from vista.language.prompt import Batch


@dataclass(frozen=True)
class Placing:
    """How captions and patches are laid out.

    Attributes:
        geometry: How images lie on the grid of the attention that is scored.
        n_patches: Places of that grid: tokens an image in the features, or patches of a clip.
        n_visual: Visual tokens before a caption.
        max_length: Tokens a sample, visual tokens included.
        region: What the object's patches are: see `GroundingAttentionSettings`.
        mask_cover: Share of a patch that a mask must cover to count as object.
    """

    geometry: Mapping[str, Any]
    n_patches: int
    n_visual: int
    max_length: int
    region: Literal["mask", "box"]
    mask_cover: float


@dataclass(frozen=True)
class Mention:
    """The first mention of an object in a caption.

    Attributes:
        category: The object's class.
        tokens: Places of its word's tokens in the sample.
        region_p: Patches of the object.
    """

    category: str
    tokens: tuple[int, ...]
    region_p: BoolArray


@dataclass(frozen=True)
class Caption:
    """A caption that names objects which its image shows: the image's row in the records, its
    record and the mentions."""

    row: int
    record: Record
    mentions: tuple[Mention, ...]


def captions_of(
    llm: LanguageModel,
    records: RecordTable,
    split: str,
    max_images: int,
    placing: Placing,
) -> list[Caption]:
    """Return the captions of a split that name objects which their images show.

    Args:
        llm: The language model whose tokens are told.
        records: The records.
        split: The split.
        max_images: Images that are looked at, at even distances.
        placing: How captions and patches are laid out.

    Raises:
        UserError: The features have another number of tokens than the geometry has patches.
    """
    captions = []
    rows = spread_evenly(answered(records, records.rows_of(split)), max_images)
    for row, record in zip(rows.tolist(), records.select(rows), strict=True):
        geometry = ImageGeometry(record.width, record.height, **placing.geometry)
        if geometry.n_patches != placing.n_patches:
            raise UserError(
                f"the features' geometry gives {geometry.n_patches} patches, the features have "
                f"{placing.n_patches} tokens an image; leave metrics of attention out for them"
            )
        regions = {
            category: mask_p if placing.region == "mask" and mask_p is not None else box_p
            for category, box_p, mask_p in class_patches(record, geometry, placing.mask_cover)
        }
        kept = {name: p for name, p in regions.items() if p.any() and not p.all()}
        batch = llm.batch([record.turns[:1]], placing.n_visual, placing.max_length)
        places = mentioned(llm, batch, record.categories)
        mentions = tuple(Mention(name, places[name], kept[name]) for name in kept if name in places)
        if mentions:
            captions.append(Caption(row, record, mentions))
    return captions


def mentioned(
    llm: LanguageModel, batch: Batch, categories: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    """Return the places of the tokens of the first mention of each class in the answer of the one
    sample of a batch; classes that are not mentioned are left out.

    The longest name counts: "hot dog" is no mention of "dog".
    """
    from vista.language.prompt import IGNORED
    from vista.language.words import token_spans

    learnt = (batch.labels[0] != IGNORED).nonzero()[:, 0].tolist()
    text, spans = token_spans(llm.tokenizer, batch.input_ids[0, learnt].tolist())
    patterns = {name: words_for([name]) for name in categories}
    found: dict[str, tuple[int, ...]] = {}
    for match in words_for(categories).finditer(text):
        tokens = tuple(
            place
            for place, (start, end) in zip(learnt, spans, strict=True)
            if start < match.end() and end > match.start()
        )
        for name, pattern in patterns.items():
            if name not in found and tokens and pattern.fullmatch(match.group()):
                found[name] = tokens
    return found


def no_mention(key: str, split: str) -> str:
    """Return the sentence of an error where no caption of a split names an object."""
    return (
        f"{key} {split!r}: no reference answer of that split names an object whose patches are "
        "some and not all of its image; name another split, or leave the metric out"
    )
