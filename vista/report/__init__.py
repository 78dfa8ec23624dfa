"""The long table, the readable summary and the figures of a run."""
