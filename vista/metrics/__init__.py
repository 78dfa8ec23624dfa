"""Metrics: a folder a metric, and beside the folders what several of them share."""
