"""Sparse autoencoders on the residual stream: neutral form, import, training, gate, labels."""
