"""Nodes of the plan: planned artifacts, each with its id, its folder and the order for its job.

An artifact's id is a hash over its stage, exactly the settings that the stage depends on, and the
ids of its inputs. So two configs that share a stage share its artifact, and resetting a setting
finds the former artifact again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import BaseModel

from vista.config.checkpoint import Checkpoint
from vista.config.judge_base import JudgeSettings
from vista.config.judges import judge_files, judge_module, judge_source
from vista.config.plugins import KINDS, refuse_clash
from vista.config.sweep import Point
from vista.engine.artifacts import canonical_json, digest_text, with_options

Inputs = Mapping[str, "Node | tuple[Node, ...]"]

# Settings of where a job runs and in what portions, by the part of the settings that they stand in.
# They change the last bits at most, so they are no part of an id.
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "encoder": ("device", "batch_size"),
    "llm": ("device", "device_map", "max_memory"),
    "training": ("micro_batch", "checkpoint_every", "processes", "machines"),
    "latents": ("batch_size",),
    "caption": ("batch_size",),
    "spliced_loss": ("batch_size",),
    "grounding_attention": ("batch_size",),
    "logit_lens": ("batch_size",),
    "embedding_lens": ("batch_size",),
    "latent_lens": ("batch_size",),
    "referring_segmentation": ("batch_size",),
    "visual_words": ("batch_size",),
    "pseudo_images": ("batch_size",),
    "edit": ("batch_size",),
    "directions": ("batch_size",),
    "sae": ("device",),
    "steer": ("batch_size",),
    "pipeline": ("device", "batch_size"),
    # Where the files come from, and on which terms; what they are, a checksum says.
    "package": ("bytes", "python", "platform", "path", "state", "terms", "accept_terms"),
}


@dataclass(frozen=True, eq=False)
class Node:
    """A planned artifact.

    Attributes:
        stage: Name of its stage.
        name: Readable part of its folder's name.
        settings: Settings of its stage, without options.
        inputs: Its input nodes by role.
        modules: Modules that the stage loads by name, e.g. an encoder family.
        files: The user's files that the stage reads.
        jobs: Number of jobs that share the work.
        options: Settings named in `OPTIONS`; the constructor takes them out of `settings`.
    """

    stage: str
    name: str
    settings: Mapping[str, Any]
    inputs: Inputs = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    jobs: int = 1
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        options = dict(self.options)
        settings = dict(self.settings)
        for part, keys in OPTIONS.items():
            values = settings.get(part)
            if not isinstance(values, dict):
                continue
            if taken := {key: values[key] for key in keys if key in values}:
                options[part] = taken
                settings[part] = {key: value for key, value in values.items() if key not in taken}
        object.__setattr__(self, "options", options)
        object.__setattr__(self, "settings", settings)

    @property
    def order(self) -> dict[str, Any]:
        """The job's order: settings and options together, as the stage receives them."""
        return with_options(self.settings, self.options)

    @property
    def gpus(self) -> int:
        """The GPUs that the job asks for: one for each process, if a device may be a GPU."""
        wanted = [
            str(part.get("device", "cpu")) if part.get("device_map") is None else "auto"
            for part in self.options.values()
        ]
        processes = int(self.options.get("training", {}).get("processes", 1)) * self.machines
        return processes * any(device != "cpu" for device in wanted)

    @property
    def machines(self) -> int:
        """The machines that the job asks for."""
        return int(self.options.get("training", {}).get("machines", 1))

    @cached_property
    def id(self) -> str:
        inputs = {
            role: [node.id for node in source] if isinstance(source, tuple) else source.id
            for role, source in self.inputs.items()
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
            for source in self.inputs.values()
            for node in (source if isinstance(source, tuple) else (source,))
        ]

    @property
    def input_paths(self) -> dict[str, str | list[str]]:
        """The inputs' folders below the results folder, by role."""
        return {
            role: [node.path for node in source] if isinstance(source, tuple) else source.path
            for role, source in self.inputs.items()
        }

    @cached_property
    def spec(self) -> str:
        """What the rule passes to the job: settings, options, inputs, modules, files as JSON."""
        return canonical_json(
            {
                "settings": self.settings,
                "options": self.options,
                "inputs": self.input_paths,
                "modules": list(self.modules),
                "files": list(self.files),
            }
        )


def point_name(point: Point) -> str:
    """Return the readable name of one point of the sweep."""
    name = f"{point.encoder}-{point.llm}-w{point.sae_weight:g}-s{point.seed}"
    return f"{name}-{point.control}" if point.control else name


def dump(settings: BaseModel) -> dict[str, Any]:
    """Return settings as plain JSON values."""
    return settings.model_dump(mode="json")


def pick(settings: BaseModel, *keys: str) -> dict[str, Any]:
    """Return some of the settings as plain JSON values."""
    return settings.model_dump(mode="json", include=set(keys))


def with_judge(
    stage: str,
    name: str,
    settings: Mapping[str, Any],
    inputs: Inputs,
    judge: str | JudgeSettings,
) -> Node:
    """Return a node whose stage uses a judge, with the judge's code, files and fetched model."""
    return with_judges(stage, name, settings, inputs, {"judge": judge})


def with_judges(
    stage: str,
    name: str,
    settings: Mapping[str, Any],
    inputs: Inputs,
    judges: Mapping[str, str | JudgeSettings],
    files: tuple[str, ...] = (),
    modules: tuple[str, ...] = (),
) -> Node:
    """Return a node whose stage uses judges, if any, named by the role of the judge's model.

    `files` and `modules` are further ones of the node.

    Raises UserError if a plug-in has the name of a judge of this package.
    """
    models: dict[str, Node] = {}
    code: dict[str, None] = dict.fromkeys(modules)
    for role, judge in judges.items():
        source = judge_source(judge)
        if source is not None and source.repo is not None:
            models[role] = fetched_model(source.repo.rpartition("/")[2], source)
        kind = judge if isinstance(judge, str) else judge.kind
        if kind in KINDS.own():
            refuse_clash(KINDS.group, kind)
        code[judge_module(kind)] = None
        files = (*files, *judge_files(judge))
    return Node(stage, name, settings, {**inputs, **models}, tuple(code), files)


def fetched_model(name: str, source: Checkpoint) -> Node:
    """Return the node that fetches a pretrained model from its repository."""
    return Node("fetch_model", name, pick(source, "repo", "revision"))


def checkpoint(name: str, source: Checkpoint) -> Node | None:
    """Return the node that fetches a pretrained model; None if the user has its folder."""
    return None if source.repo is None else fetched_model(name, source)
