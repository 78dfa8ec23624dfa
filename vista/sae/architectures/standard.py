"""The original form: ReLU of a linear encoder."""

ACTIVATION = "relu"
