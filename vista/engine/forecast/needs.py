"""The formula of each stage, by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vista.engine.forecast import makers, metrics
from vista.engine.forecast.need import Need
from vista.engine.forecast.shapes import Shapes
from vista.engine.node import Node

Formula = Callable[[Node, Shapes], Need]

# A stage without a formula makes small tables.
FORMULAS: Mapping[str, Formula] = {
    "fetch_model": makers.fetch_model,
    "fetch_sae": makers.fetch_sae,
    "fetch_labels": makers.fetch_labels,
    "fetch_data": makers.fetch_data,
    "draw_world": makers.draw_world,
    "records": makers.records,
    "text": makers.text,
    "train_encoder": makers.train_encoder,
    "train_llm": makers.train_llm,
    "train_sae": makers.train_sae,
    "import_sae": makers.import_sae,
    "check_sae": makers.check_sae,
    "label_latents": makers.label_latents,
    "import_labels": makers.import_labels,
    "features": makers.features,
    "combine_features": makers.combine_features,
    "train_projector": makers.train_projector,
    "import_projector": makers.import_projector,
    "latents": makers.latents,
    "train_vision_sae": makers.train_vision_sae,
    "check_vision_sae": makers.check_vision_sae,
    "label_vision_latents": makers.label_vision_latents,
    "train_diffusion": makers.train_diffusion,
    "prompt_features": makers.prompt_features,
    "report": makers.report,
    "directions": makers.directions,
    "edit_captions": makers.edit_captions,
    "probe": metrics.probe,
    "caption": metrics.caption,
    "monosemanticity": metrics.monosemanticity,
    "ood_detection": metrics.ood_detection,
    "ood_generalization": metrics.ood_generalization,
    "ontology": metrics.ontology,
    "image_attributes": metrics.image_attributes,
    "shared_latents": metrics.shared_latents,
    "logit_lens": metrics.logit_lens,
    "diffusion_steering": metrics.diffusion_steering,
    "attribute_discovery": metrics.attribute_discovery,
}


def node_need(node: Node, shapes: Shapes) -> Need:
    """Return what the jobs of a node take."""
    formula = FORMULAS.get(node.stage)
    return Need() if formula is None else formula(node, shapes)
