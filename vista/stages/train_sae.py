"""Stage: train an SAE on one block's residual stream, with sae_lens' own trainer."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.config.sae import TrainSaeSettings
from vista.data.records import read_text
from vista.engine.artifacts import Artifact
from vista.engine.forecast import formulas
from vista.engine.forecast.need import TORCH_START, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import StageJob, stage
from vista.engine.node import Node


class TrainSaeOrder(Settings):
    """The language model, the block that the SAE reads, and how the SAE is trained."""

    llm: LanguageSettings
    sae: TrainSaeSettings
    layer: int


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The language corpus, and the language model unless its settings name a folder; neither is
    read where the stream of the text is cached."""

    text: Artifact
    llm: Artifact | None = None
    cache: Artifact | None = None


@stage(TrainSaeOrder, Inputs)
def run(job: StageJob[TrainSaeOrder, Inputs]) -> None:
    """Read LLM and text; write sae/ in sae_lens' format, neutral/ and curve.parquet.

    neutral/ is sae/ in the neutral form, converted here because sae_lens is loaded already.

    Raises UserError where the LLM has no such layer, or there is no text.
    """
    import numpy as np
    import pyarrow as pa
    import torch

    from vista.inputs.models import cached_text, load_llm
    from vista.metrics.results import write_parquet
    from vista.sae.convert import from_folder
    from vista.sae.neutral import save_sae
    from vista.sae.train import train_on, train_sae

    torch.set_num_threads(job.threads)
    layer, recipe, kind = job.settings.layer, job.settings.sae, job.settings.llm.source.kind
    if job.inputs.cache is not None:
        cached = cached_text(job.inputs.cache, "train", layer, job.settings.llm.device)
        _warn_of_size(recipe, cached.d_model, kind)
        batches, rng = (
            cached.batches(recipe.text, recipe.tokens),
            np.random.default_rng(recipe.seed),
        )
        curve = train_on(batches, layer, recipe, rng, job.work / "sae")
    else:
        texts = read_text(job.inputs.text.file("text.parquet"), "train")
        llm = load_llm(job.settings.llm, job.inputs.llm)
        _warn_of_size(recipe, llm.d_model, kind)
        curve = train_sae(llm, texts, layer, recipe, job.work / "sae")
    neutral = job.work / "neutral"
    neutral.mkdir(exist_ok=True)
    save_sae(neutral, from_folder(job.work / "sae", layer, name=f"layer {layer}"))
    write_parquet(job.work / "curve.parquet", pa.table(curve))


def _warn_of_size(sae: TrainSaeSettings, width: int, kind: str) -> None:
    """Say where a checkpoint's SAE has fewer latents than the stream has dimensions: the defaults
    are for stand-ins."""
    if kind != "standin" and sae.d_sae < width:
        print(
            f"train_sae: d_sae {sae.d_sae} is less than the LLM's width {width}; the defaults of "
            f"saes.train are for small stand-ins, for this LLM try d_sae: {4 * width} and k: 32",
            file=sys.stderr,
        )


def need(node: Node, shapes: Shapes) -> Need:
    """Disk: encoder and decoder in float32. Time: 6 FLOP a parameter and token of each step; 1 of
    k-means, which projects tokens on its directions."""
    settings, d_model = node.settings["sae"], shapes.d_model(node)
    if d_model is None:
        return UNKNOWN
    size = formulas.sae_bytes(d_model, settings["d_sae"])
    device = shapes.llm_device(node)
    per_byte = 0.25 if settings["architecture"] == "kmeans" else 1.5
    flops = per_byte * size * settings["steps"] * settings["batch_tokens"]
    return Need(size, device.memory(None), TORCH_START + device.seconds(0, flops))
