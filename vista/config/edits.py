"""Settings of edits: the directions of concepts, and the edits of visual tokens along them.

Presets of the edits hold the published values of removal and replacement (VISTA, arXiv 2605.24946).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Field, field_validator, model_validator

from vista.config.base import Settings, later
from vista.config.data import Split
from vista.config.judges import JudgeChoice
from vista.config.registry import PACKAGE, known_name, names_in

EditTask = Literal["remove", "replace"]
How = Literal["add", "subtract", "ablate", "swap", "clamp", "remove_add"]
Tokens = Literal["object", "all", "active"]
EditControl = Literal["target_only", "random_source", "wrong_concept"]
CONTROLS: tuple[EditControl, ...] = get_args(EditControl)
Pairs = tuple[tuple[str, str], ...]
Blocks = tuple[int, ...]
# Methods whose directions are fitted in the residual stream.
Fitted = Literal["mean_difference", "logistic", "rfm"]
FITTED: tuple[Fitted, ...] = get_args(Fitted)

# Edits that read the activation of the source's latent beside its direction.
READS_LATENT: frozenset[How] = frozenset({"ablate", "swap", "clamp"})
# Edits along the source's direction, in whose place a control may put another one.
HAS_CONTROLS: frozenset[How] = frozenset({"subtract", "remove_add"})
_HOWS: dict[EditTask, tuple[How, ...]] = {
    "remove": ("subtract", "ablate", "clamp"),
    "replace": ("add", "remove_add", "swap", "clamp"),
}

_PUBLISHED_PAIRS = (
    ("cat", "dog"),
    ("dog", "cat"),
    ("pizza", "meat"),
    ("bird", "cat"),
    ("cow", "dog"),
    ("bus", "cow"),
)
_PUBLISHED: dict[str, Any] = {"coefficients": (10.0,), "max_new_tokens": 100}
_REMOVAL = {**_PUBLISHED, "task": "remove", "how": "subtract"}
_REPLACEMENT = {**_PUBLISHED, "task": "replace", "how": "add", "pairs": _PUBLISHED_PAIRS}
# The paper's edits: Gemma 2 after blocks 0 to 2, Llama 3.1 after blocks 0 and 1.
PRESETS: dict[str, dict[str, Any]] = {
    "published_removal": {**_REMOVAL, "blocks": (0, 1, 2)},
    "published_replacement": {**_REPLACEMENT, "blocks": (0, 1, 2)},
    "published_removal_llama": {**_REMOVAL, "blocks": (0, 1)},
    "published_replacement_llama": {**_REPLACEMENT, "blocks": (0, 1)},
}

_METHODS = PACKAGE / "interventions" / "methods"


def method_names() -> list[str]:
    """Return the names of all methods of directions, sorted; a method's name is its file's."""
    return names_in(_METHODS)


def method_module(name: str) -> str:
    """Return the module of a method of directions."""
    return f"vista.interventions.methods.{name}"


def _known_method(name: str) -> str:
    return known_name(name, _METHODS, "method")


def _list_methods(schema: dict[str, Any]) -> None:
    schema["enum"] = method_names()


class ConceptSettings(Settings):
    """The concepts whose directions are found."""

    kind: Literal["objects", "words"] = Field(
        "objects",
        description="objects: classes, present where their boxes are; words (a colour, a place, "
        "many): present in the images whose reference captions say so.",
    )
    words: tuple[str, ...] = Field(
        (), description="The concepts; none with kind objects: every class of the data."
    )

    @field_validator("words", mode="before")
    @classmethod
    def _refuse_text(cls, value: Any) -> Any:
        if isinstance(value, str):
            raise ValueError(f"give a list, e.g. [{value}]")
        return value

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        if self.kind == "words" and not self.words:
            raise ValueError("concepts.words is empty; list the words, or set kind: objects")
        if len(set(self.words)) != len(self.words):
            raise ValueError("concepts.words names a concept twice")
        return self


class DirectionSettings(Settings):
    """How the direction of each concept is found, on a split without reported figures."""

    method: Annotated[str, AfterValidator(_known_method)] = Field(
        "latent",
        json_schema_extra=_list_methods,
        description="latent: text-SAE latent whose label names the concept, best by AUROC; "
        "latent_at: given latents; random_latent: a labelled latent of matched density that is "
        "not one of the concept's; wrong_concept: another concept's latent; random: a random "
        "direction; mean_difference, logistic, rfm (recursive feature machine): fitted in the "
        "residual stream; vision_latent: latent of an SAE on the encoder's features.",
    )
    concepts: ConceptSettings = Field(default_factory=ConceptSettings, description="The concepts.")
    split: Split = Field("validation", description="Images that latents are ranked on.")
    judge: JudgeChoice = Field(
        "whole_word",
        description="Judge of which label (words: and which reference caption) names which "
        "concept: see vista.judges.",
    )
    n_latents: int = Field(
        1, ge=1, description="Latents a concept; their unit decoder rows are summed."
    )
    preset: str | None = Field(
        None, description="latent_at: language model whose published latents are used."
    )
    path: str | None = Field(
        None, description='latent_at: JSON file {"cat": {"layer": 4, "latent": 15456}, ...}.'
    )
    layer: int = Field(
        0,
        ge=0,
        description="mean_difference, logistic, rfm: block after which the stream is read.",
    )
    further_layers: Blocks = later(
        (),
        description="mean_difference, logistic, rfm: further blocks that directions of their own "
        "are fitted after. An edit after one of them adds that block's direction, an edit after "
        "any other block that of `layer`.",
    )
    patches_per_image: int = Field(
        32, ge=1, description="Most patches of an image's objects, and most others, to fit on."
    )
    regularisation: float = Field(
        1.0, gt=0, description="logistic: strength of the L2 penalty (1 / C of scikit-learn)."
    )
    nearest: int = Field(
        10, ge=1, description="random_latent: latents of the nearest density to draw from."
    )
    seed: int = Field(0, ge=0, description="Seed of all draws.")
    batch_size: int = Field(64, ge=1, description="Images a forward pass.")

    @field_validator("further_layers")
    @classmethod
    def _distinct_layers(cls, layers: Blocks) -> Blocks:
        if any(layer < 0 for layer in layers) or len(set(layers)) != len(layers):
            raise ValueError("further_layers must name blocks, 0 or more each, none twice")
        return tuple(sorted(layers))

    @model_validator(mode="after")
    def _further_layers_are_fitted(self) -> Self:
        if self.further_layers and self.method not in FITTED:
            raise ValueError(f"further_layers belongs to methods {', '.join(FITTED)}; remove it")
        if self.layer in self.further_layers:
            raise ValueError(f"further_layers names block {self.layer}, which is `layer`")
        return self

    @model_validator(mode="after")
    def _latents_belong_to_latent_at(self) -> Self:
        sources = [name for name in ("preset", "path") if getattr(self, name) is not None]
        if self.method == "latent_at" and len(sources) != 1:
            raise ValueError("method latent_at needs either preset or path")
        if self.method != "latent_at" and sources:
            raise ValueError(f"{sources[0]} belongs to method latent_at; remove it")
        return self


class EditSettings(Settings):
    """An edit of visual tokens, the images it is made on, and the captions generated after it."""

    preset: str | None = Field(
        None, description="Published edit whose values stand where the config gives none."
    )
    task: EditTask = Field("remove", description="remove the source, or replace it by the target.")
    how: How = Field(
        "subtract",
        description="With s and t the unit directions of source and target, c the coefficient: "
        "subtract -c s; add +c t; remove_add -c s + c t; ablate -c x what the source's latent "
        "writes (1: gone, the SAE's error stays); swap: ablate, and as much along t; clamp: the "
        "latent (remove: source's, replace: target's) as if it fired with c.",
    )
    tokens: tuple[Tokens, ...] = Field(
        ("object",),
        description="Where, each a variant: object: the object's patches; all: every patch; "
        "active: where the source's latent fires in the unedited image.",
    )
    object_by: Literal["box", "mask"] = Field(
        "box", description="Object's patches: touched by its box, or covered by its mask."
    )
    mask_cover: float = Field(
        0.5, gt=0, le=1, description="Share of a patch that a mask must cover to count as object."
    )
    outside: bool = Field(
        True, description="Control: the same edit at as many patches drawn outside every box."
    )
    controls: tuple[EditControl, ...] = later(
        (),
        description="Controls, each the same edits of the same images (patches: the first of "
        "`tokens`) with something else in place of the source's direction. target_only: nothing, "
        "the target is added alone; random_source: a random direction of the same norm, drawn for "
        "each image; wrong_concept: another concept's direction, drawn for each image among those "
        "that are neither in the image nor the target. With how subtract or remove_add.",
    )
    blocks: tuple[Blocks, ...] | None = Field(
        ((0, 1),),
        description="Blocks after which to edit: [0, 1], or several choices [[0], [0, 1]], each a "
        "variant of its own; null: the block that each latent is of. Without effect on "
        "directions in feature space.",
    )
    coefficients: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = Field(
        (0.5, 1.0, 2.0, 4.0), description="Strengths, each a variant of its own."
    )
    split: Split = Field("validation", description="Images that are edited.")
    max_images: int | None = Field(
        None, ge=1, description="Most images, drawn with the seed; null: all that can be edited."
    )
    images: Literal["one_object", "any"] = Field(
        "one_object",
        description="one_object: images with exactly one object, crowds apart; any (sources: "
        "words only): all images, where the object's patches are those of all objects together.",
    )
    sources: Literal["objects", "words"] = Field(
        "objects",
        description="What stands for the source: the class of the image's one object, or one of "
        "the concepts that its reference caption names and whose target it does not, drawn with "
        "the seed.",
    )
    pairs: Pairs | Literal["derangement"] = Field(
        "derangement",
        description="replace: (source, target) pairs, other sources are left out; derangement: "
        "each concept gets another one, drawn with the seed.",
    )
    only: tuple[str, ...] = Field(
        (), description="Sources to take; none: every concept, or every source of `pairs`."
    )
    question: str | None = Field(
        None, description="What is asked; null: the first question of the image's conversation."
    )
    judge: JudgeChoice = Field(
        "lexical", description="Judge of which reference captions name which word: vista.judges."
    )
    max_new_tokens: int = Field(32, ge=1, description="Longest greedy caption, in tokens.")
    max_length: int = Field(1024, ge=1, description="Tokens a sample, visual tokens included.")
    batch_size: int = Field(64, ge=1, description="Captions a forward pass.")
    seed: int = Field(0, ge=0, description="Seed of pairs, of images and of outside patches.")

    @model_validator(mode="before")
    @classmethod
    def _from_preset(cls, value: Any) -> Any:
        if not isinstance(value, dict) or not isinstance(value.get("preset"), str):
            return value
        if value["preset"] not in PRESETS:
            raise ValueError(f"preset {value['preset']!r} is none of {', '.join(PRESETS)}")
        return {**PRESETS[value["preset"]], **value}

    @field_validator(
        "blocks", mode="before", json_schema_input_type=Blocks | tuple[Blocks, ...] | None
    )
    @classmethod
    def _list_choices(cls, value: Any) -> Any:
        if value is None:
            return None
        choices = value if isinstance(value, list | tuple) else ()
        if choices and not any(isinstance(choice, list | tuple) for choice in choices):
            choices = (choices,)
        if not all(isinstance(choice, list | tuple) for choice in choices) or not all(
            type(block) is int for choice in choices for block in choice
        ):
            choices = ()
        if not choices:
            raise ValueError("give blocks as [0, 1], or as several choices [[0], [0, 1]], or null")
        return choices

    @field_validator("blocks")
    @classmethod
    def _sort_blocks(cls, choices: tuple[Blocks, ...] | None) -> tuple[Blocks, ...] | None:
        if choices is None:
            return None
        if any(not choice or min(choice) < 0 for choice in choices):
            raise ValueError(
                "blocks must name blocks, 0 or more each; null edits at each latent's own block"
            )
        ordered = tuple(tuple(sorted(set(choice))) for choice in choices)
        if len(set(ordered)) != len(ordered):
            raise ValueError("blocks names a choice twice")
        return ordered

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.how not in _HOWS[self.task]:
            known = ", ".join(_HOWS[self.task])
            raise ValueError(f"how {self.how!r} does not {self.task}; choose one of {known}")
        for name in ("tokens", "coefficients"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{name} must name one value or more, none twice")
        self._check_controls()
        if self.pairs != "derangement" and len({s for s, _ in self.pairs}) != len(self.pairs):
            raise ValueError("pairs gives a source two targets")
        if self.images == "any" and self.sources != "words":
            raise ValueError("images: any needs sources: words; the object is not one of several")
        return self

    def _check_controls(self) -> None:
        if len(set(self.controls)) != len(self.controls):
            raise ValueError("controls names a control twice")
        if self.controls and self.how not in HAS_CONTROLS:
            raise ValueError(
                f"controls replace the source's direction, which how {self.how!r} does not add or "
                f"subtract; choose how {' or '.join(sorted(HAS_CONTROLS))}, or set controls to []"
            )
        if self.task == "remove" and "target_only" in self.controls:
            raise ValueError("controls names target_only, but a removal has no target; remove it")
