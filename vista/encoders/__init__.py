"""Vision encoders behind one contract: patch tokens [image, patch, channel] on a known grid."""
