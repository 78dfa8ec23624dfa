"""Settings of vision encoders: where one comes from, how a stand-in is trained, how it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from vista.config.base import Settings, later
from vista.config.checkpoint import Checkpoint
from vista.config.packages import PackageFile
from vista.config.plugins import FAMILIES

StandinFamily = Literal["dinov2", "clip", "siglip"]
# Families without a class token; settings that ask for one are refused when they are read.
_CLASSLESS = ("siglip", "siglip2", "ijepa", "vlm", "svd", "vjepa2")
# Families with settings of their own, which are in the id of their features: the family's name is
# the field of `CheckpointEncoder`.
_OWN = ("svd", "vjepa2")
_Share = Annotated[float, Field(gt=0, le=1)]
Colours = tuple[_Share, _Share, _Share]


def family_names() -> list[str]:
    """Return the names of this package's encoder families, sorted: those of their files."""
    return FAMILIES.own()


class StandinEncoder(Settings):
    """A small vision encoder that the run trains on the drawn images (and, but for Dinov2,
    their captions)."""

    kind: Literal["standin"] = "standin"
    family: StandinFamily = Field(description="Architecture, and with it the training objective.")
    d_vision: int = Field(96, ge=8, description="Width of the patch tokens.")
    n_blocks: int = Field(3, ge=1, description="Transformer blocks.")
    n_heads: int = Field(4, ge=1, description="Attention heads of each block.")
    patch: int = Field(8, ge=2, description="Side of a patch, pixels.")
    image_size: int = Field(48, ge=8, description="Side of the square input, pixels.")
    steps: int = Field(600, ge=1, description="Optimizer steps.")
    batch_size: int = Field(32, ge=2, description="Images a step.")
    lr: float = Field(2.5e-3, gt=0, description="Peak learning rate of AdamW, cosine to 0.")
    weight_decay: float = Field(0.05, ge=0, description="AdamW's decoupled decay of matrices.")
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of the steps with a rising rate.")
    mask_share: float = Field(
        0.2, ge=0, lt=1, description="Dinov2: share of the patches that are masked in training."
    )
    visual_words: int = Field(
        1024, ge=2, description="Dinov2: clusters of patches, whose ids are predicted."
    )
    word_balance: float = Field(
        1.0,
        ge=0,
        description="CLIP, SigLIP: a word of share f of the captions is kept with probability "
        "(median f / f) ** this, so that places and colours do not outshout nouns.",
    )
    seed: int = Field(475, ge=0, description="Seed of weights, masks and order of images.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.d_vision % self.n_heads:
            raise ValueError(f"d_vision {self.d_vision} is no multiple of n_heads {self.n_heads}")
        if self.image_size % self.patch:
            raise ValueError(f"image_size {self.image_size} is no multiple of patch {self.patch}")
        return self


# The floor that pretrained weights are measured against.
_RANDOM = (
    "Seed of random weights in place of the model's own: the same architecture, as its class "
    "initialises it; null: the model's own."
)


class SvdSettings(Settings):
    """One denoising step of Stable Video Diffusion from an image (arXiv 2510.00855)."""

    tap: Literal["down", "mid"] = Field(
        "down", description="Features of the denoiser before (down) or after (mid) its mid block."
    )
    frames: int = Field(8, ge=1, le=256, description="Frames of the clip: tokens of each patch.")
    noise_seed: int = Field(
        0, ge=0, lt=2**63, description="Seed of the noise, the same for every image."
    )
    fps: int = Field(
        7, ge=1, le=255, description="Frames a second; the model is told one less, as in training."
    )
    motion_bucket: int = Field(127, ge=0, le=255, description="How much motion is asked for.")
    noise: float = Field(
        0.02, ge=0, le=10, description="Standard deviation of noise on the image's pixels, -1..1."
    )


class Vjepa2Settings(Settings):
    """An image as a clip of equal frames."""

    frames: int = Field(
        2,
        ge=1,
        le=256,
        description="Frames of the clip, a multiple of the model's tubelet_size (2 in those "
        "published); each patch has a token for each tubelet_size frames.",
    )


class CheckpointEncoder(Checkpoint):
    """A pretrained vision encoder."""

    family: Annotated[str, AfterValidator(FAMILIES.known)] = Field(
        description='Family that the checkpoint belongs to; "vit": any other vision transformer '
        'that AutoModel loads and whose config tells the patch size; "vlm": the vision tower and '
        "the projector of a vision-language model, whose visual tokens are the features; "
        '"svd": the denoiser of a StableVideoDiffusionPipeline.'
    )
    prefix_tokens: int | None = Field(
        None,
        ge=0,
        description="Class and register tokens before the patches; null: what the family or the "
        "model tells. Checked against the tokens that come out.",
    )
    random_weights: int | None = later(None, ge=0, description=_RANDOM)
    size: int | None = later(
        None,
        ge=1,
        le=10_000,
        description="Side of the square input, px; null: that of the checkpoint's image "
        "processor. A model that takes images of any size needs it: Qwen2.5-VL a multiple of 28.",
    )
    svd: SvdSettings | None = later(None, description="Of family svd alone; null: the defaults.")
    vjepa2: Vjepa2Settings | None = later(
        None, description="Of family vjepa2 alone; null: the defaults."
    )

    @model_validator(mode="before")
    @classmethod
    def _with_own_settings(cls, given: Any) -> Any:
        """Fill in a family's own settings, so that the id of the features tells them."""
        if isinstance(given, Mapping) and given.get("family") in _OWN:
            family = given["family"]
            return {**given, family: {} if given.get(family) is None else given[family]}
        return given

    @model_validator(mode="after")
    def _has_its_own_settings(self) -> Self:
        for family in _OWN:
            if getattr(self, family) is not None and family != self.family:
                raise ValueError(f"{family} is for family {family}, not {self.family}; drop it")
        return self

    @property
    def own(self) -> SvdSettings | Vjepa2Settings | None:
        """The settings that the family alone has."""
        return self.svd or self.vjepa2


class OnnxEncoder(PackageFile):
    """A pretrained vision encoder in an ONNX file, alone or as a part of a larger model."""

    kind: Literal["onnx"]
    family: Literal["dinov2"] = Field(description="Family that the encoder belongs to.")
    size: int = Field(
        ge=1, le=10_000, description="Side of the square input, px: a multiple of the patch."
    )
    mean: Colours = Field((0.485, 0.456, 0.406), description="Mean of each colour, of 0..1.")
    std: Colours = Field(
        (0.229, 0.224, 0.225), description="Standard deviation of each colour, of 0..1."
    )
    heads: int | None = Field(
        None,
        ge=1,
        description="Attention heads of each block, which the file does not tell; null: one for 64 "
        "channels, as in all published sizes.",
    )
    random_weights: int | None = later(None, ge=0, description=_RANDOM)


class CombinedEncoder(Settings):
    """The features of several encoders of the run, as an encoder of its own (arXiv 2406.16860)."""

    kind: Literal["combined"] = "combined"
    encoders: tuple[str, ...] = Field(
        min_length=2,
        description="Names of two or more others of `encoders`; but for `how: windows` with grids "
        "of the same size.",
    )
    how: Literal["concat", "interleave", "windows"] = Field(
        "concat",
        description="concat: the channels of all at each patch. interleave: the tokens of all at "
        "each patch, those of the first encoder first, narrower ones padded with zeros. windows: "
        "the channels of all patches of all encoders that lie at a place of `grid`, each encoder "
        "with a grid of its own; "
        "`projector.kind: spatial_aggregator` tells them apart.",
    )
    grid: int | None = later(
        None,
        ge=1,
        description="With `how: windows`: side of the grid of places, which divides that of each "
        "encoder. The places are the visual tokens.",
    )

    @model_validator(mode="after")
    def _has_a_grid(self) -> Self:
        if (self.how == "windows") != (self.grid is not None):
            raise ValueError("`how: windows` needs a `grid`, and nothing else takes one")
        return self


AnyEncoder = StandinEncoder | CheckpointEncoder | OnnxEncoder | CombinedEncoder


class EncoderSettings(Settings):
    """One vision encoder of a run and how its patch features are read."""

    source: Annotated[AnyEncoder, Field(discriminator="kind")] = Field(
        description="Trained here, a checkpoint, an ONNX file, or two others of `encoders`."
    )
    layer: int = Field(
        -1, description="Block whose output is read, counted from 0; negative: from the last."
    )
    tokens: Literal["patches", "class"] = Field(
        "patches",
        description="Features of an image: its patch tokens, or its class token as the one patch "
        "of a grid of 1 x 1 (not SigLIP, I-JEPA, vlm, svd and vjepa2, which have none).",
    )
    pool: int | None = later(
        None,
        ge=1,
        description="Side of the grid of tokens that the patch tokens are averaged to, weighted by "
        "area: 4 makes 4 x 4 tokens of 9 x 9 patches, each the mean of 2.25 x 2.25. null: a token "
        "a patch.",
    )
    final_norm: bool = Field(
        True,
        description="Apply the norm that the family's last_hidden_state has (CLIP has none on "
        "patch tokens).",
    )
    fit: Literal["pad", "crop"] = Field(
        "pad", description="How an image becomes square, in training and evaluation alike."
    )
    device: str = Field(
        "cpu",
        pattern=r"^(cpu|cuda|cuda:\d+|mps|auto)$",
        description='"cpu", "cuda", "cuda:1", "mps", or "auto": the first of CUDA, MPS and CPU '
        "that is there.",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Number format of the frozen weights."
    )
    batch_size: int = Field(64, ge=1, description="Images a forward pass.")
    jobs: int = Field(
        1,
        ge=1,
        description="Jobs that share the images, each a range of whole shards of 256, for a "
        "cluster or several GPUs. Changes the time, not a byte, and features that are there are "
        "not made again.",
    )

    @model_validator(mode="after")
    def _has_the_tokens(self) -> Self:
        family = getattr(self.source, "family", None)
        if self.tokens == "class" and family in _CLASSLESS:
            raise ValueError(f"{family} has no class token; set tokens: patches")
        return self

    @model_validator(mode="after")
    def _has_patches_to_pool(self) -> Self:
        if self.pool is not None and self.tokens == "class":
            raise ValueError(
                "pool averages patches, and tokens: class keeps none; drop one of both"
            )
        return self


def refuse_unfit_parts(encoders: Mapping[str, EncoderSettings]) -> None:
    """Refuse combined encoders of parts that are not there, the same, or combined themselves, and
    settings that belong to the parts. Raises ValueError with the whole key."""
    for name, settings in encoders.items():
        source = settings.source
        if not isinstance(source, CombinedEncoder):
            continue
        key, names = f"encoders.{name}.source.encoders", " and ".join(source.encoders)
        if keys := sorted(settings.model_fields_set - {"source"}):
            raise ValueError(f"encoders.{name}.{keys[0]} has no effect: set it for {names}")
        for part in source.encoders:
            if source.encoders.count(part) > 1:
                raise ValueError(f"{key} names {part!r} twice: name two encoders")
        for part in source.encoders:
            if part not in encoders:
                raise ValueError(f"{key} names {part!r}; there are {', '.join(sorted(encoders))}")
            if isinstance(encoders[part].source, CombinedEncoder):
                raise ValueError(f"{key} names {part!r}, which is combined itself: name its parts")
        if len({encoders[part].tokens for part in source.encoders}) > 1:
            raise ValueError(f"{key} names patches and a class token: name two of one kind")


def refuse_large_pools(encoders: Mapping[str, EncoderSettings]) -> None:
    """Refuse stand-ins that are pooled to more tokens than they have patches. Raises ValueError
    with the whole key. What a checkpoint has is known once it is loaded."""
    for name, settings in encoders.items():
        source = settings.source
        if settings.pool is None or not isinstance(source, StandinEncoder):
            continue
        side = source.image_size // source.patch
        if settings.pool > side:
            raise ValueError(
                f"encoders.{name}.pool: expected at most {side}, since the encoder has {side} x "
                f"{side} patches, not {settings.pool}"
            )


def reads_patches(encoders: Mapping[str, EncoderSettings], name: str) -> bool:
    """Whether an encoder's tokens are patches, and no class token; of a combined one its parts'."""
    source = encoders[name].source
    part = source.encoders[0] if isinstance(source, CombinedEncoder) else name
    return encoders[part].tokens == "patches"
