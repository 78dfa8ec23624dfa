"""Directions of concepts, and edits of visual tokens along them."""
