"""The nodes that a config's experiments share: data, models, features, SAEs with their checks and
labels, projectors, latents."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

from vista.config.composed import ComposedData
from vista.config.controls import control_settings
from vista.config.data import (
    AnyData,
    Split,
    annotation_files,
    reader_module,
    records_settings,
)
from vista.config.drawn import DrawnData
from vista.config.encoders import (
    CheckpointEncoder,
    CombinedEncoder,
    OnnxEncoder,
)
from vista.config.language import CheckpointLlm, GgufLlm
from vista.config.projector import (
    SAE_TERM,
    WORDS_TERM,
    OwnProjector,
    PretrainedProjector,
    ProjectorSettings,
    ProjectorSource,
    TrainingStage,
)
from vista.config.run import RunConfig
from vista.config.sae import (
    architecture_modules,
)
from vista.config.sweep import Point
from vista.config.text import CaptionsText, DrawnText, text_files, text_parts
from vista.engine.model_settings import (
    aggregator,
    as_published,
    combined,
    family_module,
    filtered,
    model_settings,
    sae_term,
    without_package,
)
from vista.engine.node import Inputs, Node, checkpoint, dump, pick, point_name
from vista.engine.package_nodes import Packages


@dataclass(frozen=True)
class _Data:
    """One data set: its table of records, and the artifacts that hold its images, by role."""

    records: Node
    images: dict[str, Node]

    @property
    def inputs(self) -> dict[str, Node]:
        return {"records": self.records, **self.images}


class Builder:
    """Makes the shared nodes of one config, each with exactly the settings that its stage reads."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.packages = Packages(config.packages)
        self.data = self._data(config.data)
        self.training = {name: self._data(data) for name, data in config.training.items()}
        sets = config.probing.data if config.probing else {}
        self.sets = {name: self._data(data) for name, data in sets.items()}
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
        layers = [(name, layer) for name, saes in self.saes.items() for layer in saes]
        self.checks = {key: self._on_text("check_sae", *key, "check") for key in layers}
        self.labels = {key: self._label(*key) for key in layers}

    def package(self, name: str) -> Node:
        """Return the node of an entry of `packages`."""
        return self.packages.node(name)

    def _data(self, data: AnyData) -> _Data:
        images = {}
        if isinstance(data, DrawnData):
            name: str = data.objects
            images["world"] = Node("draw_world", name, dump(data))
        elif isinstance(data, ComposedData):
            images["world"] = self._composed(data)
            name = images["world"].name
        else:
            name = _name_of_file(data.kind, next(iter(data.annotation_files()), data.images))
            if data.fetch:
                order = {"files": [dump(file) for file in data.fetch]}
                images["fetched"] = Node("fetch_data", name, order)
        files = () if images.get("world") else tuple(annotation_files(data))
        modules = (reader_module(data.kind),)
        return _Data(Node("records", name, records_settings(data), images, modules, files), images)

    def _composed(self, data: ComposedData) -> Node:
        """Return the node of the scenes, which reads the packages and the user's files."""
        name = _name_of_file("composed", data.cutouts.map)
        order, packages = self.packages.numbered(dump(data))
        # The records' own: the scenes stay when it changes.
        del order["question"]
        return Node("compose_scenes", name, order, packages, files=tuple(annotation_files(data)))

    @cached_property
    def text(self) -> Node:
        """The node of the language corpus."""
        text, inputs = self.config.text, dict[str, Node | tuple[Node, ...]]()
        for part in text_parts(text):
            if isinstance(part, DrawnText):
                assert self.learnt is not None
                inputs |= self.learnt.images
            elif isinstance(part, CaptionsText):
                inputs["records"] = self.data.records
        settings, packages = self.packages.numbered(dump(text))
        files = tuple(text_files(text))
        return Node("text", text.kind, settings, {**inputs, **packages}, files=files)

    def _encoder(self, name: str) -> Node | None:
        source = self.config.encoders[name].source
        if isinstance(source, CombinedEncoder):
            return None
        # Entries that read one model in different ways share its node.
        for other, node in self.encoders.items():
            if as_published(self.config.encoders[other].source) == as_published(source):
                return node
        if isinstance(source, OnnxEncoder):
            own = source.model_copy(update={"random_weights": None})
            return self._imported("import_onnx", name, own)
        if isinstance(source, CheckpointEncoder):
            return checkpoint(name, source)
        assert self.learnt is not None
        return Node(
            "train_encoder", name, dump(source), self.learnt.inputs, family_module(source.family)
        )

    def set_features(self, encoder: str, name: str) -> Node:
        """Return one encoder's features of a further set of images."""
        return self._features(encoder, name, self.sets[name])

    def _features(self, name: str, which: str | None, data: _Data) -> Node:
        """Return one encoder's features of the run's data (`which` None), or of other data."""
        settings = self.config.encoders[name]
        artifact = f"{name}-{which}" if which else name
        if isinstance(settings.source, CombinedEncoder):
            parts = [self._features(part, which, data) for part in settings.source.encoders]
            return combined(artifact, settings.source, parts)
        inputs = data.inputs
        if encoder := self.encoders[name]:
            inputs["encoder"] = encoder
        # The number of jobs is no part of the order: changing it does not change the artifact.
        model = {key: value for key, value in model_settings(settings).items() if key != "jobs"}
        family = family_module(settings.source.family)
        return Node("features", artifact, {"encoder": model}, inputs, family, jobs=settings.jobs)

    def evaluated(self, name: str) -> Node:
        """Return the features that an encoder is evaluated on."""
        node = self.features[name]
        if not self.config.paper_faithful:
            return node
        source = self.config.encoders[name].source
        if isinstance(source, CombinedEncoder):
            parts = [self.evaluated(part) for part in source.encoders]
            return combined(f"{name}-crop", source, parts)
        cropped = {"encoder": {**node.settings["encoder"], "fit": "crop"}}
        return replace(node, name=f"{name}-crop", settings=cropped)

    def with_same_model(self, name: str) -> str:
        """Return the first entry of `llms` with the model of entry `name`: what reads a language
        model without its SAEs is one artifact for all dictionaries of that model."""
        llms = self.config.llms
        return next(other for other in llms if llms[other].model == llms[name].model)

    def _llm(self, name: str) -> Node | None:
        name = self.with_same_model(name)
        source = self.config.llms[name].model.source
        if isinstance(source, GgufLlm):
            return self._imported("import_gguf", name, source)
        if isinstance(source, CheckpointLlm):
            return checkpoint(name, source)
        return Node("train_llm", name, dump(source), {"text": self.text})

    def _imported(self, stage: str, name: str, source: OnnxEncoder | GgufLlm) -> Node:
        """Return the node that converts a model in a file of another program."""
        order = without_package(dump(source))
        if source.package is None:
            return Node(stage, name, order, files=(source.file,))
        return Node(stage, name, order, {"package": self.package(source.package)})

    def read(self, name: str) -> tuple[dict[str, Any], dict[str, Node]]:
        """Return the settings and the input of a stage that shows a language model images.

        The stage also reads the files of `template_files`.
        """
        node = self.llms[name]
        return {"llm": model_settings(self.config.llms[name].model)}, {"llm": node} if node else {}

    def template_files(self, name: str) -> tuple[str, ...]:
        """Return the user's file that prompts of a language model are formatted by, if any."""
        return self.config.llms[name].model.template_files

    def read_text(self, name: str) -> tuple[dict[str, Any], dict[str, Node]]:
        """Return the settings and the input of a stage that runs a language model on text alone.

        It writes no prompt, so it does not depend on how prompts are formatted.
        """
        settings, inputs = self.read(name)
        model = {key: v for key, v in settings["llm"].items() if key not in ("template", "system")}
        return {"llm": model}, inputs

    def _cached(self, name: str) -> dict[str, Node]:
        """Return the cached stream of text of one language model, if its SAEs are to read it."""
        saes = self.config.llms[name].saes
        if saes.cache_text is None:
            return {}
        settings, inputs = self.read_text(name)
        settings |= {"cache": dump(saes.cache_text), "layers": sorted(saes.layers)}
        artifact = self.with_same_model(name)
        return {"cache": Node("cache_text", artifact, settings, {**inputs, "text": self.text})}

    def _saes(self, name: str) -> dict[int, Node]:
        return {layer: self._sae(name, layer) for layer in self.config.llms[name].saes.layers}

    def _sae(self, llm: str, layer: int) -> Node:
        entry, name = self.config.llms[llm].saes, f"{llm}-l{layer}"
        inputs: dict[str, Node] = {}
        if entry.train:
            settings, model = self.read_text(llm)
            settings |= {"sae": filtered(entry.train, entry.tokens), "layer": layer}
            modules = architecture_modules(entry.train.architecture)
            read = {**model, "text": self.text, **self._cached(llm)}
            inputs["train_sae"] = Node("train_sae", name, settings, read, modules)
            source = {}
        else:
            pretrained = entry.source(layer)
            # The architecture is known when the SAE is imported: all of them count.
            modules, source = architecture_modules(), dump(pretrained)
            if pretrained.release is not None and pretrained.path is None:
                fetched = pick(pretrained, "release", "sae_id", "revision")
                inputs["fetched"] = Node("fetch_sae", name, fetched)
        order = {"sae": source, "layer": layer, "name": name}
        return Node("import_sae", name, order, inputs, modules)

    def _on_text(self, stage: str, name: str, layer: int, key: str) -> Node:
        settings, inputs = self.read_text(name)
        tokens = self.config.llms[name].saes.tokens
        settings[key] = filtered(getattr(self.config, stage), tokens)
        inputs |= {"sae": self.saes[name][layer], "text": self.text, **self._cached(name)}
        return Node(stage, f"{name}-l{layer}", settings, inputs)

    def _label(self, name: str, layer: int) -> Node:
        entry = self.config.llms[name].saes.labels
        if entry is None:
            return self._on_text("label_latents", name, layer, "labels")
        source, artifact = entry.for_layer(layer), f"{name}-l{layer}"
        inputs = {"sae": self.saes[name][layer]}
        if source.path is None:
            inputs["export"] = Node("fetch_labels", artifact, pick(source, "model", "source"))
        return Node("import_labels", artifact, {"labels": dump(source), "layer": layer}, inputs)

    def gated(self, llm: str, layers: Sequence[int]) -> dict[str, tuple[Node, ...]]:
        """Return SAEs with their checks: jobs that read an SAE wait until its check has passed."""
        return {
            "saes": tuple(self.saes[llm][layer] for layer in layers),
            "checks": tuple(self.checks[llm, layer] for layer in layers),
        }

    def projector(self, point: Point, source: ProjectorSource) -> list[Node]:
        """Return the training stages of one point's projector; the last is the one that is used.

        Without the SAE term they depend on no SAE, unless they measure its error. A stage is named
        by the largest weight so far, so points share their stages without the term, as entries of
        `llms` do that read one model by several SAEs.
        """
        recipe = self.config.recipe_of(source)
        if recipe is None:
            assert isinstance(source, PretrainedProjector | OwnProjector)
            settings, inputs = self.read_text(point.llm)
            settings["projector"] = dump(source)
            inputs["features"] = self.features[point.encoder]
            files = (source.pretrained,) if isinstance(source, PretrainedProjector) else ()
            return [Node("import_projector", point_name(point), settings, inputs, files=files)]
        stages: list[Node] = []
        weight = 0.0
        for number, stage in enumerate(recipe.stages, start=1):
            last = number == len(recipe.stages)
            weight = max(weight, point.sae_weight * stage.sae_factor)
            # Without a term there is nothing that a control could put in its place.
            control = point.control if weight > 0 else None
            measured = any(done.measure_every for done in recipe.stages[:number])
            llm = point.llm if weight > 0 or measured else self.with_same_model(point.llm)
            reached = point._replace(sae_weight=weight, control=control, llm=llm)
            named = point._replace(llm=llm) if last else reached
            name = point_name(named) if last else f"{point_name(reached)}-stage{number}"
            start = stages[-1] if stages else None
            stages.append(self._train(point, recipe, stage, name, start))
        return stages

    def suggestion(self, encoder: str, llm: str) -> Node:
        """Return the short runs that suggest how projectors from `encoder` to `llm` are trained:
        in their first stage."""
        settings, inputs = self.read(llm)
        recipe = self.config.projector
        first = recipe.stages[0]
        unread = {"data", "lr", "steps", "epochs", "measure_every", "sae_factor", "sae_warmup"}
        settings |= {
            "training": first.model_dump(mode="json", exclude=unread),
            "kind": recipe.kind,
            **aggregator(recipe),
            "sae_dtype": recipe.sae_dtype,
            "sae_term": dump(recipe.sae_term),
            "suggest": dump(self.config.suggest) if self.config.suggest else {},
        }
        data, features = self.data, self.features[encoder]
        if first.data:
            data = self.training[first.data]
            features = self.training_features[encoder, first.data]
        layers = recipe.layers or self.config.llms[llm].saes.layers
        gated: Inputs = {
            "features": features,
            "records": data.records,
            **inputs,
            **self.gated(llm, layers),
        }
        files = self.template_files(llm)
        return Node("suggest", f"{encoder}-{llm}", settings, gated, (SAE_TERM,), files)

    def _train(
        self,
        point: Point,
        recipe: ProjectorSettings,
        stage: TrainingStage,
        name: str,
        start: Node | None,
    ) -> Node:
        settings, inputs = self.read(point.llm)
        weight = point.sae_weight * stage.sae_factor
        unread = {"data", "sae_factor", *(("sae_warmup",) if weight == 0 else ())}
        settings |= {
            "training": stage.model_dump(mode="json", exclude=unread),
            "sae_weight": weight,
            "seed": point.seed,
        }
        data = self.training[stage.data] if stage.data else self.data
        features = self.features[point.encoder]
        if stage.data:
            features = self.training_features[point.encoder, stage.data]
        models: dict[str, Node] = {"features": features, "records": data.records, **inputs}
        if start is None:
            settings["projector"] = pick(recipe, "kind", "init_scale") | aggregator(recipe)
        else:
            models["start"] = start
        layers = recipe.layers or self.config.llms[point.llm].saes.layers
        if weight == 0 and stage.measure_every is None:
            layers = ()
        if layers:
            settings |= sae_term(recipe, point.control if weight > 0 else None)
        gated: Inputs = {**models, **self.gated(point.llm, layers)}
        if head_weight := recipe.head_weight():
            settings["words_weight"] = head_weight
        modules = (*((SAE_TERM,) if layers else ()), *((WORDS_TERM,) if head_weight else ()))
        files = self.template_files(point.llm)
        return Node("train_projector", name, settings, gated, modules, files)

    def latents(self, point: Point, projector: Node, split: Split | None = None) -> Node:
        """Return the latents of one point, of the judged images or of another split. Those of a
        control that changes only what the SAEs read are scaled by the latents of its point."""
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
        if point.control and control_settings(point.control).reach == "latents":
            settings["text_scale"] = True
            inputs["unscaled"] = self.latents(point._replace(control=None), projector, split)
        name = f"{point_name(point)}-{split}" if split else point_name(point)
        files = self.template_files(point.llm)
        return Node("latents", name, settings, {**inputs, **gated}, files=files)

    def labels_of(self, llm: str) -> tuple[Node, ...]:
        """Return the labels of every layer of one language model."""
        return tuple(node for (name, _), node in self.labels.items() if name == llm)


def _name_of_file(kind: str, file: str) -> str:
    """Return a readable name of data: its kind and its first file."""
    stem = PurePosixPath(file).stem or "images"
    return f"{kind}-{re.sub(r'[^A-Za-z0-9_.]+', '_', stem)}"
