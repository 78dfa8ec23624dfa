"""The artifacts that a config's experiments share, and what each is made from: data, models,
features, SAEs with their gates and labels, projectors, latents."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from vista.config.data import (
    CaptionsText,
    DrawnText,
    FileData,
    Split,
    annotation_files,
    reader_module,
    records_settings,
)
from vista.config.drawn import DrawnData
from vista.config.encoders import CombinedEncoder, EncoderSettings
from vista.config.language import LanguageSettings
from vista.config.projector import SAE_TERM, PretrainedProjector, TrainingStage
from vista.config.run import RunConfig
from vista.config.sae import architecture_modules
from vista.config.sweep import Point
from vista.engine.node import Inputs, Node, checkpoint, dump, pick, point_name


@dataclass(frozen=True)
class _Data:
    """One data set: its table of records, and the artifacts that its images lie in, by role."""

    records: Node
    images: dict[str, Node]

    @property
    def inputs(self) -> dict[str, Node]:
        return {"records": self.records, **self.images}


class Builder:
    """Makes the shared nodes of one config. A node gets exactly what its stage reads."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.data = self._data(config.data)
        self.training = {name: self._data(each) for name, each in config.training.items()}
        self.sets = (
            {name: self._data(each) for name, each in config.probing.data.items()}
            if config.probing
            else {}
        )
        self.learnt = self._data(config.world) if config.world else None
        self.encoders: dict[str, Node | None] = {}
        for name in config.encoders:
            self.encoders[name] = self._encoder(name)
        self.features = {name: self._features(name, None, self.data) for name in config.encoders}
        self.training_features = {
            (name, stage.data): self._features(name, stage.data, self.training[stage.data])
            for name in config.encoders
            for stage in config.projector.stages
            if stage.data
        }
        self.llms = {name: self._llm(name) for name in config.llms}
        self.saes = {name: self._saes(name) for name in config.llms}
        self.checks = {
            (name, layer): self._check(name, layer)
            for name, entry in config.llms.items()
            for layer in entry.saes.layers
        }
        self.labels = {
            (name, layer): self._label(name, layer)
            for name, entry in config.llms.items()
            for layer in entry.saes.layers
        }

    def _data(self, data: Any) -> _Data:
        settings = records_settings(data)
        if isinstance(data, DrawnData):
            images = {"world": Node("draw_world", data.objects, dump(data))}
            modules = (reader_module(data.kind),)
            return _Data(Node("records", data.objects, settings, dict(images), modules), images)
        images, name = {}, _data_name(data)
        if data.fetch:
            files = [dump(each) for each in data.fetch]
            images = {"fetched": Node("fetch_data", name, {"files": files})}
        files_read = tuple(annotation_files(data))
        modules = (reader_module(data.kind),)
        records = Node("records", name, settings, dict(images), modules, files_read)
        return _Data(records, images)

    @cached_property
    def text(self) -> Node:
        """What makes the language corpus."""
        text = self.config.text
        if isinstance(text, DrawnText):
            assert self.learnt is not None
            return Node("text", "drawn", dump(text), dict(self.learnt.images))
        if isinstance(text, CaptionsText):
            return Node("text", "captions", dump(text), {"records": self.data.records})
        return Node("text", text.kind, dump(text), files=tuple(annotation_files(text)))

    def _encoder(self, name: str) -> Node | None:
        source = self.config.encoders[name].source
        if isinstance(source, CombinedEncoder):
            return None
        # Two ways to read one model are no two models.
        for other, made in self.encoders.items():
            if self.config.encoders[other].source == source:
                return made
        if source.kind != "standin":
            return checkpoint(name, source)
        assert self.learnt is not None
        return Node("train_encoder", name, dump(source), self.learnt.inputs, _family(source.family))

    def set_features(self, encoder: str, name: str) -> Node:
        """Return one encoder's features of a set of images that it is probed with."""
        return self._features(encoder, name, self.sets[name])

    def _features(self, name: str, which: str | None, data: _Data) -> Node:
        """Return one encoder's features of the run's data (`which` None), or of other data."""
        settings = self.config.encoders[name]
        where = f"{name}-{which}" if which else name
        if isinstance(settings.source, CombinedEncoder):
            parts = [self._features(part, which, data) for part in settings.source.encoders]
            return _combined(where, settings.source, parts)
        inputs = data.inputs
        encoder = self.encoders[name]
        if encoder:
            inputs["encoder"] = encoder
        # A job is not told of the others: another number of them would make it another order.
        own = {"encoder": {key: value for key, value in _model(settings).items() if key != "jobs"}}
        family = _family(settings.source.family)
        return Node("features", where, own, inputs, family, jobs=settings.jobs)

    def evaluated(self, name: str) -> Node:
        """Return the features that an encoder is judged by."""
        node = self.features[name]
        if not self.config.paper_faithful:
            return node
        source = self.config.encoders[name].source
        if isinstance(source, CombinedEncoder):
            parts = [self.evaluated(part) for part in source.encoders]
            return _combined(f"{name}-crop", source, parts)
        own = {"encoder": {**node.settings["encoder"], "fit": "crop"}}
        return replace(node, name=f"{name}-crop", settings=own)

    def _llm(self, name: str) -> Node | None:
        source = self.config.llms[name].model.source
        if source.kind != "standin":
            return checkpoint(name, source)
        return Node("train_llm", name, dump(source), {"text": self.text})

    def read(self, name: str) -> tuple[dict[str, Any], dict[str, Node]]:
        """Return the settings and the input of a stage that runs a language model."""
        node = self.llms[name]
        return {"llm": _model(self.config.llms[name].model)}, {"llm": node} if node else {}

    def _saes(self, name: str) -> dict[int, Node]:
        entry = self.config.llms[name].saes
        saes = {}
        for layer in entry.layers:
            where = f"{name}-l{layer}"
            if entry.train:
                settings, inputs = self.read(name)
                settings |= {"sae": dump(entry.train), "layer": layer}
                modules = architecture_modules(entry.train.architecture)
                read = {**inputs, "text": self.text}
                trained = Node("train_sae", where, settings, read, modules)
                own = {"sae": {}, "layer": layer, "name": where}
                saes[layer] = Node("import_sae", where, own, {"train_sae": trained}, modules)
                continue
            source = entry.source(layer)
            own = {"sae": dump(source), "layer": layer, "name": where}
            fetched = {}
            if source.release is not None and source.path is None:
                order = pick(source, "release", "sae_id", "revision")
                fetched = {"fetched": Node("fetch_sae", where, order)}
            # What it is, its own config says.
            saes[layer] = Node("import_sae", where, own, fetched, architecture_modules())
        return saes

    def _on_text(self, stage: str, name: str, layer: int, key: str) -> Node:
        settings, inputs = self.read(name)
        settings[key] = dump(getattr(self.config, stage))
        inputs |= {"sae": self.saes[name][layer], "text": self.text}
        return Node(stage, f"{name}-l{layer}", settings, inputs)

    def _check(self, name: str, layer: int) -> Node:
        return self._on_text("check_sae", name, layer, "check")

    def _label(self, name: str, layer: int) -> Node:
        entry = self.config.llms[name].saes.labels
        if entry is None:
            return self._on_text("label_latents", name, layer, "labels")
        source, where = entry.for_layer(layer), f"{name}-l{layer}"
        inputs = {"sae": self.saes[name][layer]}
        if source.path is None:
            inputs["export"] = Node("fetch_labels", where, pick(source, "model", "source"))
        return Node("import_labels", where, {"labels": dump(source), "layer": layer}, inputs)

    def gated(self, llm: str, layers: Sequence[int]) -> dict[str, tuple[Node, ...]]:
        """Return SAEs with their checks: what reads an SAE waits until its check has passed."""
        return {
            "saes": tuple(self.saes[llm][layer] for layer in layers),
            "checks": tuple(self.checks[llm, layer] for layer in layers),
        }

    def projector(self, point: Point, pretrained: PretrainedProjector | None) -> list[Node]:
        """Return the stages of one point's projector; the last is the one that is used.

        Without the SAE term they depend on no SAE.
        """
        if pretrained is not None:
            settings, inputs = self.read(point.llm)
            settings["projector"] = dump(pretrained)
            inputs["features"] = self.features[point.encoder]
            files = (pretrained.pretrained,)
            return [Node("import_projector", point_name(point), settings, inputs, files=files)]
        stages: list[Node] = []
        for number, stage in enumerate(self.config.projector.stages, start=1):
            last = number == len(self.config.projector.stages)
            name = point_name(point) if last else f"{point_name(point)}-stage{number}"
            stages.append(self._train(point, stage, name, stages[-1] if stages else None))
        return stages

    def _train(self, point: Point, stage: TrainingStage, name: str, start: Node | None) -> Node:
        settings, inputs = self.read(point.llm)
        recipe = self.config.projector
        settings |= {
            "training": stage.model_dump(mode="json", exclude={"data"}),
            "sae_weight": point.sae_weight,
            "seed": point.seed,
        }
        data = self.training[stage.data] if stage.data else self.data
        features = self.features[point.encoder]
        if stage.data:
            features = self.training_features[point.encoder, stage.data]
        models: dict[str, Node] = {"features": features, "records": data.records, **inputs}
        if start is None:
            settings["projector"] = pick(recipe, "kind", "init_scale")
        else:
            models["start"] = start
        every = self.config.llms[point.llm].saes.layers
        layers = () if point.sae_weight == 0 else recipe.layers or every
        if layers:
            settings["sae_dtype"] = recipe.sae_dtype
        gated: Inputs = {**models, **self.gated(point.llm, layers)}
        return Node("train_projector", name, settings, gated, (SAE_TERM,) if layers else ())

    def latents(self, point: Point, projector: Node, split: Split | None = None) -> Node:
        """Return the latents of one point, at every layer that has an SAE; of the judged images,
        or of another split."""
        settings, inputs = self.read(point.llm)
        latents = self.config.latents
        judged = self.config.judged_split(latents.split)
        settings["latents"] = dump(latents) | {"split": split or judged}
        inputs |= {
            "features": self.evaluated(point.encoder),
            "records": self.data.records,
            "projector": projector,
        }
        layers = self.config.llms[point.llm].saes.layers
        gated = self.gated(point.llm, layers)
        name = f"{point_name(point)}-{split}" if split else point_name(point)
        return Node("latents", name, settings, {**inputs, **gated})

    def labels_of(self, llm: str) -> tuple[Node, ...]:
        """Return the labels of every layer of one language model."""
        return tuple(node for (name, _), node in self.labels.items() if name == llm)


def _data_name(data: FileData) -> str:
    """A readable name of some data: its kind, and the first file that tells it from others."""
    first = next(iter(data.annotation_files()), data.images)
    stem = PurePosixPath(first).stem or "images"
    return f"{data.kind}-{re.sub(r'[^A-Za-z0-9_.]+', '_', stem)}"


def _combined(name: str, source: CombinedEncoder, parts: Sequence[Node]) -> Node:
    """Return the features of two encoders together; what they are called has no say."""
    own = {"encoder": {"source": pick(source, "kind", "how")}}
    return Node("combine_features", name, own, {"features": tuple(parts)})


def _family(family: str) -> tuple[str, ...]:
    return (f"vista.encoders.families.{family}",)


def _model(settings: EncoderSettings | LanguageSettings) -> dict[str, Any]:
    """Return a model's settings without a stand-in's training recipe, which its own node has."""
    whole = dump(settings)
    if settings.source.kind == "standin":
        whole["source"] = {"kind": "standin", "family": settings.source.family}
    return whole
