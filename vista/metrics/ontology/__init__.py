"""Ontology: at what height of WordNet does a latent's meaning lie?"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from vista.config.metric import Metric, MetricSettings
from vista.config.metrics import BootstrapSettings


class OntologySettings(MetricSettings):
    """The synsets of WordNet that latents name by the lowest common hypernym of their top images:
    their height, and the share of the data's synsets that is covered. Defined here: of arXiv
    2508.11277 only the abstract is public."""

    placing: ClassVar[frozenset[str]] = frozenset({"encoders", "vision_saes"})

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

    @property
    def files(self) -> tuple[str, ...]:
        folder = self.wordnet
        return () if folder is None else (f"{folder}/data.noun", f"{folder}/index.noun")


METRIC = Metric(
    name="ontology",
    makes="synsets of WordNet that latents name",
    settings=OntologySettings,
    per="vision_sae",
    reads=("features", "records", "sae", "check", "labels", "files"),
    section="probing",
    position=140,
    gpu=True,
    message="placing latents in WordNet in",
)
