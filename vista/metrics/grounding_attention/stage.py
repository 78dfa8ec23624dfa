"""Stage: measure where the words of objects attend, behind the own image and behind another.

Legend of shape suffixes: b caption, t token, i pair of image and object, n chosen token, l layer,
h head, r reading, p visual token, d LLM width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.data.geometry import ImageGeometry
from vista.data.records import Record, RecordTable, read_records
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.edit_plan import words_for
from vista.inputs.latents import class_patches, read_geometry
from vista.inputs.visual_tokens import VisualTokens, read_visual_tokens
from vista.metrics.grounding_attention import GroundingAttentionSettings
from vista.metrics.grounding_attention.maps import (
    MapValues,
    Readings,
    join_values,
    map_values,
    other_regions,
)
from vista.metrics.grounding_attention.measure import (
    POSITIONS,
    Measured,
    Position,
    Words,
    caption_scores,
    grounding_attention,
)
from vista.metrics.ranking import BoolArray, FloatArray
from vista.metrics.results import write_result
from vista.metrics.shuffled import other_images
from vista.metrics.spliced_loss.stage import answered, spread_evenly
from vista.progress import progress

if TYPE_CHECKING:
    from torch import Tensor

    from vista.language.model import LanguageModel
    from vista.language.prompt import Batch


class GroundingAttentionOrder(Settings):
    """The language model, and what is measured."""

    llm: LanguageSettings
    grounding_attention: GroundingAttentionSettings


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Images by their features, and the models."""

    projector: Artifact
    features: Artifact
    records: Artifact
    llm: Artifact | None = None


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


@stage(GroundingAttentionOrder, Inputs)
def run(job: StageJob[GroundingAttentionOrder, Inputs]) -> None:
    """Read projector, features, records and LLM; write the result, and items.parquet with the
    scores of each pair of image and object.

    Raises UserError where no reference answer of a split names an object that its image shows.
    """
    import torch

    from vista.inputs.models import load_llm

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings.grounding_attention, job.inputs
    records = read_records(inputs.records.file("records.parquet"))
    llm = load_llm(job.settings.llm, inputs.llm)
    visual = read_visual_tokens(inputs.projector, inputs.features, records, llm)
    placing = read_geometry(inputs.features)
    measured = {}
    for field in ("fit_split", "split"):
        captions = list(_captions(visual, records, placing, settings, getattr(settings, field)))
        if not captions:
            raise UserError(
                f"grounding_attention.{field} {getattr(settings, field)!r}: no reference answer of "
                "that split names an object whose patches are some and not all of its image; name "
                "another split, or leave the metric out"
            )
        measured[field] = captions, *_measure(visual, captions, settings)
    captions, test, readings = measured["split"]
    draws = settings.bootstrap
    result = grounding_attention(
        readings,
        test,
        measured["fit_split"][1],
        region=settings.region,
        seed=draws.seed,
        resamples=draws.resamples,
        level=draws.level,
    )
    write_result(job.work, result, _items(captions, test, readings))


def _captions(
    visual: VisualTokens,
    records: RecordTable,
    placing: dict[str, Any],
    settings: GroundingAttentionSettings,
    split: str,
) -> Iterator[Caption]:
    """Yield the captions of a split that name objects which their images show."""
    rows = spread_evenly(answered(records, records.rows_of(split)), settings.max_images)
    shape = visual.features.shape
    for row, record in zip(rows.tolist(), records.select(rows), strict=True):
        geometry = ImageGeometry(record.width, record.height, **placing)
        if geometry.n_patches != shape[1]:
            raise UserError(
                f"the features' geometry gives {geometry.n_patches} patches, the features have "
                f"{shape[1]} tokens an image; leave metrics.grounding_attention out for them"
            )
        regions = {
            category: mask_p if settings.region == "mask" and mask_p is not None else box_p
            for category, box_p, mask_p in class_patches(record, geometry, settings.mask_cover)
        }
        kept = {name: p for name, p in regions.items() if p.any() and not p.all()}
        batch = visual.llm.batch([record.turns[:1]], shape[1], settings.max_length)
        places = mentioned(visual.llm, batch, record.categories)
        mentions = tuple(Mention(name, places[name], kept[name]) for name in kept if name in places)
        if mentions:
            yield Caption(row, record, mentions)


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


def _measure(
    visual: VisualTokens, captions: Sequence[Caption], settings: GroundingAttentionSettings
) -> tuple[Measured, Readings]:
    """Read each caption behind its own image and behind another one, and score the attention."""
    n = len(captions)
    mentions = [(b, mention) for b, caption in enumerate(captions) for mention in caption.mentions]
    image_i = np.array([b for b, _ in mentions], dtype=np.int64)
    region_ip = np.stack([mention.region_p for _, mention in mentions])
    others = other_regions(region_ip, image_i)
    image_of = {"own": np.arange(n)}
    if n > 1:
        image_of["other"] = other_images(n, settings.bootstrap.seed)
    parts: dict[tuple[str, Position], list[MapValues]] = {}
    nats = {whose: np.zeros(n) for whose in image_of}
    readings = Readings(1, 1)
    for start in progress(range(0, n, settings.batch_size), desc="attention", unit="batch"):
        batch = slice(start, min(start + settings.batch_size, n))
        of_batch = slice(*np.searchsorted(image_i, [batch.start, batch.stop]).tolist())
        for whose, image_b in image_of.items():
            rows = [captions[b].row for b in image_b[batch]]
            passed = _pass(visual, captions[batch], rows, settings.max_length)
            nats[whose][batch] = passed.nats_b
            readings = passed.readings
            for position, maps_irp in passed.maps.items():
                values = map_values(maps_irp, region_ip[of_batch], others.of(of_batch))
                parts.setdefault((whose, position), []).append(values)
    joined = {key: join_values(values) for key, values in parts.items()}
    even = _even([mention for _, mention in mentions], visual.features.shape[1])
    words = Words(
        image_i,
        region_ip.mean(axis=1),
        {position: joined["own", position] for position in POSITIONS},
        even,
    )
    scores = {
        whose: caption_scores(
            {position: joined[whose, position] for position in POSITIONS}, image_i, nats[whose]
        )
        for whose in image_of
    }
    return Measured(words, scores["own"], scores.get("other")), readings


@dataclass(frozen=True)
class _Passed:
    """One pass: maps [i, r, p] by position, nats a token of each caption, the readings."""

    maps: dict[Position, FloatArray]
    nats_b: FloatArray
    readings: Readings


def _pass(
    visual: VisualTokens, captions: Sequence[Caption], rows: Sequence[int], max_length: int
) -> _Passed:
    """Read captions behind the images of `rows`."""
    import torch

    from vista.language.attention import visual_attention
    from vista.language.loss import sample_cross_entropy

    llm = visual.llm
    with torch.no_grad():
        visual_bpd = visual.of(rows)
        turns = [caption.record.turns[:1] for caption in captions]
        batch = llm.batch(turns, visual_bpd.shape[1], max_length).to(llm.device)
        at_bt = torch.zeros_like(batch.text_mask)
        for b, caption in enumerate(captions):
            for mention in caption.mentions:
                at_bt[b, [mention.tokens[0] - 1, *mention.tokens]] = True
        weights_nlhp, logits_nv = visual_attention(llm, batch, visual_bpd, at_bt)
        loss_b, tokens_b = sample_cross_entropy(logits_nv, batch)
    readings = Readings(*weights_nlhp.shape[1:3])
    place_bt = (at_bt.flatten().cumsum(0) - 1).view(at_bt.shape).tolist()
    maps: dict[Position, list[NDArray[Any]]] = {position: [] for position in POSITIONS}
    for b, caption in enumerate(captions):
        for mention in caption.mentions:
            of_word = [place_bt[b][t] for t in mention.tokens]
            maps["word"].append(_mean(weights_nlhp, of_word))
            maps["before"].append(_mean(weights_nlhp, [place_bt[b][mention.tokens[0] - 1]]))
    return _Passed(
        {position: readings.of(np.stack(weights)) for position, weights in maps.items()},
        (loss_b.double() / tokens_b).cpu().numpy(),
        readings,
    )


def _mean(weights_nlhp: Tensor, rows: list[int]) -> NDArray[Any]:
    mean_lhp: NDArray[Any] = weights_nlhp[rows].mean(dim=0).numpy()
    return mean_lhp


def _even(mentions: Sequence[Mention], n_visual: int) -> dict[Position, FloatArray]:
    """Return the share of visual tokens among the tokens so far, at each position."""
    return {
        "word": np.array(
            [np.mean([n_visual / (t + 1) for t in mention.tokens]) for mention in mentions]
        ),
        "before": np.array([n_visual / mention.tokens[0] for mention in mentions]),
    }


def _items(captions: Sequence[Caption], test: Measured, readings: Readings) -> pa.Table:
    """Return one row a pair, position and layer, of the mean over heads."""
    tables = []
    for position in POSITIONS:
        values = test.words.values[position]
        for layer, reading in readings.means().items():
            n = len(test.words.image_i)
            tables.append(
                pa.table(
                    {
                        "image_id": [c.record.image_id for c in captions for _ in c.mentions],
                        "category": [m.category for c in captions for m in c.mentions],
                        "position": [position] * n,
                        "layer": pa.array([layer] * n, pa.int32()),
                        "covered": test.words.covered_i,
                        "on_object": values.on_object[:, reading],
                        "auroc": values.auroc[:, reading],
                        "pointing": values.pointing[:, reading],
                        "on_image": values.on_image[:, reading],
                    }
                )
            )
    return pa.concat_tables(tables)
