"""Text-to-image pipelines: their text encoder's residual stream, images of it, what they show."""
