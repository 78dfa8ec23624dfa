"""Stage: find a direction for each concept, by one method, on the selection split."""

from __future__ import annotations

from vista.config.base import Settings
from vista.config.edits import FITTED, DirectionSettings
from vista.config.language import LanguageSettings
from vista.data.records import read_records
from vista.engine.forecast import fitted
from vista.engine.forecast.need import SMALL, TORCH_START, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.forecast.shared import classes
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


def need(node: Node, shapes: Shapes) -> Need:
    """Of a fitted method: a pass over the split's images up to the highest block, then its time a
    block (`fitting_seconds`). Held: the sampled tokens, and which classes are at each patch, twice.
    What other methods compute is not counted."""
    settings = DirectionSettings.model_validate(node.order["directions"])
    if settings.method not in FITTED:
        return Need(seconds=TORCH_START)
    shape, vision = shapes.llm(node), shapes.features(node)
    images = shapes.rows(one(node, "records"), settings.split)
    if shape is None or vision is None:
        return UNKNOWN
    device, visual = shapes.llm_device(node), vision.patches
    layers = sorted({settings.layer, *settings.further_layers})
    memory = device.memory(fitted.stream_memory(shape, device, layers, settings.batch_size, visual))
    if images is None:
        return Need(SMALL, memory, None, None)
    words = settings.concepts.words
    concepts = len(words) or classes(node)
    at_patches = settings.concepts.kind == "objects"
    tokens = images
    if at_patches:
        tokens = fitted.sampled_tokens(images, visual, settings.patches_per_image)
    fitting = fitted.fitting_seconds(settings.method, shapes.cpu, tokens, shape.d_model, concepts)
    reading = device.seconds(fitted.stream_flops(shape, images * visual, layers))
    held = fitted.fitting_bytes(tokens, shape.d_model, len(layers))
    held += 2.0 * concepts * images * visual * at_patches
    disk = SMALL + 4.0 * len(layers) * concepts * shape.d_model
    return Need(disk, memory, TORCH_START + reading + len(layers) * fitting, held)
