"""Stage: score reference answers behind the expected word embeddings of visual tokens.

Legend of shape suffixes: b image, p visual token, n visual token of any image, d LLM width,
v vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.data.records import read_records
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.visual_tokens import read_visual_tokens
from vista.metrics.pseudo_images import PseudoImagesSettings
from vista.metrics.pseudo_images.measure import pseudo_image_figures
from vista.metrics.results import write_result
from vista.metrics.shuffled import other_images
from vista.progress import progress

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vista.language.model import LanguageModel
    from vista.language.prompt import Batch

# Probabilities that are in memory at once: 64 MB of float32.
_CELLS = 1 << 24
# Tokens whose embeddings are read at once.
_EMBEDDED = 4096


class PseudoImagesOrder(Settings):
    """The language model, and what is scored."""

    llm: LanguageSettings
    pseudo_images: PseudoImagesSettings


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Images by their features, the projector with its head, and the language model."""

    projector: Artifact
    features: Artifact
    records: Artifact
    llm: Artifact | None = None


@stage(PseudoImagesOrder, Inputs)
def run(job: StageJob[PseudoImagesOrder, Inputs]) -> None:
    """Read projector with its head, features, records and LLM; write the result, and items.parquet
    with the nats of each image.

    Raises UserError where no image of the split has an answer to score, or the projector has no
    head.
    """
    import torch

    from vista.inputs.models import load_llm
    from vista.projector.visual_words import load_head

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings.pseudo_images, job.inputs
    records = read_records(inputs.records.file("records.parquet"))
    rows = records.rows_of(settings.split)
    rows = rows[[bool(record.turns) for record in records.select(rows)]]
    if not len(rows):
        raise UserError(
            f"probing.pseudo_images.split {settings.split!r}: no image of that split has a "
            "reference answer; name another split, or leave the metric out"
        )
    llm = load_llm(job.settings.llm, inputs.llm)
    visual = read_visual_tokens(inputs.projector, inputs.features, records, llm)
    embedding_vd = word_embeddings(llm)
    size = len(embedding_vd)
    head = load_head(inputs.projector.path, d_model=llm.d_model, vocabulary=size).to(llm.device)
    n, draws = len(rows), settings.bootstrap
    others_b = other_images(n, draws.seed) if n > 1 else np.arange(n)
    nats_b = {name: np.zeros(n) for name in ("visual", "words", "other_visual", "other_words")}
    tokens_b = np.zeros(n, dtype=np.int64)
    with torch.no_grad():
        for start in progress(range(0, n, settings.batch_size), desc="words", unit="batch"):
            part = np.arange(start, min(start + settings.batch_size, n))
            turns = [record.turns[:1] for record in records.select(rows[part])]
            for prefix, shown in (("", part), ("other_", others_b[part])):
                visual_bpd = visual.of(rows[shown])
                batch = llm.batch(turns, visual_bpd.shape[1], settings.max_length).to(llm.device)
                words_bpd = expected_words(head, visual_bpd, embedding_vd)
                for name, tokens_bpd in (("visual", visual_bpd), ("words", words_bpd)):
                    nats_b[prefix + name][part], tokens_b[part] = _scored(llm, batch, tokens_bpd)
    scored = tokens_b > 0
    kept = {name: nats[scored] for name, nats in nats_b.items()}
    result = pseudo_image_figures(
        kept["visual"],
        kept["words"],
        (kept["other_visual"], kept["other_words"]) if n > 1 else None,
        tokens_b[scored],
        seed=draws.seed,
        resamples=draws.resamples,
        level=draws.level,
    )
    ids = {"image_id": records.image_ids(rows), "tokens": tokens_b}
    write_result(job.work, result, ids | {f"{name}_sum": nats for name, nats in nats_b.items()})


def word_embeddings(llm: LanguageModel) -> Tensor:
    """Return what enters block 0 for each token of the vocabulary, [v, d]: the model's own scale of
    embeddings included."""
    import torch

    size = llm.model.get_output_embeddings().weight.shape[0]
    ids_v1 = torch.arange(size, device=llm.device)[:, None]
    return torch.cat([llm.embed(part)[:, 0] for part in torch.split(ids_v1, _EMBEDDED)])


def expected_words(head: nn.Linear, visual_bpd: Tensor, embedding_vd: Tensor) -> Tensor:
    """Return the mean embedding of the words of each visual token, softmax(head(x)) @ embeddings,
    [b, p, d]."""
    import torch

    table_vd = embedding_vd.float()
    parts = torch.split(visual_bpd.flatten(0, 1).float(), max(1, _CELLS // len(table_vd)))
    words_nd = torch.cat([head(part_nd).softmax(-1) @ table_vd for part_nd in parts])
    return words_nd.reshape(visual_bpd.shape)


def _scored(
    llm: LanguageModel, batch: Batch, tokens_bpd: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the nats over the answer of each sample behind some tokens, and its tokens."""
    from vista.language.loss import sample_cross_entropy

    logits_nv = llm.forward(
        batch.input_ids,
        batch.attention_mask,
        visual=tokens_bpd,
        visual_start=batch.visual_start,
        logits_at=batch.predict_mask,
    ).logits
    assert logits_nv is not None
    loss_b, tokens_b = sample_cross_entropy(logits_nv, batch)
    return loss_b.cpu().double().numpy(), tokens_b.cpu().numpy()
