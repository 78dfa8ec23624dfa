"""Stage: find a direction for each concept, by one method, on the selection split."""

from __future__ import annotations

from vista.config.base import Settings
from vista.config.edits import DirectionSettings
from vista.config.language import LanguageSettings
from vista.data.records import read_records
from vista.engine.forecast.need import TORCH_START, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.inputs.judge import stage_judge, write_tally
from vista.inputs.latents import read_geometry, read_latents, read_layer_labels
from vista.inputs.models import llm_width, load_llm
from vista.interventions.directions import write_directions
from vista.interventions.method import load_method
from vista.interventions.search import Loaders, Search, SearchInputs


class DirectionsOrder(Settings):
    """How directions are found, and the language model, if the method reads it."""

    directions: DirectionSettings
    llm: LanguageSettings | None = None

    @property
    def language(self) -> LanguageSettings:
        """The language model of a method that reads it."""
        assert self.llm is not None
        return self.llm


@stage(DirectionsOrder, SearchInputs)
def run(job: StageJob[DirectionsOrder, SearchInputs]) -> None:
    """Read records, features and what the method reads; write directions.json and
    directions.safetensors."""
    import torch

    torch.set_num_threads(job.threads)
    settings, order, inputs = job.settings.directions, job.settings, job.inputs
    records = read_records(inputs.records.file("records.parquet"))
    judge = stage_judge(settings.judge, inputs.judge, inputs.records, job.work)
    loaders = Loaders(
        geometry=read_geometry,
        latents=read_latents,
        layer_labels=read_layer_labels,
        llm=lambda: load_llm(order.language, inputs.llm),
        llm_width=lambda: llm_width(order.language, inputs.llm),
    )
    search = Search(inputs, settings, records, judge, loaders)
    with torch.no_grad():
        directions = load_method(settings.method).find(search)
    write_directions(job.work, directions)
    write_tally(job.work, judge)


def need(_node: Node, _shapes: Shapes) -> Need:
    """What a method computes is not counted."""
    return Need(seconds=TORCH_START)
