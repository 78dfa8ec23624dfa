"""A run's whole config: data, models, sweep, metrics. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from vista.config.base import Settings, later
from vista.config.control_base import ControlSettings, FittedControl
from vista.config.data import DataSettings, Split, refuse_empty_split
from vista.config.drawn import DrawnData
from vista.config.encoders import EncoderSettings, refuse_large_pools, refuse_unfit_parts
from vista.config.intervention_checks import (
    refuse_leaks,
    refuse_unknown,
    refuse_unmeasured,
    refuse_wrong_names,
    splits_read,
)
from vista.config.interventions import InterventionsSettings
from vista.config.judge_base import JudgeSettings
from vista.config.judges import fitted_on
from vista.config.language import LanguageSettings
from vista.config.metric import ChosenMetrics, Metric, with_metrics
from vista.config.packages import PackageSettings, refuse_unknown_packages
from vista.config.probing import ProbingSettings
from vista.config.probing_checks import refuse_unfit_probing, refuse_without_head
from vista.config.projector import (
    LatentsSettings,
    OwnProjector,
    ProjectorSettings,
    ProjectorSource,
    RecipeChange,
)
from vista.config.report import ReportSettings
from vista.config.sae import (
    CacheTextSettings,
    CheckSaeSettings,
    ImportSaeSettings,
    LabelSettings,
    NeuronpediaSettings,
    TokenFilter,
    TrainSaeSettings,
    refuse_few_tokens,
)
from vista.config.suggest import SuggestSettings
from vista.config.sweep import Block, Point, controls_of_sweep
from vista.config.text import DrawnText, TextSettings, text_parts
from vista.config.vision_sae import VisionSaeEntry
from vista.config.vlms import VlmSettings, with_own

# Names become folder names and columns of the table.
NAME = r"^[A-Za-z0-9][A-Za-z0-9_.]*$"
Name = Annotated[str, Field(pattern=NAME)]


class SaeSettings(Settings):
    """The text SAEs of one language model: `train` them here, or name pretrained ones."""

    layers: tuple[int, ...] = Field(
        min_length=1, description="blocks whose output an SAE reads, counted from 0"
    )
    train: TrainSaeSettings | None = Field(None, description="train them on the text corpus")
    pretrained: ImportSaeSettings | dict[int, ImportSaeSettings] | None = Field(
        None,
        description="folder, or release and id, of pretrained SAEs; `{layer}` in a path or id "
        "stands for the layer. Or one such entry a layer",
    )
    labels: NeuronpediaSettings | None = Field(
        None,
        description="labels from a Neuronpedia export; null: from the text that latents fire on",
    )
    tokens: TokenFilter = later(
        TokenFilter(),
        description="text tokens that are left out when these SAEs are trained, checked and "
        "labelled; the `text` of each of the three may say otherwise",
    )
    cache_text: CacheTextSettings | None = later(
        None,
        description="keep the residual stream of text on disk; SAEs are trained, checked and "
        "labelled on it: one pass of the LLM for all layers and recipes; null: a pass each time",
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if len(set(self.layers)) != len(self.layers) or min(self.layers) < 0:
            raise ValueError(f"layers {list(self.layers)} must count from 0 and name none twice")
        if len(self.layers) > 1:
            self._one_for_each_layer()
        if (self.train is None) == (self.pretrained is None):
            raise ValueError("give either `train` or `pretrained`")
        if isinstance(self.pretrained, dict):
            missing = sorted(set(self.layers) - set(self.pretrained))
            if missing:
                raise ValueError(f"layers {missing} have no entry under `pretrained`")
        return self

    def _one_for_each_layer(self) -> None:
        """Refuse one SAE, or one set of labels, for several layers."""
        sources: list[tuple[str, str | None]] = []
        if isinstance(self.pretrained, ImportSaeSettings):
            sae = self.pretrained
            sources.append(("sae_id", sae.sae_id) if sae.sae_id else ("path", sae.path))
        if self.labels is not None:
            labels = self.labels
            sources.append(
                ("labels.path", labels.path) if labels.path else ("labels.source", labels.source)
            )
        for key, value in sources:
            if value is not None and "{layer}" not in value:
                raise ValueError(
                    f"{key} {value!r} is the same for layers {list(self.layers)}: put {{layer}} "
                    "where the layer's number stands"
                )

    def source(self, layer: int) -> ImportSaeSettings:
        """Return the source of the pretrained SAE of one layer."""
        assert self.pretrained is not None
        if isinstance(self.pretrained, dict):
            return self.pretrained[layer]
        return self.pretrained.for_layer(layer)


class LlmEntry(Settings):
    """One language model of the sweep with its SAEs."""

    model: LanguageSettings = Field(description="the language model")
    saes: SaeSettings = Field(description="its text SAEs")


class VlmEntry(VlmSettings):
    """One vision-language model of the sweep with the text SAEs of its language model."""

    saes: SaeSettings = Field(description="text SAEs of its language model")


class RunMetrics(ChosenMetrics):
    """The metrics of the run; one that is null is not computed."""


if TYPE_CHECKING:
    Metrics = RunMetrics
else:
    Metrics = with_metrics(RunMetrics, "metrics")


class RunConfig(Settings):
    """All settings of a run. Unknown keys are refused at every level."""

    name: str = Field(pattern=NAME, description="name of the run; its report carries it")
    results: str = Field("results", min_length=1, description="folder of all artifacts")
    threads: int = Field(1, gt=0, description="CPU threads a job; more can change the last bits")
    packages: dict[Name, PackageSettings] = later(
        {}, description="packages of a registry whose files the run reads, by name"
    )
    data: DataSettings = Field(description="the images that are learnt from and measured")
    training: dict[Name, DataSettings] = Field(
        default_factory=dict,
        description="further data, by name, for projectors to learn from: see projector.stages",
    )
    pretraining: DrawnData | None = Field(
        None, description="what stand-in models learn from; null: `data`, if that is drawn"
    )
    text: TextSettings = Field(DrawnText(), description="the language corpus")
    encoders: dict[Name, EncoderSettings] = Field(
        default_factory=dict, min_length=1, description="by name; none: only `vlms` are looked at"
    )
    llms: dict[Name, LlmEntry] = Field(
        default_factory=dict, description="by name; none: only vision models are looked at"
    )
    vlms: dict[Name, VlmEntry] = later(
        {},
        description="vision-language models as they were published, by name: each is a point "
        "beside those of `sweep`, with its own vision tower and projector and without training",
    )
    sweep: tuple[Block, ...] = Field((Block(),), min_length=1, description="what is combined")
    projector: ProjectorSettings = Field(ProjectorSettings(), description="training of projectors")
    suggest: SuggestSettings | None = later(
        None,
        description="short runs that suggest settings of `projector`, for each encoder and LLM; "
        "null: none",
    )
    latents: LatentsSettings = Field(LatentsSettings(), description="encoding into latents")
    check_sae: CheckSaeSettings = Field(CheckSaeSettings(), description="bounds on every SAE")
    label_latents: LabelSettings = Field(LabelSettings(), description="labels of latents")
    metrics: Metrics = Field(description="what is measured")
    vision_saes: dict[Name, VisionSaeEntry] = Field(
        default_factory=dict,
        description="SAEs on patch features, by name; trained for each encoder where asked for",
    )
    interventions: InterventionsSettings | None = Field(
        None, description="removal and replacement of objects; null: not measured"
    )
    probing: ProbingSettings | None = Field(
        None, description="what SAEs of vision models are good for; null: not measured"
    )
    report: ReportSettings = Field(ReportSettings(), description="table and figures")
    paper_faithful: bool = Field(
        False,
        description="evaluate as the authors' program does: images centre-cropped (training pads "
        "them to squares) and taken from the train split of `data`, which should be images that "
        "projectors learnt from. For comparison with published figures only: crops then differ "
        "between training and evaluation, and nothing is held out",
    )

    @field_validator("results")
    @classmethod
    def _no_wildcards(cls, results: str) -> str:
        if {"{", "}"} & set(results):
            raise ValueError("Snakemake reads braces in a path as wildcards; name another folder")
        return results

    @model_validator(mode="after")
    def _vlms_are_entries(self) -> Self:
        if not (self.encoders or self.vlms):
            raise ValueError("key encoders is missing, and so is vlms: give one of them an entry")
        encoders = {name: entry.encoder for name, entry in self.vlms.items()}
        llms = {
            name: LlmEntry(model=entry.language, saes=entry.saes)
            for name, entry in self.vlms.items()
        }
        # The settings are frozen, and these are complete only now.
        object.__setattr__(self, "encoders", with_own(self.encoders, encoders, "encoders"))
        object.__setattr__(self, "llms", with_own(self.llms, llms, "llms"))
        return self

    def combined(self, kind: Literal["encoders", "llms"]) -> list[str]:
        """Return the names that the sweep combines: all but those of `vlms`."""
        return [name for name in getattr(self, kind) if name not in self.vlms]

    @model_validator(mode="after")
    def _names_known(self) -> Self:
        refuse_unfit_parts(self.encoders)
        refuse_large_pools(self.encoders)
        kinds: tuple[Literal["encoders", "llms"], ...] = ("encoders", "llms")
        for kind in kinds:
            entries = dict.fromkeys(self.combined(kind))
            for block in self.sweep:
                for name in getattr(block, kind) or ():
                    refuse_unknown("sweep names", name, kind, entries)
        for stage in self.projector.stages:
            if stage.data is not None:
                what = "projector.stages names data"
                refuse_unknown(what, stage.data, "training", self.training)
        for name in self.combined("llms"):
            entry, wanted = self.llms[name], self.projector.layers
            missing = sorted(set(wanted or ()) - set(entry.saes.layers))
            if missing:
                raise ValueError(
                    f"projector.layers asks for layers {missing}; llms.{name}.saes.layers has "
                    f"{list(entry.saes.layers)}"
                )
        return self

    @model_validator(mode="after")
    def _caches_hold_tokens(self) -> Self:
        for name, entry in self.llms.items():
            saes = entry.saes
            if cache := saes.cache_text:
                held = f"llms.{name}.saes.cache_text"
                train = saes.train.tokens if saes.train else 0
                labels = 0 if saes.labels else self.label_latents.tokens
                refuse_few_tokens(f"{held}.tokens", cache.tokens, max(train, labels))
                heldout = f"{held}.heldout_tokens"
                scored = 0 if saes.labels else self.label_latents.score_tokens
                read = max(self.check_sae.tokens, scored)
                refuse_few_tokens(heldout, cache.heldout_tokens, read)
        return self

    @model_validator(mode="after")
    def _packages_known(self) -> Self:
        refuse_unknown_packages(self, self.packages)
        return self

    @model_validator(mode="after")
    def _interventions_known(self) -> Self:
        if self.interventions is not None:
            refuse_wrong_names(self.interventions, self.encoders, self.llms, self.vision_saes)
            refuse_leaks(self.interventions, self.vision_saes)
            refuse_unmeasured(self.interventions, list(self.points()))
        return self

    @model_validator(mode="after")
    def _probing_known(self) -> Self:
        if self.probing is not None:
            refuse_unfit_probing(
                self.probing,
                self.data,
                self.encoders,
                self.vision_saes,
                self.llms,
                list(self.points()),
            )
            recipes = [self.recipe_of(source) for source in self.points().values()]
            refuse_without_head(self.probing, (r.head_weight() for r in recipes if r))
        return self

    @model_validator(mode="after")
    def _splits_hold_images(self) -> Self:
        reads: list[tuple[str, str | None, Split]] = [
            (f"projector.stages.{i}.split", stage.data, stage.split)
            for i, stage in enumerate(self.projector.stages)
        ]
        if self.llms:
            reads += [("latents.split", None, self.judged_split(self.latents.split))]
        if self.suggest:
            reads += [("suggest.split", self.projector.stages[0].data, self.suggest.split)]
        for metric, settings in self.metrics.chosen():
            for field, split in settings.splits_read():
                key = f"metrics.{metric.name}.{field}"
                reads += [(key, None, self.split_of(metric, field, split))]
        if self.interventions:
            read = splits_read(self.interventions, self.vision_saes)
            reads += [(key, None, split) for key, split in read]
        reads += [
            (f"sweep.controls.{point.control}.split", None, settings.split)
            for point, (settings, _) in self.controls().items()
            if isinstance(settings, FittedControl)
        ]
        for key, name, split in reads:
            data = self.training[name] if name else self.data
            faithful = self.paper_faithful and key in ("latents.split", "metrics.caption.split")
            why = ", which paper_faithful evaluates on" if faithful else ""
            refuse_empty_split(data, f"training.{name}" if name else "data", key, split, why)
        return self

    @model_validator(mode="after")
    def _judges_fitted_elsewhere(self) -> Self:
        judged: list[tuple[str, str | JudgeSettings, Split]] = []
        for metric, settings in self.metrics.chosen():
            judge = settings.judge_roles.get("judge")
            if metric.per == "point" and judge is not None:
                named = next((split for _, split in settings.splits_read()), self.latents.split)
                judged += [(f"metrics.{metric.name}", judge, self.judged_split(named))]
        if self.interventions:
            scores = self.interventions.scores
            judged += [("interventions.scores", scores.judge, self.interventions.test)]
        for key, judge, split in judged:
            if fitted_on(judge) == split:
                raise ValueError(
                    f"{key}.judge.fit_split is {split!r}, the split that figures are reported on; "
                    f"choose another, or give {key}.judge.threshold"
                )
        return self

    def split_of(self, metric: Metric, field: str, split: Split) -> Split:
        """Return the split that a metric reads if a field of its settings names `split`."""
        judged = metric.per == "point" and field != "fit_split"
        return self.judged_split(split) if judged else split

    def judged_split(self, split: Split) -> Split:
        """Return the split that is evaluated if the settings name `split`."""
        return "train" if self.paper_faithful else split

    @model_validator(mode="after")
    def _one_projector_a_point(self) -> Self:
        sources: dict[Point, ProjectorSource] = {}
        for point, projector in self._sweep():
            if sources.setdefault(point, projector) != projector:
                raise ValueError(
                    f"sweep gives two different projectors for {point.encoder}, {point.llm}, "
                    f"weight {point.sae_weight:g}, seed {point.seed}"
                )
        self.controls()
        return self

    @model_validator(mode="after")
    def _something_to_learn_from(self) -> Self:
        drawn = any(isinstance(part, DrawnText) for part in text_parts(self.text))
        drawn_text = bool(self.llms) and drawn
        if self.world is None and (self.standins or drawn_text):
            if self.standins:
                what, instead = f"stand-in models ({', '.join(self.standins)}) need", ""
            else:
                what = "the default `text` needs"
                instead = ", or give `text: {kind: captions}` or `{kind: lines, ...}`"
            raise ValueError(f"{what} a drawn world: add `pretraining: {{kind: drawn}}`{instead}")
        return self

    @property
    def world(self) -> DrawnData | None:
        """The drawn world that stand-ins and the drawn corpus come from, if there is one."""
        if self.pretraining is not None:
            return self.pretraining
        return self.data if isinstance(self.data, DrawnData) else None

    @property
    def standins(self) -> list[str]:
        """The names of the models that the run trains itself."""
        return [
            *(n for n, entry in self.encoders.items() if entry.source.kind == "standin"),
            *(n for n, entry in self.llms.items() if entry.model.source.kind == "standin"),
        ]

    def points(self) -> dict[Point, ProjectorSource]:
        """Return the points of the sweep in the order of the blocks, then those of `vlms`, each
        with the source of its projector; None if `projector` says how it is trained."""
        own = {Point(name, name, 0.0, 0): OwnProjector() for name in self.vlms}
        return {**dict(self._sweep()), **own}

    def recipe_of(self, source: ProjectorSource) -> ProjectorSettings | None:
        """Return how a projector is trained; None if it is not."""
        if isinstance(source, RecipeChange):
            return source.of(self.projector)
        return self.projector if source is None else None

    def controls(self) -> dict[Point, tuple[ControlSettings, Point]]:
        """Return the controls of the sweep, as `controls_of_sweep`."""
        return controls_of_sweep(self.sweep, self.combined("encoders"), self.combined("llms"))

    def _sweep(self) -> Iterator[tuple[Point, ProjectorSource]]:
        for block in self.sweep:
            source = block.projector or block.recipe
            for encoder in block.encoders or self.combined("encoders"):
                for llm in block.llms or self.combined("llms"):
                    for weight in block.sae_weights:
                        for seed in block.seeds:
                            yield Point(encoder, llm, float(weight), seed), source
