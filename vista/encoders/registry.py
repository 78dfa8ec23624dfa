"""The families of vision encoders, by name; each is loaded when it is asked for.

| family  | model_type         | prefix   | final norm     | example                            |
|---------|--------------------|----------|----------------|------------------------------------|
| clip    | clip, clip_*       | class    | none           | openai/clip-vit-large-patch14      |
| dinov2  | dinov2, dinov2_*   | class, r | layernorm      | facebook/dinov2-large              |
| dinov3  | dinov3_vit         | class, r | norm           | facebook/dinov3-vitl16-*           |
| ijepa   | ijepa              | none     | layernorm      | facebook/ijepa_vith14_1k           |
| siglip  | siglip, siglip_*   | none     | post_layernorm | google/siglip2-base-patch16-224    |
| siglip2 | siglip2, siglip2_* | none     | post_layernorm | google/siglip2-base-patch16-naflex |
| vit     | any other          | learnt   | probed         | google/vit-base-patch16-224        |
| vjepa2  | vjepa2             | none     | layernorm      | facebook/vjepa2-vitl-fpc64-256     |
| vlm     | llava, gemma3, ... | none     | none           | google/gemma-3-4b-it               |

The final norm is the one that `last_hidden_state` has on patch tokens; r are the register tokens
that the config counts; `*` stands for the rest of a name. SigLIP 2 of a fixed
resolution is `siglip`; `siglip2` is its NaFlex variant. `vlm` gives the visual tokens that a
vision-language model makes: its vision tower and its projector together. `svd` reads no model of
transformers but a pipeline of diffusers, stabilityai/stable-video-diffusion-img2vid. `svd` and
`vjepa2` see an image as a clip of frames.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vista.config.encoders import family_names
from vista.config.plugins import FAMILIES
from vista.errors import UserError
from vista.foreign.preprocessor import read_preprocessor

if TYPE_CHECKING:
    from torch import Tensor


def vision_tower(model: Any) -> Any:
    """The vision model inside one that has a text tower too, else the model itself."""
    return getattr(model, "vision_model", model)


def only_blocks(tower: Any) -> Any:
    """The tower's one ModuleList of num_hidden_layers blocks. Raises UserError if there is none."""
    from torch.nn import ModuleList

    depth = getattr(tower.config, "num_hidden_layers", None)
    lists = [
        (name, module)
        for name, module in tower.named_modules()
        if isinstance(module, ModuleList) and len(module) == depth
    ]
    # A list inside a block of another list is part of that block.
    outer = [
        module
        for name, module in lists
        if not any(name.startswith(other + ".") for other, _ in lists)
    ]
    if len(outer) != 1:
        raise UserError(
            f"vision encoder: the {tower.config.model_type} model has {len(outer)} lists of "
            f"num_hidden_layers = {depth} blocks, not one; it is not a plain vision transformer"
        )
    return outer[0]


def plain_inputs(pixels_bchw: Tensor, patch: int) -> Mapping[str, Tensor]:
    """What most towers are called with: normalised pixels [b, 3, size, size]."""
    return {"pixel_values": pixels_bchw}


@dataclass(frozen=True)
class EncoderFamily:
    """What differs between families.

    Attributes:
        model_types: values of `model_type` in config.json; empty: any.
        prefix_tokens: class and register tokens before the patches, from the tower's config.
        norm: the norm that the tower's `last_hidden_state` has on patch tokens, or None.
        resample: the resampling filter where preprocessor_config.json names none (the default of
            the family's image processor): 2 bilinear, 3 bicubic, as PIL counts them.
        inputs: what the tower is called with, from pixels [b, 3, size, size] and the patch's side.
        tower: the vision model inside what the Auto class loads.
        blocks: the tower's transformer blocks, in order.
        any_size: those of `model_types` that take images of any size.
        instead: what to do with a checkpoint of another family; empty: to name its family.
    """

    model_types: tuple[str, ...]
    prefix_tokens: Callable[[Any], int]
    norm: Callable[[Any], Any | None]
    resample: int
    inputs: Callable[[Tensor, int], Mapping[str, Tensor]] = plain_inputs
    tower: Callable[[Any], Any] = vision_tower
    blocks: Callable[[Any], Any] = only_blocks
    any_size: tuple[str, ...] = ()
    instead: str = ""


@dataclass(frozen=True, kw_only=True)
class VideoFamily(EncoderFamily):
    """A family of video models, which see an image as a clip, and have settings of their own.

    Attributes:
        shown: the model as it is shown an image; called with the model,
            `vista.config.encoders.CheckpointEncoder.own` (or None) and the side of the input, px.
        preprocessor: the settings of a folder's image processor.
        read: the model in a folder that is none of AutoModel's; called with the folder, the seed
            of random weights (or None) and the dtype.
    """

    shown: Callable[[Any, Any, int], Any]
    preprocessor: Callable[[Path], dict[str, Any]] = read_preprocessor
    read: Callable[[Path, int | None, Any], Any] | None = None


def load_family(name: str) -> EncoderFamily:
    """Return the family `name`, from the file of that name or from a plug-in.

    The code of a family counts only for the nodes that name its module (`Node.modules`), so a new
    family changes the code digest of no other node.

    Raises:
        UserError: There is none, which lists them; or a plug-in has no `FAMILY`.
    """
    plugin = FAMILIES.plugin(name)
    if plugin is not None:
        family = plugin.definition("FAMILY")
        if not isinstance(family, EncoderFamily):
            raise plugin.refusal("has a FAMILY that is no vista.encoders.registry.EncoderFamily")
        return family
    if name not in family_names():
        known = ", ".join(FAMILIES.names())
        raise UserError(f"encoder family {name!r} is unknown; known families: {known}")
    family = importlib.import_module(f"vista.encoders.families.{name}").FAMILY
    assert isinstance(family, EncoderFamily)
    return family


def family_of(model_type: str) -> str:
    """Return the name of the family that a model type belongs to; "vit" where none claims it.

    Plug-ins are not asked, since that would import them: their families are named.
    """
    named = (name for name in family_names() if model_type in load_family(name).model_types)
    return next(named, "vit")
