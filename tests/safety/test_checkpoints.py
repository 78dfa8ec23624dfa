"""Nothing that comes with a checkpoint runs: no pickle in any place, no code beside the weights."""

from __future__ import annotations

import ast
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safety.mutations import read_or_told
from word_tokenizer import word_tokenizer

from vista.encoders.contract import load_encoder
from vista.errors import UserError
from vista.inputs.model_folder import model_config
from vista.judges.backends.image_text import ImageTextModel
from vista.judges.backends.sentences import sentence_embedder
from vista.language.checkpoint import load_checkpoint
from vista.projector.foreign import read_foreign
from vista.projector.module import CONFIG, WEIGHTS, load_projector
from vista.sae.convert import from_folder
from vista.sae.neutral import load_sae
from vista.store.features import FeatureReader

ROOT = Path(__file__).parents[2]


class Trap:
    """Leaves a folder behind where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.mkdir, (self.marker,))


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "it ran"


def embedder(folder: Path) -> None:
    sentence_embedder(str(folder), device="cpu", dtype="float32", max_tokens=8, batch=1)


LOADERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "encoder": ("ViTConfig", lambda folder: load_encoder(folder, "vit")),
    "language model": ("LlamaConfig", load_checkpoint),
    "sentence encoder": ("BertConfig", embedder),
    "image-text judge": (
        "LlavaConfig",
        lambda folder: ImageTextModel(str(folder), device="cpu", dtype="float32"),
    ),
}
SMALL = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 4,
}


def checkpoint(folder: Path, config: str) -> Path:
    """All of a checkpoint but its weights."""
    import transformers

    folder.mkdir()
    settings = {} if config == "LlavaConfig" else SMALL
    getattr(transformers, config)(**settings).save_pretrained(folder)
    word_tokenizer(["<pad>", "<bos>", "<eos>", "<unk>"]).save_pretrained(folder)
    normal = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 8, "width": 8}}
    (folder / "preprocessor_config.json").write_text(json.dumps(normal))
    return folder


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin", "model.bin"])
@pytest.mark.parametrize("name", LOADERS)
def test_a_pickle_among_weights_is_not_loaded(
    name: str, weights: str, tmp_path: Path, marker: Path
) -> None:
    config, load = LOADERS[name]
    folder = checkpoint(tmp_path / "model", config)
    torch.save({"weight": Trap(marker)}, folder / weights)
    with pytest.raises(UserError, match="safetensors weights") as told:
        load(folder)
    assert str(folder) in str(told.value) and not marker.exists()


CODE = """
from pathlib import Path
Path({marker!r}).mkdir()
"""
CLASSES = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForImageTextToText")


@pytest.mark.parametrize("known", [False, True], ids=["unknown-type", "known-type"])
@pytest.mark.parametrize("name", [*LOADERS, "width"])
def test_code_beside_weights_is_not_run_even_if_the_terminal_says_yes(
    name: str, known: bool, tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, load = LOADERS.get(name, ("LlamaConfig", model_config))
    folder = checkpoint(tmp_path / "model", kind)
    (folder / "theirs.py").write_text(CODE.format(marker=str(marker)))
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = dict.fromkeys((*CLASSES, "AutoProcessor"), "theirs.Theirs")
    if not known:
        config["model_type"] = "theirs"
    (folder / "config.json").write_text(json.dumps(config))
    for file in ("tokenizer_config.json", "preprocessor_config.json"):
        content = json.loads((folder / file).read_text())
        content["auto_map"] = {"AutoTokenizer": ["theirs.Theirs", None]} | config["auto_map"]
        content["tokenizer_class"] = "Theirs"
        (folder / file).write_text(json.dumps(content))
    # What transformers does where nobody says whether the code may run: it asks.
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda text="": asked.append(text) or "y")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    with read_or_told(str(folder)):
        load(folder)
        assert (name, known) == ("width", True)
    assert not asked and not marker.exists()


def test_the_traps_are_real(tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pickle.loads(pickle.dumps(Trap(marker)))
    assert marker.exists()
    marker.rmdir()
    exec(compile(CODE.format(marker=str(marker)), "theirs.py", "exec"))
    assert marker.exists()


def test_a_pickle_as_an_sae_or_projector_is_not_loaded(tmp_path: Path, marker: Path) -> None:
    trap = {"W_enc": Trap(marker), "weight": Trap(marker)}
    neutral = {"format": 1, "architecture": "standard", "d_in": 2, "d_sae": 3, "layer": 0}
    sae = {**neutral, "name": "theirs"}
    theirs = {"architecture": "standard", "d_in": 2, "d_sae": 3, "dtype": "float32",
              "metadata": {"hook_name": "blocks.0.hook_resid_post"}}  # fmt: skip
    projector = {"kind": "linear", "d_vision": 2, "d_model": 3}
    cases: list[tuple[str, dict[str, Any], list[str], Callable[[Path], Any]]] = [
        ("sae.json", sae, ["sae.safetensors", "sae.pt"], load_sae),
        ("cfg.json", theirs, ["sae_weights.safetensors", "sae.pt", "sparsity.safetensors"],
         from_folder),
        (CONFIG, projector, [WEIGHTS, "projector.pth"],
         lambda folder: load_projector(folder, d_vision=2, d_model=3)),
    ]  # fmt: skip
    for config, content, names, load in cases:
        for dump in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))):
            folder = tmp_path / "artifact"
            folder.mkdir()
            (folder / config).write_text(json.dumps(content))
            for name in names:
                dump(trap, folder / name)
            with pytest.raises(UserError, match="artifact"):
                load(folder)
            shutil.rmtree(folder)
    for suffix in ("pth", "pt", "bin", "safetensors", "npy", "npz"):
        (tmp_path / f"theirs.{suffix}").write_bytes(pickle.dumps(trap))
        with pytest.raises(UserError, match=rf"theirs\.{suffix}: not a file of plain tensors"):
            read_foreign(tmp_path / f"theirs.{suffix}", d_vision=2, d_model=3)
    np.save(tmp_path / "objects.npy", np.array([Trap(marker)], dtype=object))
    with pytest.raises(UserError, match=r"objects\.npy"):
        read_foreign(tmp_path / "objects.npy", d_vision=2, d_model=3)
    assert not marker.exists()


@pytest.mark.parametrize("version", [2, 3, 23])
def test_a_pickle_in_a_zarr_store_is_not_loaded(version: int, tmp_path: Path, marker: Path) -> None:
    store = tmp_path / "theirs.zarr"
    pickled = {"id": "pickle", "protocol": 4}
    old = {"zarr_format": 2, "shape": [1, 1, 1], "chunks": [1, 1, 1], "fill_value": 0, "order": "C"}
    arrays = {"features": {"dtype": "<f4"}, "image": {"dtype": "|O", "shape": [1], "chunks": [1]}}
    (store / "features" / "c" / "0" / "0").mkdir(parents=True)
    (store / "image").mkdir()
    for chunk in ("features/0.0.0", "features/c/0/0/0", "image/0"):
        (store / chunk).write_bytes(pickle.dumps(Trap(marker)))
    if version in (2, 23):
        (store / ".zgroup").write_text('{"zarr_format": 2}')
        for name, own in arrays.items():
            meta = {**old, "compressor": None, "filters": [pickled], **own}
            (store / name / ".zarray").write_text(json.dumps(meta))
    if version in (3, 23):
        group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
        (store / "zarr.json").write_text(json.dumps(group))
    if version == 3:
        whole = {"chunk_shape": [1, 1, 1]}
        features = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [1, 1, 1],
            "fill_value": 0,
            "data_type": "float32",
            "chunk_grid": {"name": "regular", "configuration": whole},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "codecs": [{"name": "numcodecs.pickle", "configuration": {}}],
        }
        (store / "features" / "zarr.json").write_text(json.dumps(features))
    with pytest.raises(UserError, match=r"theirs\.zarr"):
        FeatureReader(store).read([0])
    assert not marker.exists()


def test_no_module_can_unpickle_or_run_what_it_reads() -> None:
    # What runs data as code: names of calls, and modules that bring such calls with them.
    forbidden_modules = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    forbidden_calls = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
    found = []
    for path in sorted((ROOT / "vista").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                found += [(where, name) for name in names & forbidden_modules]
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            given = {each.arg: ast.unparse(each.value) for each in node.keywords}
            last = called.rsplit(".", 1)[-1]
            wrong = [
                called in forbidden_calls,
                called == "torch.load" and given.get("weights_only") != "True",
                "allow_pickle" in given,
                given.get("shell", "False") != "False",
                given.get("trust_remote_code", "False") != "False",
                called == "yaml.load" and "loader" not in given.get("Loader", ""),
                last in ("unsafe_load", "full_load", "extractall"),
                last == "from_pretrained" and not _refuses_code(node, text),
            ]
            if any(wrong):
                found.append((where, called))
    # Of pickle only the errors' names, but for the unpickler that refuses every name (tested with
    # malicious files); diffusers' own classes from safetensors; sae_lens reads its releases inside
    # `offline_hub`; a saved readout is no model of transformers.
    assert [(where.split(":")[0], name) for where, name in found] == [
        ("vista/encoders/families/svd.py", "model_class.from_pretrained"),
        ("vista/foreign/plain_pickle.py", "pickle"),
        ("vista/foreign/tensors.py", "pickle"),
        ("vista/library/look.py", "Readout.from_pretrained"),
        ("vista/projector/foreign.py", "pickle"),
        ("vista/sae/convert.py", "SAE.from_pretrained"),
    ]


def _refuses_code(call: ast.Call, text: str) -> bool:
    given = {each.arg or ast.unparse(each.value): ast.unparse(each.value) for each in call.keywords}
    shared = "local" in given and '"trust_remote_code": False' in text
    return shared or given.get("trust_remote_code") == "False"
