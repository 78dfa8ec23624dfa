"""Settings of judges: which one says what a label or a caption names, and how it is asked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from vista.config.checkpoint import Checkpoint
from vista.config.data import Split

_Device = Annotated[str, Field(pattern=r"^(cpu|cuda|cuda:\d+|mps)$")]
_Dtype = Literal["float32", "bfloat16", "float16"]


class _Settings(BaseModel):
    # A key pasted where the name of a variable belongs must not come back in an error message.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class LexicalJudgeSettings(_Settings):
    """Names and synonyms as whole words, singular or plural."""

    kind: Literal["lexical"] = "lexical"
    wordnet: str | None = Field(
        None,
        description="Folder with WordNet's index.noun and data.noun, whose synonyms are taken "
        'beside the shipped ones: Debian\'s wordnet-base has "/usr/share/wordnet". Null: the '
        "shipped table alone, so that a result never depends on what is installed.",
    )
    senses: int = Field(
        1, ge=1, description="Senses of a name, most frequent first, whose synonyms count."
    )


class WholeWordJudgeSettings(_Settings):
    """The object's own name as whole words, singular or plural; the published localization."""

    kind: Literal["whole_word"] = "whole_word"


class EmbeddingJudgeSettings(_Settings):
    """Cosine of the sentence embeddings of text and object name."""

    kind: Literal["embedding"] = "embedding"
    source: Checkpoint = Field(description="Sentence encoder that AutoModel loads.")
    threshold: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="Least cosine that counts as naming; null: the one of the largest F1 on "
        "`fit_split`.",
    )
    fit_split: Split = Field(
        "validation",
        description="Images whose reference captions and objects the threshold is fitted on. "
        "Metrics mostly judge labels of latents, which are shorter than captions: "
        "metrics.judge_agreement measures how the threshold carries over.",
    )
    max_tokens: int = Field(128, ge=4, description="Longest text, in tokens; the rest is cut off.")
    batch_size: int = Field(64, ge=1, description="Texts a forward pass.")
    device: _Device = Field("cpu", description='"cpu", "cuda", "cuda:1" or "mps".')
    dtype: _Dtype = Field("float32", description="Number format of the weights.")


class _Asking(_Settings):
    prompt: Literal["1"] = Field("1", description="Version of the questions that are asked.")
    labels_per_question: int = Field(
        40, ge=1, description="Most labels or object names in one question."
    )
    max_unanswered: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Largest share of verdicts on texts that may stay unanswered; more is an "
        "error. Fewer count as not named, and their number is reported.",
    )


class VlmJudgeSettings(_Asking):
    """A local image-text model that answers yes or no to one label at a time."""

    kind: Literal["vlm"] = "vlm"
    source: Checkpoint = Field(
        description="Image-text model with a chat template that AutoModelForImageTextToText loads."
    )
    batch_size: int = Field(4, ge=1, description="Questions a forward pass.")
    device: _Device = Field("cpu", description='"cpu", "cuda", "cuda:1" or "mps".')
    dtype: _Dtype = Field("float32", description="Number format of the weights.")


class ApiJudgeSettings(_Asking):
    """Any endpoint that speaks OpenAI's chat completions: images in, JSON out."""

    kind: Literal["api"] = "api"
    base_url: str = Field(
        description='Address up to "/chat/completions", for instance "http://localhost:8000/v1".'
    )
    model: str = Field(min_length=1, description="Name of the model, as the endpoint knows it.")
    key_env: str | None = Field(
        None,
        description="Environment variable that holds the key, for instance OPENAI_API_KEY; null: "
        "no key is sent. The key itself never stands in a config.",
    )
    concurrency: int = Field(8, ge=1, le=256, description="Most requests under way at a time.")
    retries: int = Field(
        5, ge=0, description="Times that a request is repeated after 408, 429, 5xx or a timeout."
    )
    first_pause_s: float = Field(
        1.0, ge=0, description="Pause before the first repetition, seconds; it doubles each time."
    )
    longest_pause_s: float = Field(
        120.0, ge=0, description="Longest pause, seconds, also where the server asks for more."
    )
    timeout_s: float = Field(60.0, gt=0, description="Longest wait for a whole answer, seconds.")
    max_requests: int | None = Field(
        None, ge=1, description="Budget of one stage: requests, repeated ones included."
    )
    max_tokens: int | None = Field(
        None, ge=1, description="Budget of one stage: tokens, as the endpoint counts them."
    )
    temperature: float | None = Field(
        0.0, ge=0, description="Sampling temperature; null: not sent, for models that refuse it."
    )
    json_mode: bool = Field(
        True, description="Ask for `response_format: json_object`; off for endpoints without it."
    )

    @field_validator("base_url")
    @classmethod
    def _plain_address(cls, value: str) -> str:
        # Credentials in an address would end up in manifests and caches.
        if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#@]*)?", value):
            raise ValueError("base_url is no plain http(s) address without credentials or query")
        return value.rstrip("/")

    @field_validator("key_env")
    @classmethod
    def _a_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", value):
            raise ValueError(
                "key_env is the name of an environment variable (capitals, digits, underscores), "
                "not the key"
            )
        return value

    @model_validator(mode="after")
    def _pauses(self) -> Self:
        if self.longest_pause_s < self.first_pause_s:
            raise ValueError("longest_pause_s is shorter than first_pause_s")
        return self


JudgeSettings = Annotated[
    LexicalJudgeSettings
    | WholeWordJudgeSettings
    | EmbeddingJudgeSettings
    | VlmJudgeSettings
    | ApiJudgeSettings,
    Field(discriminator="kind"),
]


_KINDS = (
    LexicalJudgeSettings,
    WholeWordJudgeSettings,
    EmbeddingJudgeSettings,
    VlmJudgeSettings,
    ApiJudgeSettings,
)


def judge_names() -> list[str]:
    """Return the names of all judges, sorted."""
    return sorted(kind.model_fields["kind"].default for kind in _KINDS)


def judge_named(name: str) -> JudgeSettings:
    """Return the settings of a judge that needs none. Raises ValueError for any other name."""
    kind: Any = next((k for k in _KINDS if k.model_fields["kind"].default == name), None)
    if kind is None:
        raise ValueError(f"judge {name!r} is unknown; choose one of {', '.join(judge_names())}")
    lacking = [key for key, field in kind.model_fields.items() if field.is_required()]
    if lacking:
        raise ValueError(
            f"judge {name!r} needs settings ({', '.join(lacking)}); give {{kind: {name}, ...}}"
        )
    settings: JudgeSettings = kind()
    return settings


def _known_name(name: str) -> str:
    judge_named(name)
    return name


def _form(judge: Any) -> str | None:
    if isinstance(judge, str):
        return "name"
    return judge.get("kind") if isinstance(judge, Mapping) else getattr(judge, "kind", None)


# A judge in a metric's settings: by its name where it needs no settings, or with them. Told apart
# beforehand, so that a mistake is complained about once and under its own key.
JudgeChoice = Annotated[
    Annotated[str, AfterValidator(_known_name), Tag("name")]
    | Annotated[LexicalJudgeSettings, Tag("lexical")]
    | Annotated[WholeWordJudgeSettings, Tag("whole_word")]
    | Annotated[EmbeddingJudgeSettings, Tag("embedding")]
    | Annotated[VlmJudgeSettings, Tag("vlm")]
    | Annotated[ApiJudgeSettings, Tag("api")],
    Discriminator(
        _form,
        custom_error_type="judge_kind",
        custom_error_message="give the name of a judge, or its settings with `kind`: lexical, "
        "whole_word, embedding, vlm or api",
    ),
]


def judge_module(judge: str | Mapping[str, Any]) -> str:
    """Return the module of a judge, given its settings as they stand in a stage's own."""
    return f"vista.judges.{judge if isinstance(judge, str) else judge['kind']}"


def short_name(source: Checkpoint) -> str:
    """Return a model's name for reports: its repository, or the last part of its folder's path."""
    return source.repo or PurePath(str(source.path)).name


def fitted_on(judge: str | JudgeSettings) -> Split | None:
    """Return the split that a judge's threshold is fitted on, None where none is fitted."""
    if isinstance(judge, EmbeddingJudgeSettings) and judge.threshold is None:
        return judge.fit_split
    return None


def judge_source(judge: str | JudgeSettings) -> Checkpoint | None:
    """Return the checkpoint that a judge runs, None for one that needs no model of its own."""
    return None if isinstance(judge, str) else getattr(judge, "source", None)


def judge_files(judge: str | JudgeSettings) -> tuple[str, ...]:
    """Return the user's files that a judge reads."""
    if isinstance(judge, LexicalJudgeSettings) and judge.wordnet is not None:
        return tuple(f"{judge.wordnet}/{name}.noun" for name in ("index", "data"))
    return ()
