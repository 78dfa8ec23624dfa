"""The plan: a config expanded into the artifacts that it asks for, and what each is made from.

An artifact's id is a hash over its stage, exactly the settings that the stage depends on, and the
ids of its inputs. So two configs that share a stage share its artifact, and turning a setting
back finds the old one. Pure and fast: every cluster job parses the workflow again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from vista.artifacts import MANIFEST, canonical_json, digest_text
from vista.code import code_digest
from vista.config.data import DrawnData, DrawnText, annotation_files, records_settings
from vista.config.encoders import EncoderSettings
from vista.config.language import LanguageSettings
from vista.config.run import Point, RunConfig, load_config, parse_config
from vista.errors import UserError

Inputs = Mapping[str, "Node | tuple[Node, ...]"]


@dataclass(frozen=True, eq=False)
class Node:
    """One artifact to be: its stage, own settings and inputs.

    `modules` are code that the stage loads by name (an encoder family) and that therefore counts
    as its own; `files` are the user's files that it reads.
    """

    stage: str
    name: str
    settings: Mapping[str, Any]
    inputs: Inputs = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @cached_property
    def id(self) -> str:
        inputs = {
            role: [each.id for each in found] if isinstance(found, tuple) else found.id
            for role, found in self.inputs.items()
        }
        return digest_text(canonical_json([self.stage, self.settings, inputs]))[:10]

    @cached_property
    def folder(self) -> str:
        return f"{self.name}-{self.id}"

    @property
    def path(self) -> str:
        """The artifact's folder below the results folder."""
        return f"{self.stage}/{self.folder}"

    def parents(self) -> list[Node]:
        """Return the input nodes, in the order of the roles."""
        return [
            node
            for found in self.inputs.values()
            for node in (found if isinstance(found, tuple) else (found,))
        ]

    @cached_property
    def spec(self) -> str:
        """The job's whole order as canonical JSON: what the rule passes to the stage."""
        inputs = {
            role: [each.path for each in found] if isinstance(found, tuple) else found.path
            for role, found in self.inputs.items()
        }
        return canonical_json(
            {
                "settings": self.settings,
                "inputs": inputs,
                "modules": list(self.modules),
            }
        )


class Plan:
    """All nodes of a config, looked up by (stage, folder) as the workflow's rules do."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.results = config.results
        self.nodes: dict[tuple[str, str], Node] = {}
        for node in _targets(config):
            self._add(node)

    def _add(self, node: Node) -> None:
        key = (node.stage, node.folder)
        if key not in self.nodes:
            for parent in node.parents():
                self._add(parent)
            self.nodes[key] = node

    def manifests(self) -> list[str]:
        """Return the manifest of every artifact that the config asks for."""
        return [self._manifest(node) for node in self.nodes.values()]

    def inputs(self, stage: str, folder: str) -> list[str]:
        """Return the files that a job waits for: its inputs' manifests and the user's files."""
        node = self.nodes[stage, folder]
        return [*map(self._manifest, node.parents()), *node.files]

    def spec(self, stage: str, folder: str) -> str:
        """Return the job's order as canonical JSON."""
        return self.nodes[stage, folder].spec

    def code(self, stage: str, folder: str) -> str:
        """Return the digest of the code that the job runs."""
        return code_digest((f"vista.stages.{stage}", *self.nodes[stage, folder].modules))

    @property
    def report(self) -> str:
        """The manifest of the run's report."""
        return next(self._manifest(n) for n in self.nodes.values() if n.stage == "report")

    def _manifest(self, node: Node) -> str:
        return f"{self.results}/{node.path}/{MANIFEST}"


def load_plan(config: Path | Mapping[str, Any]) -> Plan:
    """Return the plan of a config file, or of a config already read from one.

    Raises UserError where the config is wrong.
    """
    if isinstance(config, Path):
        return Plan(load_config(config))
    return Plan(parse_config(config))


def workflow_plan(config: Mapping[str, Any], root: Path) -> Plan:
    """Return the plan for the Snakefile: of `--configfile`, else of `root`/config/default.yaml.

    A wrong config ends Snakemake with one sentence, since an exception would show a traceback.
    """
    try:
        return load_plan(config or root / "config" / "default.yaml")
    except UserError as error:
        raise SystemExit(f"vista: {error}") from None


def _targets(config: RunConfig) -> list[Node]:
    """Return the nodes that nothing else leads to: with their inputs they are the whole run."""
    return [_Builder(config).report()]


class _Builder:
    """Makes the nodes of one config. Each method gives a node exactly what its stage reads."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        self.records, self.world = self._data(config.data)
        self.learnt: tuple[Node | None, Node | None] = (None, None)
        if config.world:
            self.learnt = self._data(config.world)
        self.text = self._text()
        self.encoders = {name: self._encoder(name) for name in config.encoders}
        self.features = {name: self._features(name) for name in config.encoders}
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

    def _data(self, data: Any) -> tuple[Node, Node | None]:
        if not isinstance(data, DrawnData):
            settings = records_settings(data)
            return Node("records", data.kind, settings, files=tuple(annotation_files(data))), None
        world = Node("draw_world", data.objects, _dump(data))
        return Node("records", data.objects, records_settings(data), {"world": world}), world

    def _text(self) -> Node:
        text = self.config.text
        if isinstance(text, DrawnText):
            _, world = self.learnt
            assert world is not None
            return Node("text", "drawn", _dump(text), {"world": world})
        return Node("text", text.kind, _dump(text), files=tuple(annotation_files(text)))

    def _images(self, world: Node | None) -> dict[str, Node]:
        return {"world": world} if world else {}

    def _encoder(self, name: str) -> Node | None:
        source = self.config.encoders[name].source
        if source.kind != "standin":
            return None
        records, world = self.learnt
        assert records is not None
        inputs = {"records": records, **self._images(world)}
        return Node("train_encoder", name, _dump(source), inputs, _family(source.family))

    def _features(self, name: str) -> Node:
        settings = self.config.encoders[name]
        encoder = self.encoders[name]
        inputs: dict[str, Node] = {"records": self.records, **self._images(self.world)}
        if encoder:
            inputs["encoder"] = encoder
        own = {"encoder": _model(settings)}
        return Node("features", name, own, inputs, _family(settings.source.family))

    def _llm(self, name: str) -> Node | None:
        source = self.config.llms[name].model.source
        if source.kind != "standin":
            return None
        return Node("train_llm", name, _dump(source), {"text": self.text})

    def _read(self, name: str) -> tuple[dict[str, Any], dict[str, Node]]:
        """Return the settings and the input of a stage that runs a language model."""
        node = self.llms[name]
        return {"llm": _model(self.config.llms[name].model)}, {"llm": node} if node else {}

    def _saes(self, name: str) -> dict[int, Node]:
        entry = self.config.llms[name].saes
        saes = {}
        for layer in entry.layers:
            where = f"{name}-l{layer}"
            if entry.train:
                settings, inputs = self._read(name)
                settings |= {"sae": _dump(entry.train), "layer": layer}
                trained = Node("train_sae", where, settings, {**inputs, "text": self.text})
                own = {"sae": {}, "layer": layer, "name": where}
                saes[layer] = Node("import_sae", where, own, {"train_sae": trained})
            else:
                own = {"sae": _dump(entry.pretrained[layer]), "layer": layer, "name": where}
                saes[layer] = Node("import_sae", where, own)
        return saes

    def _on_text(self, stage: str, name: str, layer: int, key: str) -> Node:
        settings, inputs = self._read(name)
        settings[key] = _dump(getattr(self.config, stage))
        inputs |= {"sae": self.saes[name][layer], "text": self.text}
        return Node(stage, f"{name}-l{layer}", settings, inputs)

    def _check(self, name: str, layer: int) -> Node:
        return self._on_text("check_sae", name, layer, "check")

    def _label(self, name: str, layer: int) -> Node:
        return self._on_text("label_latents", name, layer, "labels")

    def _gated(self, llm: str, layers: Sequence[int]) -> dict[str, tuple[Node, ...]]:
        """Return SAEs with their checks: what reads an SAE waits until its check has passed."""
        return {
            "saes": tuple(self.saes[llm][layer] for layer in layers),
            "checks": tuple(self.checks[llm, layer] for layer in layers),
        }

    def projector(self, point: Point) -> Node:
        """Return the projector of one point; without the SAE term it depends on no SAE."""
        settings, inputs = self._read(point.llm)
        recipe = self.config.projector
        every = self.config.llms[point.llm].saes.layers
        layers = () if point.sae_weight == 0 else recipe.layers or every
        settings |= {
            "projector": recipe.model_dump(mode="json", exclude={"layers"}),
            "sae_weight": point.sae_weight,
            "seed": point.seed,
        }
        models = {"features": self.features[point.encoder], "records": self.records, **inputs}
        return Node(
            "train_projector", _name(point), settings, {**models, **self._gated(point.llm, layers)}
        )

    def latents(self, point: Point, projector: Node) -> Node:
        """Return the latents of one point, at every layer that has an SAE."""
        settings, inputs = self._read(point.llm)
        settings["latents"] = _dump(self.config.latents)
        inputs |= {
            "features": self.features[point.encoder],
            "records": self.records,
            "projector": projector,
        }
        layers = self.config.llms[point.llm].saes.layers
        gated = self._gated(point.llm, layers)
        return Node("latents", _name(point), settings, {**inputs, **gated})

    def report(self) -> Node:
        """Return the report, with every metric of every point behind it."""
        config, metrics = self.config, self.config.metrics
        measured: list[tuple[dict[str, Any], Node]] = []
        nothing = dict.fromkeys(Point._fields)
        if metrics.probe:
            for name, node in self.features.items():
                inputs = {"features": node, "records": self.records}
                probe = Node("probe", name, _dump(metrics.probe), inputs)
                measured.append(({**nothing, "metric": "probe", "encoder": name}, probe))
        if metrics.naming:
            for (llm, layer), labels in self.labels.items():
                inputs = {"labels": labels, "records": self.records}
                naming = Node("naming", f"{llm}-l{layer}", _dump(metrics.naming), inputs)
                measured.append(({**nothing, "metric": "naming", "llm": llm}, naming))
        points = config.points()
        projectors = [self.projector(point) for point in points]
        latents = [self.latents(*pair) for pair in zip(points, projectors, strict=True)]
        for point, projector, latent in zip(points, projectors, latents, strict=True):
            for node in self._metrics(point, projector, latent):
                measured.append(({**point._asdict(), "metric": node.stage}, node))
        inputs_of_report: dict[str, Node | tuple[Node, ...]] = {
            "metrics": tuple(node for _, node in measured),
            "checks": tuple(self.checks.values()),
            "projectors": tuple(projectors),
            "latents": tuple(latents),
            "labels": tuple(self.labels.values()),
            "features": tuple(self.features.values()),
            "records": self.records,
            **self._images(self.world),
        }
        settings = {
            "name": config.name,
            "report": _dump(config.report),
            "points": [entry for entry, _ in measured],
            "checks": [{"llm": llm} for llm, _ in self.checks],
            "curves": [point._asdict() for point in points],
            "latents": [point._asdict() for point in points],
            "labels": [{"llm": llm} for llm, _ in self.labels],
            "features": [{"encoder": name} for name in self.features],
            "images": getattr(config.data, "images", None),
        }
        return Node("report", config.name, settings, inputs_of_report)

    def _metrics(self, point: Point, projector: Node, latents: Node) -> list[Node]:
        metrics, name = self.config.metrics, _name(point)
        features = self.features[point.encoder]
        labels = tuple(node for (llm, _), node in self.labels.items() if llm == point.llm)
        read: Inputs = {"latents": latents, "labels": labels, "records": self.records}
        nodes = []
        if metrics.reconstruction:
            settings = _dump(metrics.reconstruction)
            nodes.append(Node("reconstruction", name, settings, {"latents": latents}))
        if metrics.matching_rate:
            settings = _dump(metrics.matching_rate)
            nodes.append(Node("matching_rate", name, settings, read, _judge(settings)))
        if metrics.localization:
            settings = _dump(metrics.localization)
            pointed: Inputs = {**read, "features": features}
            nodes.append(Node("localization", name, settings, pointed, _judge(settings)))
        if metrics.caption:
            own, inputs = self._read(point.llm)
            own["caption"] = _dump(metrics.caption)
            inputs |= {"projector": projector, "features": features, "records": self.records}
            nodes.append(Node("caption", name, own, inputs, _judge(own["caption"])))
        return nodes


def _name(point: Point) -> str:
    return f"{point.encoder}-{point.llm}-w{point.sae_weight:g}-s{point.seed}"


def _dump(settings: BaseModel) -> dict[str, Any]:
    return settings.model_dump(mode="json")


def _family(family: str) -> tuple[str, ...]:
    return (f"vista.encoders.{family}",)


def _judge(settings: Mapping[str, Any]) -> tuple[str, ...]:
    return (f"vista.judges.{settings['judge']}",)


def _model(settings: EncoderSettings | LanguageSettings) -> dict[str, Any]:
    """Return a model's settings without a stand-in's training recipe, which its own node has."""
    whole = _dump(settings)
    if settings.source.kind == "standin":
        whole["source"] = {"kind": "standin", "family": settings.source.family}
    return whole
