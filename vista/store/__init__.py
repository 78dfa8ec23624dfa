"""Zarr stores: dense features and sparse latents, safe against kills, bit flips and lost files."""
