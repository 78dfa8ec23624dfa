"""Settings of the sparse autoencoders: training, import, the gate on text, labels."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from vista.config.base import Settings, later
from vista.config.registry import PACKAGE, names_in


def _fill(template: str | None, layer: int) -> str | None:
    return None if template is None else template.replace("{layer}", str(layer))


class TokenFilter(Settings):
    """Which text tokens SAEs do not read. Of some (the first of a document, delimiters) the
    residual stream is many times larger than of others; they carry most of its variance."""

    skip_first: int = later(
        0, ge=0, description="text tokens at the start of each document that are left out"
    )
    max_norm_ratio: float | None = later(
        None,
        ge=1,
        description="leave out tokens of which the norm of the stream exceeds this many times the "
        "median; null: leave out none",
    )


class TextPass(TokenFilter):
    """How documents are read through the language model."""

    batch_documents: int = Field(64, gt=0, description="documents a forward pass")
    max_length: int = Field(512, gt=1, description="tokens a document; the rest is cut off")
    include_bos: bool = Field(
        False, description="count the BOS token too; its stream is an outlier in most models"
    )

    @model_validator(mode="after")
    def _bos_or_skip(self) -> Self:
        if self.include_bos and self.skip_first:
            raise ValueError(
                f"`include_bos: true` counts the first token, `skip_first: {self.skip_first}` "
                "leaves it out; drop one of the two"
            )
        return self


class CacheTextSettings(Settings):
    """How much of the residual stream of text is kept on disk, for all SAEs of a language model.

    Disk: tokens x layers x width x 2 bytes (float16), 4 GB for 1.8 million tokens of two layers of
    width 576.
    """

    tokens: int = Field(60_000, gt=0, description="training tokens, of documents in random order")
    heldout_tokens: int = Field(20_000, gt=0, description="held-out tokens, in their order")
    dtype: Literal["float16", "float32"] = Field("float16", description="number format")
    seed: int = Field(0, ge=0, description="seed of the order of training documents")
    text: TextPass = Field(
        default_factory=TextPass,
        description="how documents are read; of the `text` of a stage that reads the cache, "
        "`skip_first` and `max_norm_ratio` alone count",
    )


class SaeRecipe(Settings):
    """How sae_lens' own trainer fits an SAE, whatever it reads."""

    k: float = Field(5, gt=0, description="mean active latents a token that training aims at")
    steps: int = Field(300, gt=0, description="optimizer steps")
    lr: float = Field(4e-3, gt=0, description="peak learning rate of Adam")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps with a rising rate")
    decay: float = Field(0.3, ge=0, lt=1, description="share of the steps with a falling rate")
    data_init: bool = Field(
        True, description="start each latent at a token's direction instead of a random one"
    )
    dead_window: int = Field(
        50, gt=0, description="steps without firing after which a latent counts as dead"
    )
    aux_loss: float = Field(
        1.0, ge=0, description="weight of the topk family's loss that revives dead latents"
    )
    l0_weight: float = Field(1.0, ge=0, description="weight of jumprelu's loss towards `k`")
    l0_warmup: float = Field(
        0.3, ge=0, le=1, description="share of the steps in which a sparsity loss rises"
    )
    bandwidth: float = Field(
        0.5, gt=0, description="width of jumprelu's straight-through window, in rescaled units"
    )
    seed: int = Field(0, ge=0, description="seed of data order, weights and batches")

    @model_validator(mode="before")
    @classmethod
    def _one_latent_of_kmeans(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("architecture") != "kmeans":
            return values
        if (k := values.get("k", 1)) != 1:
            raise ValueError(f"k = {k}: kmeans has one active latent a token; leave `k` out")
        return {**values, "k": 1}


class TrainSaeSettings(SaeRecipe):
    """How a stand-in's SAE is trained on a language model's residual stream."""

    architecture: Literal["batchtopk", "jumprelu", "kmeans"] = Field(
        "batchtopk",
        description="SAE architecture; batchtopk and jumprelu run as jumprelu at inference. "
        "kmeans: a baseline, directions of clusters of tokens, which runs as topk with k = 1 and "
        "of which `steps`, `batch_tokens`, `dead_window` and `seed` count",
    )
    d_sae: int = Field(384, gt=0, description="latents in the dictionary")
    batch_tokens: int = Field(512, gt=0, description="tokens a step")
    tokens: int = Field(60_000, gt=0, description="text tokens whose activations are cached")
    token_balance: float = Field(
        0.5,
        ge=0,
        le=1,
        description="a token id with n occurrences is drawn in proportion to n ** this: 1 draws "
        "text as it is, 0 every id equally often, so that frequent words do not fill the "
        "dictionary",
    )
    text: TextPass = Field(default_factory=TextPass, description="how documents are read")


class ImportSaeSettings(Settings):
    """Where an SAE comes from, if not from `train_sae`.

    `path` alone: a folder that sae_lens saved. `release` and `sae_id`: a published SAE, fetched
    from the hub at `revision`, or read from `path` where the user has a copy of the release's
    repository. `{layer}` in `path` and `sae_id` stands for the layer.
    """

    path: str | None = Field(
        None,
        description="folder that sae_lens saved an SAE in; with `release`: a local copy of that "
        "release's repository. `{layer}` stands for the layer",
    )
    release: str | None = Field(
        None,
        description="name of a release in sae_lens' directory, or a repository owner/name in "
        "sae_lens' own format",
    )
    sae_id: str | None = Field(
        None, description="id of the SAE within the release; `{layer}` stands for the layer"
    )
    revision: str = Field(
        "main", description="commit or branch of the release's repository that is fetched"
    )
    activation_scale: float | None = Field(
        None, gt=0, description="factor on the input of an SAE trained on rescaled activations"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.release is None) != (self.sae_id is None):
            raise ValueError("`release` and `sae_id` belong together: give both or neither")
        if self.revision != "main" and (self.release is None or self.path is not None):
            raise ValueError("`revision` belongs to a `release` that is fetched; leave it out")
        return self

    def for_layer(self, layer: int) -> ImportSaeSettings:
        """Return the source of one layer's SAE: `{layer}` filled in."""
        return self.model_copy(
            update={
                "path": _fill(self.path, layer),
                "sae_id": _fill(self.sae_id, layer),
            }
        )


class NeuronpediaSettings(Settings):
    """Labels from a Neuronpedia export: fetched by `model` and `source`, or a folder at `path`."""

    model: str | None = Field(None, description="Neuronpedia's id of the model, e.g. gemma-2-2b")
    source: str | None = Field(
        None,
        description="Neuronpedia's id of the SAE, e.g. {layer}-gemmascope-res-16k; `{layer}` "
        "stands for the layer",
    )
    path: str | None = Field(
        None,
        description="local export: a folder with explanations/ and features/; `{layer}` stands "
        "for the layer",
    )
    explanations: tuple[str, ...] = Field(
        (),
        description="sets of explanations to label from, best first, each `type` or `type/model`, "
        "e.g. oai_token-act-pair/gpt-4o-mini; empty: any, the first in file order",
    )
    max_length: int = Field(300, gt=0, description="characters of a label; the rest is cut off")
    density: float | None = Field(
        None,
        ge=0,
        le=1,
        description="density of every latent where the export has no features/; null: refuse such "
        "an export",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.path is None and (self.model is None or self.source is None):
            raise ValueError("give `model` and `source` of the labels, or `path` of a local export")
        if len(set(self.explanations)) != len(self.explanations):
            raise ValueError(f"`explanations` {list(self.explanations)} names a set twice")
        return self

    def for_layer(self, layer: int) -> NeuronpediaSettings:
        """Return the labels of one layer's SAE: `{layer}` filled in."""
        return self.model_copy(
            update={"source": _fill(self.source, layer), "path": _fill(self.path, layer)}
        )


class SaeBounds(Settings):
    """Bounds on an SAE's figures on held-out data; null: no bound."""

    max_fvu: float | None = Field(0.2, gt=0, description="largest fraction of variance unexplained")
    min_l0: float | None = Field(1.0, ge=0, description="smallest mean of active latents a token")
    max_l0: float | None = Field(64.0, gt=0, description="largest mean of active latents a token")
    max_dead_share: float | None = Field(
        0.8, ge=0, le=1, description="largest share of latents that never fire on these tokens"
    )


class CheckSaeSettings(SaeBounds):
    """Bounds on an SAE's figures on held-out text; null: no bound."""

    tokens: int = Field(20_000, gt=0, description="held-out text tokens to measure on")
    text: TextPass = Field(default_factory=TextPass, description="how documents are read")


class LabelSettings(Settings):
    """How latents get their names from the text that they fire on."""

    @model_validator(mode="after")
    def _scores_behind_the_bound(self) -> Self:
        if self.min_auroc is not None and not self.score_tokens:
            raise ValueError("`min_auroc` needs scores: set `score_tokens` above 0")
        return self

    tokens: int = Field(60_000, gt=0, description="text tokens to read")
    contexts: int = Field(8, gt=0, description="top contexts kept for each latent")
    window: int = Field(60, gt=0, description="characters shown on each side of the token")
    strong: float = Field(
        0.5,
        ge=0,
        le=1,
        description="activations of at least this share of the latent's maximum decide its label",
    )
    min_share: float = Field(
        0.5, gt=0, le=1, description="share of the strong activation that a label must have"
    )
    whole_words: bool = later(
        False,
        description="a word is counted at its last token only; an earlier token counts as the "
        "piece that was read so far (`pizz-`), so that a latent of the first letters of pizza and "
        "pizzicato is not labelled pizza",
    )
    plurals: bool = later(
        False,
        description="count singular and plural as one word; the label is the form that holds more",
    )
    score_tokens: int = later(
        0,
        ge=0,
        description="held-out text tokens on which each label is scored (AUROC of the latent as "
        "classifier of its word); 0: no score",
    )
    min_auroc: float | None = later(
        None, ge=0, le=1, description="labels that score below are dropped; null: none"
    )
    text: TextPass = Field(default_factory=TextPass, description="how documents are read")


def refuse_few_tokens(key: str, held: int, wanted: int) -> None:
    """Refuse a cache with fewer tokens than a stage reads. Raises ValueError."""
    if held < wanted:
        raise ValueError(
            f"{key} {held} is less than the {wanted} tokens that SAEs are trained, checked or "
            "labelled on; raise it, or lower theirs"
        )


def architecture_modules(name: str | None = None) -> tuple[str, ...]:
    """Return the modules of an architecture, by sae_lens' name: its activation function and, if it
    has one of its own, its trainer. Without a name, the activation functions of all."""
    if name in names_in(PACKAGE / "sae" / "trainers"):
        return ("vista.sae.architectures.topk", f"vista.sae.trainers.{name}")
    if name is None:
        names = names_in(PACKAGE / "sae" / "architectures")
    else:
        names = ["matryoshka" if name == "matryoshka_batchtopk" else name]
    return tuple(f"vista.sae.architectures.{name}" for name in names)
