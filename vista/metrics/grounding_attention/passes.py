"""Attention of captions' words with their own image and with another one.

Legend of shape suffixes: b caption, t token, i pair of image and object, n chosen token, l layer,
h head, r reading, p patch; of attention that is read, visual token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vista.inputs.maps import mean_over_frames
from vista.metrics.grounding_attention.maps import (
    MapValues,
    Readings,
    join_values,
    map_values,
    other_regions,
)
from vista.metrics.grounding_attention.measure import (
    POSITIONS,
    Measured,
    Position,
    Words,
    caption_scores,
)
from vista.metrics.grounding_attention.mentions import Caption, Mention
from vista.metrics.ranking import FloatArray
from vista.metrics.shuffled import other_images
from vista.progress import progress

if TYPE_CHECKING:
    from torch import Tensor

# Reads captions with the images of as many rows of the records.
Read = Callable[[Sequence[Caption], Sequence[int]], "Passed"]


@dataclass(frozen=True)
class Passed:
    """One pass over captions.

    Attributes:
        weights_nlhp: Attention to visual tokens of the tokens at `at_bt`, in row-major order.
        at_bt: Those tokens.
        nats_b: Nats a token of each caption.
    """

    weights_nlhp: Tensor
    at_bt: Tensor
    nats_b: FloatArray


def measure_captions(
    captions: Sequence[Caption],
    read: Read,
    *,
    frames: int,
    n_visual: int,
    batch_size: int,
    seed: int,
) -> tuple[Measured, Readings]:
    """Read each caption with its own image and with another one, and score the attention.

    Args:
        captions: One caption or more.
        read: Reads some of them.
        frames: Visual tokens of a patch that are frames of a clip.
        n_visual: Visual tokens among the tokens before a caption.
        batch_size: Captions a pass.
        seed: Of the choice of the other images.
    """
    n = len(captions)
    mentions = [(b, mention) for b, caption in enumerate(captions) for mention in caption.mentions]
    image_i = np.array([b for b, _ in mentions], dtype=np.int64)
    region_ip = np.stack([mention.region_p for _, mention in mentions])
    others = other_regions(region_ip, image_i)
    image_of = {"own": np.arange(n)}
    if n > 1:
        image_of["other"] = other_images(n, seed)
    parts: dict[tuple[str, Position], list[MapValues]] = {}
    nats = {whose: np.zeros(n) for whose in image_of}
    readings = Readings(1, 1)
    for start in progress(range(0, n, batch_size), desc="attention", unit="batch"):
        batch = slice(start, min(start + batch_size, n))
        of_batch = slice(*np.searchsorted(image_i, [batch.start, batch.stop]).tolist())
        for whose, image_b in image_of.items():
            rows = [captions[b].row for b in image_b[batch]]
            passed = read(captions[batch], rows)
            nats[whose][batch] = passed.nats_b
            readings = Readings(*passed.weights_nlhp.shape[1:3])
            maps = _maps(passed, captions[batch], readings, frames)
            for position, maps_irp in maps.items():
                values = map_values(maps_irp, region_ip[of_batch], others.of(of_batch))
                parts.setdefault((whose, position), []).append(values)
    joined = {key: join_values(values) for key, values in parts.items()}
    even = _even([mention for _, mention in mentions], n_visual)
    words = Words(
        image_i,
        region_ip.mean(axis=1),
        {position: joined["own", position] for position in POSITIONS},
        even,
    )
    scores = {
        whose: caption_scores(
            {position: joined[whose, position] for position in POSITIONS}, image_i, nats[whose]
        )
        for whose in image_of
    }
    return Measured(words, scores["own"], scores.get("other")), readings


def mention_tokens(captions: Sequence[Caption], like_bt: Tensor) -> Tensor:
    """Return which tokens are those of mentions or just before one, [b, t] bool."""
    at_bt = like_bt != like_bt
    for b, caption in enumerate(captions):
        for mention in caption.mentions:
            at_bt[b, [mention.tokens[0] - 1, *mention.tokens]] = True
    return at_bt


def _maps(
    passed: Passed, captions: Sequence[Caption], readings: Readings, frames: int
) -> dict[Position, FloatArray]:
    """Return the maps [i, r, p] of the mentions by position."""
    place_bt = (passed.at_bt.flatten().cumsum(0) - 1).view(passed.at_bt.shape).tolist()
    maps: dict[Position, list[NDArray[Any]]] = {position: [] for position in POSITIONS}
    for b, caption in enumerate(captions):
        for mention in caption.mentions:
            of_word = [place_bt[b][t] for t in mention.tokens]
            before = [place_bt[b][mention.tokens[0] - 1]]
            maps["word"].append(_mean(passed.weights_nlhp, of_word, frames))
            maps["before"].append(_mean(passed.weights_nlhp, before, frames))
    return {position: readings.of(np.stack(weights)) for position, weights in maps.items()}


def _mean(weights_nlhp: Tensor, rows: list[int], frames: int) -> NDArray[Any]:
    """Return the mean attention of some tokens to each patch [l, h, p]: that to all its frames, so
    that what goes to the image stays as it is."""
    mean_lhp: NDArray[Any] = weights_nlhp[rows].mean(dim=0).numpy()
    return frames * mean_over_frames(mean_lhp, frames)


def _even(mentions: Sequence[Mention], n_visual: int) -> dict[Position, FloatArray]:
    """Return the share of visual tokens among the tokens so far, at each position."""
    return {
        "word": np.array(
            [np.mean([n_visual / (t + 1) for t in mention.tokens]) for mention in mentions]
        ),
        "before": np.array([n_visual / mention.tokens[0] for mention in mentions]),
    }
