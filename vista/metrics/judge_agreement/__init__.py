"""Agreement of judges with ground truth and with each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from vista.config.data import Split
from vista.config.judge_base import JudgeSettings
from vista.config.judges import JudgeChoice, fitted_on, judge_settings, looking_judges
from vista.config.metric import Metric, MetricSettings
from vista.config.metrics import BootstrapSettings

# A name becomes part of an input role and of a file name: `judge_<name>`.
JudgeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$")]


class JudgeAgreementSettings(MetricSettings):
    """Accuracy, balanced accuracy, precision and recall of each judge against ground truth, and
    Cohen's kappa (Cohen 1960) between each two judges, on the same items.

    Every judge gives a verdict on each pair of an item (a caption, a label or an image, see below)
    and an object category of the split: up to (captions + `max_labels` + categories) x categories
    verdicts, and with `show_images` another `max_images` x categories. A `vlm` judge takes a
    forward pass a verdict, an `api` judge a request for `labels_per_question` of them.
    """

    judges: dict[JudgeName, JudgeChoice] = Field(
        {"lexical": "lexical", "whole_word": "whole_word"},
        min_length=1,
        description="The judges to measure, by a name of letters, digits and underscores.",
    )
    split: Split = Field(
        "test",
        description="Images whose captions are judged. Truth is their annotated categories: exact "
        "in the drawn world, whose captions tell every object; captions of COCO leave objects "
        "out, so that even a perfect judge misses some there. Not the split that the threshold of "
        "an embedding judge is fitted on.",
    )
    max_images: int = Field(
        200,
        ge=1,
        description="Images at most, drawn at random; all of their captions are judged, or the "
        "first answer where an image has none.",
    )
    max_labels: int = Field(
        500,
        ge=1,
        description="Distinct labels at most, drawn at random from all layers of all LLMs, on "
        "which judges are compared. The labels that are a category's name are judged in any case: "
        "there, and only there, is it known what a label names.",
    )
    show_images: bool = Field(
        False, description="Show the images too to judges that look (`vlm`, `api`)."
    )
    seed: int = Field(0, ge=0, description="Seed of the choice of images and labels.")
    bootstrap: BootstrapSettings = Field(
        default_factory=BootstrapSettings, description="Intervals over images, or over labels."
    )

    @model_validator(mode="after")
    def _somebody_looks(self) -> Self:
        if self.show_images and not any(judge_settings(j).looks for j in self.judges.values()):
            kinds = " or ".join(looking_judges())
            raise ValueError(f"show_images needs a judge that looks, of kind {kinds}")
        return self

    @model_validator(mode="after")
    def _fitted_elsewhere(self) -> Self:
        for name, judge in self.judges.items():
            if fitted_on(judge) == self.split:
                raise ValueError(
                    f"judges.{name}.fit_split and split are both {self.split!r}: a threshold is "
                    "not measured on what it was fitted on; choose another split, or give "
                    f"judges.{name}.threshold"
                )
        return self

    @property
    def judge_roles(self) -> Mapping[str, str | JudgeSettings]:
        return {f"judge_{name}": judge for name, judge in self.judges.items()}

    @property
    def reads_images(self) -> bool:
        return self.show_images


METRIC = Metric(
    name="judge_agreement",
    makes="judges against what is known, and against each other",
    settings=JudgeAgreementSettings,
    per="run",
    reads=("records", "labels", "world", "fetched", "judge_*", "files"),
    position=30,
    message="measuring judges on",
)
