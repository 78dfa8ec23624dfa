"""What stages read: from input artifacts to models, latents, images, judges."""
