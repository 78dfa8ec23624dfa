"""Images and texts in one form, whatever they came in, and the geometry between pixel and patch."""
