"""Stage: train a small stand-in language model on the text corpus."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vista.config.language import StandinLlm
from vista.data.records import read_text
from vista.engine.artifacts import Artifact
from vista.engine.forecast.formulas import STANDIN_LLM_CPU_RATE
from vista.engine.forecast.need import TORCH_START, UNKNOWN, Need
from vista.engine.forecast.shapes import STANDIN_DOCUMENT, Shapes
from vista.engine.job import StageJob, stage
from vista.engine.node import Node


@dataclass(frozen=True)
class Inputs:
    """The language corpus."""

    text: Artifact


@stage(StandinLlm, Inputs)
def run(job: StageJob[StandinLlm, Inputs]) -> None:
    """Read text; write model/ (save_pretrained, with its tokenizer) and curve.parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from vista.standins.llm import train_standin_llm

    torch.set_num_threads(job.threads)
    path = job.inputs.text.file("text.parquet")
    curve = train_standin_llm(
        job.settings, read_text(path, "train"), job.work / "model", read_text(path, "heldout")
    )
    pq.write_table(pa.table(curve), job.work / "curve.parquet")


def need(node: Node, shapes: Shapes) -> Need:
    """Disk: weights in float32. Time: 6 FLOP a parameter and token of each step."""
    shape, settings = shapes.llm(node), node.settings
    if shape is None:
        return UNKNOWN
    length = min(settings["max_length"], STANDIN_DOCUMENT)
    tokens = settings["steps"] * settings["batch_size"] * length
    device = replace(shapes.cpu, cpu_rate=STANDIN_LLM_CPU_RATE)
    seconds = TORCH_START + device.seconds(6 * shape.parameters * tokens)
    return Need(shape.parameters * 4, 0.0, seconds)
