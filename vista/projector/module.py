"""The projector's module and its file form.

Legend of shape suffixes: b image, p patch token, v encoder width, d LLM width.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vista.engine.artifacts import canonical_json
from vista.errors import UserError, reason_of
from vista.projector.aggregator import AggregatorShape, SpatialAggregator, draw_weights

WEIGHTS = "projector.safetensors"
CONFIG = "projector.json"
# kind -> number of linear layers, with a GELU between two; those of an aggregator follow it
KINDS = {"identity": 0, "linear": 1, "mlp": 2, "spatial_aggregator": 2}
# Largest size of an aggregator that a file may name.
_LARGEST = 1 << 16


class Projector(nn.Module):
    """From patch features to the residual stream entering block 0: [b, p, v] -> [b, p, d].

    `linear` is one linear layer with bias (VISTA paper); `mlp` has a second one, from d_model to
    d_model, after a GELU (LLaVA 1.5, arXiv 2310.03744). `identity` gives its input: that of a
    vision-language model, whose features are visual tokens already. `spatial_aggregator` reads
    windows of the maps of several encoders (Cambrian-1, arXiv 2406.16860) before the two layers of
    an `mlp`; its features are the windows of each place, and `aggregator` says which.

    Raises ValueError where `aggregator` is missing, or does not fit `d_vision`.
    """

    def __init__(
        self, kind: str, d_vision: int, d_model: int, aggregator: AggregatorShape | None = None
    ) -> None:
        super().__init__()
        self.kind, self.d_vision, self.d_model = kind, d_vision, d_model
        self.aggregator = aggregator
        self.sampler: SpatialAggregator | None = None
        width = d_vision
        if kind == "spatial_aggregator":
            if aggregator is None or aggregator.channels != d_vision:
                raise ValueError(f"an aggregator {aggregator} of {d_vision} channels")
            self.sampler, width = SpatialAggregator(aggregator), aggregator.hidden
        self.layers = nn.ModuleList(
            nn.Linear(d_model if i else width, d_model) for i in range(KINDS[kind])
        )

    def linears(self) -> list[nn.Linear]:
        """The linear layers, first to last; those of an aggregator are no part of them."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def forward(self, features_bpv: Tensor) -> Tensor:
        out = features_bpv if self.sampler is None else self.sampler(features_bpv)
        for number, layer in enumerate(self.layers):
            out = layer(nn.functional.gelu(out) if number else out)
        return out


def make_projector(
    kind: str,
    d_vision: int,
    d_model: int,
    seed: int,
    init_scale: float = 1.0,
    aggregator: AggregatorShape | None = None,
) -> Projector:
    """Return a fresh projector whose weights, uniform in +-init_scale / sqrt(inputs of the layer),
    depend on `seed` alone; an aggregator has norms, which `init_scale` would not change.

    Raises UserError for an unknown kind.
    """
    if kind not in KINDS:
        raise UserError(f"projector.kind {kind!r} is unknown; known kinds: {', '.join(KINDS)}")
    module = Projector(kind, d_vision, d_model, aggregator)
    generator = torch.Generator().manual_seed(seed)
    if module.sampler is not None:
        draw_weights(module.sampler, generator)
    with torch.no_grad():
        for layer in module.linears():
            bound = init_scale * layer.in_features**-0.5
            for parameter in layer.parameters():
                parameter.uniform_(-bound, bound, generator=generator)
    return module


def save_projector(folder: Path, module: Projector) -> None:
    """Write the projector into `folder`: safetensors and a JSON of its shape."""
    weights = {
        name: value.detach().float().cpu().contiguous()
        for name, value in module.state_dict().items()
    }
    save_file(weights, folder / WEIGHTS)
    shape: dict[str, Any] = {
        "kind": module.kind,
        "d_vision": module.d_vision,
        "d_model": module.d_model,
    }
    if module.aggregator is not None:
        shape["aggregator"] = asdict(module.aggregator)
    (folder / CONFIG).write_text(canonical_json(shape) + "\n")


def _aggregator(content: Any, d_vision: int) -> AggregatorShape:
    """Return the sizes of an aggregator in a projector's file.

    Raises ValueError, KeyError or TypeError where they are none, or too large to be meant.
    """
    windows = tuple((tokens, width) for tokens, width in content["windows"])
    sizes = [content[name] for name in ("hidden", "heads", "depth")]
    numbers = [*sizes, *(number for pair in windows for number in pair)]
    if not all(type(number) is int and 0 < number <= _LARGEST for number in numbers):
        raise ValueError(f"sizes of its aggregator are no integers from 1 to {_LARGEST}")
    hidden, heads, depth = sizes
    shape = AggregatorShape(windows, hidden, heads, depth, bool(content["context"]))
    if shape.channels != d_vision:
        raise ValueError(f"its windows have {shape.channels} channels, not {d_vision}")
    return shape


def load_projector(folder: Path, *, d_vision: int, d_model: int) -> Projector:
    """Read the projector in `folder`, frozen and in evaluation mode.

    Raises UserError where its widths are not those of the encoder and the LLM, or a file is missing
    or damaged.
    """
    try:
        shape = json.loads((folder / CONFIG).read_text())
        kind, _, _ = shape["kind"], shape["d_vision"], shape["d_model"]
        if kind not in KINDS:
            raise ValueError(f"kind {kind!r} is none of {', '.join(KINDS)}")
        aggregator = None
        if kind == "spatial_aggregator":
            aggregator = _aggregator(shape["aggregator"], shape["d_vision"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{folder / CONFIG}: not the config of a projector ({reason_of(error)}); train or "
            "import it again"
        ) from error
    for name, expected in (("d_vision", d_vision), ("d_model", d_model)):
        if shape[name] != expected:
            raise UserError(
                f"{folder / CONFIG}: {name} is {shape[name]}, the models here have {expected}; "
                "give the encoder and the LLM that the projector was trained for."
            )
    module = Projector(kind, d_vision, d_model, aggregator)
    try:
        module.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{folder / WEIGHTS}: not the weights of this projector "
            f"({reason_of(error)}); train or import it again"
        ) from error
    return module.requires_grad_(False).eval()
