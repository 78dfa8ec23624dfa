"""BatchTopK with nested dictionaries (Bussmann et al. 2025)."""

ACTIVATION = "jumprelu"
