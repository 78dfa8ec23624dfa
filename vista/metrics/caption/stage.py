"""Stage: caption images that the language model sees through the projector; score the captions.

Legend of shape suffixes: b image, p visual token, t token, d LLM width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from vista.language.prompt import Batch
    from vista.language.reading import Reading

FloatArray = NDArray[np.float64]


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
        read = _read(visual, shown, chosen, questions, settings)
    captions, loss_b, shuffled_b = read.captions, read.loss_b, read.shuffled_b
    result, items = caption_figures(
        loss_b,
        read.tokens_b,
        captions,
        [[item.category for item in record.objects] for record in shown],
        [item.category for record in records for item in record.objects],
        judge.judge,
        judge_name=judge.name,
        seed=settings.bootstrap.seed,
        resamples=settings.bootstrap.resamples,
        level=settings.bootstrap.level,
        shuffled_loss_b=shuffled_b,
        groups=[record.group for record in shown],
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
        "tokens": read.tokens_b,
        "object_recall": items.recall_b,
        "mentions": items.mentions_b,
        "hallucinated": items.hallucinated_b,
    }
    if shuffled_b is not None:
        columns["shuffled_loss_sum"] = shuffled_b
    write_result(job.work, result, columns)
    write_tally(job.work, judge)


@dataclass(frozen=True)
class _Read:
    """Captions of images; nats over their reference answers, and over these behind the visual
    tokens of another image (None for a single image), with the number of tokens."""

    captions: list[str]
    loss_b: FloatArray
    tokens_b: NDArray[np.int64]
    shuffled_b: FloatArray | None


def _readers(n: int, seed: int) -> NDArray[np.int64]:
    """Return for each image the one whose reference is scored behind its visual tokens: the one
    before it in a random ring, so that none gets itself."""
    ring = np.random.default_rng(seed).permutation(n)
    readers = np.empty(n, dtype=np.int64)
    readers[ring] = np.roll(ring, 1)
    return readers


def _read(
    visual: VisualTokens,
    shown: Sequence[Record],
    rows: Sequence[int],
    questions: Sequence[str],
    settings: CaptionSettings,
) -> _Read:
    """Caption the images and score references; the visual tokens of each image are read once."""
    import torch

    from vista.language.reading import one_length

    llm, n = visual.llm, len(shown)
    captions = [""] * n
    loss_b, shuffled_b = np.zeros(n), np.zeros(n)
    tokens_b = np.zeros(n, dtype=np.int64)
    readers_b = _readers(n, settings.bootstrap.seed)
    # Without placeholders: their number is the same for all images.
    lengths = [len(ids) for ids in llm.prompts(questions, 0)]
    batches = list(one_length(lengths, settings.batch_size))
    for batch in progress(batches, desc="captions", unit="batch"):
        visual_bpd = visual.of([rows[i] for i in batch])
        n_visual, readers = visual_bpd.shape[1], readers_b[batch]
        own, other = (
            llm.batch([shown[i].turns[:1] for i in some], n_visual, settings.max_length)
            for some in (batch, readers)
        )
        asked = llm.prompts([questions[i] for i in batch], n_visual)
        ids_bt = torch.tensor(asked, device=llm.device)
        image = llm.read(ids_bt[:, : len(llm.opening) + n_visual], visual_bpd)
        prompt = image.on(ids_bt[:, image.ids_bt.shape[1] :])
        loss_b[batch], tokens_b[batch] = _losses(image, prompt, own.to(llm.device))
        if n > 1:
            shuffled_b[readers], _ = _losses(image, prompt, other.to(llm.device))
        for i, caption in zip(batch, llm.answers(prompt, settings.max_new_tokens), strict=True):
            captions[i] = caption
    return _Read(captions, loss_b, tokens_b, shuffled_b if n > 1 else None)


def _losses(image: Reading, prompt: Reading, batch: Batch) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return the nats over the answer of each sample, [b], and its tokens, [b].

    Samples are read on from the image and its own question, where they all ask it.
    """
    from vista.language.loss import sample_cross_entropy

    start = prompt if prompt.begins(batch) else image
    loss_b, tokens_b = sample_cross_entropy(start.answer_logits(batch), batch)
    return loss_b.double().cpu().numpy(), tokens_b.cpu().numpy()
