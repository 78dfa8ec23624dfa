"""A vision encoder out of an ONNX file, as a `save_pretrained` folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from vista.foreign.onnx import read_graph
from vista.foreign.onnx_dinov2 import Dinov2Layout
from vista.foreign.preprocessor import PREPROCESSOR


def convert_dinov2(
    path: Path,
    folder: Path,
    *,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    heads: int | None = None,
) -> None:
    """Write the DINOv2 in the ONNX file at `path` into `folder`: config.json, model.safetensors
    (float32) and preprocessor_config.json.

    Args:
        size: side of the square input, px.
        mean, std: of each colour, after pixels are scaled to 0..1.
        heads: attention heads of a block; None: one for 64 channels. The file does not tell.

    Raises UserError where the file is no ONNX file or of another layout, or where `size` or `heads`
    do not fit the model.
    """
    from safetensors.numpy import save_file

    layout = Dinov2Layout(read_graph(path))
    layout.check_size(size)
    config = layout.config(heads)
    weights = dict(layout.weights())
    folder.mkdir(parents=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    square = {"height": size, "width": size}
    processor = {
        "image_processor_type": "BitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": square,
        "do_convert_rgb": True,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }
    for name, content in (("config.json", config), (PREPROCESSOR, processor)):
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        (folder / name).write_text(text, encoding="utf-8")
