"""Depth of what a latent's top images have in common, by group of a Matryoshka dictionary."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from vista.config.metric import Metric, MetricSettings
from vista.config.metrics import BootstrapSettings


class LcaDepthSettings(MetricSettings):
    """Depth in WordNet of the lowest common ancestor of two of a latent's top images, mean over
    pairs and over the latents of each group of a Matryoshka dictionary (Pach et al., arXiv
    2504.02821, where the tree is that of iNaturalist's species). Other dictionaries are one group.
    """

    placing: ClassVar[frozenset[str]] = frozenset({"encoders", "vision_saes"})

    wordnet: str | None = Field(
        None,
        description="folder of WordNet's database (data.noun, index.noun), e.g. "
        "/usr/share/wordnet; null: the small table of the drawn nouns",
    )
    senses: dict[str, Annotated[str, Field(pattern=r"^n\d{8}$")]] = Field(
        default_factory=dict,
        description="class -> its synset as ImageNet writes it (n02121620), where WordNet's most "
        "frequent sense is another",
    )
    encoders: tuple[str, ...] | None = Field(
        None, description="names; null: those of probing.encoders"
    )
    vision_saes: tuple[str, ...] | None = Field(
        None, description="names; null: those of probing.vision_saes"
    )
    min_images: int = Field(
        5, ge=2, description="top images with a class of WordNet that a latent needs"
    )
    permutations: int = Field(
        20, ge=1, description="permutations of the top images' classes: the chance level"
    )
    seed: int = Field(0, ge=0, description="seed of the permutations")
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="intervals over latents"
    )

    @property
    def files(self) -> tuple[str, ...]:
        folder = self.wordnet
        return () if folder is None else (f"{folder}/data.noun", f"{folder}/index.noun")


METRIC = Metric(
    name="lca_depth",
    makes="depth in WordNet of what a latent's top images have in common",
    settings=LcaDepthSettings,
    per="vision_sae",
    reads=("records", "sae", "labels", "files"),
    section="probing",
    position=145,
    message="finding common ancestors of top images in",
)
