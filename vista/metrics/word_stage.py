"""What the stages of readouts by words share: images through the projector and the language model,
the words of each layer, their score.

Legend of shape suffixes: b image, p visual token, d LLM width, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vista.config.language import LanguageSettings
from vista.config.word_readout import ReadoutSettings
from vista.data.records import read_records
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob
from vista.errors import UserError
from vista.inputs.judge import stage_judge, write_tally
from vista.inputs.latents import read_geometry
from vista.inputs.patch_classes import patch_classes
from vista.inputs.visual_tokens import read_visual_tokens, visual_streams
from vista.metrics.results import write_result
from vista.metrics.word_readout import LayerWords, join_words, ranked_words, word_readout_figures
from vista.progress import progress

if TYPE_CHECKING:
    from torch import Tensor

    from vista.language.model import LanguageModel
    from vista.language.nearest import WordVectors


@dataclass(frozen=True, kw_only=True)
class ReadoutInputs:
    """Images by their features, and the models."""

    projector: Artifact
    features: Artifact
    records: Artifact
    llm: Artifact | None = None
    judge: Artifact | None = None


@dataclass(frozen=True)
class Reader:
    """How a readout gives visual tokens words.

    Attributes:
        read: From a residual stream [b, p, d] to the strongest words of each token.
        n_vectors: Vectors that tokens are compared with, if there are any.
        vector_bytes: Bytes that they take.
        columns: From the words of a layer to further columns of items.parquet.
    """

    read: Callable[[Tensor], LayerWords]
    n_vectors: int | None = None
    vector_bytes: int | None = None
    columns: Callable[[LayerWords], Mapping[str, pa.Array]] = lambda _: {}


# (language model, words, word of each token [v]) -> the readout.
MakeReader = Callable[["LanguageModel", Sequence[str], NDArray[np.int64]], Reader]


def run_readout(
    job: StageJob[Any, Any],
    name: str,
    llm_settings: LanguageSettings,
    settings: ReadoutSettings,
    layers: Sequence[int],
    make_reader: MakeReader,
) -> None:
    """Read the words of all images of a split at `layers`; write the result, and items.parquet
    with the strongest word of every patch by image and layer.

    Args:
        job: The job, whose inputs are `ReadoutInputs`.
        name: Name of the metric.
        llm_settings: How the language model is loaded.
        settings: How the readout is scored.
        layers: Blocks after which the stream is read; -1: the stream that enters block 0.
        make_reader: Makes the readout of the loaded language model.

    Raises:
        UserError: No image of the split has an object, or what `make_reader` raises.
    """
    import torch

    from vista.inputs.models import load_llm
    from vista.language.words import count_one_token, vocabulary

    torch.set_num_threads(job.threads)
    inputs: ReadoutInputs = job.inputs
    records = read_records(inputs.records.file("records.parquet"))
    rows = records.rows_of(settings.split)
    shown = records.select(rows)
    if not any(record.objects for record in shown):
        raise UserError(
            f"probing.{name}.split {settings.split!r}: no image of that split has an object"
        )
    llm = load_llm(llm_settings, inputs.llm)
    words, word_v = vocabulary(llm.tokenizer, llm.model.get_output_embeddings().weight.shape[0])
    reader = make_reader(llm, words, word_v)
    visual = read_visual_tokens(inputs.projector, inputs.features, records, llm)
    parts: dict[int, list[LayerWords]] = {layer: [] for layer in layers}
    starts = range(0, len(rows), settings.batch_size)
    with torch.no_grad():
        for start in progress(starts, desc="words", unit="batch"):
            visual_bpd = visual.of(rows[start : start + settings.batch_size])
            for layer, stream_bpd in visual_streams(llm, visual_bpd, list(parts)).items():
                parts[layer].append(reader.read(stream_bpd))
    read = {layer: join_words(batches) for layer, batches in parts.items()}
    placing = read_geometry(inputs.features)
    objects = [record.categories for record in shown]
    judge = stage_judge(settings.judge, inputs.judge, inputs.records, job.work)
    bootstrap, ks = settings.bootstrap, sorted(set(settings.ks))
    result = word_readout_figures(
        {
            layer: ranked_words(entry, words, settings.max_image_share, max(ks))
            for layer, entry in read.items()
        },
        [patch_classes(record, placing, settings.mask_cover) for record in shown],
        objects,
        judge.judge,
        readout=name,
        judge_name=judge.name,
        n_one_token=count_one_token(llm.tokenizer, {c for names in objects for c in names}),
        ks=ks,
        max_image_share=settings.max_image_share,
        n_vectors=reader.n_vectors,
        vector_bytes=reader.vector_bytes,
        seed=bootstrap.seed,
        resamples=bootstrap.resamples,
        level=bootstrap.level,
    )
    write_result(job.work, result, _items(records.image_ids(rows), read, words, reader))
    write_tally(job.work, judge)


def nearest_reader(vectors: WordVectors, k: int) -> Callable[[Tensor], LayerWords]:
    """Return what reads the k nearest words of each visual token [b, p, d] by cosine."""
    from vista.language.nearest import nearest_by_word

    def read(stream_bpd: Tensor) -> LayerWords:
        nearest = nearest_by_word(stream_bpd.flatten(0, 1), vectors, k)
        shape = (*stream_bpd.shape[:2], -1)
        # Above 0, as a strength has to be, and in the order of the cosines.
        strength_nk = (1 + nearest.cosine_nk) / 2
        return LayerWords(
            nearest.word_nk.astype(np.int32).reshape(shape),
            strength_nk.astype(np.float32).reshape(shape),
            nearest.row_n.reshape(shape[:2]),
        )

    return read


def require_words(name: str, n_words: int, k: int) -> None:
    """Refuse to read more words than have a vector. Raises UserError."""
    if n_words < k:
        raise UserError(
            f"probing.{name}.ks: {k} words are read of a patch, but only {n_words} words have a "
            "vector; lower ks"
        )


def _items(
    image_ids: Sequence[str], layers: Mapping[int, LayerWords], words: Sequence[str], reader: Reader
) -> pa.Table:
    """One row an image and layer: the strongest word of each patch, and how strong it is."""
    tables = []
    for layer, entry in layers.items():
        first_bp = entry.word_bpk[..., 0].tolist()
        columns = {
            "image_id": pa.array(image_ids, pa.string()),
            "layer": pa.array([layer] * len(image_ids), pa.int32()),
            "words": pa.array([[words[w] for w in row] for row in first_bp], pa.list_(pa.string())),
            "strengths": pa.array(entry.strength_bpk[..., 0].tolist(), pa.list_(pa.float32())),
            **reader.columns(entry),
        }
        tables.append(pa.table(columns))
    return pa.concat_tables(tables)
