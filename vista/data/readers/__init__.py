"""Readers of data sets in common formats: a module each, named as `kind` in the settings."""
