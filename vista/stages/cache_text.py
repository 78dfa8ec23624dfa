"""Stage: the residual stream of text tokens after several blocks, from one pass of the LLM."""

from __future__ import annotations

from dataclasses import dataclass

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.config.sae import CacheTextSettings
from vista.data.records import read_text
from vista.engine.artifacts import Artifact
from vista.engine.forecast import formulas
from vista.engine.forecast.need import TORCH_START, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import StageJob, stage
from vista.engine.node import Node


class CacheTextOrder(Settings):
    """The language model, its blocks, and how much text is read."""

    llm: LanguageSettings
    layers: tuple[int, ...]
    cache: CacheTextSettings


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The language corpus, and the language model unless its settings name a folder."""

    text: Artifact
    llm: Artifact | None = None


@stage(CacheTextOrder, Inputs)
def run(job: StageJob[CacheTextOrder, Inputs]) -> None:
    """Read LLM and text; write the stream of each split and layer (see vista.sae.text_cache)."""
    import torch

    from vista.inputs.models import load_llm
    from vista.sae.text_cache import SPLITS, write_cache

    torch.set_num_threads(job.threads)
    table = job.inputs.text.file("text.parquet")
    texts = {split: read_text(table, split) for split in SPLITS}
    llm = load_llm(job.settings.llm, job.inputs.llm)
    write_cache(llm, texts, job.settings.layers, job.settings.cache, job.work)


def need(node: Node, shapes: Shapes) -> Need:
    """Disk: a number for each token, layer and dimension. Time: one pass up to the last layer."""
    shape, settings = shapes.llm(node), node.settings["cache"]
    if shape is None:
        return UNKNOWN
    device, layers = shapes.device(node.order["llm"]), node.settings["layers"]
    tokens = settings["tokens"] + settings["heldout_tokens"]
    item = 2 if settings["dtype"] == "float16" else 4
    flops = formulas.forward_flops(shape, tokens, 0, blocks=max(layers) + 1)
    disk = float(tokens * len(layers) * shape.d_model * item)
    return Need(disk, device.memory(None), TORCH_START + device.seconds(flops))
