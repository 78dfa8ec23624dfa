"""Several processes that train one projector together, through accelerate.

Each process (a rank of torch.distributed, as torchrun starts them) holds the whole frozen language
model, takes its slice of every batch, and has the same projector after every step.
"""

from __future__ import annotations

import os

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray

from vista.errors import UserError


def join_ranks(device: torch.device) -> Accelerator:
    """Return this process's place among the ranks whose models lie on `device`'s kind of device.

    Without torchrun's environment it is the only one. On CUDA the current device becomes the one
    of this rank, so models are loaded after this. Raises UserError where the machine has fewer
    GPUs than processes.
    """
    place = int(os.environ.get("LOCAL_RANK", 0))
    if device.type == "cuda" and place >= torch.cuda.device_count():
        raise UserError(
            f"projector.stages: processes: {os.environ.get('LOCAL_WORLD_SIZE')} asks for as many "
            f"GPUs on a machine, this one has {torch.cuda.device_count()}; lower `processes`."
        )
    return Accelerator(cpu=device.type == "cpu", device_placement=False, mixed_precision="no")


def share(chosen: NDArray[np.int64], ranks: Accelerator) -> NDArray[np.int64]:
    """Return this rank's slice of a batch: the slices follow one another and none is empty.

    Raises UserError where the batch has fewer images than there are ranks.
    """
    if len(chosen) < ranks.num_processes:
        raise UserError(
            f"projector.stages: a batch of {len(chosen)} images cannot be shared by "
            f"{ranks.num_processes} processes; lower `processes` or raise `batch_size`."
        )
    part: NDArray[np.int64] = np.array_split(chosen, ranks.num_processes)[ranks.process_index]
    return part


def total(ranks: Accelerator, *values: float) -> list[float]:
    """Return the sum of each value over all ranks."""
    if ranks.num_processes == 1:
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64, device=ranks.device)
    totals: list[float] = ranks.reduce(sums, reduction="sum").tolist()
    return totals
