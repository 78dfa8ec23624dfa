"""Stage: read words at the visual tokens with the language model's own head (logit lens).

Legend of shape suffixes: b image, p visual token, t token, d LLM width, n token of the batch,
v vocabulary, w word, k likeliest words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.data.records import read_records
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.judge import stage_judge, write_tally
from vista.inputs.latents import read_geometry
from vista.inputs.patch_classes import patch_classes
from vista.inputs.visual_tokens import read_visual_tokens
from vista.metrics.logit_lens import LogitLensSettings
from vista.metrics.logit_lens.measure import LayerWords, logit_lens_figures
from vista.metrics.results import write_result
from vista.progress import progress

if TYPE_CHECKING:
    from torch import Tensor

    from vista.language.lens import Lens
    from vista.language.model import LanguageModel

# Probabilities that are in memory at once: 64 MB of float32.
_CELLS = 1 << 24


class LogitLensOrder(Settings):
    """The language model, how its visual tokens are read, and at which layers."""

    llm: LanguageSettings
    logit_lens: LogitLensSettings
    layers: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Images by their features, and the models."""

    projector: Artifact
    features: Artifact
    records: Artifact
    llm: Artifact | None = None
    judge: Artifact | None = None


@stage(LogitLensOrder, Inputs)
def run(job: StageJob[LogitLensOrder, Inputs]) -> None:
    """Read projector, features, records and LLM; write the result, and items.parquet with the
    likeliest words of every image's patches by layer.

    No text follows the visual tokens: the stream at a token depends only on what precedes it.

    Raises UserError where no image of the split has an object, or the model's head is not known.
    """
    import torch

    from vista.inputs.models import load_llm
    from vista.language.lens import logit_lens

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings.logit_lens, job.inputs
    records = read_records(inputs.records.file("records.parquet"))
    rows = records.rows_of(settings.split)
    shown = records.select(rows)
    if not any(record.objects for record in shown):
        raise UserError(
            f"probing.logit_lens.split {settings.split!r}: no image of that split has an object"
        )
    llm = load_llm(job.settings.llm, inputs.llm)
    lens = logit_lens(llm)
    visual = read_visual_tokens(inputs.projector, inputs.features, records, llm)
    words, word_v = vocabulary(llm.tokenizer, llm.model.get_output_embeddings().weight.shape[0])
    parts: dict[int, list[LayerWords]] = {layer: [] for layer in job.settings.layers}
    starts = range(0, len(rows), settings.batch_size)
    with torch.no_grad():
        for start in progress(starts, desc="lens", unit="batch"):
            visual_bpd = visual.of(rows[start : start + settings.batch_size])
            for layer, stream_bpd in _streams(llm, visual_bpd, list(parts)).items():
                parts[layer].append(likeliest(lens, stream_bpd, words, word_v, max(settings.ks)))
    layers = {layer: _joined(batches) for layer, batches in parts.items()}
    placing = read_geometry(inputs.features)
    objects = [record.categories for record in shown]
    judge = stage_judge(settings.judge, inputs.judge, inputs.records, job.work)
    bootstrap = settings.bootstrap
    result = logit_lens_figures(
        layers,
        words,
        [patch_classes(record, placing, settings.mask_cover) for record in shown],
        objects,
        judge.judge,
        judge_name=judge.name,
        n_one_token=_one_token(llm.tokenizer, {name for names in objects for name in names}),
        ks=sorted(set(settings.ks)),
        max_image_share=settings.max_image_share,
        seed=bootstrap.seed,
        resamples=bootstrap.resamples,
        level=bootstrap.level,
    )
    write_result(job.work, result, _items(records.image_ids(rows), layers, words))
    write_tally(job.work, judge)


def vocabulary(tokenizer: Any, size: int) -> tuple[list[str], NDArray[np.int64]]:
    """Return the words of a vocabulary of `size` tokens, sorted, and the word of each token [v].

    Tokens that differ in case or in spaces around them are one word. Tokens without a text
    (special ones, spaces, ids that the tokenizer does not know) are the word "", the first.
    """
    texts = tokenizer.batch_decode([[i] for i in range(size)], skip_special_tokens=True)
    plain = [text.strip().casefold() for text in texts]
    words = sorted({"", *plain})
    number = {word: w for w, word in enumerate(words)}
    return words, np.array([number[text] for text in plain], dtype=np.int64)


def likeliest(
    lens: Lens, stream_bpd: Tensor, words: Sequence[str], word_v: NDArray[np.int64], k: int
) -> LayerWords:
    """Return the k likeliest words of each visual token.

    The probability of a word is the sum of those of its tokens. "" does not count as a word.
    """
    import torch

    best = []
    for part_nd in torch.split(stream_bpd.flatten(0, 1), max(1, _CELLS // len(word_v))):
        probability_nv = lens(part_nd).softmax(dim=-1)
        probability_nw = probability_nv.new_zeros(len(part_nd), len(words))
        probability_nw.index_add_(1, torch.from_numpy(word_v).to(part_nd.device), probability_nv)
        probability_nw[:, 0] = -1
        best.append(probability_nw.topk(min(k, len(words) - 1)))
    shape = (*stream_bpd.shape[:2], -1)
    value_nk, word_nk = (torch.cat(column).cpu().numpy() for column in zip(*best, strict=True))
    return LayerWords(word_nk.astype(np.int32).reshape(shape), value_nk.reshape(shape))


def _streams(llm: LanguageModel, visual_bpd: Tensor, layers: list[int]) -> dict[int, Tensor]:
    """Return the residual stream of the visual tokens after each block of `layers`, [b, p, d]."""
    import torch

    b, n_visual, _ = visual_bpd.shape
    start = len(llm.opening)
    ids_bt = torch.tensor([llm.opening + [0] * n_visual] * b, device=llm.device)
    taps = llm.forward(
        ids_bt, visual=visual_bpd, visual_start=start, taps=layers, stop_after=max(layers)
    ).taps
    return {layer: taps[layer][:, start:] for layer in layers}


def _joined(parts: list[LayerWords]) -> LayerWords:
    return LayerWords(
        np.concatenate([part.word_bpk for part in parts]),
        np.concatenate([part.probability_bpk for part in parts]),
    )


def _one_token(tokenizer: Any, names: set[str]) -> int:
    """Count the names that are one token, with a space before them or without."""
    spelled = [text for name in sorted(names) for text in (name, f" {name}")]
    lengths = [len(ids) for ids in tokenizer(spelled, add_special_tokens=False)["input_ids"]]
    return sum(1 in pair for pair in zip(lengths[::2], lengths[1::2], strict=True))


def _items(
    image_ids: Sequence[str], layers: dict[int, LayerWords], words: Sequence[str]
) -> pa.Table:
    """One row an image and layer: the likeliest word of each patch, and its probability."""
    tables = []
    for layer, likeliest_words in layers.items():
        first_bp = likeliest_words.word_bpk[..., 0].tolist()
        columns = {
            "image_id": pa.array(image_ids, pa.string()),
            "layer": pa.array([layer] * len(image_ids), pa.int32()),
            "words": pa.array([[words[w] for w in row] for row in first_bp], pa.list_(pa.string())),
            "probabilities": pa.array(
                likeliest_words.probability_bpk[..., 0].tolist(), pa.list_(pa.float32())
            ),
        }
        tables.append(pa.table(columns))
    return pa.concat_tables(tables)
