"""The k largest of a batch in training, one threshold at inference (Bussmann et al. 2024)."""

ACTIVATION = "jumprelu"
