"""The projector's module and its file form.

Legend of shape suffixes: b image, p patch token, v encoder width, d LLM width.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vista.artifacts import canonical_json
from vista.errors import UserError

WEIGHTS = "projector.safetensors"
CONFIG = "projector.json"


class LinearProjector(nn.Module):
    """One linear layer with bias from patch features to the residual stream entering block 0.

    Shapes: [b, p, d_vision] -> [b, p, d_model] (VISTA paper, one linear layer).
    """

    kind = "linear"

    def __init__(self, d_vision: int, d_model: int) -> None:
        super().__init__()
        self.d_vision = d_vision
        self.d_model = d_model
        self.linear = nn.Linear(d_vision, d_model)

    def forward(self, features_bpv: Tensor) -> Tensor:
        out_bpd: Tensor = self.linear(features_bpv)
        return out_bpd


def make_projector(
    kind: str, d_vision: int, d_model: int, seed: int, init_scale: float = 1.0
) -> LinearProjector:
    """Return a fresh projector whose weights, uniform in +-init_scale / sqrt(d_vision), depend on
    `seed` alone.

    Raises UserError for an unknown kind.
    """
    if kind != LinearProjector.kind:
        raise UserError(f"projector.kind {kind!r} is unknown; it can be 'linear'.")
    module = LinearProjector(d_vision, d_model)
    generator = torch.Generator().manual_seed(seed)
    bound = init_scale * d_vision**-0.5
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return module


def save_projector(folder: Path, module: LinearProjector) -> None:
    """Write the projector into `folder`: safetensors and a JSON of its shape."""
    weights = {name: value.detach().cpu().contiguous() for name, value in _state(module).items()}
    save_file(weights, folder / WEIGHTS)
    shape = {"kind": module.kind, "d_vision": module.d_vision, "d_model": module.d_model}
    (folder / CONFIG).write_text(canonical_json(shape) + "\n")


def load_projector(folder: Path, *, d_vision: int, d_model: int) -> LinearProjector:
    """Read the projector in `folder`, frozen and in evaluation mode.

    Raises UserError where its widths are not those of the encoder and the LLM.
    """
    shape = json.loads((folder / CONFIG).read_text())
    for name, expected in (("d_vision", d_vision), ("d_model", d_model)):
        if shape[name] != expected:
            raise UserError(
                f"{folder / CONFIG}: {name} is {shape[name]}, the models here have {expected}; "
                "give the encoder and the LLM that the projector was trained for."
            )
    module = LinearProjector(d_vision, d_model)
    module.load_state_dict(load_file(folder / WEIGHTS))
    return module.requires_grad_(False).eval()


def _state(module: nn.Module) -> dict[str, Tensor]:
    state: dict[str, Tensor] = module.state_dict()
    return state
