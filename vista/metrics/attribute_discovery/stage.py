"""Stage: propose latents of a text encoder's SAE as attributes, name and verify them.

Proposals are made from prompts alone: latents that fire on some prompts of train and not on most,
and that have a name (their label, a word of their top prompts). They are ranked by how well they
separate the prompts of validation that have their name; of each name the best latent is kept. They
are verified on the prompts of test, and by steering: a latent whose word does not concern the image
changes its attributes no more than a random direction does. Random latents have distinct names as
well.

Legend: n prompt, s latent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vista.config.diffusion import AttributeSettings
from vista.diffusion.attributes import words_of
from vista.engine.artifacts import Artifact
from vista.engine.job import StageJob, stage
from vista.inputs.judge import stage_namer, write_tally
from vista.inputs.latent_names import names_by_texts
from vista.inputs.pipeline import (
    Judge,
    PipelineInputs,
    PipelineOrder,
    Prompts,
    mean_norm,
    open_pipeline,
    read_prompts,
)
from vista.metrics.attribute_discovery.measure import name_aurocs, one_a_name, ranked
from vista.metrics.discovery import Proposal, attribute_discovery
from vista.metrics.results import write_result
from vista.metrics.selectivity import most_varying
from vista.sae.label_table import FILE, read_labels

if TYPE_CHECKING:
    from torch import Tensor

    from vista.diffusion.pipeline import TextToImage
    from vista.judges.naming import Namer


class AttributeDiscoveryOrder(PipelineOrder):
    """The pipeline with its SAE, and how attributes are discovered."""

    discovery: AttributeSettings


@dataclass(frozen=True, kw_only=True)
class Inputs(PipelineInputs):
    """Inputs of all experiments on the pipeline, and the model of the judge that names latents."""

    judge: Artifact | None = None


@stage(AttributeDiscoveryOrder, Inputs)
def run(job: StageJob[AttributeDiscoveryOrder, Inputs]) -> None:
    """Read pipeline, prompts, SAE, labels, and the features that probes learn from; write the
    result and items.parquet: the proposals in the order of their rank, then the random latents."""
    import torch

    torch.set_num_threads(job.threads)
    settings, order, inputs = job.settings.discovery, job.settings, job.inputs
    pipeline = open_pipeline(inputs.pipeline, order.pipeline, order.layer)
    prompts, judge = read_prompts(inputs.prompts, inputs.sae), Judge(order, inputs)
    labels: Sequence[str | None] = read_labels(inputs.labels.file(FILE)).label_s
    if settings.judge is not None:
        namer = stage_namer(settings.judge, inputs.judge, job.work)
        labels = judged_labels(namer, settings, prompts)
        write_tally(job.work, namer)
    score_ns = prompts.score_ns[prompts.rows["train"]]
    validation_s, test_s = (_aurocs(prompts, labels, split) for split in ("validation", "test"))
    written_ns = score_ns * prompts.sae.W_dec.detach().norm(dim=1).numpy()
    shares = settings.min_share, settings.max_share
    chosen = one_a_name(ranked(written_ns, validation_s, shares), labels, settings.proposals)
    rng = np.random.default_rng(settings.seed)
    drawn = one_a_name(
        rng.permutation(np.flatnonzero(score_ns.max(axis=0) > 0)), labels, len(chosen)
    )
    proposals, random = (
        [Proposal(latent, labels[latent], float(test_s[latent])) for latent in latents]
        for latents in (chosen, drawn)
    )
    proposals, random = steer_all(proposals, random, pipeline, prompts, judge, settings)
    result = attribute_discovery(
        proposals,
        random,
        judge.attributes,
        min_auroc=settings.min_auroc,
        min_gain=settings.min_gain,
        max_random=settings.max_random,
        level=settings.bootstrap.level,
    )
    columns = {
        field.name: [getattr(proposal, field.name) for proposal in (*proposals, *random)]
        for field in dataclasses.fields(Proposal)
    }
    columns["proposed"] = [True] * len(proposals) + [False] * len(random)
    write_result(job.work, result, columns)


def judged_labels(namer: Namer, settings: AttributeSettings, prompts: Prompts) -> list[str | None]:
    """Return the names that a judge gives to the latents that vary most over the prompts of train,
    by the prompts that they fire on most; None for all other latents."""
    score_ns = prompts.score_ns[prompts.rows["train"]]
    shares = settings.min_share, settings.max_share
    chosen = most_varying(score_ns, shares, 1, settings.judged_latents)
    labels: list[str | None] = [None] * score_ns.shape[1]
    names = names_by_texts(namer, prompts.of("train"), score_ns, chosen)
    for latent, name in zip(chosen.tolist(), names, strict=True):
        labels[latent] = name
    return labels


def _aurocs(prompts: Prompts, labels: Sequence[str | None], split: str) -> NDArray[np.float64]:
    """Return the AUROC of each latent for a split's prompts with its name, [s]."""
    words_n = [set(words_of(text)) for text in prompts.of(split)]
    return name_aurocs(prompts.score_ns[prompts.rows[split]], words_n, labels)


def steer_all(
    proposals: Sequence[Proposal],
    random: Sequence[Proposal],
    pipeline: TextToImage,
    prompts: Prompts,
    judge: Judge,
    settings: AttributeSettings,
) -> tuple[list[Proposal], list[Proposal]]:
    """Steer test prompts without a latent's name along its direction, and for proposals also along
    a random direction.

    Returns:
        The proposals and the random latents with what changed in the images.
    """
    from vista.diffusion.edits import add_direction, random_direction
    from vista.diffusion.pipeline import Sample

    length = settings.coefficient * mean_norm(pipeline, prompts.of("test")[: settings.prompts])
    latents = [*proposals, *random]
    edits: list[tuple[int, bool, list[int], Tensor]] = []
    for i, proposal in enumerate(latents):
        rows = _rows_without(prompts, proposal.name)[: settings.prompts]
        if not rows:
            continue
        direction_d = prompts.sae.decoder_row(proposal.latent).detach()
        edits.append((i, False, rows, direction_d))
        if i < len(proposals):
            rng = np.random.default_rng([settings.seed, i])
            edits.append((i, True, rows, random_direction(len(direction_d), rng)))
    edited = sorted({row for _, _, rows, _ in edits for row in rows})
    plain = {row: b for b, row in enumerate(edited)}
    if not plain:
        return list(proposals), list(random)
    _, values = judge.look(
        pipeline,
        [
            *(Sample(prompts.text[row], settings.seed + row) for row in plain),
            *(
                Sample(prompts.text[row], settings.seed + row, add_direction(direction_d, length))
                for _, _, rows, direction_d in edits
                for row in rows
            ),
        ],
    )
    start = len(plain)
    attribute_of = {value: name for name in judge.attributes for value in judge.attributes[name]}
    for i, control, rows, _ in edits:
        before, after = [plain[row] for row in rows], slice(start, start + len(rows))
        start += len(rows)
        gain = {
            value: float(
                np.mean(values[name][after] == value) - np.mean(values[name][before] == value)
            )
            for value, name in attribute_of.items()
        }
        change, named_gain = max(gain.values()), gain.get(latents[i].name or "", float("nan"))
        latents[i] = (
            dataclasses.replace(latents[i], random_change=change, random_gain=named_gain)
            if control
            else dataclasses.replace(latents[i], change=change, gain=named_gain)
        )
    return latents[: len(proposals)], latents[len(proposals) :]


def _rows_without(prompts: Prompts, name: str | None) -> list[int]:
    """Return the rows of the test prompts without a word."""
    rows = prompts.rows["test"].tolist()
    return [row for row in rows if name not in words_of(prompts.text[row])]
