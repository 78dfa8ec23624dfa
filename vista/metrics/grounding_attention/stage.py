"""Stage: measure where the words of objects attend, behind the own image and behind another.

Legend of shape suffixes: b caption, t token, n chosen token, l layer, h head, p visual token,
d LLM width, v vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.data.records import read_records
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.errors import UserError
from vista.inputs.maps import read_map_grid
from vista.inputs.visual_tokens import VisualTokens, read_visual_tokens
from vista.metrics.grounding_attention import GroundingAttentionSettings
from vista.metrics.grounding_attention.maps import Readings
from vista.metrics.grounding_attention.measure import POSITIONS, Measured, grounding_attention
from vista.metrics.grounding_attention.mentions import Caption, Placing, captions_of, no_mention
from vista.metrics.grounding_attention.passes import Passed, measure_captions, mention_tokens
from vista.metrics.results import write_result


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
    n_visual = visual.features.shape[1]
    grid = read_map_grid(inputs.features)
    placing = Placing(
        grid.placing,
        n_visual // grid.frames,
        n_visual,
        settings.max_length,
        settings.region,
        settings.mask_cover,
    )
    measured = {}
    for field in ("fit_split", "split"):
        split = getattr(settings, field)
        captions = captions_of(llm, records, split, settings.max_images, placing)
        if not captions:
            raise UserError(no_mention(f"grounding_attention.{field}", split))
        measured[field] = (
            captions,
            *measure_captions(
                captions,
                lambda some, rows: _pass(visual, some, rows, settings.max_length),
                frames=grid.frames,
                n_visual=n_visual,
                batch_size=settings.batch_size,
                seed=settings.bootstrap.seed,
            ),
        )
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


def _pass(
    visual: VisualTokens, captions: Sequence[Caption], rows: Sequence[int], max_length: int
) -> Passed:
    """Read captions behind the images of `rows`."""
    import torch

    from vista.language.attention import visual_attention
    from vista.language.loss import sample_cross_entropy

    llm = visual.llm
    with torch.no_grad():
        visual_bpd = visual.of(rows)
        turns = [caption.record.turns[:1] for caption in captions]
        batch = llm.batch(turns, visual_bpd.shape[1], max_length).to(llm.device)
        at_bt = mention_tokens(captions, batch.input_ids)
        weights_nlhp, logits_nv = visual_attention(llm, batch, visual_bpd, at_bt)
        loss_b, tokens_b = sample_cross_entropy(logits_nv, batch)
    return Passed(weights_nlhp, at_bt, (loss_b.double() / tokens_b).cpu().numpy())


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
