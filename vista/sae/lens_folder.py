"""The folder of one SAE as sae_lens saves it, checked before sae_lens reads it; no torch here.

sae_lens ignores keys of older versions that it no longer knows, even where they change what an SAE
computes: another activation function, a stream that was centred. Here such a key is read or refused
by name, and numbers and flags that are written as text are converted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vista.errors import UserError, reason_of
from vista.foreign.text import one_line, read_json_object
from vista.foreign.values import flag, integer, number
from vista.foreign.weights import refuse_no_weights
from vista.sae.releases import Override, override_of

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
SCALER = "activation_scaler.json"  # beside a checkpoint that sae_lens wrote while training
SCALED = "expected_average_only_in"  # normalisation by a factor that the scaler holds
KWARGS, CENTRING = "model_from_pretrained_kwargs", "center_writing_weights"
_NORMALISATIONS = ("none", SCALED, "constant_norm_rescale", "layer_norm", "covariance_whitening")
# Activation function of older configs -> architectures that run it at inference
_ACTIVATIONS = {
    "relu": ("standard", "gated", "jumprelu", "batchtopk", "matryoshka_batchtopk"),
    "topk": ("standard", "topk"),
}
_SIZES = ("d_in", "d_sae")
_FLAGS = ("apply_b_dec_to_input", "rescale_acts_by_decoder_norm")
_TEXTS = (
    "architecture",
    "hook_name",
    "hook_point",
    "model_class_name",
    "model_name",
    "reshape_activations",
    "sae_lens_version",
    "training_architecture",
)
_HOOKS, _LAYERS = ("hook_name", "hook_point"), ("hook_layer", "hook_point_layer")
_HEADS = ("hook_head_index", "hook_point_head_index")
_LARGEST = 2**31  # of a size
_BLOCK = re.compile(r"(?:blocks|layers|h)\.([0-9]{1,9})(?:\.|$)")
# Models with LayerNorm, whose writing weights TransformerLens centres unless it is told not to;
# under RMSNorm (Llama, Gemma, Mistral, Qwen) it never does.
_CENTRED = re.compile(
    r"(?:.*/)?(?:(?:distil)?gpt2|gpt-?neo|gpt-?j|pythia|opt-|bloom|phi-?[12]|stablelm|tiny-?stories"
    r"|gelu-|solu-|santacoder|redwood)",
    re.IGNORECASE,
)
_LATENT = ("d_sae",)
_STANDARD = {"W_dec": ("d_sae", "d_in"), "W_enc": _SIZES, "b_dec": ("d_in",), "b_enc": _LATENT}
_WITHOUT_BIAS = {name: axes for name, axes in _STANDARD.items() if name != "b_enc"}
# Architecture -> names and axes of the tensors in sae_weights.safetensors
_TENSORS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "standard": _STANDARD,
    "topk": _STANDARD,
    "jumprelu": {**_STANDARD, "threshold": _LATENT},
    "gated": {**_WITHOUT_BIAS, "b_gate": _LATENT, "b_mag": _LATENT, "r_mag": _LATENT},
    "batchtopk": {**_STANDARD, "topk_threshold": ()},
    "matryoshka_batchtopk": {**_STANDARD, "topk_threshold": ()},
}
_OLD_NAMES = {"log_threshold": "threshold"}  # sae_lens takes the exponential while it loads
# sae_lens drops it where it is 1 and refuses it elsewhere.
_OPTIONAL = {"scaling_factor"}
_DTYPES = ("F64", "F32", "F16", "BF16")


def folder_config(
    folder: Path, overrides: Mapping[str, Any] | None = None, *, listed: bool = False
) -> dict[str, Any]:
    """The config of the SAE in `folder`, in the types that sae_lens takes, once its weights' names,
    shapes and number formats fit it.

    `overrides` are values of sae_lens' directory of releases. `listed`: the SAE was looked up in
    that directory, so what the config leaves out is left out on purpose. Raises UserError where the
    folder holds no SAE (and says whether one above or below it does), for an unreadable value, keys
    that contradict each other, keys that change the SAE's function in a way that is not run here,
    and weights that do not fit.
    """
    if not folder.exists():
        raise UserError(f"folder of the SAE {folder} does not exist; correct `path`")
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder / CONFIG} is missing: {_remedy(folder)}")
    cfg = {**read_json_object(folder / CONFIG), **(overrides or {})}
    cfg = _checked(_Reader(folder / CONFIG, cfg), folder, listed)
    _check_weights(folder, cfg)
    return {**cfg, "device": "cpu", "dtype": "float32"}


def check_architecture(architecture: str, name: str) -> None:
    """Raise UserError where the SAE `name` is of an architecture that is not run here."""
    if architecture not in _TENSORS:
        raise UserError(
            f"SAE {name} is a {one_line(architecture)}, which is not run here; expected one of "
            f"{', '.join(_TENSORS)}"
        )


def _checked(reader: _Reader, folder: Path, listed: bool) -> dict[str, Any]:
    reader.check_texts()
    check_architecture(reader.cfg["architecture"], str(folder))
    reader.check_hooks()
    override = None if listed else override_of(reader.model, reader.hook, folder.name)
    reader.check_values()
    reader.check_centring(listed, override)
    reader.check_activation()
    if override is not None and override.is_copy:
        reader.check_override(override)
    return reader.cfg


def _check_weights(folder: Path, cfg: Mapping[str, Any]) -> None:
    """Names, shapes and number formats in `sae_weights.safetensors`, from its header alone."""
    from safetensors import safe_open

    path = folder / WEIGHTS
    if not path.is_file():
        others = sorted(other.name for other in folder.glob("*.safetensors"))
        beside = f", there is {', '.join(others[:3])}" if others else ""
        raise UserError(f"{path} is missing{beside}: save the SAE with sae_lens, or copy it whole")
    refuse_no_weights(path)
    try:
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            dtypes = {name: str(part.get_dtype()) for name, part in slices.items()}
    except Exception as error:  # a damaged header makes safetensors raise several types
        raise UserError(
            f"{path} is no safetensors file ({reason_of(error)}): fetch it again"
        ) from error
    architecture = cfg["architecture"]
    expected = {
        name: tuple(int(cfg[axis]) for axis in axes)
        for name, axes in _TENSORS[architecture].items()
    }
    known = {_OLD_NAMES.get(name, name): name for name in shapes}
    if missing := [name for name in expected if name not in known]:
        raise UserError(
            f"{path} has no tensor {missing[0]} {list(expected[missing[0]])}, which a "
            f"{architecture} SAE needs; it holds {_listed(shapes)}"
        )
    for name, shape in expected.items():
        if shapes[known[name]] != shape:
            raise UserError(
                f"{path}: {known[name]} is {list(shapes[known[name]])}, but {CONFIG} (d_in "
                f"{cfg['d_in']}, d_sae {cfg['d_sae']}) makes it {list(shape)}; take both files "
                "from the same SAE"
            )
    if surplus := [name for name in shapes if _OLD_NAMES.get(name, name) not in expected]:
        unknown = [name for name in surplus if name not in _OPTIONAL]
        if unknown:
            name = unknown[0]
            fold = " multiply it into the rows of W_dec and" if "scaling" in name else ""
            raise UserError(
                f"{path}: {name} {list(shapes[name])} is no tensor of a {architecture} SAE, which "
                f"has {_listed(expected)};{fold} save the SAE without it"
            )
    if odd := [name for name, dtype in dtypes.items() if dtype not in _DTYPES]:
        raise UserError(
            f"{path}: {odd[0]} holds {dtypes[odd[0]]} numbers, expected one of "
            f"{', '.join(_DTYPES)}; save the SAE in float32"
        )


def read_scale(folder: Path) -> float | None:
    """The factor on the activations in `activation_scaler.json`; None where there is none.

    Raises UserError where it is no positive number.
    """
    path = folder / SCALER
    if not path.is_file():
        return None
    content = read_json_object(path)
    if "scaling_factor" in content and content["scaling_factor"] is None:
        return None  # as sae_lens writes it where activations are taken as they are
    scale = number(content.get("scaling_factor"))
    if scale is None or scale <= 0:
        raise UserError(
            f"{path}: `scaling_factor` must be a positive number, not "
            f"{_shown(content.get('scaling_factor'))}; copy the file again, or delete it and give "
            "the factor as `activation_scale`"
        )
    return scale


class _Reader:
    """A config under check; `cfg` holds the values in their types."""

    def __init__(self, path: Path, cfg: dict[str, Any]) -> None:
        self._path = path
        self.cfg = cfg
        metadata = cfg.get("metadata")
        if metadata is None:
            cfg.pop("metadata", None)
        elif not isinstance(metadata, dict):
            raise self._refusal("metadata", metadata, "an object")
        else:
            cfg["metadata"] = dict(metadata)
        self.hook = ""
        self.model = ""

    @property
    def _parts(self) -> list[dict[str, Any]]:
        return [self.cfg, *([self.cfg["metadata"]] if "metadata" in self.cfg else [])]

    def _values(self, keys: Iterable[str]) -> list[tuple[str, Any]]:
        """(key, value) of each of `keys` that stands anywhere and is not null."""
        return [
            (key, part[key]) for part in self._parts for key in keys if part.get(key) is not None
        ]

    def _refusal(self, key: str, value: Any, expected: str) -> UserError:
        return UserError(
            f"{self._path}: `{key}` must be {expected}, not {_shown(value)}; correct it, or fetch "
            "the SAE again"
        )

    @property
    def _is_old(self) -> bool:
        """Whether sae_lens before 6.0 wrote the config."""
        versions = self._values(["sae_lens_version"])
        if not versions:
            return True
        match = re.match(r"([0-9]{1,9})\.[0-9]", versions[0][1])
        if match is None:
            raise self._refusal(*versions[0], "a version of sae_lens")
        return int(match[1]) < 6

    def check_texts(self) -> None:
        for key, value in self._values(_TEXTS):
            if not isinstance(value, str):
                raise self._refusal(key, value, "a text")
        if self.cfg.get("reshape_activations", "") is None:
            del self.cfg["reshape_activations"]
        if self.cfg.get("architecture") is None:
            if not self._is_old or "architecture" in self.cfg:
                raise self._refusal("architecture", None, "the name of an architecture")
            self.cfg["architecture"] = "standard"

    def check_hooks(self) -> None:
        """What the SAE reads: one hook, whose layer is the one that is stated beside it."""
        hooks = dict(self._values(_HOOKS))
        if len(set(hooks.values())) > 1:
            raise UserError(
                f"{self._path} names two hooks, {' and '.join(sorted(set(hooks.values())))}; "
                "correct it, or fetch the SAE again"
            )
        self.hook = next(iter(hooks.values()), "")
        self.model = next((value for _, value in self._values(["model_name"])), "")
        block = _BLOCK.search(self.hook)
        for key, value in self._values(_LAYERS):
            layer = integer(value)
            if layer is None or layer < 0:
                raise self._refusal(key, value, "the number of a block")
            if block is not None and int(block[1]) != layer:
                raise UserError(
                    f"{self._path}: `{key}` says {layer}, but the hook is {self.hook}; correct one "
                    "of them"
                )
        for key, value in self._values(_HEADS):
            raise UserError(
                f"{self._path}: the SAE reads an attention head (`{key}` {_shown(value)}), not the "
                "residual stream; choose another"
            )

    def check_centring(self, listed: bool, override: Override | None) -> None:
        """Whether the model was read with centred writing weights.

        sae_lens says so in the config since September 2024; before, it read every model as
        TransformerLens did by default, centred where that is possible, and only its directory of
        releases says which SAEs are better off with that. A stream that is layer-normalised is
        centred by that.
        """
        stated = [part for part in self._parts if part.get(KWARGS) is not None]
        for part in stated:
            kwargs = part[KWARGS]
            if not isinstance(kwargs, dict):
                raise self._refusal(KWARGS, kwargs, "an object")
            if CENTRING in kwargs:
                centred = flag(kwargs[CENTRING])
                if centred is None:
                    raise self._refusal(CENTRING, kwargs[CENTRING], "true or false")
                part[KWARGS] = {**kwargs, CENTRING: centred}
        is_hooked = all(
            value == "HookedTransformer" for _, value in self._values(["model_class_name"])
        )
        could_be = is_hooked and self._is_old and _CENTRED.match(self.model)
        if stated or listed or not could_be or self.cfg["normalize_activations"] == "layer_norm":
            return
        release = "the SAE's `release` and `sae_id`"
        if override is not None:
            release = f"`release: {override.release}` and `sae_id: {override.sae_id}`"
        raise UserError(
            f"{self._path} does not say whether the activations of {self.model} were centred: "
            f"give {release} and, as `path`, the copy of its repository, or add "
            f'"{KWARGS}": {{"{CENTRING}": true}} (false: not centred) to {CONFIG}'
        )

    def check_values(self) -> None:
        cfg = self.cfg
        for key in _SIZES:
            size = integer(cfg.get(key))
            if size is None or not 0 < size < _LARGEST:
                raise self._refusal(key, cfg.get(key), "a positive whole number")
            cfg[key] = size
        for key in _FLAGS:
            if key in cfg:
                value = flag(cfg[key])
                if value is None:
                    raise self._refusal(key, cfg[key], "true or false")
                cfg[key] = value
        normalisation = cfg.get("normalize_activations")
        if self._is_old and isinstance(normalisation, bool):
            normalisation = SCALED if normalisation else "none"
        if normalisation is None and (self._is_old or "normalize_activations" not in cfg):
            normalisation = "none"
        if normalisation not in _NORMALISATIONS:
            raise self._refusal(
                "normalize_activations", normalisation, f"one of {', '.join(_NORMALISATIONS)}"
            )
        cfg["normalize_activations"] = normalisation

    def check_activation(self) -> None:
        """The activation function, which older configs name apart from the architecture."""
        cfg, architecture = self.cfg, self.cfg["architecture"]
        names = dict(self._values(["activation_fn", "activation_fn_str"]))
        for key, name in names.items():
            fits = isinstance(name, str) and architecture in _ACTIVATIONS.get(name, ())
            if not fits or len(set(names.values())) > 1:
                raise UserError(
                    f"{self._path}: `{key}` {_shown(name)} is not run here on a {architecture} "
                    "SAE; choose an SAE with relu, topk or a threshold"
                )
        kwargs = cfg.get("activation_fn_kwargs")
        if kwargs is None:
            kwargs = cfg["activation_fn_kwargs"] = {}
        if not isinstance(kwargs, dict):
            raise self._refusal("activation_fn_kwargs", kwargs, "an object")
        if architecture == "topk" or "topk" in names.values():
            stated = [value for _, value in self._values(["k"])]
            if kwargs.get("k") is not None:
                stated.append(kwargs["k"])
            counts = {integer(value) for value in stated}
            k = counts.pop() if len(counts) == 1 else None
            if k is None or not 0 < k <= cfg["d_sae"]:
                raise self._refusal(
                    "k", stated[0] if len(stated) == 1 else stated or None, "one number of latents"
                )
            cfg["k"] = k
            cfg["architecture"] = "topk"
            if self._is_old:
                cfg["activation_fn_kwargs"] = {"k": k}
        elif "k" in cfg:  # the mean that a BatchTopK SAE was trained for
            mean = number(cfg["k"])
            if mean is None or mean <= 0:
                raise self._refusal("k", cfg["k"], "a positive number of latents")
            cfg["k"] = mean

    def check_override(self, override: Override) -> None:
        """A copy of a listed SAE, under its folder's name, must say what the directory says."""
        for key, value in override.values.items():
            if key != KWARGS and self._is_old and self.cfg.get(key) != value:
                raise UserError(
                    f"{self._path}: `{key}` is {_shown(self.cfg.get(key))}, but sae_lens' "
                    f"directory runs SAE {override.sae_id} of {override.release} with {value}; "
                    f"give that `release` and `sae_id`, or correct `{key}`"
                )


def _remedy(folder: Path) -> str:
    if not folder.is_dir():
        return "`path` is a file; give the folder that holds it"
    below = sorted(path.parent.name for path in folder.glob(f"*/{CONFIG}"))
    if below:
        more = f" and {len(below) - 3} more" if len(below) > 3 else ""
        return (
            f"`path` is one folder too high; give the folder of one SAE below it "
            f"({', '.join(below[:3])}{more})"
        )
    if (folder.parent / CONFIG).is_file():
        return "`path` is one folder too low; give the folder above it, which holds one"
    return f"give the folder that sae_lens saved an SAE in, with {CONFIG} and {WEIGHTS}"


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    parts = [f"{name[:60]} {list(shape)}" for name, shape in list(shapes.items())[:6]]
    return ", ".join(parts + ["..."] * (len(shapes) > 6)) or "none"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
