"""Small cut-outs, grounds and settings of composed scenes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vista.config.composed import ComposedData

# Colour of the cut-outs of each noun, as photographs of it would have in common.
COLOURS = {"cat": (200, 30, 30), "owl": (30, 200, 30), "scissors": (30, 30, 200)}


def write_cutouts(folder: Path, counts: dict[str, int]) -> Path:
    """Write cut-outs and their map into `folder`, and return the map's path.

    A cut-out is a disc of its noun's colour, its number in the red channel, in a transparent frame.
    """
    nouns = {}
    for noun, count in counts.items():
        for number in range(count):
            name = f"{noun}/{number}.png"
            (folder / "cutouts" / noun).mkdir(parents=True, exist_ok=True)
            rows, columns = np.indices((30, 40))
            disc_hw = (rows - 15) ** 2 + (columns - 20) ** 2 < 12**2
            pixels = np.zeros((30, 40, 4), np.uint8)
            pixels[disc_hw] = (*COLOURS[noun], 255)
            pixels[disc_hw, 0] += number
            Image.fromarray(pixels).save(folder / "cutouts" / name)
            nouns[name] = noun
    (folder / "map.json").write_text(json.dumps(nouns))
    return folder / "map.json"


def composed(folder: Path, **changes: Any) -> ComposedData:
    """Settings of a few small scenes on plain grounds of the cut-outs of `write_cutouts`."""
    return ComposedData(
        **{
            "kind": "composed",
            "cutouts": {"map": str(folder / "map.json"), "folder": str(folder / "cutouts")},
            "grounds": [{"colour": [250, 250, 250], "name": "snow"}, {"colour": [0, 0, 0]}],
            "scenes": {"train": 12, "validation": 4, "test": 8, "held_out": 6},
            "image_size": 48,
            **changes,
        }
    )
