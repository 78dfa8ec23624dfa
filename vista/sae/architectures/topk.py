"""The k largest activations of a token (Gao et al. 2024)."""

ACTIVATION = "topk"
