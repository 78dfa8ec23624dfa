"""Downloads of models, SAEs, labels and data."""
