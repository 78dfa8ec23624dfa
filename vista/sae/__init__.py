"""Sparse autoencoders on the residual stream: neutral form, sources, gate, labels."""
