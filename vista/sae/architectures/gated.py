"""A gate and a magnitude a latent (Rajamanoharan et al. 2024)."""

ACTIVATION = "gated"
