"""The families of vision encoders: a module each, with its `FAMILY`."""
