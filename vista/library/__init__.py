"""The library: runs of the workflow, their models and tables, in a program of one's own."""
