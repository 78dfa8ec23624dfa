"""What a job of this metric will need. Symbols: d channels, s latents, N images, c classes."""

from __future__ import annotations

from vista.engine.forecast.need import ROW, SMALL, UNKNOWN, Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.forecast.shared import classes, encoding_need, vision_sae
from vista.engine.node import Node

_NEWTON = 400.0  # FLOP a latent, bin and class: forty steps


def need(node: Node, shapes: Shapes) -> Need:
    """The SAE and a random dictionary encode every patch; probes on bins of all latents; semi-NMF.
    Held: features, channels, components and the semi-NMF's activations of all patches."""
    size, settings, records = vision_sae(node, shapes), node.settings, one(node, "records")
    fitted, judged = (shapes.rows(records, settings[split]) for split in ("fit_split", "split"))
    if size is None or fitted is None or judged is None:
        return UNKNOWN
    d, s, patches = size
    fitted = min(fitted, settings["fit_images"] or fitted)
    judged = min(judged, settings["images"] or judged)
    tokens = patches * (fitted + judged)
    inner = min(s, settings["semi_nmf_latents"])
    rounds = settings["semi_nmf_iterations"] * (tokens + 2 * settings["semi_nmf_patches"])
    named = classes(node)
    flops = _NEWTON * (2 * s + 2 * d + inner) * (2 * settings["bins"] + 1) * named
    flops += 4.0 * inner * inner * rounds + 800.0 * patches * fitted * d * named
    resampling = 6.0 * settings["bootstrap"]["resamples"] * judged * patches * named
    held = 4.0 * tokens * (4 * d + inner)
    disk = SMALL + 6 * ROW / 16 * named
    return encoding_need(node, shapes, disk, 4.0 * d * s * tokens, flops + resampling, held)
