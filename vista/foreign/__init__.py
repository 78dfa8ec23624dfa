"""What readers of other programs' files have in common: their text, their values, their weights."""
