"""Load the frozen models that several stages read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vista.config.encoders import (
    CheckpointEncoder,
    CombinedEncoder,
    EncoderSettings,
    StandinEncoder,
)
from vista.config.language import LanguageSettings
from vista.engine.artifacts import Artifact
from vista.errors import UserError
from vista.foreign.pretrained import loading
from vista.inputs.model_folder import model_config, model_folder

if TYPE_CHECKING:
    from vista.encoders.contract import VisionEncoder
    from vista.language.model import LanguageModel
    from vista.sae.neutral import SparseAutoencoder
    from vista.sae.text_cache import CachedText


def load_vision_encoder(settings: EncoderSettings, model: Artifact | None) -> VisionEncoder:
    """Load a vision encoder from the artifact `model`, or the folder that its settings name."""
    from vista.encoders.contract import load_encoder

    source = settings.source
    # Stage combine_features makes the features of those.
    assert not isinstance(source, CombinedEncoder)
    return load_encoder(
        model_folder(model, source, "encoder"),
        source.family,
        settings.layer,
        settings.final_norm,
        settings.device,
        settings.dtype,
        source.prefix_tokens if isinstance(source, CheckpointEncoder) else None,
        settings.tokens,
        settings.pool,
        None if isinstance(source, StandinEncoder) else source.random_weights,
        source.size if isinstance(source, CheckpointEncoder) else None,
        source.own if isinstance(source, CheckpointEncoder) else None,
    )


def load_llm(settings: LanguageSettings, model: Artifact | None) -> LanguageModel:
    """Load a language model from the artifact `model`, or the folder that its settings name."""
    from vista.language.model import LanguageModel

    return LanguageModel.load(
        model_folder(model, settings.source, "llm"),
        settings.device,
        settings.dtype,
        placement=settings.placement,
        device_map=settings.device_map,
        max_memory=settings.max_memory,
        template=settings.template,
        system=settings.system,
    )


def llm_width(settings: LanguageSettings, model: Artifact | None) -> int:
    """Return the width of a language model from its config alone; no weights are read."""
    folder = model_folder(model, settings.source, "llm", config_only=True)
    with loading(f"{folder}: its config.json tells no width", "one of a language model"):
        return int(model_config(folder).get_text_config().hidden_size)


def load_saes(
    artifacts: Sequence[Artifact], llm: LanguageModel, dtype: str = "float32"
) -> dict[int, SparseAutoencoder]:
    """Load SAEs of a language model by layer, in the order of `artifacts`, as `load_text_sae`."""
    saes = [load_text_sae(artifact, llm, dtype) for artifact in artifacts]
    return {sae.config.layer: sae for sae in saes}


def cached_text(cache: Artifact, split: str, layer: int, device: str) -> CachedText:
    """Open the cached stream of one split of the text after block `layer`, to be read onto the
    device of the language model's settings.

    Raises UserError where the cache does not hold that layer, or the machine has no such device.
    """
    from vista.device import find_device
    from vista.sae.text_cache import FACTS, CachedText, stream_file, tokens_file

    stream = cache.path / stream_file(split, layer)
    if stream.is_file():  # else `open` says which layers there are
        cache.file(stream.name)
    table = cache.file(tokens_file(split))
    return CachedText.open(cache.file(FACTS), table, stream, layer, find_device(device))


def load_sae_of_cache(
    artifact: Artifact, cache: Artifact, split: str, device: str
) -> tuple[SparseAutoencoder, CachedText]:
    """Load an SAE, float32, and open the cached stream that it reads.

    Raises UserError as `cached_text`, and where the stream has another width.
    """
    from vista.sae.neutral import CONFIG_FILE, load_sae

    artifact.verify()
    layer = int(json.loads((artifact.path / CONFIG_FILE).read_text(encoding="utf-8"))["layer"])
    cached = cached_text(cache, split, layer, device)
    return load_sae(artifact.path, expect_d_in=cached.d_model).to(cached.device), cached


def load_text_sae(
    artifact: Artifact, llm: LanguageModel, dtype: str = "float32"
) -> SparseAutoencoder:
    """Load an SAE of a language model onto the device of the block that it reads.

    Its dtype is float32 whatever the language model's: an SAE is small beside the model, and its
    error is measured.

    Raises UserError where the language model has no such block or another width.
    """
    import torch

    from vista.sae.neutral import load_sae

    artifact.verify()
    sae = load_sae(artifact.path, dtype=getattr(torch, dtype), expect_d_in=llm.d_model)
    if sae.config.layer >= llm.n_blocks:
        raise UserError(
            f"SAE {sae.config.name} reads layer {sae.config.layer}; the language model has "
            f"blocks 0..{llm.n_blocks - 1}. Correct saes.layers in the config."
        )
    return sae.to(llm.layer_device(sae.config.layer))
