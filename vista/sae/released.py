"""SAEs of vision encoders that other programs trained and released, as the neutral form.

What each program's file holds, and what its SAE does at inference (x: a feature [n, d]):

    saev          a line of JSON, then torch.save of W_enc [d, s], b_enc, W_dec, b_dec; relu, top-k,
                  or batch top-k with a threshold (older files: top-k of a patch). Without a schema
                  or with schema 1 it was trained on x - b_dec, later on x
    prisma        config.json beside the weights (the same names; gated: b_gate, b_mag, r_mag); x is
                  normalised (`normalize_activations`), then less b_dec; relu, top-k, gated
    sae_for_vlm   a state dict of dictionary_learning, its class in config.json beside it (of one in
                  checkpoints/ beside that folder); x less b_dec, but for JumpReLU; relu, top-k, one
                  threshold (batch top-k, Matryoshka, whose `group_sizes` are kept)
    patchsae      {cfg, state_dict} in one file; relu of x - b_dec

Sources: OSU-NLP-Group/saev (src/saev/nn/modeling.py), Prisma-Multimodal/ViT-Prisma
(src/vit_prisma/sae/sae.py), ExplainableML/sae-for-vlm (dictionary_learning), dynamical-inference/
patchsae (src/sae_training).

saev's top-k keeps the k largest also where they are negative; here, as everywhere in this project,
a negative one is silent.

Shape legend: n patch, d channel, s latent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from torch import Tensor

from vista.config.vision_sae import config_places
from vista.errors import UserError, reason_of
from vista.foreign.tensors import float_tensors, read_checkpoint
from vista.foreign.text import one_line, read_json_object
from vista.foreign.values import flag, integer
from vista.sae.neutral import SaeConfig, SparseAutoencoder

_LONGEST_HEADER = 2**20
# Classes of the settings object that these programs pickle beside the weights.
_PATCHSAE_SETTINGS = tuple(
    f"{place}.{name}"
    for place in ("src.sae_training.config", "sae_training.config")
    for name in ("ViTSAERunnerConfig", "Config")
)
_PRISMA_SETTINGS = ("vit_prisma.sae.config.VisionModelSAERunnerConfig",)
_HOOK = re.compile(r"blocks\.(\d{1,4})\.(\w+)")
_STREAM = "hook_resid_post"
_STANDARD = ("W_enc", "b_enc", "W_dec", "b_dec")
# Prisma's names of normalisations -> ours; others leave features as they are.
_NORMALISATIONS = ("layer_norm", "constant_norm_rescale")


@dataclass(frozen=True)
class Released:
    """An SAE as a file holds it.

    Attributes:
        architecture: As of `SaeConfig`.
        weights: Its tensors, by the neutral form's names.
        k: Latents a patch of a topk SAE.
        normalisation: As of `SaeConfig`.
        subtract_decoder_bias: Whether it reads features less b_dec.
        layer: Block whose output it was trained on, where the file says so.
        group_ends: Latent before which each group of a Matryoshka SAE ends; empty of others.
    """

    architecture: str
    weights: Mapping[str, Tensor]
    k: int | None = None
    normalisation: str = "none"
    subtract_decoder_bias: bool = True
    layer: int | None = None
    group_ends: tuple[int, ...] = ()


def read_released(
    format: str,
    path: Path,
    *,
    name: str,
    d_in: int,
    layer: int,
    subtract_decoder_bias: bool | None = None,
) -> tuple[SparseAutoencoder, tuple[int, ...]]:
    """Return a released SAE for the features of an encoder, and `Released.group_ends`.

    Args:
        format: A key of `FORMATS`.
        path: The file of its weights.
        name: Its name, for messages.
        d_in: Channels of the features.
        layer: Block whose output the features are, counted from 0.
        subtract_decoder_bias: Whether it reads features less b_dec; None: as the format does.

    Raises:
        UserError: The file is damaged, has another layout, holds an SAE that is not run here, or
            one of another width or block.
    """
    found = FORMATS[format](path)
    if subtract_decoder_bias is not None:
        found = replace(found, subtract_decoder_bias=subtract_decoder_bias)
    width, latents = _matrix(found.weights, "W_enc", path)
    if width != d_in:
        raise UserError(
            f"{path}: the SAE reads features of {width} channels, the encoder's have {d_in}; name "
            "the encoder that it was trained on, at its layer and with its tokens"
        )
    if found.layer is not None and found.layer != layer:
        raise UserError(
            f"{path}: the SAE was trained on the output of block {found.layer}, the features are "
            f"that of block {layer}; set the encoder's `layer` to {found.layer}"
        )
    try:
        config = SaeConfig(
            architecture=found.architecture,
            d_in=width,
            d_sae=latents,
            layer=layer,
            name=name,
            k=found.k,
            normalisation=found.normalisation,
            subtract_decoder_bias=found.subtract_decoder_bias,
        )
        return SparseAutoencoder(config, found.weights).eval(), found.group_ends
    except ValueError as error:
        raise UserError(f"{path}: not an SAE that is run here ({reason_of(error)})") from error


def scaled_to(sae: SparseAutoencoder, mean_d: Tensor, scale: float) -> SparseAutoencoder:
    """Return the SAE of x that does what `sae` does with (x - mean) / scale; only of one without
    normalisation."""
    weights = {name: value.detach().clone() for name, value in sae.named_parameters()}
    weights["W_enc"] /= scale
    if not sae.config.subtract_decoder_bias:
        for bias in ("b_enc", "b_gate"):
            if bias in weights:
                weights[bias] -= mean_d @ weights["W_enc"]
        if "b_mag" in weights:
            weights["b_mag"] -= (mean_d @ weights["W_enc"]) * weights["r_mag"].exp()
    weights["W_dec"] *= scale
    weights["b_dec"] = weights["b_dec"] * scale + mean_d
    return SparseAutoencoder(sae.config, weights).eval()


def read_saev(path: Path) -> Released:
    """Read a checkpoint of saev."""
    header, size = _header(path)
    schema = integer(header.get("schema")) or 0
    cfg = header.get("cfg") if schema else header
    if not isinstance(cfg, Mapping):
        raise UserError(f"{path}: its first line has no `cfg`; fetch the checkpoint again")
    tensors = float_tensors(read_checkpoint(path, skip=size), path)
    weights = _chosen(tensors, _STANDARD, path)
    # Until July 2025 (schema 1) the program read x - b_dec, since then x.
    subtract = schema < 2
    activation = cfg.get("activation")
    if isinstance(activation, Mapping):
        kind, parameters = str(activation.get("cls")), activation.get("params")
    else:
        kind, parameters = str(header.get("cls", "Relu")), cfg
        kind = "Relu" if kind == "SparseAutoencoderConfig" else kind
    if kind == "Relu":
        return Released("standard", weights, subtract_decoder_bias=subtract)
    if kind not in ("TopK", "BatchTopK"):
        raise _unknown(path, "activation", kind, "Relu, TopK, BatchTopK")
    threshold = tensors.get("activation.threshold")
    if kind == "BatchTopK" and threshold is not None:
        weights["threshold"] = _spread(threshold, weights, path)
        return Released("batchtopk", weights, subtract_decoder_bias=subtract)
    k = integer(parameters.get("top_k", 32)) if isinstance(parameters, Mapping) else None
    return Released("topk", weights, k=_k(k, path), subtract_decoder_bias=subtract)


def read_prisma(path: Path) -> Released:
    """Read the weights of ViT-Prisma, and their config: beside them or, once, in the same file."""
    content = read_checkpoint(path, settings=_PRISMA_SETTINGS)
    place = _config_place(path)
    cfg: Mapping[str, Any] = {}
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        cfg, content = content.get("cfg", {}), content["state_dict"]
    if place.is_file() or not isinstance(cfg, Mapping) or not cfg:
        cfg = read_json_object(place)
    tensors = float_tensors(content, path)
    if "normalize_activations" not in cfg:
        raise UserError(f"{place} has no `normalize_activations`; fetch it again")
    if flag(cfg.get("is_transcoder", False)):
        raise UserError(f"{place} is that of a transcoder, which is not run here; choose an SAE")
    hook = str(cfg.get("layer_subtype", _STREAM))
    layer = integer(cfg.get("hook_point_layer"))
    if match := _HOOK.fullmatch(str(cfg.get("hook_point", ""))):
        layer, hook = int(match[1]), match[2]
    if hook != _STREAM:
        raise UserError(
            f"{place}: the SAE reads {one_line(hook)[:60]}, and features are the stream after a "
            f"block; choose one on {_STREAM}"
        )
    normalisation = str(cfg["normalize_activations"])
    found = Released(
        "standard",
        {},
        normalisation=normalisation if normalisation in _NORMALISATIONS else "none",
        layer=layer,
    )
    architecture, activation = (
        str(cfg.get("architecture", "standard")),
        str(cfg.get("activation_fn_str", "relu")),
    )
    if architecture == "gated":
        names = ("W_enc", "W_dec", "b_dec", "b_gate", "b_mag", "r_mag")
        return replace(found, architecture="gated", weights=_chosen(tensors, names, path))
    if architecture != "standard":
        raise _unknown(place, "architecture", architecture, "standard, gated")
    weights = _chosen(tensors, _STANDARD, path)
    if activation == "topk":
        kwargs = cfg.get("activation_fn_kwargs")
        k = integer(kwargs.get("k")) if isinstance(kwargs, Mapping) else None
        return replace(found, architecture="topk", weights=weights, k=_k(k, place))
    if activation != "relu":
        raise _unknown(place, "activation_fn_str", activation, "relu, topk")
    return replace(found, weights=weights)


def read_sae_for_vlm(path: Path) -> Released:
    """Read a dictionary of dictionary_learning, and its class from the config.json beside it.

    Without config.json, the tensors tell the class but for top-k and batch top-k, which have the
    same ones.
    """
    tensors = float_tensors(read_checkpoint(path), path)
    kind = _dictionary_class(tensors, path)
    if kind in ("MatroyshkaBatchTopKSAE", "MatryoshkaBatchTopKSAE"):
        weights = _chosen(tensors, _STANDARD, path)
        weights["threshold"] = _spread(_tensor(tensors, "threshold", path), weights, path)
        return Released("matryoshka", weights, group_ends=_group_ends(tensors, weights, path))
    if kind == "JumpReluAutoEncoder":
        weights = _chosen(tensors, (*_STANDARD, "threshold"), path)
        return Released("jumprelu", weights, subtract_decoder_bias=False)
    weights = {
        "W_enc": _tensor(tensors, "encoder.weight", path).T,
        "b_enc": _tensor(tensors, "encoder.bias", path),
        "W_dec": _tensor(tensors, "decoder.weight", path).T,
        "b_dec": _tensor(tensors, "bias" if kind == "AutoEncoder" else "b_dec", path),
    }
    if kind == "BatchTopKSAE":
        weights["threshold"] = _spread(_tensor(tensors, "threshold", path), weights, path)
        return Released("batchtopk", weights)
    if kind == "AutoEncoderTopK":
        k = _tensor(tensors, "k", path)
        return Released("topk", weights, k=_k(int(k) if k.numel() == 1 else None, path))
    # As its own reader does: decoder rows of norm 1, which activations make up for.
    norm_s = weights["W_dec"].norm(dim=1).clamp_min(1e-8)
    weights["W_enc"] = weights["W_enc"] * norm_s
    weights["b_enc"] = weights["b_enc"] * norm_s
    weights["W_dec"] = weights["W_dec"] / norm_s[:, None]
    return Released("standard", weights)


def read_patchsae(path: Path) -> Released:
    """Read a checkpoint of PatchSAE."""
    content = read_checkpoint(path, settings=_PATCHSAE_SETTINGS)
    if not isinstance(content, Mapping) or not isinstance(content.get("state_dict"), Mapping):
        raise UserError(
            f"{path} has no `state_dict` beside its settings; name a checkpoint of PatchSAE"
        )
    tensors = float_tensors(content["state_dict"], path)
    cfg = content.get("cfg", content.get("config"))
    cfg = cfg if isinstance(cfg, Mapping) else {}
    if flag(cfg.get("gated_sae", False)) or "r_mag" in tensors:
        raise UserError(
            f"{path} is a gated SAE, which PatchSAE itself does not run; choose another"
        )
    module = str(cfg.get("module_name", "resid"))
    if module != "resid":
        raise _unknown(path, "module_name", module, "resid")
    layer = integer(cfg.get("block_layer"))
    # Negative ones count from the last block, and how many there are is not told.
    layer = None if layer is None or layer < 0 else layer
    return Released("standard", _chosen(tensors, _STANDARD, path), layer=layer)


FORMATS: Mapping[str, Callable[[Path], Released]] = {
    "saev": read_saev,
    "prisma": read_prisma,
    "sae_for_vlm": read_sae_for_vlm,
    "patchsae": read_patchsae,
}


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """The settings in the first line of a checkpoint of saev, and the line's length in bytes."""
    try:
        with path.open("rb") as file:
            line = file.readline(_LONGEST_HEADER)
        header = json.loads(line)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {reason_of(error)}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{path} does not begin with a line of JSON, as checkpoints of saev do; correct "
            "`format`, or fetch the file again"
        ) from error
    if not isinstance(header, dict):
        raise UserError(f"{path}: its first line is no object; fetch the checkpoint again")
    return header, len(line)


def _config_place(weights: Path) -> Path:
    """Where the config.json of a file of weights lies, or should lie."""
    places = [Path(place) for place in config_places(str(weights))]
    return next((place for place in places if place.is_file()), places[0])


def _dictionary_class(tensors: Mapping[str, Tensor], path: Path) -> str:
    place = _config_place(path)
    known = {
        "MatroyshkaBatchTopKSAE": "group_sizes",
        "MatryoshkaBatchTopKSAE": "group_sizes",
        "JumpReluAutoEncoder": "threshold",
        "BatchTopKSAE": "k",
        "AutoEncoderTopK": "k",
        "AutoEncoder": "bias",
    }
    if place.is_file():
        trainer = read_json_object(place).get("trainer")
        kind = trainer.get("dict_class") if isinstance(trainer, Mapping) else None
        if kind not in known:
            raise _unknown(place, "trainer.dict_class", str(kind), ", ".join(known))
        return str(kind)
    if "group_sizes" in tensors:
        return "MatryoshkaBatchTopKSAE"
    if "encoder.weight" in tensors and "k" in tensors:
        raise UserError(
            f"{path}: its config.json is missing, and its tensors do not tell top-k from batch "
            "top-k; copy both files, or choose an SAE that has one"
        )
    return "AutoEncoder" if "encoder.weight" in tensors else "JumpReluAutoEncoder"


def _chosen(tensors: Mapping[str, Tensor], names: tuple[str, ...], path: Path) -> dict[str, Tensor]:
    return {name: _tensor(tensors, name, path) for name in names}


def _tensor(tensors: Mapping[str, Tensor], name: str, path: Path) -> Tensor:
    if name not in tensors:
        raise UserError(f"{path} has no tensor {name}; correct `format`, or fetch the file again")
    return tensors[name]


def _matrix(weights: Mapping[str, Tensor], name: str, path: Path) -> tuple[int, int]:
    if weights[name].ndim != 2:
        raise UserError(f"{path}: {name} has shape {list(weights[name].shape)}, expected a matrix")
    rows, columns = weights[name].shape
    return int(rows), int(columns)


def _spread(threshold: Tensor, weights: Mapping[str, Tensor], path: Path) -> Tensor:
    """One threshold for each latent; what is negative was never learnt, and leaves a ReLU."""
    if threshold.numel() != 1:
        raise UserError(f"{path}: the threshold has shape {list(threshold.shape)}, expected one")
    return threshold.reshape(1).float().clamp_min(0).expand(_matrix(weights, "W_enc", path)[1])


def _group_ends(
    tensors: Mapping[str, Tensor], weights: Mapping[str, Tensor], path: Path
) -> tuple[int, ...]:
    """Where groups of the stored sizes end."""
    sizes = [int(size) for size in _tensor(tensors, "group_sizes", path).reshape(-1)]
    _, latents = _matrix(weights, "W_enc", path)
    if min(sizes, default=0) < 1 or sum(sizes) != latents:
        raise UserError(
            f"{path}: group_sizes {sizes[:20]} do not make up its {latents} latents; fetch it again"
        )
    return tuple(accumulate(sizes))


def _k(k: int | None, path: Path) -> int:
    if k is None or k < 1:
        raise UserError(f"{path} does not give the number of active latents k; fetch it again")
    return k


def _unknown(path: Path, key: str, value: str, known: str) -> UserError:
    return UserError(
        f"{path}: {key} is {one_line(value)[:60]}, which is not run here; expected {known}"
    )
