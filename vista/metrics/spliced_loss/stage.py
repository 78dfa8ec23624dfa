"""Stage: score reference answers with the SAE's reconstruction spliced in at the visual tokens.

Legend of shape suffixes: b image, p visual token, t token, d LLM width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.data.records import RecordTable, read_records
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.text_control import control_batch, control_text
from vista.inputs.visual_tokens import VisualTokens, read_visual_tokens
from vista.metrics.results import write_result
from vista.metrics.spliced_loss import SplicedLossSettings
from vista.metrics.spliced_loss.measure import KindLosses, SplicedLossResult, kind_figures
from vista.progress import progress

if TYPE_CHECKING:
    from torch import Tensor

    from vista.metrics.spliced_loss.splice import Samples

Rows = NDArray[np.int64]
# Reads the samples of some rows of the records.
Read = Callable[[Rows], "Samples"]


class SplicedLossOrder(Settings):
    """The language model, and what is scored."""

    llm: LanguageSettings
    spliced_loss: SplicedLossSettings


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Images by their features, and the models.

    `checks` are not read: the stage waits until they have passed.
    """

    projector: Artifact
    features: Artifact
    records: Artifact
    llm: Artifact | None = None
    saes: list[Artifact]
    checks: list[Artifact] = field(default_factory=list)


@stage(SplicedLossOrder, Inputs)
def run(job: StageJob[SplicedLossOrder, Inputs]) -> None:
    """Read projector, features, records, LLM and SAEs; write the result, and items.parquet with
    the sums of each image, kind of tokens and layer.

    Raises UserError where a split has no image, or none has an answer to score.
    """
    import torch

    from vista.inputs.models import load_llm, load_saes

    torch.set_num_threads(job.threads)
    settings, inputs = job.settings.spliced_loss, job.inputs
    records = read_records(inputs.records.file("records.parquet"))
    scored = answered(records, records.rows_of(settings.split))
    averaged = spread_evenly(records.rows_of(settings.mean_split), settings.mean_images)
    if not len(scored):
        raise UserError(
            f"spliced_loss.split {settings.split!r}: no image of that split has a reference "
            "answer; name another split, or leave the metric out"
        )
    if not len(averaged):
        raise UserError(
            f"spliced_loss.mean_split {settings.mean_split!r}: the data has no image of that "
            "split; name another"
        )
    llm = load_llm(job.settings.llm, inputs.llm)
    saes = load_saes(inputs.saes, llm)
    visual = read_visual_tokens(inputs.projector, inputs.features, records, llm)
    measured = {}
    for kind, read in readers(visual, records, settings.max_length).items():
        rows, others = (_fit(kind, records, some) for some in (scored, averaged))
        measured[kind] = _losses(visual, saes, kind, read, rows, others, settings.batch_size)
    draws = settings.bootstrap
    result = SplicedLossResult(
        mean_split=settings.mean_split,
        n_mean_images=len(averaged),
        min_ablation_cost=settings.min_ablation_cost,
        kinds=[
            kind_figures(
                losses,
                kind,
                min_ablation_cost=settings.min_ablation_cost,
                seed=draws.seed,
                resamples=draws.resamples,
                level=draws.level,
            )
            for kind, losses in measured.items()
        ],
    )
    items = [
        table
        for kind, losses in measured.items()
        for table in _items(records.image_ids(_fit(kind, records, scored)), kind, losses)
    ]
    write_result(job.work, result, pa.concat_tables(items))


def readers(visual: VisualTokens, records: RecordTable, max_length: int) -> dict[str, Read]:
    """Return what reads samples by token kind.

    `image`: the first turn behind the visual tokens, as the caption metric scores it; the stream
    is replaced at the visual tokens. `control`: the text control, bare after the opening; replaced
    at all its tokens, and the next ones are scored, since no answer follows it.
    """
    from vista.metrics.spliced_loss.splice import of_images, of_text

    llm = visual.llm

    def image(rows: Rows) -> Samples:
        visual_bpd = visual.of(rows)
        turns = [record.turns[:1] for record in records.select(rows)]
        return of_images(llm, llm.batch(turns, visual_bpd.shape[1], max_length), visual_bpd)

    def control(rows: Rows) -> Samples:
        return of_text(llm, control_batch(llm, records.select(rows), max_length))

    return {"image": image, "control": control}


def answered(records: RecordTable, rows: Rows) -> Rows:
    """Return the rows of the images that have a reference answer."""
    return _kept(rows, [bool(record.turns) for record in records.select(rows)])


def spread_evenly(rows: Rows, limit: int) -> Rows:
    """Return at most `limit` of some rows, at even distances."""
    if len(rows) <= limit:
        return rows
    spread: Rows = rows[np.linspace(0, len(rows) - 1, limit).round().astype(np.int64)]
    return spread


def _fit(kind: str, records: RecordTable, rows: Rows) -> Rows:
    """Return the rows that a kind of tokens can be read of: the control needs a text."""
    if kind != "control":
        return rows
    return _kept(rows, [bool(control_text(record).strip()) for record in records.select(rows)])


def _kept(rows: Rows, keep: Sequence[bool]) -> Rows:
    kept: Rows = rows[np.array(keep, dtype=bool)]
    return kept


def _losses(
    visual: VisualTokens,
    saes: dict[int, Any],
    kind: str,
    read: Read,
    rows: Rows,
    others: Rows,
    size: int,
) -> KindLosses:
    """Score the images of `rows`, with the mean stream of `others`; `size` images at once."""
    from vista.metrics.spliced_loss.splice import Losses, mean_streams, spliced_losses

    parts: list[Losses] = []
    if len(rows) and len(others):
        averaged = (read(part) for part in _batches(others, size, f"{kind} mean"))
        means: dict[int, Tensor] = mean_streams(visual.llm, saes, averaged)
        for part in _batches(rows, size, kind):
            parts.append(spliced_losses(visual.llm, saes, means, read(part)))

    def joined(columns: Sequence[Tensor]) -> NDArray[Any]:
        return np.concatenate([np.zeros(0), *(column.numpy() for column in columns)])

    return KindLosses(
        joined([part.tokens_b for part in parts]),
        joined([part.clean_b for part in parts]),
        {
            layer: {
                name: joined([part.layers[layer][name] for part in parts])
                for name in ("spliced", "mean", "zero")
            }
            for layer in saes
        },
    )


def _batches(rows: Rows, size: int, shows: str) -> Iterator[Rows]:
    starts = range(0, len(rows), size)
    for start in progress(starts, desc=f"splice {shows}", unit="batch"):
        yield rows[start : start + size]


def _items(image_ids: Sequence[str], kind: str, losses: KindLosses) -> Iterator[pa.Table]:
    """Yield for each layer one row an image: its sums in nats, and its scored tokens."""
    n = len(losses.tokens_b)
    for layer, sums in losses.layers.items():
        columns = {
            "image_id": pa.array(image_ids[:n], pa.string()),
            "token_kind": [kind] * n,
            "layer": np.full(n, layer, dtype=np.int32),
            "tokens": losses.tokens_b.astype(np.int64),
            "clean_sum": losses.clean_b,
            **{f"{name}_sum": column for name, column in sums.items()},
        }
        yield pa.table(columns)
