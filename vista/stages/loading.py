"""From a job's inputs to the frozen models that several stages need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vista.config.encoders import CheckpointEncoder, CombinedEncoder, EncoderSettings
from vista.config.language import LanguageSettings
from vista.engine.artifacts import Artifact, Job
from vista.errors import UserError
from vista.foreign.pretrained import loading
from vista.stages.model_folder import model_config, model_folder

if TYPE_CHECKING:
    from vista.encoders.contract import VisionEncoder
    from vista.language.model import LanguageModel
    from vista.sae.neutral import SparseAutoencoder


def load_vision_encoder(job: Job) -> VisionEncoder:
    """Load the job's vision encoder: its input `encoder`, or the checkpoint that its settings
    name."""
    from vista.encoders.contract import load_encoder

    settings = EncoderSettings.model_validate(job.settings["encoder"])
    source = settings.source
    # The plan has another stage for those.
    assert not isinstance(source, CombinedEncoder)
    return load_encoder(
        model_folder(job, "encoder", source),
        source.family,
        settings.layer,
        settings.final_norm,
        settings.device,
        settings.dtype,
        source.prefix_tokens if isinstance(source, CheckpointEncoder) else None,
        settings.tokens,
    )


def load_llm(job: Job) -> LanguageModel:
    """Load the job's language model: its input `llm`, or the checkpoint that its settings name."""
    from vista.language.model import LanguageModel

    settings = LanguageSettings.model_validate(job.settings["llm"])
    return LanguageModel.load(
        model_folder(job, "llm", settings.source),
        settings.device,
        settings.dtype,
        placement=settings.placement,
        device_map=settings.device_map,
        max_memory=settings.max_memory,
    )


def llm_width(job: Job) -> int:
    """Return the width of the job's language model from its config alone, without its weights."""
    source = LanguageSettings.model_validate(job.settings["llm"]).source
    folder = model_folder(job, "llm", source, config_only=True)
    with loading(f"{folder}: its config.json tells no width", "one of a language model"):
        return int(model_config(folder).get_text_config().hidden_size)


def load_one_sae(job: Job, llm: LanguageModel) -> SparseAutoencoder:
    """Load the job's input `sae`; refuses one of another width than the language model's."""
    return _load(job.input("sae"), llm, "float32")


def load_saes(job: Job, llm: LanguageModel, dtype: str = "float32") -> dict[int, SparseAutoencoder]:
    """Load the job's inputs `saes` by layer, in the order of the plan.

    float32 whatever the language model's dtype: they are small beside it, and where they measure,
    their error is what is measured.

    Each lies on the device of the block that it reads. Raises UserError where the language model
    has no such block or another width.
    """
    saes = [_load(each, llm, dtype) for each in job.input_list("saes")]
    return {sae.config.layer: sae for sae in saes}


def _load(artifact: Artifact, llm: LanguageModel, dtype: str) -> SparseAutoencoder:
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
