"""Settings of the second paper's experiments: what SAEs of vision models are good for.

*Probing the Representational Power of Sparse Autoencoders in Vision Models* (arXiv 2508.11277) is
public in its abstract only: the definitions are ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field, model_validator

from vista.config.base import Settings
from vista.config.data import DataSettings, Split
from vista.config.diffusion import AttributeSettings, DiffusionSettings
from vista.config.judges import JudgeChoice, NamingJudgeChoice
from vista.config.metrics import BootstrapSettings
from vista.config.rivals import NAME


def _refuse_twice(*named: tuple[str, ...]) -> None:
    for names in named:
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"{twice!r} is named twice; name it once")


def _refuse_fitted(fit_split: Split, split: Split) -> None:
    if fit_split == split:
        raise ValueError(f"fit_split and split are both {split!r}: choose another")


class MonosemanticitySettings(Settings):
    """Do a latent's images resemble each other, to another encoder's eye? (arXiv 2504.02821)"""

    judged_by: str | None = Field(
        None,
        description="the encoder whose space similarity is measured in, but for latents of the "
        "same model; null: the first that reads another model",
    )
    split: Split = Field("test", description="images that are compared")
    seed: int = Field(0, ge=0, description="seed of the random dictionary")
    sheet_latents: int = Field(
        12,
        ge=0,
        description="latents on the sheet of top images, highest scores first; 0: no sheet",
    )
    sheet_images: int = Field(8, ge=2, description="top images a latent on it")
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="intervals over latents"
    )


class OodDetectionSettings(Settings):
    """Do scores from the SAE tell images of another distribution from held-out ones?"""

    near: tuple[str, ...] = Field((), description="sets of `probing.data` of the same kind")
    far: tuple[str, ...] = Field((), description="sets of `probing.data` of another kind")
    fit_split: Split = Field("train", description="images that scores are fitted on")
    fit_images: int | None = Field(
        None,
        ge=2,
        description="fit on so many of them, drawn at random; null: on all. Memory holds their "
        "latents, those of a random dictionary and copies: 16 bytes for each image and latent",
    )
    split: Split = Field("test", description="images of every set that are told apart")
    neighbours: int = Field(10, ge=1, description="k of the nearest-neighbour distance")
    components: int = Field(
        256, ge=1, description="principal components that Mahalanobis distances are measured in"
    )
    smoothing: float = Field(
        0.01, gt=0, lt=1, description="share of the uniform distribution in every class profile"
    )
    regularisation: float = Field(0.3, gt=0, description="scikit-learn's C: smaller is stronger")
    iterations: int = Field(100, ge=1, description="iterations of the probe's solver")
    seed: int = Field(0, ge=0, description="seed of the random score, of components and draws")
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="intervals over images"
    )

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if not (self.near or self.far):
            raise ValueError("name a set under `near` or `far`")
        if both := sorted(set(self.near) & set(self.far)):
            raise ValueError(f"{both[0]!r} stands under `near` and `far`")
        _refuse_twice(self.near, self.far)
        _refuse_fitted(self.fit_split, self.split)
        return self


class OodGeneralizationSettings(Settings):
    """Does a linear probe on latents keep its accuracy where the distribution shifts?"""

    shifts: tuple[str, ...] = Field(min_length=1, description="sets of `probing.data`")
    fit_split: Split = Field("train", description="images that probes are fitted on")
    fit_images: int | None = Field(
        None,
        ge=2,
        description="fit on so many of them, drawn at random; null: on all. Memory holds their "
        "latents, those of a random dictionary and copies: 16 bytes for each image and latent",
    )
    split: Split = Field("test", description="images of every set that probes are judged on")
    latents: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (8, 32, 128),
        min_length=1,
        description="numbers of latents that a probe may use, beside all",
    )
    regularisation: float = Field(0.3, gt=0, description="scikit-learn's C: smaller is stronger")
    iterations: int = Field(100, ge=1, description="iterations of the solver")
    seed: int = Field(0, ge=0, description="seed of the random dictionary and of draws")
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="intervals over images"
    )

    @model_validator(mode="after")
    def _apart(self) -> Self:
        _refuse_twice(self.shifts)
        _refuse_fitted(self.fit_split, self.split)
        return self


class OntologySettings(Settings):
    """At what height of WordNet does a latent's meaning lie, and what share does it cover?"""

    wordnet: str | None = Field(
        None,
        description="folder of WordNet's database (data.noun, index.noun), e.g. "
        "/usr/share/wordnet; null: the small table of the drawn nouns",
    )
    senses: dict[str, Annotated[str, Field(pattern=r"^n\d{8}$")]] = Field(
        default_factory=dict,
        description="class -> its synset as ImageNet writes it (n02121620), where WordNet's most "
        "frequent sense is another, or it lacks the name; null `wordnet` has few synsets",
    )
    encoders: tuple[str, ...] | None = Field(
        None, description="names, such as one for each block; null: those of probing.encoders"
    )
    vision_saes: tuple[str, ...] | None = Field(
        None, description="names, such as one an expansion; null: those of probing.vision_saes"
    )
    purity: float = Field(
        0.8, gt=0, le=1, description="share of a latent's top images below the synset it names"
    )
    permutations: int = Field(
        20, ge=1, description="permutations of the top images' classes: the chance level"
    )
    seed: int = Field(0, ge=0, description="seed of permutations and random dictionary")
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings,
        description="intervals over latents; of coverage, over synsets",
    )


class ImageAttributeSettings(Settings):
    """Which attributes do latents find by themselves in images?"""

    attributes: dict[str, tuple[str, ...]] | None = Field(
        None,
        description="the words of each true attribute, by name, to judge by; null: the drawn "
        "world's colour, ground, row, column and noun (a class of the data)",
    )
    fit_split: Split = Field("train", description="images that latents are named by")
    rank_split: Split = Field(
        "validation", description="images that proposals are ranked on; may be those of fit_split"
    )
    split: Split = Field("test", description="images that proposals are verified on")
    images: int | None = Field(
        10_000, ge=2, description="most images of each split, drawn at random; null: all"
    )
    proposals: int = Field(80, ge=1, description="latents that are proposed, each of another name")
    min_share: float = Field(
        0.005, ge=0, lt=1, description="a latent that fires on a smaller share of images is left"
    )
    max_share: float = Field(
        0.5, gt=0, le=1, description="a latent that fires on a larger share of images is left"
    )
    top_k: int = Field(16, ge=1, description="images that a latent is named by")
    judge: NamingJudgeChoice | None = Field(
        None,
        description="who names a latent by a sheet of its top images (api or vlm), without "
        "captions; null: the word that their captions have more often than others",
    )
    judged_latents: int = Field(
        200,
        ge=1,
        description="latents of each dictionary that `judge` names: those that vary most",
    )
    min_images: int = Field(
        3,
        ge=1,
        description="images that a latent must fire on, and that must have its word in each "
        "split, at least",
    )
    min_auroc: float = Field(
        0.9,
        gt=0.5,
        le=1,
        description="AUROC on held-out images from which a latent separates those with its word",
    )
    seed: int = Field(
        0, ge=0, description="seed of draws, random latents, random dictionary and permutations"
    )
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="intervals over proposals; recall: values"
    )

    @model_validator(mode="after")
    def _apart(self) -> Self:
        for key in ("fit_split", "rank_split"):
            if getattr(self, key) == self.split:
                raise ValueError(f"{key} and split are both {self.split!r}: choose another")
        if self.min_share > self.max_share:
            raise ValueError("min_share is above max_share: no latent is left")
        return self


class SharedLatentsSettings(Settings):
    """Which text latents are selective for a concept in words and in images alike?"""

    min_auroc: float = Field(
        0.9, gt=0.5, le=1, description="AUROC from which a latent is selective for a concept"
    )
    min_images: int = Field(
        5, ge=1, description="images whose answer names a concept, and that it is in, at least"
    )
    mask_cover: float = Field(
        0.35, gt=0, le=1, description="share of a patch that an object must cover"
    )
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="intervals over concepts"
    )


class LogitLensSettings(Settings):
    """Which words does the model's own head read at a visual token? (arXiv 2403.07720)"""

    split: Split = Field("test", description="images that are read")
    ks: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 3, 10), min_length=1, description="words a patch, and words an image"
    )
    max_image_share: float = Field(
        0.05,
        gt=0,
        le=1,
        description="words that are the strongest of a patch in a larger share of the images do "
        "not speak for an image; as the mask of metrics.matching_rate",
    )
    judge: JudgeChoice = Field("lexical", description="judge of words: see vista.judges")
    mask_cover: float = Field(
        0.35, gt=0, le=1, description="share of a patch that an object must cover"
    )
    batch_size: int = Field(64, ge=1, description="images a forward pass")
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="intervals over images"
    )


class ProbingSettings(Settings):
    """The experiments; one that is null is not run."""

    encoders: tuple[str, ...] | None = Field(
        None, description="names of those whose vision SAEs are probed; null: all"
    )
    vision_saes: tuple[str, ...] | None = Field(
        None, description="entries of `vision_saes` that are probed; null: all"
    )
    data: dict[Annotated[str, Field(pattern=NAME)], DataSettings] = Field(
        default_factory=dict, description="further images, by name: shifted, near or far"
    )
    monosemanticity: MonosemanticitySettings | None = Field(None, description="against neurons")
    ood_detection: OodDetectionSettings | None = Field(None, description="by scores of the SAE")
    ood_generalization: OodGeneralizationSettings | None = Field(
        None, description="of linear probes on latents"
    )
    ontology: OntologySettings | None = Field(None, description="in WordNet")
    image_attributes: ImageAttributeSettings | None = Field(
        None, description="found by vision SAEs"
    )
    shared_latents: SharedLatentsSettings | None = Field(
        None, description="text latents selective in words and images"
    )
    logit_lens: LogitLensSettings | None = Field(None, description="the readout without an SAE")
    diffusion: DiffusionSettings | None = Field(
        None, description="a text-to-image pipeline steered through its text encoder"
    )
    attributes: AttributeSettings | None = Field(
        None, description="attributes found in the text encoder of `diffusion`"
    )

    @model_validator(mode="after")
    def _attributes_of_a_pipeline(self) -> Self:
        if self.attributes is not None and self.diffusion is None:
            raise ValueError("probing.attributes reads the pipeline of `diffusion`: add that")
        return self

    @model_validator(mode="after")
    def _sets_known(self) -> Self:
        for key, name in self.sets_read():
            if name not in self.data:
                known = ", ".join(sorted(self.data)) or "no entry"
                raise ValueError(f"{key} names {name!r}; probing.data has {known}")
        named = {name for _, name in self.sets_read()}
        if unused := sorted(set(self.data) - named):
            raise ValueError(f"probing.data.{unused[0]} is read by no experiment; remove it")
        return self

    def sets_read(self) -> Iterator[tuple[str, str]]:
        """Yield which key names which set of `data`."""
        detection, shifts = self.ood_detection, self.ood_generalization
        if detection is not None:
            yield from (("probing.ood_detection.near", name) for name in detection.near)
            yield from (("probing.ood_detection.far", name) for name in detection.far)
        if shifts is not None:
            yield from (("probing.ood_generalization.shifts", name) for name in shifts.shifts)
        if self.diffusion is not None:
            yield "probing.diffusion.data", self.diffusion.data

    def splits_read(self) -> Iterator[tuple[str, str | None, Split]]:
        """Yield which key reads which split of which set (None: the run's data)."""
        if self.monosemanticity is not None:
            yield "probing.monosemanticity.split", None, self.monosemanticity.split
        if self.logit_lens is not None:
            yield "probing.logit_lens.split", None, self.logit_lens.split
        if (found := self.image_attributes) is not None:
            yield "probing.image_attributes.fit_split", None, found.fit_split
            if found.rank_split != found.fit_split:
                yield "probing.image_attributes.rank_split", None, found.rank_split
            yield "probing.image_attributes.split", None, found.split
        for key, each in (
            ("probing.ood_detection", self.ood_detection),
            ("probing.ood_generalization", self.ood_generalization),
        ):
            if each is not None:
                yield f"{key}.fit_split", None, each.fit_split
                yield f"{key}.split", None, each.split
                for named, name in self.sets_read():
                    if named.startswith(key):
                        yield named, name, each.split

    def of_saes(self) -> list[str]:
        """The experiments that each vision SAE is put to."""
        names = (
            *("monosemanticity", "ood_detection", "ood_generalization", "ontology"),
            "image_attributes",
        )
        return [name for name in names if getattr(self, name) is not None]
