"""Stage: index words of the text by their residual stream after several blocks."""

from __future__ import annotations

from dataclasses import dataclass

from vista.config.base import Settings
from vista.config.language import LanguageSettings
from vista.config.text_index import TextIndexSettings
from vista.data.records import read_text
from vista.engine.artifacts import Artifact
from vista.engine.forecast import formulas
from vista.engine.forecast.formulas import Dictionaries
from vista.engine.forecast.need import TORCH_START, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import StageJob, stage
from vista.engine.node import Node


class IndexTextOrder(Settings):
    """The language model, and which tokens of the text are kept."""

    llm: LanguageSettings
    index: TextIndexSettings


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """The language corpus, and the language model unless its settings name a folder."""

    text: Artifact
    llm: Artifact | None = None


@stage(IndexTextOrder, Inputs)
def run(job: StageJob[IndexTextOrder, Inputs]) -> None:
    """Read LLM and training text; write the index (see vista.store.text_index).

    Raises UserError where the model has no such block, or the text holds no word.
    """
    import torch

    from vista.inputs.models import load_llm
    from vista.sae.text_index import index_text
    from vista.store.text_index import STORE

    torch.set_num_threads(job.threads)
    settings = job.settings.index
    assert settings.layers is not None  # filled in by the plan
    texts = read_text(job.inputs.text.file("text.parquet"), "train")
    llm = load_llm(job.settings.llm, job.inputs.llm)
    index_text(llm, texts, settings.layers, settings).write(job.work / STORE)


def need(node: Node, shapes: Shapes) -> Need:
    """Disk: the vectors in float16, at most; held: these twice, in parts and joined. Time: one pass
    up to the last layer."""
    shape, settings = shapes.llm(node), TextIndexSettings.model_validate(node.order["index"])
    if shape is None:
        return UNKNOWN
    device, layers = shapes.llm_device(node), settings.layers or (0,)
    flops = formulas.forward_flops(shape, settings.tokens, 0, blocks=max(layers) + 1)
    disk = 2.0 * settings.most_vectors(shape.vocabulary) * shape.d_model
    memory = formulas.reading_memory(
        shape,
        device,
        Dictionaries(layers, (), ()),
        settings.batch_documents,
        settings.max_length,
    )
    return Need(disk, device.memory(memory), TORCH_START + device.seconds(flops), 2 * disk)
