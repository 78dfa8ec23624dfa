"""Stage: name each latent of an SAE by the text that it fires on."""

from __future__ import annotations

from dataclasses import dataclass

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.config.sae import LabelSettings
from vista.data.records import read_text
from vista.engine.artifacts import Artifact
from vista.engine.forecast.need import ROW, SMALL, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.forecast.shared import on_text
from vista.engine.job import StageJob, stage
from vista.engine.node import Node


class LabelLatentsOrder(Settings):
    """The language model, and how its SAE's latents are named."""

    llm: LanguageSettings
    labels: LabelSettings


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """An SAE, the text, and the language model unless its settings name a folder, which is not
    read where the stream of the text is cached."""

    sae: Artifact
    text: Artifact
    llm: Artifact | None = None
    cache: Artifact | None = None


@stage(LabelLatentsOrder, Inputs)
def run(job: StageJob[LabelLatentsOrder, Inputs]) -> None:
    """Read SAE, LLM and text; write labels.parquet (see vista.sae.label_table)."""
    import torch

    from vista.inputs.models import cached_text, load_llm, load_sae_of_cache, load_text_sae
    from vista.sae.activations import text_activations
    from vista.sae.label_scores import scored_labels
    from vista.sae.label_table import FILE, write_labels
    from vista.sae.labels import label_latents, label_on

    torch.set_num_threads(job.threads)
    inputs, settings = job.inputs, job.settings.labels
    table = inputs.text.file("text.parquet")
    texts = read_text(table, "train")
    scored = settings.score_tokens
    heldout = read_text(table, "heldout") if scored else []
    if inputs.cache is not None:
        device = job.settings.llm.device
        sae, cached = load_sae_of_cache(inputs.sae, inputs.cache, "train", device)
        labels = label_on(cached.batches(settings.text, settings.tokens), sae, texts, settings)
        if scored:
            cached = cached_text(inputs.cache, "heldout", sae.config.layer, device)
            batches = cached.batches(settings.text, scored)
    else:
        llm = load_llm(job.settings.llm, inputs.llm)
        sae = load_text_sae(inputs.sae, llm)
        labels = label_latents(llm, sae, texts, settings)
        if scored:
            batches = text_activations(llm, heldout, sae.config.layer, settings.text, scored)
    if scored:
        labels = scored_labels(labels, batches, sae, heldout, settings)
    write_labels(job.work / FILE, labels)


def need(node: Node, shapes: Shapes) -> Need:
    """One pass over tokens, encoded. Disk: a row a latent."""
    saes = shapes.saes(node, "sae")
    disk = None if saes is None else SMALL + ROW * saes.latents
    return on_text(node, shapes, "labels", disk, decoded=False)
