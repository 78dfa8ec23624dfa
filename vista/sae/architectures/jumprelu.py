"""A threshold a latent (Rajamanoharan et al. 2024)."""

ACTIVATION = "jumprelu"
