"""Readers that bring images and texts of any format into one table; pixel-to-patch geometry."""
