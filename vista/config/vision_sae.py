"""Settings of SAEs on a vision encoder's patch features: train, check, label."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Literal, Self

from pydantic import Field, model_validator

from vista.config.base import Settings, later
from vista.config.checkpoint import refuse_unclear_place
from vista.config.data import Split
from vista.config.guided import GuideSettings
from vista.config.sae import SaeBounds, SaeRecipe


class TrainVisionSaeSettings(SaeRecipe):
    """How an SAE is trained on cached patch features.

    VisionSAE: topk or matryoshka_batchtopk on any encoder; PatchSAE: standard (ReLU + L1) on CLIP.
    """

    architecture: Literal[
        "topk", "batchtopk", "matryoshka_batchtopk", "standard", "jumprelu", "kmeans"
    ] = Field(
        "topk",
        description="SAE architecture, by sae_lens' name; or kmeans: a baseline, directions of "
        "clusters of patches, which runs as topk with k = 1 and of which `steps`, "
        "`batch_patches`, `dead_window` and `seed` count",
    )
    expansion: float = Field(
        8.0, gt=0, description="latents in the dictionary, as a multiple of the features' channels"
    )
    d_sae: int | None = Field(
        None, gt=0, description="latents in the dictionary; null: by `expansion`"
    )
    widths: tuple[float, ...] = Field(
        (0.125, 0.25, 0.5, 1.0),
        description="matryoshka: shares of the dictionary that must each reconstruct on their own",
    )
    k: float = Field(
        8, gt=0, description="active latents a patch that training aims at; not for standard"
    )
    l1: float = Field(2.0, ge=0, description="weight of standard's L1 loss, on rescaled features")
    steps: int = Field(600, gt=0, description="optimizer steps")
    batch_patches: int = Field(1024, gt=0, description="patches a step")
    buffer_patches: int = Field(
        65_536,
        gt=0,
        description="patches of images in random order that are in memory, and shuffled, at a time",
    )
    split: Split = Field("train", description="images whose patches are trained on")
    device: str = Field(
        "cpu",
        pattern=r"^(cpu|cuda|cuda:\d+|mps|auto)$",
        description='where it trains: "cpu", "cuda", "cuda:1", "mps" or "auto"; only the CPU '
        "promises equal bytes twice",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.architecture == "topk" and self.k != int(self.k):
            raise ValueError(f"k = {self.k:g}: topk keeps a whole number of latents")
        if self.widths[-1:] != (1.0,) or any(
            not 0 < low < high for low, high in zip(self.widths, self.widths[1:], strict=False)
        ):
            raise ValueError(f"`widths` {list(self.widths)} must rise from above 0 to 1")
        return self

    def latents(self, d_in: int) -> int:
        """The number of latents for features of `d_in` channels."""
        return self.d_sae or max(1, round(self.expansion * d_in))


class CheckVisionSaeSettings(SaeBounds):
    """Bounds on a vision SAE's figures on held-out images; null: no bound."""

    split: Split = Field("validation", description="images whose patches are measured on")
    patches: int = Field(
        50_000, gt=0, description="held-out patches to measure on, of images in random order"
    )
    max_fvu: float | None = Field(0.5, gt=0, description="largest fraction of variance unexplained")
    max_l0: float | None = Field(128.0, gt=0, description="largest mean of active latents a patch")
    max_dead_share: float | None = Field(
        0.9, ge=0, le=1, description="largest share of latents that never fire on these patches"
    )
    seed: int = Field(0, ge=0, description="seed of the order of images")


class LabelVisionSettings(Settings):
    """How a vision SAE's latents get their names from the images that they fire on."""

    split: Split = Field("train", description="images that latents are named by")
    top_k: int = Field(16, ge=1, description="top images a latent, each by its strongest patch")
    by: Literal["patch", "image"] = Field(
        "patch",
        description="a top image speaks for the classes whose mask (or, without one, box) its "
        "strongest patch lies in, or for every class that it shows",
    )
    mask_cover: float = Field(
        0.25, gt=0, le=1, description="share of a patch that a mask must cover to hold it"
    )
    min_share: float = Field(
        0.5, gt=0, le=1, description="share of the top images that a label's class must have"
    )
    min_images: int = Field(
        3, ge=1, description="a latent that fires in fewer images than this gets no label"
    )


def config_places(weights: str) -> tuple[str, ...]:
    """Return where the config.json of an SAE's weights may lie: beside them or, of weights in a
    folder `checkpoints`, beside that folder (as dictionary_learning writes them)."""
    folder = PurePath(weights).parent
    folders = (folder, folder.parent) if folder.name == "checkpoints" else (folder,)
    return tuple(str(place / "config.json") for place in folders)


class ImportVisionSaeSettings(Settings):
    """An SAE that another program trained on this encoder: in a file, or in a repository that is
    fetched beforehand."""

    format: Literal["saev", "prisma", "sae_for_vlm", "patchsae"] = Field(
        description="program that saved it: saev, ViT-Prisma, sae-for-vlm (dictionary_learning), "
        "PatchSAE"
    )
    path: str | None = Field(
        None,
        min_length=1,
        description="its weights: a .pt of saev or PatchSAE; the weights of prisma (.pt, "
        ".safetensors) and the ae.pt of sae_for_vlm, with their config.json beside them (or "
        "beside the folder `checkpoints` that they lie in); or give `repo`",
    )
    repo: str | None = later(None, description='Hugging Face repository, "owner/name"')
    revision: str | None = later(None, description="commit of the repository")
    file: str | None = later(
        None,
        min_length=1,
        description="its weights in the repository, as for `path`; only they and their "
        "config.json are fetched",
    )
    standardise: bool = Field(
        False,
        description="features are centred and scaled to a mean norm of sqrt(d), by the patches of "
        "`split`, before it reads them; as in saev's first releases",
    )
    split: Split = Field("train", description="images whose patches `standardise` reads")
    subtract_decoder_bias: bool | None = Field(
        None, description="whether it reads features less b_dec; null: as its format does"
    )
    device: str = Field(
        "cpu",
        pattern=r"^(cpu|cuda|cuda:\d+|mps|auto)$",
        description='where it runs: "cpu", "cuda", "cuda:1", "mps" or "auto"',
    )

    @property
    def files(self) -> tuple[str, ...]:
        """The user's files that are read: the weights, and their config, if there is one."""
        if self.path is None:
            return ()
        places = config_places(self.path) if self.format in ("prisma", "sae_for_vlm") else ()
        return (self.path, *[place for place in places if Path(place).is_file()][:1])

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        refuse_unclear_place(self.path, self.repo, self.revision, "a file")
        if (self.repo is None) != (self.file is None):
            raise ValueError("`repo` and `file`, its weights there, belong together: give both")
        return self

    @model_validator(mode="after")
    def _normalised_once(self) -> Self:
        if self.standardise and self.format == "prisma":
            raise ValueError("`standardise`: SAEs of prisma say themselves how they normalise")
        return self


class VisionSaeEntry(Settings):
    """One SAE on the patch features of an encoder: training or import, bounds, labels."""

    train: TrainVisionSaeSettings = Field(
        TrainVisionSaeSettings(), description="how it is trained on cached features"
    )
    imported: ImportVisionSaeSettings | None = later(
        None,
        alias="import",
        description="an SAE to import instead of training one; null: `train`",
    )
    check: CheckVisionSaeSettings = Field(
        CheckVisionSaeSettings(), description="bounds on held-out images"
    )
    labels: LabelVisionSettings = Field(
        LabelVisionSettings(), description="how latents are named by their top images"
    )
    guide: GuideSettings | None = later(
        None,
        description="concepts that latents are defined for while a topk SAE is trained; null: none",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.imported is not None and "train" in self.model_fields_set:
            raise ValueError("give `train` or `import`, not both")
        return self

    @property
    def recipe(self) -> TrainVisionSaeSettings | None:
        """How it is trained here; None where it is imported."""
        return self.train if self.imported is None else None

    @property
    def device(self) -> str:
        """Where it runs."""
        return (self.imported or self.train).device

    @property
    def split(self) -> Split | None:
        """The images that it is learnt from; None if it learns from none of them."""
        if self.imported is None:
            return self.train.split
        return self.imported.split if self.imported.standardise else None

    @model_validator(mode="after")
    def _guide_of_topk(self) -> Self:
        if self.guide is None:
            return self
        if self.imported is not None:
            raise ValueError("`guide` is of an SAE that is trained here, not of an `import`")
        if self.train.architecture != "topk":
            raise ValueError(
                f"`guide` defines latents of topk; `train.architecture` is "
                f"{self.train.architecture}"
            )
        return self
