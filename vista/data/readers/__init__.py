"""Readers of data in the forms that others keep them in: a module each, by the kind in settings."""
