"""The artifacts of the second paper's experiments: a metric for each encoder and vision SAE, and
for each point of the sweep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vista.config.probing import OntologySettings, ProbingSettings
from vista.config.probing_checks import judge_of
from vista.config.sweep import Point
from vista.engine.diffusion_nodes import METHOD, DiffusionBuilder
from vista.engine.node import Node, dump, point_name, with_judge, with_judges
from vista.engine.nodes import Builder
from vista.engine.vision_sae_nodes import vision_sae_nodes


class ProbingBuilder:
    """Makes the nodes of a run's probing experiments."""

    def __init__(self, builder: Builder, settings: ProbingSettings) -> None:
        self.builder, self.settings = builder, settings

    def of_saes(self) -> Iterator[tuple[str, str, Node]]:
        """Yield encoder, vision SAE and metric, its gate first, for each encoder and vision SAE."""
        pairs, own = self._pairs(self.settings), self.settings.ontology
        named = self._pairs(own) if own else []
        for encoder, name in dict.fromkeys((*pairs, *named)):
            metrics = [
                node
                for node in self._of_sae(encoder, name)
                if (encoder, name) in (named if node.stage == "ontology" else pairs)
            ]
            if metrics:
                yield encoder, name, vision_sae_nodes(self.builder, encoder, name).check
            for node in metrics:
                yield encoder, name, node

    def _pairs(self, settings: ProbingSettings | OntologySettings) -> list[tuple[str, str]]:
        """The encoders that an experiment names, each with the vision SAEs that it names."""
        config = self.builder.config
        encoders = settings.encoders or self.settings.encoders or config.encoders
        saes = settings.vision_saes or self.settings.vision_saes or config.vision_saes
        return [(encoder, name) for encoder in encoders for name in saes]

    def _of_sae(self, encoder: str, name: str) -> Iterator[Node]:
        builder, settings, where = self.builder, self.settings, f"{encoder}-{name}"
        nodes = vision_sae_nodes(builder, encoder, name)
        gated = {"sae": nodes.sae, "check": nodes.check}
        read = {"features": builder.features[encoder], "records": builder.data.records, **gated}
        on = {"sae": {"device": builder.config.vision_saes[name].train.device}}
        mono = settings.monosemanticity
        if mono is not None and (other := judge_of(mono, builder.config.encoders, encoder)):
            inputs = {**read, **builder.data.images, "labels": nodes.labels}
            inputs["other"] = builder.features[other]
            yield Node("monosemanticity", where, _without(mono, "judged_by") | on, inputs)
        if (detection := settings.ood_detection) is not None:
            own, sets = dump(detection) | on, (*detection.near, *detection.far)
            yield self._on_sets("ood_detection", where, encoder, own, read, sets)
        if (shifts := settings.ood_generalization) is not None:
            own = dump(shifts) | on
            yield self._on_sets("ood_generalization", where, encoder, own, read, shifts.shifts)
        if (ontology := settings.ontology) is not None:
            files = _wordnet_files(ontology.wordnet)
            inputs = {**read, "labels": nodes.labels}
            own = _without(ontology, "encoders", "vision_saes") | on
            yield Node("ontology", where, own, inputs, files=files)
        if (found := settings.image_attributes) is not None:
            seen = {**read, **(builder.data.images if found.judge else {})}
            judges = {"judge": found.judge} if found.judge else {}
            yield with_judges("image_attributes", where, dump(found) | on, seen, judges)

    def _on_sets(
        self,
        stage: str,
        where: str,
        encoder: str,
        own: dict[str, Any],
        read: dict[str, Node],
        sets: tuple[str, ...],
    ) -> Node:
        """A metric that reads further image sets: their features and records, in this order."""
        inputs: dict[str, Any] = {
            **read,
            "set_features": tuple(self.builder.set_features(encoder, name) for name in sets),
            "set_records": tuple(self.builder.sets[name].records for name in sets),
        }
        return Node(stage, where, own, inputs)

    def of_pipeline(self) -> Iterator[tuple[str, str, Node]]:
        """Yield the encoder that judges, whose SAE it is, and metric, of the text-to-image
        pipeline."""
        if self.settings.diffusion is not None:
            diffusion = DiffusionBuilder(
                self.builder, self.settings.diffusion, self.settings.attributes
            )
            for node in diffusion.nodes():
                yield diffusion.judge, METHOD, node

    def of_point(self, point: Point, projector: Node, latents: Node) -> Iterator[Node]:
        """Yield the metrics of one point of the sweep."""
        builder, name = self.builder, point_name(point)
        features = builder.evaluated(point.encoder)
        read: dict[str, Any] = {"features": features, "records": builder.data.records}
        own, model = builder.read(point.llm)
        if (shared := self.settings.shared_latents) is not None:
            inputs = {**read, **model, "latents": latents}
            # Of the model the tokenizer alone is read.
            tokenizer = {"source": own["llm"]["source"]}
            settings = {"llm": tokenizer, "shared_latents": dump(shared)}
            yield Node("shared_latents", name, settings, inputs)
        if (lens := self.settings.logit_lens) is not None:
            inputs = {**read, **model, "projector": projector}
            split = builder.config.judged_split(lens.split)
            own["logit_lens"] = dump(lens) | {"split": split}
            own["layers"] = sorted(builder.config.llms[point.llm].saes.layers)
            yield with_judge("logit_lens", name, own, inputs, lens.judge)


def _without(settings: Any, *keys: str) -> dict[str, Any]:
    return {name: value for name, value in dump(settings).items() if name not in keys}


def _wordnet_files(folder: str | None) -> tuple[str, ...]:
    return () if folder is None else (f"{folder}/data.noun", f"{folder}/index.noun")
