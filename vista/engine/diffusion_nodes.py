"""The artifacts around a text-to-image pipeline: its training, the SAE on its text encoder, and
what is measured by steering it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vista.config.diffusion import AttributeSettings, DiffusionSettings
from vista.config.pipeline import CheckpointPipeline
from vista.engine.node import Node, dump, pick, with_judges
from vista.engine.nodes import Builder
from vista.engine.vision_sae_nodes import VisionSaeNodes, sae_nodes

# The name of the pipeline's text encoder in the table, in the place of a vision SAE's.
METHOD = "text_encoder"


class DiffusionBuilder:
    """Makes the nodes of a run's experiments on a text-to-image pipeline."""

    def __init__(
        self, builder: Builder, settings: DiffusionSettings, discovery: AttributeSettings | None
    ) -> None:
        self.builder, self.settings, self.discovery = builder, settings, discovery
        self.judge = settings.judged_by or next(
            name
            for name, encoder in builder.config.encoders.items()
            if encoder.source.kind != "combined"
        )
        self.data = builder.sets[settings.data]
        source = settings.pipeline.source
        self._model: dict[str, Node] = {}
        self._pipeline = dump(settings.pipeline)
        if not isinstance(source, CheckpointPipeline):
            training = {"recipe": dump(source), "templates": dump(settings.prompts)["templates"]}
            self._model["pipeline"] = Node(
                "train_diffusion", settings.data, training, self.data.inputs
            )
            # Only training depends on the recipe.
            self._pipeline["source"] = {"kind": "standin"}

    def nodes(self) -> Iterator[Node]:
        """Yield the nodes of the metrics."""
        settings = self.settings
        if settings.steering is None and self.discovery is None:
            return
        prompts = self._prompts()
        sae = self._sae(prompts)
        features = self.builder.set_features(self.judge, settings.data)
        inputs = {
            **self._model,
            "prompts": prompts,
            **sae._asdict(),
            "features": features,
            "records": self.data.records,
        }
        if encoder := self.builder.encoders[self.judge]:
            inputs["encoder"] = encoder
        shared = {
            "pipeline": self._pipeline,
            "layer": settings.layer,
            "encoder": features.order["encoder"],
            "attributes": dump(settings)["attributes"],
            "probe": pick(settings, "regularisation", "iterations"),
        }
        for stage, key, part in (
            ("diffusion_steering", "steering", settings.steering),
            ("attribute_discovery", "discovery", self.discovery),
        ):
            if part is not None:
                judge = part.judge if isinstance(part, AttributeSettings) else None
                yield with_judges(
                    stage,
                    settings.data,
                    {**shared, key: dump(part)},
                    inputs,
                    {"judge": judge} if judge else {},
                    modules=features.modules,
                )

    def _prompts(self) -> Node:
        settings = self.settings
        # Stages that read features need their family and block; here those of CLIP's text encoder.
        source: dict[str, Any] = {"kind": "standin", "family": "clip"}
        if isinstance(settings.pipeline.source, CheckpointPipeline):
            path = f"{settings.pipeline.source.path}/{METHOD}"
            source = {"kind": "checkpoint", "family": "clip", "path": path}
        order: dict[str, Any] = {
            "encoder": {"source": source, "layer": settings.layer},
            "pipeline": {key: self._pipeline[key] for key in ("source", "device", "batch_size")},
            "prompts": dump(settings.prompts),
        }
        file = settings.prompts.file
        inputs = {**self._model, "records": self.data.records}
        return Node("prompt_features", settings.data, order, inputs, files=(file,) if file else ())

    def _sae(self, prompts: Node) -> VisionSaeNodes:
        name = f"{self.settings.data}-{METHOD}"
        return sae_nodes(name, self.settings.sae, {"features": prompts, "records": prompts})
