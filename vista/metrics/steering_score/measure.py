"""Answers to steered blank images, compared with the top images of the latents.

An answer is embedded as the mean of the images of the class that it names first; one that names no
class has no embedding, and a cosine of 0 with everything. Embeddings are centred over all images,
so that 0 is the cosine of what is unrelated.

Shape legend: l steered latent, c class, v width of the embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vista.metrics.bootstrap import bootstrap_mean
from vista.metrics.figure import Figure
from vista.metrics.rates import rate_interval
from vista.metrics.result import Estimate, MetricResult, estimate

Floats = NDArray[np.float64]

STEERED, BLANK, SHUFFLED = "steered", "blank", "shuffled"


class SteeringScoreResult(MetricResult):
    """Answers of one vision SAE's latents."""

    latents: int = Field(description="Latents that were steered.")
    embedded: list[str] = Field(description="Classes with enough images to embed an answer by.")
    blank: str | None = Field(description="The class that the unsteered answer names.")
    layer: int | None = Field(None, description="Block that the activations are of, from 0.")
    score: dict[str, Estimate] = Field(
        description="steered, blank -> mean cosine of answer and top images. Chance: the answers "
        "of all other latents."
    )
    named: dict[str, Estimate] = Field(
        description="steered, blank -> share of the latents with a label by top images whose "
        "answer names that class. Chance: answers permuted among these, in expectation."
    )
    gain: dict[str, Estimate] = Field(
        description="blank, shuffled -> cosine less that of the unsteered answer, or of the other "
        "latents' answers on average, by latent."
    )

    def figures(self) -> list[Figure]:
        """Return the rows of scores, of names and of gains."""
        return [
            value.figure(metric, self.layer, of=of)
            for metric, values in (
                ("steering_score", self.score),
                ("steering_named", self.named),
                ("steering_gain", self.gain),
            )
            for of, value in values.items()
        ]


def steering_score(
    answer_l: Sequence[str | None],
    blank: str | None,
    label_l: Sequence[str | None],
    classes: Sequence[str],
    class_cv: Floats,
    top_lv: Floats,
    draws: tuple[int, int, float],
    layer: int | None = None,
) -> tuple[SteeringScoreResult, Floats]:
    """Score answers.

    Args:
        answer_l: The class that each latent's answer names first, if any.
        blank: That of the unsteered answer.
        label_l: The class of each latent's top images; None where they have no common one.
        classes: Classes that have an embedding.
        class_cv: Their centred embeddings.
        top_lv: Mean centred embedding of each latent's top images.
        draws: Seed, resamples and level of the bootstrap over latents.
        layer: Block that the activations are of, for the rows.

    Returns:
        The result, and the cosine of each latent's answer with its top images [l].
    """
    place = {name: c for c, name in enumerate(classes)}
    unit_cv = np.concatenate([_unit(class_cv), np.zeros((1, top_lv.shape[1]))])

    def column(name: str | None) -> int:
        return place.get(name, len(classes)) if name is not None else len(classes)

    cosine_lc = _unit(top_lv) @ unit_cv.T
    answered_l = np.array([column(name) for name in answer_l], dtype=np.int64)
    steered_l = np.take_along_axis(cosine_lc, answered_l[:, None], axis=1)[:, 0]
    blank_l = cosine_lc[:, column(blank)]
    # The mean over the answers of all other latents: no random draw is needed.
    all_l = cosine_lc[:, answered_l].mean(axis=1)
    n = len(answered_l)
    others_l = (n * all_l - steered_l) / (n - 1) if n > 1 else np.full(n, np.nan)

    def mean(value_l: Floats, chance: float | None) -> Estimate:
        known = value_l[np.isfinite(value_l)]
        return estimate(bootstrap_mean(known, *draws), len(known), chance)

    labelled = [at for at, label in enumerate(label_l) if label is not None]
    labels = [label_l[at] for at in labelled]
    answers = [answer_l[at] for at in labelled]

    def share(named: Sequence[str | None]) -> Estimate:
        hits = np.array([a == b for a, b in zip(named, labels, strict=True)], dtype=float)
        equal = sum(named.count(name) * labels.count(name) for name in set(labels))
        chance = equal / len(labels) ** 2 if labels else None
        return estimate(rate_interval(hits, np.ones(len(hits)), draws[2]), len(hits), chance)

    level = float(others_l.mean()) if n > 1 else None
    result = SteeringScoreResult(
        latents=n,
        embedded=list(classes),
        blank=blank,
        layer=layer,
        score={STEERED: mean(steered_l, level), BLANK: mean(blank_l, None)},
        named={STEERED: share(answers), BLANK: share([blank] * len(labelled))},
        gain={
            BLANK: mean(steered_l - blank_l, 0.0),
            SHUFFLED: mean(steered_l - others_l, 0.0),
        },
    )
    return result, steered_l


def _unit(rows: NDArray[Any]) -> Floats:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1), dtype=np.float64)
