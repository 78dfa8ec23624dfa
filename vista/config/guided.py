"""Settings of guided dictionaries: latents that are told their concept while an SAE is trained."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vista.config.base import Settings


class GuideSettings(Settings):
    """Concepts that latents of a topk SAE are defined for, after ProtSAE (arXiv 2509.05309).

    A linear predictor learns each concept from annotated patches. The encoder row of the concept's
    latent is the predictor's, times a factor that the SAE learns.
    """

    concepts: tuple[str, ...] | None = Field(
        None, min_length=1, description="classes of the data; null: all that the images show"
    )
    left_out: int = Field(
        0,
        ge=0,
        description="of these classes as many, drawn by the training's `seed`, get no latent: what "
        "guidance costs a concept that it does not know",
    )
    hypernyms: bool = Field(
        True,
        description="also define the synsets of WordNet above the classes that hold two of them "
        "or more, and not all",
    )
    wordnet: str | None = Field(
        None,
        description="folder of WordNet's database (data.noun, index.noun), e.g. "
        "/usr/share/wordnet; null: the small table of the drawn nouns",
    )
    senses: dict[str, Annotated[str, Field(pattern=r"^n\d{8}$")]] = Field(
        default_factory=dict,
        description="class -> its synset as ImageNet writes it (n02121620), where WordNet's most "
        "frequent sense is another, or it lacks the name",
    )
    by: Literal["patch", "image"] = Field(
        "patch",
        description="a patch has the classes whose mask (or, without one, box) it lies in, or "
        "every class of its image; a class token has all of its image",
    )
    mask_cover: float = Field(
        0.25, gt=0, le=1, description="share of a patch that a mask must cover to hold it"
    )
    annotated_images: int | None = Field(
        None, gt=0, description="images whose annotation is read, drawn by the seed; null: all"
    )
    annotation_weight: float = Field(
        1.0,
        ge=0,
        description="weight of the predictor's binary cross-entropy, summed over concepts. "
        "Reconstruction does not reach the predictor, so what counts is the ratio to `is_a_weight`",
    )
    is_a_weight: float = Field(
        1.0,
        ge=0,
        description="weight of the order constraint: how far a concept is thought likelier than "
        "the one that it is a kind of, summed over such pairs",
    )
    forced: bool = Field(
        False,
        description="in training, raise the latent of a concept that is predicted to the mean "
        "pre-activation of the free latents. The saved SAE does not",
    )
    shuffle_labels: bool = Field(
        False, description="a control: permute the annotation among all patches"
    )
    name_latents: bool = Field(
        True,
        description="label defined latents with their concept, and no free latent with one of "
        "these; false: label all by their top images",
    )

    @property
    def files(self) -> tuple[str, ...]:
        """The user's files that are read."""
        folder = self.wordnet
        return () if folder is None else (f"{folder}/data.noun", f"{folder}/index.noun")

    @model_validator(mode="after")
    def _concepts_remain(self) -> Self:
        if self.concepts is not None:
            if len(set(self.concepts)) != len(self.concepts):
                raise ValueError(f"concepts {list(self.concepts)} name a class twice")
            if self.left_out >= len(self.concepts):
                raise ValueError(
                    f"left_out {self.left_out} leaves none of {len(self.concepts)} concepts"
                )
        return self
