"""VISTA: read vision models through the labelled text SAEs of a language model.

    import vista

    run = vista.open("results")
    readout = run.readout("dinov2", "gemma2", sae_weight=1)
    readout("cat.png").top(k=3)

The public names are loaded when they are first used: jobs of the workflow need none of them.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Readout": "vista.readout",
    "Run": "vista.library.run",
    "UserError": "vista.errors",
    "load_encoder": "vista.library.models",
    "load_llm": "vista.library.models",
    "load_projector": "vista.library.models",
    "load_sae": "vista.library.models",
}
__all__ = [*sorted(_PUBLIC), "open"]


def __getattr__(name: str) -> Any:
    if name == "open":
        return import_module("vista.library.run").open_run
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'vista' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted((*globals(), *__all__))
