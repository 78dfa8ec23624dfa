"""One forward pass of a model that accelerate spread over two devices, without having two.

Fake tensors know their device and shape but no values; every operation on tensors of two devices
fails as it would on two GPUs. Run as `python two_devices.py FOLDER`; a process of its own, since a
device type is registered for a whole process. Prints what lies where, as JSON.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

import torch
from accelerate import dispatch_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils import backend_registration

from vista.language.model import LanguageModel
from vista.projector.loss import sae_term
from vista.sae.neutral import SaeConfig, SparseAutoencoder

FIRST, SECOND = "twin:0", "twin:1"


def spread(lm: LanguageModel, mode: FakeTensorMode) -> None:
    """Embeddings and block 0 on the first device, all that comes later on the second."""
    late = {id(module) for block in lm.blocks[1:] for module in block.modules()}
    late |= {id(lm.model.model.norm), id(lm.model.get_output_embeddings())}
    device_map = {}
    for name, module in lm.model.named_modules():
        place = SECOND if id(module) in late else FIRST
        if not list(module.children()) or any(module is block for block in lm.blocks):
            device_map[name] = place
        for tensors in (module._parameters, module._buffers):
            for key, value in tensors.items():
                if value is not None:
                    fake: Any = mode.from_tensor(value.detach()).to(place)
                    if isinstance(value, torch.nn.Parameter):
                        fake = torch.nn.Parameter(fake, requires_grad=False)
                    tensors[key] = fake
    dispatch_model(lm.model, device_map)


def sae(lm: LanguageModel, layer: int) -> SparseAutoencoder:
    """An SAE on its block's device, as `vista.inputs.models` puts it."""
    d, s = lm.d_model, 8
    shapes = {"W_enc": (d, s), "b_enc": (s,), "W_dec": (s, d), "b_dec": (d,)}
    place = lm.layer_device(layer)
    weights = {name: torch.ones(shape, device=place) for name, shape in shapes.items()}
    config = SaeConfig("standard", d_in=d, d_sae=s, layer=layer, name="test")
    return SparseAutoencoder(config, weights)


def main(folder: str) -> None:
    warnings.simplefilter("ignore")
    backend_registration._setup_privateuseone_for_python_backend(rename="twin")
    lm = LanguageModel.load(folder)
    seen: dict[str, str] = {}

    def edit(h_btd: torch.Tensor) -> torch.Tensor:
        seen["edit"] = str(h_btd.device)
        return h_btd + torch.ones(lm.d_model, device=lm.layer_device(1))

    with FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv()) as mode:
        spread(lm, mode)
        ids = torch.ones(2, 9, dtype=torch.int64, device=lm.device)
        visual = torch.randn(2, 3, lm.d_model, device=SECOND)
        at = torch.zeros(2, 9, dtype=torch.bool, device=lm.device)
        whole = lm.forward(
            ids, torch.ones_like(ids), visual=visual, taps=range(lm.n_blocks), edits={1: edit}
        )
        some = lm.forward(ids, visual=visual, logits_at=at)
        short = lm.forward(ids, visual=visual, taps=(0, 1), stop_after=1)
        stream = lm.embed(ids)
        term = sae_term(whole.taps, {layer: sae(lm, layer) for layer in (0, 2)}, slice(1, 4))
    assert whole.logits is not None
    assert some.logits is not None
    seen |= {
        "device": str(lm.device),
        "logits": str(whole.logits.device),
        "some": str(some.logits.device),
        "stream": str(stream.device),
        "term": str(term.device),
    }
    for name, taps in (("tap", whole.taps), ("short", short.taps)):
        seen |= {f"{name}{layer}": str(tap.device) for layer, tap in taps.items()}
    print(json.dumps(seen))


if __name__ == "__main__":
    main(sys.argv[1])
