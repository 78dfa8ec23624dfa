"""Stage: make the visual tokens of a control."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import partial
from typing import Any

from vista.config.base import Settings
from vista.config.controls import control_module
from vista.config.language import LanguageSettings
from vista.data.records import read_records
from vista.engine.artifacts import Artifact
from vista.engine.forecast import formulas
from vista.engine.forecast.need import TORCH_START, Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.job import StageJob, stage
from vista.engine.node import Node
from vista.inputs.latents import read_geometry
from vista.store.features import FeatureReader


class ControlTokensOrder(Settings):
    """The language model, and the control.

    Attributes:
        control: Its name.
        settings: Its settings.
        splits: Splits that are evaluated.
        seed: Seed of the point.
    """

    llm: LanguageSettings
    control: str
    settings: dict[str, Any]
    splits: tuple[str, ...]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Images by their features, the language model, the projector that the control reads, and that
    of the weight it is compared with."""

    features: Artifact
    records: Artifact
    llm: Artifact | None = None
    projector: Artifact | None = None
    reference: Artifact | None = None


@stage(ControlTokensOrder, Inputs)
def run(job: StageJob[ControlTokensOrder, Inputs]) -> None:
    """Read features, records, LLM and projectors; write control.json, and projector.safetensors or
    control.parquet or both."""
    import torch

    from vista.controls.sources import Sources
    from vista.inputs.models import llm_width, load_llm
    from vista.projector.control_tokens import save_control
    from vista.projector.module import load_projector

    torch.set_num_threads(job.threads)
    order, inputs = job.settings, job.inputs
    records = read_records(inputs.records.file("records.parquet"))
    reader = FeatureReader(inputs.features.store("features.zarr"))
    d_model = llm_width(order.llm, inputs.llm)
    projectors = []
    for artifact in (inputs.projector, inputs.reference):
        module = None
        if artifact is not None:
            artifact.verify()
            module = load_projector(artifact.path, d_vision=reader.shape[-1], d_model=d_model)
        projectors.append(module)
    sources = Sources(
        trained=projectors[0],
        compared=projectors[1],
        features=reader,
        image_of=records.feature_rows()[1],
        records=records,
        load_llm=partial(load_llm, order.llm, inputs.llm),
        placing=read_geometry(inputs.features),
        splits=order.splits,
        seed=order.seed,
    )
    # By name, so that a control depends on its own code alone: the node names the module.
    kind = importlib.import_module(control_module(order.control))
    tokens = kind.make(sources, kind.Settings.model_validate(order.settings))
    save_control(job.work, order.control, tokens, records, sources.evaluated())


def need(node: Node, shapes: Shapes) -> Need:
    """A projector; visual tokens of some hundred images."""
    shape, vision = shapes.llm(node), shapes.features(node)
    if shape is None or vision is None:
        return Need(None, None, TORCH_START)
    size = formulas.projector_parameters("linear", vision.d_vision, shape.d_model)
    return Need(4 * size, shapes.llm_device(node).memory(shape.parameters * 4), TORCH_START + 1)
