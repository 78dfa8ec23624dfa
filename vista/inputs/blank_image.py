"""The features of a blank image: an encoder's answer to a picture of one colour."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vista.config.encoders import EncoderSettings
from vista.data.geometry import prepare_image
from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.inputs.models import load_vision_encoder

Colour = Literal["white", "mean", "black"]


def blank_features(
    settings: EncoderSettings, model: Artifact | None, colour: Colour
) -> NDArray[np.float32]:
    """Return the features [patch, channel] of a blank image, as the stage `features` stores them:
    through the same preprocessing, rounded to float16.

    Args:
        settings: How the encoder is read.
        model: The encoder, unless its settings name a folder.
        colour: White, black, or the colour that the encoder's preprocessing makes zero.

    Raises:
        UserError: The encoder is a combined one, which reads no picture.
    """
    if settings.source.kind == "combined":
        raise UserError(
            "a blank image needs an encoder that reads pictures, and a combined one reads the "
            "features of its parts; name one of its parts"
        )
    encoder = load_vision_encoder(settings, model)
    fills = {"white": (255, 255, 255), "mean": encoder.mean_colour, "black": (0, 0, 0)}
    picture = Image.new("RGB", (encoder.size, encoder.size), fills[colour])
    pixels = prepare_image(
        picture, encoder.size, settings.fit, encoder.mean_colour, encoder.resample
    )
    features_pv = encoder.encode(pixels[None])[0].cpu().numpy()
    return features_pv.astype(np.float16).astype(np.float32)
