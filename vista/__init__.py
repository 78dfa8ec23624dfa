"""VISTA: read vision models through the labelled text SAEs of a language model."""

__version__ = "0.1.0"
