"""The windows that features hold at each place, where several maps were combined by windows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from vista.config.projector import AggregatorSettings
from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.inputs.latents import GEOMETRY
from vista.store.features import FeatureReader

if TYPE_CHECKING:
    from vista.projector.aggregator import AggregatorShape


def read_windows(features: Artifact, d_vision: int) -> tuple[tuple[int, int], ...]:
    """Return the windows that the features of a place hold: tokens of a window and their channels,
    for each encoder. Features without windows are one token of one encoder.

    Raises:
        UserError: The windows do not have `d_vision` channels.
    """
    path = features.file(GEOMETRY)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        windows = tuple((int(n), int(d)) for n, d in content.get("windows", [(1, d_vision)]))
        if min(map(min, windows)) < 1 or sum(n * d for n, d in windows) != d_vision:
            raise ValueError("no windows of these features")
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} does not fit the features; rebuild them") from error
    return windows


def aggregator_of(
    features: Artifact, reader: FeatureReader, sizes: AggregatorSettings | None
) -> AggregatorShape | None:
    """Return the aggregator of these sizes that reads some features, if any is asked for.

    Raises:
        UserError: The features do not tell their windows.
    """
    if sizes is None:
        return None
    from vista.projector.aggregator import AggregatorShape

    windows = read_windows(features, reader.shape[-1])
    return AggregatorShape(windows, **sizes.model_dump())
