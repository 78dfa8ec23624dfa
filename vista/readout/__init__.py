"""From an image to its labelled latents and its caption, with or without an edit."""

from vista.readout.edits import ConceptEdit, LatentEdit
from vista.readout.models import Readout
from vista.readout.seen import LayerLatents, SeenImages

__all__ = ["ConceptEdit", "LatentEdit", "LayerLatents", "Readout", "SeenImages"]
