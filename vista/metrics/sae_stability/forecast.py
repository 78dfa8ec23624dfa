"""What a job of this metric will need. Symbols: a, b latents of the smaller and the larger of two
dictionaries."""

from __future__ import annotations

from itertools import combinations

from vista.config.vision_sae import TrainVisionSaeSettings
from vista.engine.forecast.need import ROW, SMALL, TORCH_START, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes, all_known, many
from vista.engine.forecast.shared import imported_latents
from vista.engine.node import Node

# A pair is matched three times: itself, and two random pairs of as many rows.
_MATCHINGS = 3


def need(node: Node, shapes: Shapes) -> Need:
    """The Hungarian method takes about 2 a^2 b operations (3.2 s for two random dictionaries of
    4,096 latents). Held: cosines, their negative and a copy, a b numbers of 8 bytes each."""
    sizes = all_known(_latents(sae, node, shapes) for sae in many(node, "saes"))
    if sizes is None:
        return UNKNOWN
    pairs = [sorted(pair) for pair in combinations(sizes, 2)]
    operations = _MATCHINGS * sum(2.0 * a * a * b for a, b in pairs)
    held = max(24.0 * a * b for a, b in pairs)
    seconds = TORCH_START + shapes.cpu.seconds(operations)
    return Need(SMALL + ROW / 2 * len(pairs), 0.0, seconds, held)


def _latents(sae: Node, node: Node, shapes: Shapes) -> int | None:
    if sae.stage == "import_vision_sae":
        return imported_latents(sae, shapes)
    if sae.stage not in ("train_vision_sae", "train_guided_sae"):
        return shapes.d_sae(sae)
    features = shapes.features(node)
    settings = TrainVisionSaeSettings.model_validate(sae.order["sae"])
    return settings.latents(features.d_vision) if features else None
