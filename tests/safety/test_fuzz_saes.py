"""SAE folders, projector files, label exports and judgements that are damaged anywhere: the right
read, or one error about it; nothing lost without a word."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
import re
import shutil
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save, save_file
from safety.mutations import fuzz, mutated_bytes, mutated_json, read_or_told

from vista.config.sae import NeuronpediaSettings
from vista.foreign.values import flag, integer, number
from vista.judges.backends.judgements import Judgements
from vista.projector.foreign import read_foreign
from vista.sae.convert import from_folder
from vista.sae.neuronpedia import read_export

pytest.importorskip("sae_lens")

D_IN, D_SAE = 4, 6
HOOK = "blocks.3.hook_resid_post"
OLD: dict[str, Any] = {
    "model_name": "gpt2-small",
    "hook_name": HOOK,
    "hook_layer": 3,
    "hook_head_index": None,
    "architecture": "standard",
    "activation_fn_str": "relu",
    "activation_fn_kwargs": {},
    "apply_b_dec_to_input": True,
    "finetuning_scaling_factor": False,
    "normalize_activations": "none",
    "d_in": D_IN,
    "d_sae": D_SAE,
    "dtype": "torch.float32",
    "device": "cpu",
    "prepend_bos": True,
    "model_from_pretrained_kwargs": {"center_writing_weights": True},
}
TOPK = {**OLD, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 2}}
NEW: dict[str, Any] = {
    "architecture": "standard",
    "d_in": D_IN,
    "d_sae": D_SAE,
    "dtype": "float32",
    "apply_b_dec_to_input": True,
    "normalize_activations": "none",
    "reshape_activations": "none",
    "metadata": {"sae_lens_version": "6.4.0", "hook_name": HOOK, "model_name": "own"},
}
SCALED = {**NEW, "normalize_activations": "expected_average_only_in"}


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"W_dec": (D_SAE, D_IN), "W_enc": (D_IN, D_SAE), "b_dec": (D_IN,), "b_enc": (D_SAE,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def stream() -> torch.Tensor:
    return torch.randn(8, D_IN, generator=torch.Generator().manual_seed(1)) + 0.5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(tensors(), tmp_path / "sae_weights.safetensors")
    return tmp_path


def write(folder: Path, cfg: Any) -> None:
    (folder / "cfg.json").write_text(json.dumps(cfg))


@pytest.mark.parametrize("cfg", [OLD, TOPK, NEW], ids=["old", "topk", "new"])
def test_damaged_configs_of_saes_are_read_as_they_say_or_told(
    cfg: dict[str, Any], folder: Path
) -> None:
    write(folder, cfg)
    whole = from_folder(folder, 3, name="x")

    def check(chance: random.Random) -> None:
        text = mutated_json(chance, cfg).encode()
        if chance.random() < 0.2:
            text = mutated_bytes(chance, text)
        (folder / "cfg.json").write_bytes(text)
        with read_or_told("cfg.json", "SAE x", str(folder)):
            sae = from_folder(folder, 3, name="x")
            assert (sae.config.d_in, sae.config.d_sae, sae.config.layer) == (D_IN, D_SAE, 3)
            assert torch.isfinite(sae(stream())).all()
            if not torch.equal(sae(stream()), whole(stream())):
                assert meaning(json.loads(text.decode("utf-8-sig"))) != meaning(cfg)

    fuzz(f"cfg.json {cfg['architecture']} {len(cfg)}", check)


def meaning(cfg: Any) -> list[Any]:
    """What of a config's values an SAE's function depends on."""
    metadata = cfg.get("metadata") or {}
    kwargs = cfg.get("model_from_pretrained_kwargs", metadata.get("model_from_pretrained_kwargs"))
    activation = cfg.get("activation_fn_kwargs") or {}
    return [
        cfg.get("architecture"),
        cfg.get("activation_fn_str"),
        integer(activation.get("k")),
        flag(cfg.get("apply_b_dec_to_input", True)),
        cfg.get("normalize_activations") or "none",
        flag((kwargs or {}).get("center_writing_weights")),
        metadata.get("sae_lens_version"),
    ]


def test_damaged_scalers_are_read_as_they_say_or_told(folder: Path) -> None:
    write(folder, NEW)
    plain = from_folder(folder)
    write(folder, SCALED)
    scaler = {"scaling_factor": 0.25, "mean": None, "whitening": [1.5]}

    def check(chance: random.Random) -> None:
        text = mutated_json(chance, scaler).encode()
        if chance.random() < 0.3:
            text = mutated_bytes(chance, text)
        (folder / "activation_scaler.json").write_bytes(text)
        with read_or_told("activation_scaler.json", "activation_scale"):
            sae = from_folder(folder)
            scale = number(json.loads(text.decode("utf-8-sig"))["scaling_factor"])
            assert scale is not None
            torch.testing.assert_close(sae(stream()), plain(scale * stream()) / scale)

    fuzz("scaler", check)


def test_damaged_weights_of_saes_are_read_as_they_are_or_told(folder: Path) -> None:
    write(folder, NEW)
    path = folder / "sae_weights.safetensors"
    whole = path.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    header, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]

    def check(chance: random.Random) -> None:
        if chance.random() < 0.5:
            content = mutated_bytes(chance, whole)
        else:
            text = mutated_json(chance, header).encode()
            content = struct.pack("<Q", len(text)) + text + data
        # Another file: the old one may still be mapped into memory.
        path.unlink()
        path.write_bytes(content)
        with read_or_told("sae_weights.safetensors", "holds NaN or infinity"):
            sae = from_folder(folder)
            for name, tensor in load(content).items():
                assert torch.equal(getattr(sae, name), tensor.float())

    fuzz("sae_weights", check)


def odd_state(chance: random.Random, state: dict[str, torch.Tensor]) -> Any:
    """A projector's state dict with one of its tensors changed, renamed, dropped or no tensor."""
    name = chance.choice(sorted(state))
    value = state.pop(name)
    how = chance.choice(["cast", "reshape", "rename", "drop", "other", "nan", "add", "wrap"])
    if how == "cast":
        kinds = ["float16", "bfloat16", "float64", "int8", "int64", "bool", "complex64"]
        state[name] = value.to(getattr(torch, chance.choice(kinds)))
    elif how == "reshape":
        state[name] = chance.choice(
            [value.mT if value.ndim == 2 else value[1:], value[:-1], value[None], value.flatten()]
        )
    elif how == "rename":
        state[chance.choice(["weight", "a.weight", "bias", "x", "", "0.weight", f"m.{name}"])] = (
            value
        )
    elif how == "nan":
        state[name] = torch.full_like(value, chance.choice([float("nan"), float("inf")]))
    elif how == "add":
        state |= {name: value, "norm.weight": torch.ones(4)}
    elif how != "drop":
        state[name] = value
        if how == "wrap":
            return {chance.choice(["state_dict", "model", "epoch"]): state}
    return state


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_projectors_are_read_as_they_are_or_told(suffix: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(
        torch.nn.Linear(D_IN, D_SAE), torch.nn.GELU(), torch.nn.Linear(D_SAE, D_SAE)
    )
    whole = {name: value.detach() for name, value in layers.state_dict().items()}
    path = tmp_path / f"projector{suffix}"

    def content(state: Any, is_zip: bool) -> bytes:
        if suffix == ".safetensors":
            flat = {name: value.contiguous() for name, value in state.items()}
            return save(flat)
        file = io.BytesIO()
        torch.save(state, file, _use_new_zipfile_serialization=is_zip)
        return file.getvalue()

    def check(chance: random.Random) -> None:
        state = dict(whole)
        is_flat = True
        if chance.random() < 0.5:
            state = odd_state(chance, state)
            is_flat = all(isinstance(value, torch.Tensor) for value in state.values())
            if suffix == ".safetensors" and not is_flat:
                return
            data = content(state, chance.random() < 0.5)
        else:
            data = mutated_bytes(chance, content(state, chance.random() < 0.5))
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        with warnings.catch_warnings(), read_or_told(path.name):
            warnings.simplefilter("ignore")
            module = read_foreign(path, d_vision=D_IN, d_model=D_SAE)
            if suffix == ".pth":
                raw = torch.load(io.BytesIO(data), "cpu", weights_only=True)
            else:
                raw = load(data)
            while any(isinstance(value, dict) for value in raw.values()):
                raw = next(value for value in raw.values() if isinstance(value, dict))
            ours = [value for value in module.state_dict().values() if value.any()]
            for value in raw.values():
                assert not value.any() or any(torch.equal(value.float(), own) for own in ours)

    fuzz(f"projector {suffix}", check)


MODEL, SOURCE = "gemma-2-2b", "5-res-16k"


def rows(kind: str) -> list[dict[str, Any]]:
    common = {"modelId": MODEL, "layer": SOURCE}
    if kind == "features":
        return [{**common, "index": str(i), "frac_nonzero": i / 64} for i in range(D_SAE)]
    return [
        {
            **common,
            "index": str(i // 2),
            "description": f"text {i}",
            "typeName": "oai",
            "explanationModelName": "mini",
        }
        for i in range(2 * D_SAE)
    ]


def labels(folder: Path) -> Any:
    settings = NeuronpediaSettings(path=str(folder), density=0.0)
    return read_export(folder, settings, layer=5, d_sae=D_SAE, sae="x")


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", ["explanations", "features"])
def test_damaged_exports_of_labels_lose_no_row_without_a_word(
    kind: str, packed: bool, tmp_path: Path
) -> None:
    for name in ("explanations", "features"):
        (tmp_path / name).mkdir()
        text = "".join(json.dumps(row) + "\n" for row in rows(name))
        (tmp_path / name / "batch-0.jsonl").write_text(text)
    path = tmp_path / kind / ("batch-0.jsonl.gz" if packed else "batch-0.jsonl")
    (tmp_path / kind / "batch-0.jsonl").unlink()

    def check(chance: random.Random) -> None:
        damaged: list[Any] = [
            json.loads(mutated_json(chance, row)) if chance.random() < 0.1 else row
            for row in rows(kind)
        ]
        damaged += [chance.choice([*damaged, None]) for _ in range(chance.randrange(3))]
        lines = [json.dumps(row) for row in damaged] + [""] * chance.randrange(3)
        text = chance.choice(["\n", "\r\n"]).join(lines) + chance.choice(["", "\n"])
        content = (chance.choice(["", "\ufeff"]) + text).encode()
        is_damaged = chance.random() < 0.3
        if is_damaged and not packed:
            content = mutated_bytes(chance, content)
        if packed:
            content = gzip.compress(content, mtime=0)
            content = mutated_bytes(chance, content) if is_damaged else content
        path.write_bytes(content)
        printed = io.StringIO()
        with read_or_told(str(tmp_path)), contextlib.redirect_stdout(printed):
            table = labels(tmp_path)
            if is_damaged:
                return
            left_out = {
                what: int(n) for n, what in re.findall(r"(\d+) ([a-z ]+)", printed.getvalue())
            }
            if kind == "explanations":
                kept = sum(label is not None for label in table.label_s)
                kept += sum(len(contexts) for contexts in table.contexts_s)
                assert kept + sum(left_out.get(what, 0) for what in LEFT_OUT) == len(damaged)
            else:
                shares = {
                    integer(row["index"]): row["frac_nonzero"]
                    for row in damaged
                    if row and row.get("frac_nonzero") is not None
                }
                expected = [shares.get(i, 1.0) for i in range(D_SAE)]
                assert table.density_s.tolist() == np.float32(expected).tolist()
                assert len(shares) + sum(left_out.get(what, 0) for what in UNSEEN) == len(damaged)

    fuzz(f"labels {kind} {packed}", check)


LEFT_OUT = ("explanations without text", "repeated explanations", "rows of null")
UNSEEN = ("latents without density", "repeated densities", "rows of null")


def test_damaged_files_of_judgements_lose_the_damaged_lines_alone_and_tell(
    tmp_path: Path,
) -> None:
    source = {"judge": "api", "model": "small", "prompt": "1"}
    first = Judgements[bool](str(tmp_path / "whole"), **source)
    for i in range(6):
        first.add(False, f"text {i}", ("cat",), (bool(i % 2),))
    [file] = (tmp_path / "whole").iterdir()
    whole = file.read_bytes()
    lines = whole.splitlines()
    contents = [json.loads(line) for line in lines]
    copy = tmp_path / "copy"

    def check(chance: random.Random) -> None:
        content = mutated_bytes(chance, whole)
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        (copy / file.name).write_bytes(content)
        kept = content.split(b"\n")
        printed = io.StringIO()
        with read_or_told(file.name), contextlib.redirect_stdout(printed):
            second = Judgements[bool](str(copy), **source)
            answers = [second.find(False, f"text {i}", ("cat",)) for i in range(6)]
            for i, line in enumerate(lines):
                assert answers[i] in ((bool(i % 2),), None)
                if line in kept:
                    assert answers[i] == (bool(i % 2),)
            lost = sum(bool(line.strip()) and content_of(line) not in contents for line in kept)
            counts = re.findall(r"(\d+) damaged lines", printed.getvalue())
            assert sum(map(int, counts)) == lost
            second.add(False, "new", ("cat",), (True,))
        third = Judgements[bool](str(copy), **source)
        assert third.find(False, "new", ("cat",)) == (True,)

    fuzz("judgements", check)


def content_of(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
