"""Text-to-image pipelines: edits of the text encoder's residual stream, images, attributes."""
