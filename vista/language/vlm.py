"""How a vision-language model reads an image as its own class does: the text around the visual
tokens, and what the model is called with beside them.

| model_type | around the visual tokens                       | beside the ids                   |
|------------|------------------------------------------------|----------------------------------|
| gemma3     | two line breaks and `<start_of_image>` before, | token types: visual tokens       |
|            | `<end_of_image>` and two line breaks after     | attend to later ones, too        |
| llava      | what the chat template writes                  | nothing                          |
| llava_next | what the chat template writes                  | nothing                          |
| qwen2_5_vl | what the chat template writes                  | token types and the grid, from   |
|            |                                                | which rows and columns of visual |
|            |                                                | tokens get positions          |

The text follows from the tokenizer, the rest from the model's type. Other types are refused; of
them Qwen3-VL adds further features of the image to the stream after its first blocks.

Shape suffixes: b sample, t token.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vista.errors import UserError
from vista.foreign.text import read_json_object


@dataclass(frozen=True)
class ImageFormat:
    """The text of an image in a prompt.

    Attributes:
        written: what the chat template writes for an image.
        token: the token that stands in the place of each visual token.
        before, after: what the model's processor writes around these, in the place of `written`.
    """

    written: str
    token: str
    before: str = ""
    after: str = ""


FORMATS = (
    ImageFormat(
        "<start_of_image>",
        "<image_soft_token>",
        before="\n\n<start_of_image>",
        after="<end_of_image>\n\n",
    ),
    ImageFormat("<|image_pad|>", "<|image_pad|>"),
    ImageFormat("<image>", "<image>"),
)


def image_format(tokenizer: Any) -> ImageFormat:
    """The text of an image for the models that a tokenizer belongs to.

    Raises UserError where the tokenizer has no token of an image.
    """
    for known in FORMATS:
        token_id = tokenizer.convert_tokens_to_ids(known.token)
        if token_id is not None and token_id != tokenizer.unk_token_id:
            return known
    raise UserError(
        "placement: image needs a tokenizer with a token for images "
        f"({' or '.join(known.token for known in FORMATS)}); name the checkpoint of a "
        "vision-language model, or another placement"
    )


def _no_inputs(config: Any, ids_bt: Tensor, start: int, n_visual: int) -> dict[str, Tensor]:
    return {}


def _types(ids_bt: Tensor, start: int, n_visual: int) -> Tensor:
    types_bt = torch.zeros_like(ids_bt)
    types_bt[:, start : start + n_visual] = 1
    return types_bt


def _token_types(config: Any, ids_bt: Tensor, start: int, n_visual: int) -> dict[str, Tensor]:
    return {"token_type_ids": _types(ids_bt, start, n_visual)}


def _token_grid(config: Any, ids_bt: Tensor, start: int, n_visual: int) -> dict[str, Tensor]:
    side = math.isqrt(n_visual) * config.vision_config.spatial_merge_size
    grid_b3 = ids_bt.new_tensor([[1, side, side]]).repeat(len(ids_bt), 1)
    types_bt = _types(ids_bt, start, n_visual)
    return {"mm_token_type_ids": types_bt, "image_grid_thw": grid_b3}


ImageInputs = Callable[[Any, Tensor, int, int], dict[str, Tensor]]

# By model_type: what the model of a config is called with beside ids [b, t] whose visual tokens
# stand at start .. start + n_visual - 1, on a square grid.
IMAGE_INPUTS: dict[str, ImageInputs] = {
    "gemma3": _token_types,
    "llava": _no_inputs,
    "llava_next": _no_inputs,
    "qwen2_5_vl": _token_grid,
}


def position_shift(model_type: str, n_visual: int) -> int | None:
    """What is added to the place of a token after so many visual ones to give its position; None
    where the model counts by itself.

    A square of visual tokens takes as many positions of Qwen2.5-VL as it has rows. Its class keeps
    that number of the last image that it has read, whichever sequence is read on.
    """
    return math.isqrt(n_visual) - n_visual if model_type == "qwen2_5_vl" else None


def refuse_other_class(folder: Path) -> None:
    """Raise UserError where a checkpoint is of no class whose images are read as it does."""
    model_type = read_json_object(folder / "config.json").get("model_type")
    if model_type not in IMAGE_INPUTS:
        raise UserError(
            f"{folder}: a {model_type} model cannot be read as a vision-language model; expected "
            f"one of {', '.join(IMAGE_INPUTS)}"
        )
