"""The SAEs and files of a published release, from the directory that sae_lens ships.

The directory (`pretrained_saes.yaml`) is read as text, without importing sae_lens, and only the
block of the release that is asked for is parsed: the whole file takes half a second, a block a few
milliseconds. It says which repository and folder an SAE lies in and which of sae_lens' loaders
reads it; which files each loader opens is listed here, so that they can be fetched beforehand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from vista.errors import UserError

_TOP_KEY = re.compile(r"^(\S.*):[ \t]*$", re.MULTILINE)
_NATIVE = "sae_lens"
# Keys of an override that tell about an SAE without changing what it computes.
_DESCRIPTIONS = frozenset({"dataset_path", "model_name", "hook_name"})
# loader -> the files that it opens below (or at) the SAE's path, and those it can do without
_FILES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    _NATIVE: (("/cfg.json", "/sae_weights.safetensors"), ("/sparsity.safetensors",)),
    "gemma_2": (("/params.npz",), ()),
    "gemma_3": (("/params.safetensors",), ("/config.json",)),
    "llama_scope": (("/hyperparams.json", "/checkpoints/final.safetensors"), ()),
    "llama_scope_r1_distill": (("/config.json", "/sae_weights.safetensors"), ()),
    "dictionary_learning_1": (("/config.json", "/ae.pt"), ()),
    "deepseek_r1": (("",), ()),
    "goodfire": (("",), ()),
    "qwen_scope": (("",), ()),
}


@dataclass(frozen=True)
class ReleaseEntry:
    """One SAE of a release.

    repo: "owner/name" on the Hugging Face hub; required, optional: its files there, the latter of
    which may not exist; neuronpedia: "model/source" of its labels, None where the directory gives
    none; folder: the SAE's folder there where it is in sae_lens' own format, else None.
    """

    repo: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    neuronpedia: str | None
    folder: str | None


@dataclass(frozen=True)
class Override:
    """What the directory changes in the config of an SAE that lies in sae_lens' own format: a copy
    named as a folder, or by its repository, would be run without it.

    is_copy: a folder has the name of the SAE's folder in the release's repository.
    """

    release: str
    sae_id: str
    values: Mapping[str, Any]
    is_copy: bool


def override_of(model: str, hook: str, folder: str) -> Override | None:
    """The override of the listed SAE that a folder in sae_lens' format is likely a copy of: one of
    this `model`, as its config names it, with this `hook` and this name of its `folder`; of this
    model and hook where no folder has the name.
    """
    close = None
    for release, block in _overriding().items():
        if not model or not _same_model(model, str(block["model"])):
            continue
        for sae in block["saes"]:
            if str(sae["path"]).rpartition("/")[2] == folder:
                return Override(release, str(sae["id"]), _function(block), True)
            if hook and close is None and str(sae["id"]).startswith(hook):
                close = Override(release, str(sae["id"]), _function(block), False)
    return close


def release_entry(release: str, sae_id: str) -> ReleaseEntry:
    """Look an SAE up, e.g. `gemma-scope-2b-pt-res-canonical`, `layer_0/width_16k/canonical`, which
    is `layer_0/width_16k/average_l0_105/params.npz` of `google/gemma-scope-2b-pt-res`. A release
    "owner/name" that the directory does not list is a repository in sae_lens' own format, with a
    folder `sae_id`.

    Raises UserError, with the closest names, where release or id are unknown, and where the
    release holds no residual-stream SAEs that can be run here (transcoders and the like).
    """
    if release not in _blocks():
        if release.count("/") == 1:
            for name, block in _overriding().items():
                if block["repo_id"] == release:
                    raise UserError(
                        f"repository {release} is the release {name} of sae_lens' directory, which "
                        f"changes its configs; give `release: {name}`"
                    )
            return _entry(release, sae_id, _NATIVE, None)
        raise UserError(
            f"release {release} is not in sae_lens' directory{_closest(release, _blocks())}; give "
            'a name from there, or a repository "owner/name" in sae_lens\' format'
        )
    block = _release(release)
    entries = [sae for sae in block["saes"] if sae["id"] == sae_id]
    if not entries:
        known = [str(sae["id"]) for sae in block["saes"]]
        raise UserError(
            f"release {release} has no SAE {sae_id}{_closest(sae_id, known)}; correct `sae_id`"
        )
    loader = block.get("conversion_func") or _NATIVE
    if loader not in _FILES:
        raise UserError(
            f"release {release} holds dictionaries of kind {loader}, which are not run here; "
            "choose SAEs on the residual stream"
        )
    return _entry(block["repo_id"], str(entries[0]["path"]), loader, entries[0].get("neuronpedia"))


def _entry(repo: str, path: str, loader: str, neuronpedia: str | None) -> ReleaseEntry:
    required, optional = _FILES[loader]
    return ReleaseEntry(
        repo=repo,
        required=tuple(path + name for name in required),
        optional=tuple(path + name for name in optional),
        neuronpedia=neuronpedia,
        folder=path if loader == _NATIVE else None,
    )


def _closest(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" (closest: {', '.join(close)})" if close else ""


@cache
def _directory() -> str:
    # find_spec locates a top-level package without running it.
    spec = find_spec("sae_lens")
    if spec is None or spec.origin is None:
        raise UserError("sae_lens is not installed; install it to use pretrained SAEs by release")
    return (Path(spec.origin).parent / "pretrained_saes.yaml").read_text(encoding="utf-8")


@cache
def _blocks() -> dict[str, slice]:
    """Where each release stands in the directory: a top-level key, to the next one."""
    keys = list(_TOP_KEY.finditer(_directory()))
    ends = [key.start() for key in keys[1:]] + [len(_directory())]
    return {
        key[1].strip("'\""): slice(key.start(), end) for key, end in zip(keys, ends, strict=True)
    }


@cache
def _release(release: str) -> dict[str, Any]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    block: dict[str, dict[str, Any]] = yaml.load(_directory()[_blocks()[release]], Loader=loader)
    return block[release]


@cache
def _overriding() -> dict[str, dict[str, Any]]:
    """The releases in sae_lens' own format whose override changes what their SAEs compute."""
    names = [name for name, at in _blocks().items() if "  config_overrides:" in _directory()[at]]
    blocks = {name: _release(name) for name in names}
    return {
        name: block
        for name, block in blocks.items()
        if not block.get("conversion_func") and _function(block)
    }


def _function(block: Mapping[str, Any]) -> dict[str, Any]:
    overrides: dict[str, Any] = block.get("config_overrides") or {}
    return {key: value for key, value in overrides.items() if key not in _DESCRIPTIONS}


def _same_model(name: str, listed: str) -> bool:
    """Whether a config's name of a model, with or without its owner and version, is the listed."""
    plain = name.lower().rpartition("/")[2]
    return plain.startswith(listed.lower()) or (len(plain) > 3 and listed.startswith(plain))
