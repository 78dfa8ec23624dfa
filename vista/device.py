"""The device that a model runs on."""

from __future__ import annotations

import torch

from vista.errors import UserError


def find_device(device: str) -> torch.device:
    """Return the device that a setting names; "auto" is the first of CUDA, MPS and CPU.

    Raises:
        UserError: The machine does not have the device.
    """
    n_cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = torch.backends.mps.is_available()
    if device == "auto":
        device = "cuda" if n_cuda else "mps" if mps else "cpu"
    chosen = torch.device(device)
    available = {"cpu": True, "mps": mps, "cuda": (chosen.index or 0) < n_cuda}
    if not available.get(chosen.type, False):
        names = ["cpu", *(["mps"] if mps else []), *(f"cuda:{i}" for i in range(n_cuda))]
        raise UserError(
            f"device: {device} is not on this machine, which has {', '.join(names)}; "
            "choose one of these or auto"
        )
    return chosen
