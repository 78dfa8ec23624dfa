"""Looking at a run's own artifacts: patch by patch, latent by latent."""
