"""What a job of this metric will need."""

from __future__ import annotations

from vista.engine.forecast import formulas
from vista.engine.forecast.need import SMALL, TORCH_START, Need
from vista.engine.forecast.shapes import Shapes, one
from vista.engine.forecast.shared import text_tokens
from vista.engine.node import Node

# With the reconstruction, the mean and zeros in the place of the stream.
_PASSES_A_LAYER = 3


def need(node: Node, shapes: Shapes) -> Need:
    """One pass as it is and three a layer with an SAE, of the images with their answers and of the
    text control; one pass for the means. The SAE of each layer reads its tokens once."""
    shape, vision, saes = shapes.llm(node), shapes.features(node), shapes.saes(node)
    settings, device = node.order["spliced_loss"], shapes.llm_device(node)
    if shape is None or vision is None or saes is None:
        return Need(SMALL, None, None)
    most, batch = settings["max_length"], settings["batch_size"]
    answer = formulas.text_tokens(most, vision.patches)
    length = vision.patches + answer
    # Three float32 copies of the logits of the answers.
    logits = 12.0 * batch * answer * shape.vocabulary
    memory = device.memory(formulas.reading_memory(shape, device, saes, batch, length) + logits)
    records = one(node, "records")
    rows = shapes.rows(records, settings["split"])
    others = shapes.rows(records, settings["mean_split"])
    if rows is None or others is None:
        return Need(SMALL, memory, None)
    text = text_tokens(node, shapes, most, vision.patches, first=True)
    # With the image, and the control.
    tokens = vision.patches + 2 * text
    passes = 1 + _PASSES_A_LAYER * len(saes.layers)
    scored = formulas.forward_flops(shape, rows * tokens * passes, 2 * rows * text * passes)
    others = min(others, settings["mean_images"])
    averaged = formulas.forward_flops(shape, others * tokens, 0, blocks=max(saes.layers) + 1)
    encoded = formulas.sae_flops(shape.d_model, saes, rows * (vision.patches + text), decoded=True)
    return Need(SMALL, memory, TORCH_START + device.seconds(scored + averaged, encoded))
