"""The projector's module and its file form.

Legend of shape suffixes: b image, p patch token, v encoder width, d LLM width.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from vista.engine.artifacts import canonical_json
from vista.errors import UserError, reason_of

WEIGHTS = "projector.safetensors"
CONFIG = "projector.json"
# kind -> number of linear layers, with a GELU between two
KINDS = {"identity": 0, "linear": 1, "mlp": 2}


class Projector(nn.Module):
    """From patch features to the residual stream entering block 0: [b, p, v] -> [b, p, d].

    `linear` is one linear layer with bias (VISTA paper); `mlp` has a second one, from d_model to
    d_model, after a GELU (LLaVA 1.5, arXiv 2310.03744). `identity` gives its input: that of a
    vision-language model, whose features are visual tokens already.
    """

    def __init__(self, kind: str, d_vision: int, d_model: int) -> None:
        super().__init__()
        self.kind, self.d_vision, self.d_model = kind, d_vision, d_model
        self.layers = nn.ModuleList(
            nn.Linear(d_model if i else d_vision, d_model) for i in range(KINDS[kind])
        )

    def linears(self) -> list[nn.Linear]:
        """The linear layers, first to last."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def forward(self, features_bpv: Tensor) -> Tensor:
        out = features_bpv
        for number, layer in enumerate(self.layers):
            out = layer(nn.functional.gelu(out) if number else out)
        return out


def make_projector(
    kind: str, d_vision: int, d_model: int, seed: int, init_scale: float = 1.0
) -> Projector:
    """Return a fresh projector whose weights, uniform in +-init_scale / sqrt(inputs of the layer),
    depend on `seed` alone.

    Raises UserError for an unknown kind.
    """
    if kind not in KINDS:
        raise UserError(f"projector.kind {kind!r} is unknown; known kinds: {', '.join(KINDS)}")
    module = Projector(kind, d_vision, d_model)
    generator = torch.Generator().manual_seed(seed)
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
    shape = {"kind": module.kind, "d_vision": module.d_vision, "d_model": module.d_model}
    (folder / CONFIG).write_text(canonical_json(shape) + "\n")


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
    module = Projector(kind, d_vision, d_model)
    try:
        module.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise UserError(
            f"{folder / WEIGHTS}: not the weights of this projector "
            f"({reason_of(error)}); train or import it again"
        ) from error
    return module.requires_grad_(False).eval()
