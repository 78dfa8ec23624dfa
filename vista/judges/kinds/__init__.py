"""The kinds of judges: a module each, with its `Settings` and its `create`.

A plan reads all of these files for their settings, so that what is slow to import (numpy, torch,
an HTTP client) is imported inside functions.
"""
