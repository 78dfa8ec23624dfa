"""Stage: caption images that the language model sees through the projector; score the captions.

Legend of shape suffixes: b image, p visual token, d LLM width, n predicted token, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.data.records import Record, read_records
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.judge import stage_judge, write_tally
from vista.inputs.questions import first_questions
from vista.inputs.visual_tokens import VisualTokens, read_visual_tokens
from vista.metrics.caption import CaptionSettings
from vista.metrics.caption.measure import caption_figures
from vista.metrics.results import write_parquet, write_result
from vista.progress import progress


class CaptionOrder(Settings):
    """The language model, and how images are captioned."""

    llm: LanguageSettings
    caption: CaptionSettings


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Images by their features, and the models."""

    projector: Artifact
    features: Artifact
    records: Artifact
    llm: Artifact | None = None
    judge: Artifact | None = None


@stage(CaptionOrder, Inputs)
def run(job: StageJob[CaptionOrder, Inputs]) -> None:
    """Read projector, features, records and LLM; write captions, result and per-image values."""
    import pyarrow as pa
    import torch

    from vista.inputs.models import load_llm

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings.caption, job.inputs
    judge = stage_judge(settings.judge, inputs.judge, inputs.records, job.work)
    records = read_records(inputs.records.file("records.parquet"))
    chosen = records.rows_of(settings.split).tolist()
    if not chosen:
        raise UserError(f"caption.split {settings.split!r}: the data has no image of that split.")
    llm = load_llm(job.settings.llm, inputs.llm)
    visual = read_visual_tokens(inputs.projector, inputs.features, records, llm)
    shown = records.select(chosen)
    questions = first_questions(shown, records)
    with torch.no_grad():
        loss_b, tokens_b = _losses(visual, shown, chosen, settings, "cross-entropy")
        shuffled_b = None
        if len(chosen) > 1:
            others = _others(chosen, settings.bootstrap.seed)
            shuffled_b, _ = _losses(visual, shown, others, settings, "shuffled")
        captions = _captions(visual, questions, chosen, settings)
    result, items = caption_figures(
        loss_b,
        tokens_b,
        captions,
        [[item.category for item in record.objects] for record in shown],
        [item.category for record in records for item in record.objects],
        judge.judge,
        judge_name=judge.name,
        seed=settings.bootstrap.seed,
        resamples=settings.bootstrap.resamples,
        level=settings.bootstrap.level,
        shuffled_loss_b=shuffled_b,
    )
    image_ids = [record.image_id for record in shown]
    texts = {
        "image_id": image_ids,
        "question": questions,
        "caption": captions,
        "reference": pa.array([r.turns[0].answer if r.turns else None for r in shown], pa.string()),
    }
    write_parquet(job.work / "captions.parquet", pa.table(texts))
    columns: dict[str, Any] = {
        "image_id": image_ids,
        "loss_sum": loss_b,
        "tokens": tokens_b,
        "object_recall": items.recall_b,
        "mentions": items.mentions_b,
        "hallucinated": items.hallucinated_b,
    }
    if shuffled_b is not None:
        columns["shuffled_loss_sum"] = shuffled_b
    write_result(job.work, result, columns)
    write_tally(job.work, judge)


def _others(chosen: Sequence[int], seed: int) -> list[int]:
    """Return another image for each one: the next in a random ring, so that none gets itself."""
    ring = np.random.default_rng(seed).permutation(len(chosen))
    others = np.empty(len(chosen), dtype=np.int64)
    others[ring] = np.asarray(chosen)[np.roll(ring, -1)]
    return [int(other) for other in others]


def _losses(
    visual: VisualTokens,
    shown: Sequence[Record],
    rows: Sequence[int],
    settings: CaptionSettings,
    desc: str,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the nats over the first reference answer of each image, [b], and its tokens, [b].

    Each image of `shown` gets the visual tokens of the record of `rows` at its position.
    """
    from vista.language.loss import sample_cross_entropy

    llm, size = visual.llm, settings.batch_size
    sums, counts = [], []
    for start in progress(range(0, len(shown), size), desc=desc, unit="batch"):
        visual_bpd = visual.of(rows[start : start + size])
        turns = [record.turns[:1] for record in shown[start : start + size]]
        batch = llm.batch(turns, visual_bpd.shape[1], settings.max_length).to(llm.device)
        logits_nv = llm.forward(
            batch.input_ids,
            batch.attention_mask,
            visual=visual_bpd,
            visual_start=batch.visual_start,
            logits_at=batch.predict_mask,
        ).logits
        assert logits_nv is not None
        loss_b, tokens_b = sample_cross_entropy(logits_nv, batch)
        sums.append(loss_b.double().cpu().numpy())
        counts.append(tokens_b.cpu().numpy())
    return np.concatenate(sums), np.concatenate(counts)


def _captions(
    visual: VisualTokens, questions: Sequence[str], rows: Sequence[int], settings: CaptionSettings
) -> list[str]:
    """Return greedy answers to `questions`, one an image."""
    captions: list[str] = []
    size = settings.batch_size
    for start in progress(range(0, len(rows), size), desc="captions", unit="batch"):
        part = slice(start, start + size)
        captions += visual.llm.generate(
            visual.of(rows[part]),
            questions[part],
            max_new_tokens=settings.max_new_tokens,
            batch_size=size,
        )
    return captions
