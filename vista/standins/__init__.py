"""Small models that a run trains itself, saved and loaded as any pretrained one."""
