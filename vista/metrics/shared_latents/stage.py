"""Stage: find text latents that are selective for a concept in words and in images alike.

Words are tokens of the text control (the reference answer in the place of the image), images the
visual tokens. Both are read by the same SAE at the same layer.

Legend of shape suffixes: b image, n entry (a latent that fires on a token), m pair of token and
concept, t token, c concept, s latent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.data.geometry import ImageGeometry
from vista.data.records import Record, reference
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.foreign.pretrained import load_part, loading
from vista.inputs.edit_plan import words_for
from vista.inputs.latents import (
    class_patches,
    read_geometry,
    read_image_records,
    read_latents,
)
from vista.inputs.model_folder import model_folder
from vista.metrics.ranking import firing
from vista.metrics.results import write_result
from vista.metrics.shared_latents import SharedLatentsSettings
from vista.metrics.shared_latents.measure import (
    FloatArray,
    IntArray,
    LayerSelectivity,
    least_entries,
    mark,
    selectivity,
    shared_latents,
)
from vista.store.latents import LatentReader

# Entries that are ranked at once: about 0.5 GB.
_BUDGET = 4_000_000

Entries = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


class SharedLatentsOrder(Settings):
    """The language model, of which the tokenizer is read, and the metric's settings."""

    llm: LanguageSettings
    shared_latents: SharedLatentsSettings


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Latents with their records, the features' geometry, and the language model."""

    latents: Artifact
    features: Artifact
    records: Artifact
    llm: Artifact | None = None


@stage(SharedLatentsOrder, Inputs)
def run(job: StageJob[SharedLatentsOrder, Inputs]) -> None:
    """Read latents, records, the features' geometry and the LLM's tokenizer; write the result, and
    items.parquet with each concept's best latents by layer.

    Raises UserError where fewer than two concepts are in enough images and texts, or where the
    tokenizer is not the one that the latents were made with.
    """
    settings, inputs = job.settings.shared_latents, job.inputs
    latents = read_latents(inputs.latents)
    records = read_image_records(inputs.records, latents)
    names = sorted({name for record in records for name in record.categories})
    tokenizer = _tokenizer(job.settings.llm, inputs.llm)
    text = _word_tokens(tokenizer, latents, records, names)
    image = _patch_tokens(read_geometry(inputs.features), latents, records, names, settings)
    enough = [
        _images(pairs, latents.kinds[kind], len(names)) >= settings.min_images
        for kind, pairs in (("control", text), ("image", image))
    ]
    kept = np.flatnonzero(enough[0] & enough[1])
    if len(kept) < 2:
        raise UserError(
            f"probing.shared_latents.min_images {settings.min_images}: {len(kept)} concepts are "
            "named in the answers of so many images and cover patches of so many; lower it"
        )
    text_tc, image_tc = (
        mark(*_of(pairs, kept), len(records) * latents.kinds[kind], len(kept))
        for kind, pairs in (("control", text), ("image", image))
    )
    # Empty slots would count as tokens on which no latent fires.
    valid_t = np.flatnonzero(latents.valid("control").reshape(-1))
    text_tc = text_tc[valid_t]
    least = least_entries(image_tc, settings.min_auroc)
    layers = {}
    for layer, size in sorted(latents.layers.items()):
        latent_n, slot_n, value_n = _text_entries(latents, layer, size)
        token_n = np.searchsorted(valid_t, slot_n)
        text_sc = selectivity(latent_n, token_n, value_n, text_tc, size)
        best_c = text_sc.argmax(axis=0)
        image_sc = _on_images(latents, layer, size, image_tc, least, best_c)
        layers[layer] = LayerSelectivity(text_sc, image_sc, best_c)
    bootstrap = settings.bootstrap
    result = shared_latents(
        layers,
        min_auroc=settings.min_auroc,
        n_too_rare=len(names) - len(kept),
        seed=bootstrap.seed,
        resamples=bootstrap.resamples,
        level=bootstrap.level,
    )
    write_result(job.work, result, _items([names[c] for c in kept], layers, settings.min_auroc))


def _tokenizer(settings: LanguageSettings, model: Artifact | None) -> Any:
    """Return the language model's tokenizer; no weights are read."""
    from transformers import AutoTokenizer

    folder = model_folder(model, settings.source, "llm", config_only=True)
    with loading(
        f"language model {folder}: its tokenizer could not be read", "a save_pretrained folder"
    ):
        return load_part(AutoTokenizer, folder)


def _word_tokens(
    tokenizer: Any, latents: LatentReader, records: Sequence[Record], names: Sequence[str]
) -> tuple[IntArray, IntArray]:
    """Return the tokens of the concepts' words in the text control: pairs [m] of token and concept.

    The longest name counts: "hot dog" is no occurrence of "dog".
    """
    width, count_b = latents.kinds["control"], latents.valid("control").sum(axis=1)
    texts = [reference(record) for record in records]
    encoded = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
    any_name, patterns = words_for(names), [words_for([name]) for name in names]
    pairs = []
    for b, (text, offsets) in enumerate(zip(texts, encoded["offset_mapping"], strict=True)):
        if len(offsets) < count_b[b]:
            raise UserError(
                f"the text of image {records[b].image_id} has {len(offsets)} tokens, its latents "
                f"{count_b[b]}; they were made with another tokenizer: make the latents again"
            )
        span_t2 = np.array(offsets[: count_b[b]], dtype=np.int64).reshape(-1, 2)
        for match in any_name.finditer(text):
            inside = (span_t2[:, 0] < match.end()) & (span_t2[:, 1] > match.start())
            for c, pattern in enumerate(patterns):
                if pattern.fullmatch(match.group()):
                    pairs += [(b * width + t, c) for t in np.flatnonzero(inside).tolist()]
    return _columns(pairs)


def _patch_tokens(
    placing: dict[str, Any],
    latents: LatentReader,
    records: Sequence[Record],
    names: Sequence[str],
    settings: SharedLatentsSettings,
) -> tuple[IntArray, IntArray]:
    """Return the patches that the concepts cover: pairs [m] of token and concept.

    A class without masks covers its boxes.
    """
    width, column = latents.kinds["image"], {name: c for c, name in enumerate(names)}
    pairs = []
    for b, record in enumerate(records):
        geometry = ImageGeometry(record.width, record.height, **placing)
        for category, box_p, mask_p in class_patches(record, geometry, settings.mask_cover):
            covered = np.flatnonzero(box_p if mask_p is None else mask_p).tolist()
            pairs += [(b * width + p, column[category]) for p in covered]
    return _columns(pairs)


def _columns(pairs: Sequence[tuple[int, int]]) -> tuple[IntArray, IntArray]:
    token_m, concept_m = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return token_m, concept_m


def _images(pairs: tuple[IntArray, IntArray], width: int, n_concepts: int) -> IntArray:
    """Return the number of images with a token of each concept, [c]."""
    token_m, concept_m = pairs
    image_concept = np.unique(np.stack([token_m // width, concept_m]), axis=1)
    return np.bincount(image_concept[1], minlength=n_concepts)


def _of(pairs: tuple[IntArray, IntArray], kept: IntArray) -> tuple[IntArray, IntArray]:
    """Return the pairs of the concepts `kept`, which are renumbered by their position there."""
    token_m, concept_m = pairs
    of_kept = np.isin(concept_m, kept)
    return token_m[of_kept], np.searchsorted(kept, concept_m[of_kept])


def _text_entries(latents: LatentReader, layer: int, size: int) -> Entries:
    """Return where latents fire in the text control: latent, token and value, [n] each."""
    width, parts = latents.kinds["control"], []
    for images in latents.slices():
        tokens = latents.tokens(layer, "control", images)
        nnz_bt = np.where(tokens.valid, tokens.nnz, 0)
        b, t, k = np.nonzero(firing(tokens.index, tokens.value, nnz_bt, size))
        place = (images.start + b) * width + t
        parts.append((tokens.index[b, t, k].astype(np.int64), place, tokens.value[b, t, k]))
    return _joined(parts)


def _on_images(
    latents: LatentReader, layer: int, size: int, image_tc: Any, least: float, best_c: IntArray
) -> FloatArray:
    """Return the AUROC on visual tokens, [s, c], NaN for latents that cannot reach the bound and
    are not in `best_c`."""
    count_s = np.rint(latents.token_frequency(layer) * image_tc.shape[0]).astype(np.int64)
    wanted = np.union1d(np.flatnonzero(count_s >= max(least, 1)), best_c)
    image_sc = np.full((size, image_tc.shape[1]), np.nan)
    for part in _bands(wanted, count_s):
        entries = [_image_entries(latents, layer, i, latent) for i, latent in enumerate(part)]
        image_sc[part] = selectivity(*_joined(entries), image_tc, len(part))
    return image_sc


def _bands(wanted: IntArray, count_s: IntArray) -> Iterator[IntArray]:
    """Yield the latents in groups of about `_BUDGET` entries."""
    run_n = np.cumsum(count_s[wanted]) // _BUDGET
    edges = [0, *(np.flatnonzero(np.diff(run_n)) + 1).tolist(), len(wanted)]
    for low, high in pairwise(edges):
        yield wanted[low:high]


def _image_entries(latents: LatentReader, layer: int, number: int, latent: int) -> Entries:
    """Return where a latent fires on visual tokens: `number`, token and value, [n] each."""
    entries = latents.by_latent(layer, int(latent))
    fires = entries.value > 0
    place = entries.image[fires].astype(np.int64) * latents.kinds["image"] + entries.token[fires]
    return np.full(len(place), number), place, entries.value[fires]


def _joined(parts: Sequence[Entries]) -> Entries:
    latent, token, value = (np.concatenate(column) for column in zip(*parts, strict=True))
    return latent, token, value


def _items(
    names: Sequence[str], layers: dict[int, LayerSelectivity], min_auroc: float
) -> dict[str, Any]:
    """Return columns of one row a layer and concept: its best latent on text, and its best shared
    latent, the one with the highest minimum of both AUROCs (null: none)."""
    rows = []
    for layer, aurocs in layers.items():
        # NaN, a latent that cannot reach the bound on images, ranks below all others.
        both_sc = np.nan_to_num(np.minimum(aurocs.text_sc, aurocs.image_sc))
        shared_c = both_sc.argmax(axis=0)
        for c, (name, best, shared) in enumerate(
            zip(names, aurocs.best_c.tolist(), shared_c.tolist(), strict=True)
        ):
            row = {"layer": layer, "concept": name, "best_on_text": best}
            row |= {"text_auroc": aurocs.text_sc[best, c], "image_auroc": aurocs.image_sc[best, c]}
            is_shared = both_sc[shared, c] >= min_auroc
            row |= {"shared": shared if is_shared else None}
            rows.append(row | {"shared_auroc": both_sc[shared, c] if is_shared else None})
    kinds = {
        "layer": pa.int32(),
        "concept": pa.string(),
        "best_on_text": pa.int32(),
        "text_auroc": pa.float64(),
        "image_auroc": pa.float64(),
        "shared": pa.int32(),
        "shared_auroc": pa.float64(),
    }
    return {name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()}
