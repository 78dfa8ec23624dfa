"""Stage: segment what referring expressions mean by the latents that are named after their words.

Legend of shape suffixes: b image, p visual token, k word of a token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.data.expressions import FILE, Expression, read_expressions
from vista.data.records import RecordTable, read_records
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.judge import stage_judge, write_tally
from vista.inputs.latents import read_latents, read_layer_labels
from vista.inputs.maps import MapGrid, entries_over_frames, read_map_grid
from vista.inputs.visual_tokens import read_visual_tokens, visual_streams
from vista.metrics.logit_lens.stage import likeliest
from vista.metrics.referring_segmentation import ReferringSettings
from vista.metrics.referring_segmentation.maps import (
    EntriesOf,
    NamedLatents,
    activation_scales,
    latents_of_terms,
    named_terms,
    permuted,
    terms,
    word_entries,
)
from vista.metrics.referring_segmentation.masks import Target
from vista.metrics.referring_segmentation.measure import (
    Expressions,
    Key,
    referring_segmentation,
)
from vista.metrics.results import write_result
from vista.metrics.word_readout import LayerWords, join_words
from vista.progress import progress
from vista.store.latents import LatentReader

if TYPE_CHECKING:
    from numpy.typing import NDArray


class ReferringOrder(Settings):
    """The language model, and how expressions are measured."""

    llm: LanguageSettings
    referring_segmentation: ReferringSettings


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Latents of the measured and of the validation images with the labels of their layers, the
    expressions of both, and what the logit lens reads images by."""

    latents: Artifact
    validation_latents: Artifact
    labels: list[Artifact]
    records: Artifact
    features: Artifact
    expressions: Artifact
    projector: Artifact
    llm: Artifact | None = None
    judge: Artifact | None = None


@dataclass(frozen=True)
class _Split:
    """Images of one split: their latents, and their expressions with texts and images."""

    latents: LatentReader
    texts: list[str]
    measured: Expressions


@dataclass
class _Maps:
    """Maps of expressions by method and layer."""

    validation: dict[Key, NDArray[np.float32]] = field(default_factory=dict)
    test: dict[Key, NDArray[np.float32]] = field(default_factory=dict)


@stage(ReferringOrder, Inputs)
def run(job: StageJob[ReferringOrder, Inputs]) -> None:
    """Read latents, labels, expressions and models; write the result, and items.parquet with the
    IoU of every expression by method and layer.

    Raises UserError where a split has no expression, or the model's head is not known.
    """
    settings, inputs = job.settings.referring_segmentation, job.inputs
    judge = stage_judge(settings.judge, inputs.judge, inputs.records, job.work)
    records = read_records(inputs.records.file("records.parquet"))
    expressions = read_expressions(inputs.expressions.file(FILE))
    grid = read_map_grid(inputs.features)
    validation, test = (
        _split(read_latents(latents), records, expressions, grid, name)
        for latents, name in ((inputs.validation_latents, "validation"), (inputs.latents, "test"))
    )
    wanted = {term for split in (validation, test) for text in split.texts for term in terms(text)}
    strata = list(zip(test.measured.kinds, test.measured.groups, strict=True))
    other_x = permuted(strata, test.measured.image_x, settings.bootstrap.seed)
    other_texts = [test.texts[x] for x in other_x]
    maps, named = _Maps(), {}
    layers = read_layer_labels(inputs.labels, inputs.latents, test.latents)
    for layer, labels in layers.items():
        latents = latents_of_terms(labels.label_s, wanted, judge.judge)
        named[layer] = float(np.mean([bool(named_terms(text, latents)) for text in test.texts]))
        read = [
            _over_frames(partial(split.latents.by_latent, layer), grid)
            for split in (validation, test)
        ]
        texts_of = {"latents": test.texts, "permuted": other_texts}
        _add_maps(maps, layer, latents, read, validation, test, texts_of, settings.percentile)
    if settings.logit_lens:
        for layer, (words, read_words) in _lens_words(
            job, records, [validation, test], sorted(layers)
        ).items():
            latents = latents_of_terms(words, wanted, judge.judge)
            read = [_over_frames(word_entries(part), grid) for part in read_words]
            texts_of = {"logit_lens": test.texts, "logit_lens_permuted": other_texts}
            _add_maps(maps, layer, latents, read, validation, test, texts_of, settings.percentile)
    result, iou_x = referring_segmentation(
        validation.measured,
        test.measured,
        maps.validation,
        maps.test,
        judge_name=judge.name,
        named=named,
        thresholds=settings.thresholds,
        mask_cover=settings.mask_cover,
        seed=settings.bootstrap.seed,
        resamples=settings.bootstrap.resamples,
        level=settings.bootstrap.level,
    )
    write_result(job.work, result, _items(test, iou_x))
    write_tally(job.work, judge)


def _split(
    latents: LatentReader,
    records: RecordTable,
    expressions: Sequence[Expression],
    grid: MapGrid,
    name: str,
) -> _Split:
    """Return the images of a store of latents with their expressions."""
    shown = records.select(records.rows_by_id(latents.image_ids))
    image_of = {record.image_id: image for image, record in enumerate(shown)}
    kept = [item for item in expressions if item.image_id in image_of]
    if not kept:
        raise UserError(
            f"metrics.referring_segmentation: no image of the {name} split has an expression"
        )
    targets = []
    for item in kept:
        record = shown[image_of[item.image_id]]
        targets.append(Target(grid.geometry(record, latents.grid), item.rle))
    texts = [item.text for item in kept]
    image_x = np.array([image_of[item.image_id] for item in kept], dtype=np.int64)
    groups = [shown[image].group for image in image_x.tolist()]
    return _Split(
        latents, texts, Expressions(image_x, [item.kind for item in kept], targets, groups)
    )


def _over_frames(entries: EntriesOf, grid: MapGrid) -> EntriesOf:
    """Return entries by patch: means over the frames of a clip."""
    return lambda latent: entries_over_frames(entries(latent), grid.frames)


def _add_maps(
    maps: _Maps,
    layer: int,
    latents: Mapping[str, Sequence[int]],
    read: Sequence[EntriesOf],
    validation: _Split,
    test: _Split,
    texts_of: Mapping[Any, Sequence[str]],
    percentile: float,
) -> None:
    """Add the maps of one layer: of the measured expressions by the texts of each method, and of
    the validation expressions by their own texts for the first of the methods."""
    scales = activation_scales(
        read[0], (s for all_s in latents.values() for s in all_s), percentile
    )
    named = NamedLatents(latents, scales)

    def maps_of(split: _Split, entries: EntriesOf, texts: Sequence[str]) -> NDArray[np.float32]:
        terms_x = [named_terms(text, latents) for text in texts]
        n_images = len(split.latents.image_ids)
        n_patches = split.measured.targets[0].geometry.n_patches
        return named.maps(entries, terms_x, split.measured.image_x, n_images, n_patches)

    first = next(iter(texts_of))
    maps.validation[first, layer] = maps_of(validation, read[0], validation.texts)
    for method, texts in texts_of.items():
        maps.test[method, layer] = maps_of(test, read[1], texts)


def _lens_words(
    job: StageJob[ReferringOrder, Inputs],
    records: RecordTable,
    splits: Sequence[_Split],
    layers: Sequence[int],
) -> dict[int, tuple[list[str], list[LayerWords]]]:
    """Return the vocabulary and the likeliest words of each split's patches, by layer."""
    import torch

    from vista.inputs.models import load_llm
    from vista.language.lens import logit_lens
    from vista.language.words import vocabulary

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings.referring_segmentation, job.inputs
    llm = load_llm(job.settings.llm, inputs.llm)
    words, word_v = vocabulary(llm.tokenizer, llm.model.get_output_embeddings().weight.shape[0])
    lens = logit_lens(llm)
    visual = read_visual_tokens(inputs.projector, inputs.features, records, llm)
    read: dict[int, list[LayerWords]] = {layer: [] for layer in layers}
    with torch.no_grad():
        for split in splits:
            rows = records.rows_by_id(split.latents.image_ids)
            parts: dict[int, list[LayerWords]] = {layer: [] for layer in layers}
            starts = range(0, len(rows), settings.batch_size)
            for start in progress(starts, desc="words", unit="batch"):
                visual_bpd = visual.of(rows[start : start + settings.batch_size])
                for layer, stream_bpd in visual_streams(llm, visual_bpd, layers).items():
                    parts[layer].append(likeliest(lens, stream_bpd, words, word_v, settings.words))
            for layer, batches in parts.items():
                read[layer].append(join_words(batches))
    return {layer: (list(words), both) for layer, both in read.items()}


def _items(test: _Split, iou_x: Mapping[Key, NDArray[np.float64]]) -> pa.Table:
    """One row an expression, method and layer."""
    ids = test.latents.image_ids
    image_ids = [ids[image] for image in test.measured.image_x.tolist()]
    tables = [
        pa.table(
            {
                "image_id": pa.array(image_ids, pa.string()),
                "expression": pa.array(test.texts, pa.string()),
                "kind": pa.array(test.measured.kinds, pa.string()),
                "method": pa.array([method] * len(image_ids), pa.string()),
                "layer": pa.array([layer] * len(image_ids), pa.int32()),
                "iou": pa.array(values_x, pa.float64()),
            }
        )
        for (method, layer), values_x in iou_x.items()
    ]
    return pa.concat_tables(tables)
