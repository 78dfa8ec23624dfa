"""What the machine can do at most: the physical limits that stand beside the figures."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.case import seconds


def describe() -> dict[str, Any]:
    """Return processor, cores, memory (GB), and the versions that decide about speed."""
    from importlib.metadata import version

    models = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    import torch

    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(pages / 1e9),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "transformers", "zarr", "numpy")},
        "matmul_gflops": round(peak_flops() / 1e9),
        "copy_gb_per_second": round(bandwidth() / 1e9, 1),
    }


@cache
def peak_flops() -> float:
    """Floating point operations a second of a large float32 matrix product."""
    import torch

    n = 1536
    a, b = torch.ones(n, n), torch.ones(n, n)
    torch.mm(a, b)
    return 2 * n**3 / min(seconds(lambda: torch.mm(a, b)) for _ in range(5))


@cache
def bandwidth() -> float:
    """Bytes a second that one thread reads and writes in a plain copy of 256 MB."""
    source = np.ones(2**26, dtype=np.float32)
    target = np.empty_like(source)
    np.copyto(target, source)
    return source.nbytes / min(seconds(lambda: np.copyto(target, source)) for _ in range(5))
