"""Settings that judges share; those of one kind stand in `vista.judges.kinds`."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vista.config.checkpoint import Checkpoint
from vista.config.data import Split

Device = Annotated[str, Field(pattern=r"^(cpu|cuda|cuda:\d+|mps)$")]
Dtype = Literal["float32", "bfloat16", "float16"]


class JudgeSettings(BaseModel):
    """Settings of a judge. A field `source` (a `Checkpoint`) is the model that it runs.

    Attributes:
        kind: Name of the kind, which is that of its file.
        looks: Whether it can be shown images.
        names: Whether it can name latents: its file has `create_namer`, too.
    """

    # A key pasted where the name of a variable belongs must not come back in an error message.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    looks: ClassVar[bool] = False
    names: ClassVar[bool] = False
    kind: str

    @property
    def fitted_on(self) -> Split | None:
        """The split that its threshold is fitted on; None where none is fitted."""
        return None

    @property
    def files(self) -> tuple[str, ...]:
        """The user's files that it reads."""
        return ()


class AskingSettings(JudgeSettings):
    """Settings of a judge that asks a model which can be shown images."""

    looks: ClassVar[bool] = True
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


class EndpointSettings(AskingSettings):
    """Settings of a judge behind an endpoint that speaks OpenAI's chat completions."""

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


def short_name(source: Checkpoint) -> str:
    """Return a model's name for reports: its repository, or the last part of its folder's path."""
    return source.repo or PurePath(str(source.path)).name
