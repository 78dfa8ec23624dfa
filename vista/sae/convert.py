"""From sae_lens to the neutral form: a local folder, a copy of a published release, an object.

The only place beside `vista.sae.train` that imports sae_lens (five seconds a process). What cannot
be run exactly is refused by name: transcoders, absolute top-k, temporal and matching-pursuit
dictionaries, SAEs on attention heads or on any hook point but the residual stream between blocks,
and activation normalisations whose statistics are not known.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from vista.errors import UserError, reason_of
from vista.foreign.text import one_line
from vista.foreign.weights import refuse_no_weights
from vista.sae.hub import offline_hub, replaced, require_files, tensor_shapes
from vista.sae.lens_folder import (
    CENTRING,
    CONFIG,
    KWARGS,
    SCALED,
    SCALER,
    WEIGHTS,
    check_architecture,
    folder_config,
    read_scale,
)
from vista.sae.neutral import SaeConfig, SparseAutoencoder
from vista.sae.releases import release_entry

# sae_lens' name of an architecture -> ours
_ARCHITECTURES = {
    "standard": "standard",
    "gated": "gated",
    "topk": "topk",
    "jumprelu": "jumprelu",
    "batchtopk": "batchtopk",
    "matryoshka_batchtopk": "matryoshka",
}
# Without an inference class of their own in sae_lens: they are saved as jumprelu after training.
_TRAINING_ONLY = ("batchtopk", "matryoshka_batchtopk")
_BLOCK_OUTPUT = re.compile(r"(?:blocks\.(\d+)\.hook_resid_post|(?:\w+\.)*(?:layers|h)\.(\d+))")
_BLOCK_INPUT = re.compile(r"blocks\.(\d+)\.hook_resid_pre")


def from_folder(
    folder: Path,
    layer: int | None = None,
    activation_scale: float | None = None,
    name: str | None = None,
) -> SparseAutoencoder:
    """Convert an SAE that sae_lens saved (`cfg.json`, `sae_weights.safetensors`).

    Arguments are those of `from_sae_lens`; the scale of a checkpoint whose activations were to be
    rescaled is read from its `activation_scaler.json`. Raises UserError where the folder is no such
    SAE, is damaged, leaves open how it was trained, or holds an SAE that the neutral form does not
    run.
    """
    name = name or str(folder)
    cfg = folder_config(folder)
    from sae_lens import SAE, TrainingSAE

    def components(*_: Any, **__: Any) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        return cfg, _tensors(folder, cfg)

    loader = TrainingSAE if cfg["architecture"] in _TRAINING_ONLY else SAE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of centring, which is done here
            sae = loader.load_from_disk(folder, device="cpu", dtype="float32", converter=components)
    except UserError:
        raise
    except Exception as error:  # sae_lens raises anything from KeyError to SafetensorError here
        raise UserError(
            f"{folder}: sae_lens could not load this SAE ({reason_of(error)})"
        ) from error
    beside = read_scale(folder)
    if beside is not None and cfg["normalize_activations"] != SCALED:
        raise UserError(
            f"{folder / SCALER} rescales activations, but {CONFIG} has `normalize_activations` "
            f"{cfg['normalize_activations']}; delete the first if the factor is folded into the "
            "weights, else correct the second"
        )
    return from_sae_lens(sae, name, layer, beside if activation_scale is None else activation_scale)


def _tensors(folder: Path, cfg: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of `sae_weights.safetensors` in float32, under the names that sae_lens takes."""
    from safetensors.torch import load_file

    tensors = {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()}
    factor = tensors.pop("scaling_factor", None)
    if factor is not None and not (factor == 1).all():
        raise UserError(
            f"{folder / WEIGHTS}: scaling_factor {list(factor.shape)} is not 1, and no tensor of a "
            f"{cfg['architecture']} SAE; multiply it into the rows of W_dec and save the SAE "
            "without it"
        )
    if (logarithm := tensors.pop("log_threshold", None)) is not None:
        tensors["threshold"] = logarithm.exp()
    return tensors


def from_release(
    release: str,
    sae_id: str,
    layer: int | None = None,
    activation_scale: float | None = None,
    *,
    path: Path,
) -> SparseAutoencoder:
    """Convert a published SAE, e.g. `gemma-scope-2b-pt-res-canonical`,
    `layer_5/width_16k/canonical`, without touching the network.

    Its files are read from `path`, a copy of the release's repository. `layer` and
    `activation_scale` are those of `from_sae_lens`; factors that sae_lens' directory lists (Llama
    Scope) are folded by sae_lens itself.
    Raises UserError where release or id are unknown, where files are missing, and where the
    neutral form does not run the SAE.
    """
    name = f"{release}/{sae_id}"
    entry = release_entry(release, sae_id)
    require_files(path, entry.required, f"SAE {name}")
    for file in entry.required:
        if Path(file).suffix != ".json":
            refuse_no_weights(path / file)
    from sae_lens import SAE
    from sae_lens.loading import pretrained_sae_loaders as loaders

    def components(*_: Any, cfg_overrides: Mapping[str, Any], **__: Any) -> tuple[Any, ...]:
        folder = path / str(entry.folder)
        # A repository that is named by itself has no overrides, like a folder.
        cfg = folder_config(folder, cfg_overrides, listed=release != entry.repo)
        return cfg, _tensors(folder, cfg), None

    try:
        with (
            offline_hub(entry.repo, path),
            replaced(loaders, "get_safetensors_tensor_shapes", tensor_shapes),
            warnings.catch_warnings(),
        ):
            # What sae_lens only warns of, a factor that it does not know, is an error below.
            warnings.simplefilter("ignore", UserWarning)
            sae = SAE.from_pretrained(
                release,
                sae_id,
                device="cpu",
                dtype="float32",
                converter=None if entry.folder is None else components,
            )
    except UserError:
        raise
    except Exception as error:  # a loader that met foreign files raises anything
        raise UserError(f"SAE {name}: sae_lens could not load it ({reason_of(error)})") from error
    return from_sae_lens(sae, name, layer, activation_scale, entry.neuronpedia)


def from_sae_lens(
    sae: Any,
    name: str,
    layer: int | None = None,
    activation_scale: float | None = None,
    neuronpedia: str | None = None,
) -> SparseAutoencoder:
    """Convert a sae_lens SAE object; it is left as it was, but may share its tensors.

    `layer` is the block after which it reads, checked against the SAE's own hook name where that is
    known. `activation_scale` is the factor on its input that an SAE with normalisation
    `expected_average_only_in` was trained with: sae_lens silently leaves it out at inference where
    it does not know it, so here it must be known, and is folded into the weights. `neuronpedia` is
    the "model/source" of its published labels.
    Raises UserError, naming the SAE, for everything that the neutral form does not run.
    """
    cfg = sae.cfg
    check_architecture(cfg.architecture(), name)
    if cfg.reshape_activations != "none":
        raise UserError(
            f"SAE {name} reads attention heads, not the residual stream; choose another"
        )
    layer = _layer(cfg.metadata, name, layer)
    if activation_scale is not None and cfg.normalize_activations != SCALED:
        raise UserError(
            f"SAE {name} was trained on activations as they are ({cfg.normalize_activations}); "
            "leave out `activation_scale`"
        )
    if cfg.normalize_activations == SCALED:
        if activation_scale is None:
            raise UserError(
                f"SAE {name} was trained on rescaled activations (expected_average_only_in), but "
                "the factor is not known; give it as `activation_scale`"
            )
        sae = copy.deepcopy(sae)
        sae.fold_activation_norm_scaling_factor(activation_scale)
    elif cfg.normalize_activations not in ("none", "constant_norm_rescale", "layer_norm"):
        raise UserError(
            f"SAE {name} normalises activations by {cfg.normalize_activations}, which cannot be "
            "run here; fold it into the weights with sae_lens, or choose another SAE"
        )
    architecture = _ARCHITECTURES[cfg.architecture()]
    if architecture == "jumprelu":
        trained_as = str(cfg.metadata.training_architecture or "jumprelu")
        architecture = _ARCHITECTURES.get(trained_as, "jumprelu")
        if architecture not in ("batchtopk", "matryoshka"):
            architecture = "jumprelu"
    normalisation = _normalisation(sae.cfg, name)
    try:
        config = SaeConfig(
            architecture=architecture,
            d_in=cfg.d_in,
            d_sae=cfg.d_sae,
            layer=layer,
            name=name,
            k=cfg.k if architecture == "topk" else None,
            normalisation=normalisation,
            subtract_decoder_bias=bool(cfg.apply_b_dec_to_input),
            neuronpedia=neuronpedia,
        )
        return SparseAutoencoder(config, _weights(sae, config)).eval()
    except ValueError as error:
        raise UserError(f"SAE {name} cannot be run: {reason_of(error)}; fetch it again") from error


def _normalisation(cfg: Any, name: str) -> str:
    """The neutral form's name for what is done to a token before it is encoded."""
    rescaling = str(cfg.normalize_activations)  # "none" once a scale is folded
    read_with = cfg.metadata[KWARGS] or {}
    if not read_with.get(CENTRING) or rescaling == "layer_norm":  # which centres anyway
        return rescaling
    if rescaling != "none":
        raise UserError(
            f"SAE {name} was trained on centred activations rescaled by {rescaling}, which is not "
            "run here; choose another"
        )
    return "centre"


def _weights(sae: Any, config: SaeConfig) -> dict[str, torch.Tensor]:
    """The tensors of `config.weight_shapes()` in float32, decoder norms folded where used."""
    state = {key: value.detach().float() for key, value in sae.state_dict().items()}
    if "topk_threshold" in state:  # a BatchTopK checkpoint that was not saved for inference
        state["threshold"] = state.pop("topk_threshold").expand(config.d_sae).clone()
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        # Latents are chosen, and measured, by activation times decoder norm.
        norm_s = state["W_dec"].norm(dim=-1).clamp_min(1e-8)
        state["W_enc"] = state["W_enc"] * norm_s
        state["b_enc"] = state["b_enc"] * norm_s
        state["W_dec"] = state["W_dec"] / norm_s[:, None]
    shapes = config.weight_shapes()
    missing = sorted(set(shapes) - set(state))
    if missing:
        raise UserError(
            f"SAE {config.name} has no tensor {missing[0]}, which {config.architecture} needs"
        )
    broken = [key for key in shapes if not torch.isfinite(state[key]).all()]
    if broken:
        raise UserError(
            f"SAE {config.name}: {broken[0]} holds NaN or infinity, or numbers beyond float32; "
            "fetch the SAE again, and check its `activation_scale` if it has one"
        )
    return {key: state[key] for key in shapes}


def _layer(metadata: Any, name: str, layer: int | None) -> int:
    """Block after which the SAE reads, by its hook name and the user's `layer`; they must agree."""
    hook = None if metadata.hook_name is None else str(metadata.hook_name)
    hook_layer: int | None = None
    if hook:
        if match := _BLOCK_OUTPUT.fullmatch(hook):
            hook_layer = int(match[1] or match[2])
        elif match := _BLOCK_INPUT.fullmatch(hook):
            # The stream that enters block l is the one after block l - 1.
            hook_layer = int(match[1]) - 1
        if hook_layer is None or hook_layer < 0:
            raise UserError(
                f"SAE {name} reads {one_line(hook)}, not the residual stream after a block; "
                "choose another"
            )
    if hook_layer is None and layer is None:
        raise UserError(f"SAE {name} does not say after which block it reads; give its `layer`")
    if hook_layer is not None and layer is not None and hook_layer != layer:
        raise UserError(
            f"SAE {name} reads the residual stream after block {hook_layer}, but `layer` says "
            f"{layer}; correct one of them"
        )
    return layer if hook_layer is None else hook_layer  # type: ignore[return-value]
