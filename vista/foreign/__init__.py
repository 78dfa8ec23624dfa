"""Helpers to read other programs' files: text, values, weights, pixels, chat templates, WordNet."""
