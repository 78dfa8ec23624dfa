"""Stage: propose latents of a text encoder's SAE that vary as attributes, name and verify them.

Proposals come from prompts alone: latents that fire on some prompts of train and not on most, and
that have a name, their label, a word of their top prompts. They are ranked by how well they
separate the prompts of validation with their name, the best of each name alone; verified on those
of test, and by steering. Random latents are of other names each, too.

Legend: n prompt, s latent.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vista.artifacts import Job
from vista.config.diffusion import AttributeSettings
from vista.config.pipeline import PipelineSettings
from vista.diffusion.attributes import value_in, words_of
from vista.metrics.attributes import Proposal, attribute_discovery
from vista.metrics.steering import selectivity
from vista.sae.label_table import FILE, read_labels
from vista.stages.diffusion_inputs import Judge, Prompts, mean_norm, open_pipeline, read_prompts
from vista.stages.results import write_result

if TYPE_CHECKING:
    from vista.diffusion.pipeline import TextToImage


def run(job: Job) -> None:
    """Read pipeline, prompts, SAE, labels, and the features that probes learn from; write the
    result and items.parquet: the proposals in the order of their rank, then the random latents."""
    import torch

    torch.set_num_threads(job.threads)
    settings = AttributeSettings.model_validate(job.settings["discovery"])
    pipeline_settings = PipelineSettings.model_validate(job.settings["pipeline"])
    pipeline = open_pipeline(job, pipeline_settings, int(job.settings["layer"]))
    prompts, judge = read_prompts(job), Judge(job)
    labels = read_labels(job.input("labels").file(FILE)).label_s
    score_ns = prompts.score_ns[prompts.rows["train"]]
    before, after = (_aurocs(prompts, labels, split) for split in ("validation", "test"))
    written_ns = score_ns * prompts.sae.W_dec.detach().norm(dim=1).numpy()
    chosen = one_a_name(ranked(written_ns, before, settings), labels, settings.proposals)
    rng = np.random.default_rng(settings.seed)
    drawn = one_a_name(
        rng.permutation(np.flatnonzero(score_ns.max(axis=0) > 0)), labels, len(chosen)
    )
    proposals, random = (
        [Proposal(latent, labels[latent], float(after[latent])) for latent in found]
        for found in (chosen, drawn)
    )
    proposals = _steer(proposals, pipeline, prompts, judge, settings)
    bootstrap = settings.bootstrap
    result = attribute_discovery(
        proposals,
        random,
        judge.attributes,
        min_auroc=settings.min_auroc,
        min_gain=settings.min_gain,
        seed=bootstrap.seed,
        resamples=bootstrap.resamples,
        level=bootstrap.level,
    )
    columns = {
        field.name: [getattr(each, field.name) for each in (*proposals, *random)]
        for field in dataclasses.fields(Proposal)
    }
    columns["proposed"] = [True] * len(proposals) + [False] * len(random)
    write_result(job, result, columns)


def ranked(
    written_ns: NDArray[np.float32], auroc_s: NDArray[np.float64], settings: AttributeSettings
) -> NDArray[np.int64]:
    """The latents with a name that fire on some prompts and not on most, by AUROC; of equal ones
    those first that vary more in what they write."""
    share_s = (written_ns > 0).mean(axis=0)
    fit_s = (share_s >= settings.min_share) & (share_s <= settings.max_share)
    order = np.lexsort((-written_ns.var(axis=0), -auroc_s))
    return np.asarray(order[(fit_s & ~np.isnan(auroc_s))[order]])


def one_a_name(latents: NDArray[np.int64], labels: Sequence[str | None], most: int) -> list[int]:
    """The first latent of each name, at most so many."""
    first: dict[str, int] = {}
    for latent in latents.tolist():
        if (name := labels[latent]) is not None:
            first.setdefault(name, latent)
    return list(first.values())[:most]


def _aurocs(prompts: Prompts, labels: Sequence[str | None], split: str) -> NDArray[np.float64]:
    """AUROC of each latent for a split's prompts with its name, [s]; NaN where there is none."""
    score_ns = prompts.score_ns[prompts.rows[split]]
    names = sorted({name for name in labels if name is not None})
    place = {name: c for c, name in enumerate(names)}
    said_n = [set(words_of(text)) for text in prompts.of(split)]
    positive_nc = np.array([[name in said for name in names] for said in said_n], dtype=bool)
    auroc_sc = selectivity(score_ns, positive_nc)
    return np.array(
        [np.nan if name is None else auroc_sc[s, place[name]] for s, name in enumerate(labels)]
    )


def _steer(
    proposals: Sequence[Proposal],
    pipeline: TextToImage,
    prompts: Prompts,
    judge: Judge,
    settings: AttributeSettings,
) -> list[Proposal]:
    """Add the best proposals whose name a probe knows to test prompts without it, and a random
    direction in their place."""
    from vista.diffusion.edits import add_direction, random_direction
    from vista.diffusion.pipeline import Sample

    attribute_of = {value: name for name, values in judge.attributes.items() for value in values}
    rows = prompts.rows["test"]
    length = settings.coefficient * mean_norm(pipeline, prompts.of("test")[: settings.prompts])
    plan: list[tuple[int, str, str, list[int]]] = []
    for i, proposal in enumerate(proposals):
        if proposal.name in attribute_of and len(plan) < settings.steered:
            attribute = attribute_of[proposal.name]
            values = judge.attributes[attribute]
            others = (
                row
                for row in rows.tolist()
                if value_in(prompts.text[row], values) not in (None, proposal.name)
            )
            plan.append((i, proposal.name, attribute, list(others)[: settings.prompts]))
    samples = []
    for i, _, _, chosen in plan:
        rng = np.random.default_rng([settings.seed, i])
        direction_d = prompts.sae.decoder_row(proposals[i].latent).detach()
        control_d = random_direction(len(direction_d), rng)
        edits = (None, add_direction(direction_d, length), add_direction(control_d, length))
        samples += [
            Sample(prompts.text[row], settings.seed + row, edit) for edit in edits for row in chosen
        ]
    steered = list(proposals)
    if not samples:
        return steered
    _, said = judge.look(pipeline, samples)
    start = 0
    for i, name, attribute, chosen in plan:
        shown = said[attribute][start : start + 3 * len(chosen)].reshape(3, -1) == name
        start += 3 * len(chosen)
        plain, gain, random_gain = shown.mean(axis=1)
        steered[i] = dataclasses.replace(
            proposals[i], gain=float(gain - plain), random_gain=float(random_gain - plain)
        )
    return steered
