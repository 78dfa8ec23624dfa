"""Stage: a direction for each concept, by one method, found on the selection split and frozen."""

from __future__ import annotations

from vista.config.interventions import DirectionSettings
from vista.data.records import read_records
from vista.engine.artifacts import Job
from vista.interventions.directions import write_directions
from vista.interventions.method import load_method
from vista.interventions.search import Loaders, Search
from vista.stages.judging import stage_judge, write_tally
from vista.stages.latent_inputs import read_geometry, read_latents, read_layer_labels
from vista.stages.loading import llm_width, load_llm


def run(job: Job) -> None:
    """Write directions.json and directions.safetensors.

    Inputs beside `records` and `features` (selection split, boxes on the patch grid): those that
    the method reads, `vista.interventions.methods`.
    """
    import torch

    torch.set_num_threads(job.threads)
    settings = DirectionSettings.model_validate(job.settings["directions"])
    records = read_records(job.input("records").file("records.parquet"))
    judge = stage_judge(job, settings.judge)
    loaders = Loaders(read_geometry, read_latents, read_layer_labels, load_llm, llm_width)
    search = Search(job, settings, records, judge, loaders)
    with torch.no_grad():
        directions = load_method(settings.method).find(search)
    write_directions(job.work, directions)
    write_tally(job, judge)
