"""The usual way to do the same work, small and fair: what a researcher would run instead."""
