"""Where a model runs: the device that a setting names."""

from __future__ import annotations

import torch

from vista.errors import UserError


def find_device(device: str) -> torch.device:
    """The device that a setting names, "auto" being the first of CUDA, MPS and CPU that is there.

    Raises:
        UserError: this machine does not have it.
    """
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = torch.backends.mps.is_available()
    if device == "auto":
        device = "cuda" if n_cuda else "mps" if mps else "cpu"
    found = torch.device(device)
    there = {"cpu": True, "mps": mps, "cuda": (found.index or 0) < n_cuda}
    if not there.get(found.type, False):
        names = ["cpu", *(["mps"] if mps else []), *(f"cuda:{i}" for i in range(n_cuda))]
        raise UserError(
            f"device: {device} is not on this machine, which has {', '.join(names)}; "
            "choose one of these or auto"
        )
    return found
