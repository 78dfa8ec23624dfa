"""The result of referring segmentation: scores by method, layer and kind of expression."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from vista.data.expressions import KINDS, Kind
from vista.metrics.figure import Figure
from vista.metrics.result import Estimate, MetricResult, ResultPart

Method = Literal[
    "latents", "permuted", "logit_lens", "logit_lens_permuted", "mean_mask", "best_patches"
]
# Methods on permuted expressions, which have the threshold and the layer of their method.
PERMUTED_OF: dict[Method, Method] = {"permuted": "latents", "logit_lens_permuted": "logit_lens"}
# What latents are compared with on the same images.
RIVALS: tuple[Method, ...] = ("permuted", "mean_mask", "logit_lens")
KindOrAll = Literal[Kind, "all"]
KINDS_AND_ALL: tuple[KindOrAll, ...] = (*KINDS, "all")
# IoU from which on an expression counts as found, in percent.
PRECISIONS = (50, 70, 90)
# Scores that have a paired difference.
GAINS = ("giou", "ciou", "auroc", "average_precision", "pointing")


class KindScores(ResultPart):
    """Scores of one method on one kind of expression."""

    kind: KindOrAll = Field(
        description="no_place: one object, no word of place (as in RefCOCO+); place: one object, "
        "with words of place; several: several objects; none: no object; all: every expression, "
        "as published figures of RefCOCO and gRefCOCO are."
    )
    giou: Estimate = Field(
        description="Mean over expressions of the IoU of pixels; an empty prediction for an empty "
        "truth counts 1. Chance of latents and of the logit lens: expressions permuted among "
        "images."
    )
    ciou: Estimate = Field(description="Sum of intersections over sum of unions.")
    precision: dict[int, Estimate] = Field(
        description="Share of expressions with an IoU of at least 50, 70 and 90 percent."
    )
    auroc: Estimate = Field(
        description="Area under the ROC curve of the map over patches; mean over expressions whose "
        "truth is some and not all patches. A map without any difference: .5."
    )
    average_precision: Estimate = Field(description="Average precision over patches, the same.")
    pointing: Estimate = Field(
        description="Share of these whose strongest patch is one of the truth; a map of zeros "
        "points nowhere. Chance of the mean mask: itself."
    )
    gains: dict[Method, dict[str, Estimate]] = Field(
        default_factory=dict,
        exclude_if=lambda gains: not gains,
        description="Of latents: by rival and score, the score less that of the rival, on the same "
        "resampled images; chance 0.",
    )

    def figures(self, method: str | None, layer: int | None, group: str | None) -> list[Figure]:
        """Return the figures of a method (None: latents), then the gains over rivals (`method`)."""
        scores = {
            "giou": self.giou,
            "ciou": self.ciou,
            **{f"precision_{p}": self.precision[p] for p in PRECISIONS},
            "auroc": self.auroc,
            "average_precision": self.average_precision,
            "pointing": self.pointing,
        }
        named = [(f"referring_{name}", method, score) for name, score in scores.items()]
        named += [
            (f"referring_{name}_gain", rival, gain)
            for rival, by_score in self.gains.items()
            for name, gain in by_score.items()
        ]
        return [
            one.figure(name, layer, "image", of=self.kind, set=group, method=of_method)
            for name, of_method, one in named
        ]


class MethodScores(ResultPart):
    """Scores of one method on one layer."""

    method: Method = Field(description="Where the maps come from.")
    layer: int | None = Field(
        description="Block after which the stream was read; null: the chosen one, whose choice no "
        "test image had a part in, or the method reads none."
    )
    threshold: float | None = Field(
        description="Value of the map above which a pixel is predicted, chosen on validation "
        "images; null: the best mask has none."
    )
    validation_giou: float | None = Field(description="Mean IoU there.")
    kinds: list[KindScores] = Field(description="One entry a kind that has expressions, then all.")
    groups: dict[str, list[KindScores]] = Field(
        default_factory=dict,
        exclude_if=lambda groups: not groups,
        description="Where the layer is null, the same of each group of the images, if there are "
        "any: testA (people) and testB (other objects) of RefCOCO and RefCOCO+.",
    )

    def figures(self) -> list[Figure]:
        """Return the figures of all images, then those of groups of images (column `set`)."""
        method = None if self.method == "latents" else self.method
        return [
            figure
            for group, kinds in ((None, self.kinds), *self.groups.items())
            for part in kinds
            for figure in part.figures(method, self.layer, group)
        ]


class ReferringResult(MetricResult):
    """Referring segmentation of all layers."""

    judge: str = Field(description="Judge that says which labels are a term of an expression.")
    n_images: int = Field(description="Images measured that have an expression.")
    n_expressions: int = Field(description="Their expressions.")
    n_validation: int = Field(description="Expressions that thresholds were chosen on.")
    named: dict[int, float] = Field(
        description="Share of the expressions of which a word or phrase has a latent, by layer."
    )
    chosen: dict[Method, int] = Field(
        description="Layer with the largest mean IoU on validation images, by method."
    )
    scores: list[MethodScores] = Field(
        description="One entry a method and layer, then one a method."
    )

    def figures(self) -> list[Figure]:
        """Return the figures of each layer, then those without a layer: of the chosen layer, and of
        methods that read none."""
        return [figure for part in self.scores for figure in part.figures()]
