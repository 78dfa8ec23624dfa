"""Loading: what a checkpoint on disk gives, where it is put, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from vista.config.language import LanguageSettings
from vista.data.records import Turn
from vista.device import find_device
from vista.engine.artifacts import Provenance, open_artifact, publishing
from vista.errors import UserError
from vista.inputs.models import llm_width, load_llm, load_saes
from vista.language.checkpoint import VISION_PARTS, eos_ids
from vista.language.model import LanguageModel
from vista.sae.neutral import SaeConfig, SparseAutoencoder, save_sae

IDS = torch.tensor([[1, 5, 9, 7, 11, 6, 8, 30, 31, 12, 4, 40]])


def _logits(lm: LanguageModel, **more: Any) -> torch.Tensor:
    with torch.no_grad():
        logits = lm.forward(IDS, **more).logits
    assert logits is not None
    return logits


def _settings(folder: Path, **more: Any) -> LanguageSettings:
    return LanguageSettings.model_validate(
        {"source": {"kind": "checkpoint", "path": str(folder)}, **more}
    )


def _on_disk(folder: Path) -> dict[str, torch.Tensor]:
    return {
        name: value
        for file in sorted(folder.glob("*.safetensors"))
        for name, value in load_file(file).items()
    }


def test_every_weight_of_the_text_decoder_is_read(any_lm: LanguageModel, family: str) -> None:
    """By value: a renamed weight would otherwise keep its random start."""
    folder = Path(any_lm.model.config._name_or_path)
    kept = {name.rpartition("model.")[2]: value for name, value in _on_disk(folder).items()}
    blocks = any_lm.blocks.state_dict()
    assert blocks
    prefix = "h." if family == "gpt2" else "layers."
    for name, value in blocks.items():
        assert torch.equal(value, kept[prefix + name]), name
    table = "wte.weight" if family == "gpt2" else "embed_tokens.weight"
    assert torch.equal(any_lm.model.get_input_embeddings().weight, kept[table])


def test_a_multimodal_checkpoint_gives_its_text_decoder(checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint("gemma3_multimodal")
    for part in VISION_PARTS[:2]:
        assert any(name.startswith(part) for name in _on_disk(folder)), part
    lm = LanguageModel.load(folder)
    names = [name for name, _ in lm.model.named_parameters()]
    assert not [name for name in names if any(part in name for part in VISION_PARTS)]
    assert lm.n_blocks == 3
    # Weights are drawn in another order in the two classes, so the text decoder is checked against
    # the plain text class with the same weights.
    from transformers import Gemma3ForCausalLM

    config = lm.model.config.get_text_config()
    alone = Gemma3ForCausalLM(config).eval()
    alone.model.load_state_dict(lm.model.model.language_model.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(_logits(lm), alone(input_ids=IDS).logits)


def test_what_save_pretrained_writes_is_read_too(any_lm: LanguageModel, tmp_path: Path) -> None:
    any_lm.model.save_pretrained(tmp_path)
    any_lm.tokenizer.save_pretrained(tmp_path)
    again = LanguageModel.load(tmp_path)
    assert type(again.model) is type(any_lm.model)
    assert torch.equal(_logits(again), _logits(any_lm))
    assert again.tokenizer.get_vocab() == any_lm.tokenizer.get_vocab()
    assert again.opening == any_lm.opening


def test_load_says_what_is_missing(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        LanguageModel.load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="save_pretrained folder"):
        LanguageModel.load(tmp_path)
    folder = shutil.copytree(checkpoint("llama31"), tmp_path / "pickled")
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        LanguageModel.load(folder)


def test_a_checkpoint_with_a_weight_missing_is_refused(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(checkpoint("qwen3"), tmp_path / "model")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    name = "model.layers.1.mlp.up_proj.weight"
    file = folder / index["weight_map"].pop(name)
    weights = load_file(file)
    del weights[name]
    save_file(weights, file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"1 weights are missing .*layers\.1\.mlp\.up_proj"):
        LanguageModel.load(folder)


@pytest.mark.parametrize(
    ("n_cuda", "mps", "found"), [(2, True, "cuda"), (0, True, "mps"), (0, False, "cpu")]
)
def test_auto_takes_cuda_then_mps_then_cpu(
    n_cuda: int, mps: bool, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n_cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert find_device("auto") == torch.device(found)
    assert find_device("cpu") == torch.device("cpu")
    missing = "cuda:2" if n_cuda else "cuda"
    with pytest.raises(UserError, match=rf"^device: {missing} is not on this machine"):
        find_device(missing)
    if n_cuda:
        assert find_device("cuda:1") == torch.device("cuda:1")
    if not mps:
        with pytest.raises(UserError, match=r"^device: mps"):
            find_device("mps")


def test_a_device_map_changes_no_number(checkpoint: Callable[..., Path]) -> None:
    folder = checkpoint("gemma2")
    plain = LanguageModel.load(folder)
    visual = torch.randn(1, 3, plain.d_model, generator=torch.Generator().manual_seed(0))
    for device_map in ("auto", "sequential", {"": "cpu"}):
        lm = LanguageModel.load(folder, device_map=device_map)
        assert torch.equal(_logits(lm, visual=visual), _logits(plain, visual=visual))
    # On one device accelerate adds no hooks unless forced: here they run beside ours.
    parts = ["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"]
    parts += [f"model.layers.{i}" for i in range(3)]
    dispatch_model(lm.model, dict.fromkeys(parts, "cpu"), force_hooks=True)
    assert hasattr(lm.blocks[1], "_hf_hook")
    edits = {0: lambda h_btd: h_btd * 1.5}
    for more in ({}, {"visual": visual}, {"visual": visual, "edits": edits}):
        torch.testing.assert_close(_logits(lm, **more), _logits(plain, **more))
    questions = ["what is at left ?"]
    assert lm.generate(visual, questions, 6) == plain.generate(visual, questions, 6)


def test_a_model_that_does_not_fit_is_refused(checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(UserError, match="device_map"):
        LanguageModel.load(checkpoint("gemma2"), device_map="auto", max_memory={"cpu": "40KB"})


def test_blocks_on_two_devices(checkpoint: Callable[..., Path]) -> None:
    """Inputs on the first, taps and edits where their block lies, logits on the first again."""
    script = Path(__file__).with_name("two_devices.py")
    command = [sys.executable, str(script), str(checkpoint("llama31"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = "twin:0", "twin:1"
    assert json.loads(done.stdout) == {
        "device": first,
        "stream": first,
        "edit": second,
        "tap0": first,
        "tap1": second,
        "tap2": second,
        "short0": first,
        "short1": second,
        "logits": first,
        "some": first,
        "term": first,
    }


def test_settings_name_what_excludes_what(tmp_path: Path) -> None:
    assert _settings(tmp_path).placement == "after_bos"
    for device in ("cpu", "cuda", "cuda:3", "mps", "auto"):
        assert _settings(tmp_path, device=device).device == device
    for wrong, said in (
        ({"device": "gpu"}, "device"),
        ({"device": "cuda:0", "device_map": "auto"}, "`device: cuda:0` and `device_map: auto`"),
        ({"max_memory": {"0": "1GiB"}}, "`max_memory` belongs to `device_map`"),
        ({"device_map": "everywhere"}, "device_map"),
        ({"placement": "last"}, "placement"),
        ({"template": "None"}, "template"),
        ({"template": "chat.txt"}, "template"),
        ({"template": "none", "system": ""}, "`system` needs a chat template"),
    ):
        with pytest.raises(ValidationError, match=said):
            _settings(tmp_path, **wrong)
    assert _settings(tmp_path, template="own.jinja").template_files == ("own.jinja",)
    assert _settings(tmp_path, template="none").template_files == ()


def test_a_model_that_a_stage_provides_is_an_input(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    record = Provenance("fetch_model", {}, {}, "code", {})
    with publishing(tmp_path, "fetch_model", "one", record) as work:
        assert work is not None
        shutil.copytree(checkpoint("qwen3"), work / "model")
    fetched = open_artifact(tmp_path / "fetch_model" / "one")
    source = {"kind": "checkpoint", "repo": "maker/model", "revision": "1"}
    settings = LanguageSettings.model_validate({"source": source})
    assert load_llm(settings, fetched).d_model == llm_width(settings, fetched) == 32
    weights = next((fetched.path / "model").glob("*.safetensors"))
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(UserError, match="differs from the manifest"):
        load_llm(settings, fetched)
    assert llm_width(settings, fetched) == 32  # reads the config alone


def test_a_path_is_a_folder_and_never_a_name_in_the_hubs_cache(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants
    from transformers import AutoConfig

    cached = tmp_path / "models--maker--model"
    shutil.copytree(checkpoint("qwen3"), cached / "snapshots" / "1")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert AutoConfig.from_pretrained("maker/model", local_files_only=True).hidden_size == 32
    settings = _settings(Path("maker/model"))
    for load in (load_llm, llm_width):
        with pytest.raises(UserError, match="maker/model is not a folder; correct `path`"):
            load(settings, None)


def test_a_job_loads_what_its_settings_say(
    checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = _settings(checkpoint("qwen3"), placement="in_question", dtype="bfloat16")
    saes = []
    for layer in (2, 0):
        config = SaeConfig("standard", d_in=32, d_sae=8, layer=layer, name=f"test-l{layer}")
        record = Provenance("import_sae", {}, {}, "code", {})
        with publishing(tmp_path, "import_sae", f"l{layer}", record) as work:
            assert work is not None
            save_sae(work, SparseAutoencoder(config, _weights()))
        saes.append(open_artifact(tmp_path / "import_sae" / f"l{layer}"))
    llm = load_llm(settings, None)
    assert llm.placement == "in_question"
    assert llm.dtype == torch.bfloat16
    assert {layer: str(sae.W_enc.device) for layer, sae in load_saes(saes, llm).items()} == {
        2: "cpu",
        0: "cpu",
    }
    # The meta device stands for a second GPU: a place that a tensor can be moved to and no other.
    monkeypatch.setattr(
        LanguageModel, "layer_device", lambda _, layer: torch.device("meta" if layer else "cpu")
    )
    assert {layer: str(sae.W_enc.device) for layer, sae in load_saes(saes, llm).items()} == {
        2: "meta",
        0: "cpu",
    }


def _weights() -> dict[str, torch.Tensor]:
    shapes = {"W_enc": (32, 8), "b_enc": (8,), "W_dec": (8, 32), "b_dec": (32,)}
    return {name: torch.ones(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("ends", "expected"), [(7, {7}), ("7", {7}), ([7, 9.0], {7, 9}), (None, set()), ([], set())]
)
def test_ends_of_answers_are_read_as_they_are_meant(
    checkpoint: Callable[..., Path], ends: Any, expected: set[int]
) -> None:
    lm = LanguageModel.load(checkpoint("llama31"))
    lm.model.generation_config.eos_token_id = ends
    assert eos_ids(lm.model, lm.tokenizer) == expected | {lm.tokenizer.eos_token_id}


@pytest.mark.parametrize("ends", ["x", [7, None, "y"], -1, [[7]], {"a": 1}, 0.5, 2**70], ids=repr)
def test_ends_of_answers_that_are_no_tokens_are_told(
    checkpoint: Callable[..., Path], ends: Any
) -> None:
    lm = LanguageModel.load(checkpoint("llama31"))
    lm.model.generation_config.eos_token_id = ends
    with pytest.raises(UserError, match=r"generation_config\.json has eos_token_id"):
        eos_ids(lm.model, lm.tokenizer)


def test_a_model_without_blocks_is_told(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint("llama31"), tmp_path / "model")
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_hidden_layers": 0}))
    with pytest.raises(UserError, match="num_hidden_layers 0, expected 1 or more"):
        LanguageModel.load(folder)


def test_a_tokenizer_of_another_model_is_told(checkpoint: Callable[..., Path]) -> None:
    lm = LanguageModel.load(checkpoint("llama31"))
    rows = lm.model.get_input_embeddings().weight.shape[0]
    lm.tokenizer.add_tokens([f"token-{i}" for i in range(rows)])
    turn = Turn(f"what is token-{rows - 1} ?", "a cat")
    lm.generate(None, ["what ?"], 1)
    for use in (lambda: lm.batch([[turn]], 0, 90), lambda: lm.generate(None, [turn.question], 1)):
        with pytest.raises(UserError, match=rf"its embedding has {rows} rows"):
            use()


def test_a_job_formats_prompts_as_its_settings_say(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = checkpoint("qwen3")
    plain = load_llm(_settings(folder, template="none"), None)
    assert plain.tokenizer.decode(plain.prompts(["what ?"], 0)[0]) == "what ?\n"
    file = tmp_path / "short.jinja"
    file.write_text("{% for m in messages %}{{ m.content }} ({{ m.role }}) {% endfor %}")
    own = load_llm(_settings(folder, template=str(file), system="a cat"), None)
    assert own.tokenizer.decode(own.prompts(["what ?"], 0)[0]) == "a cat (system) what ? (user) "
    assert own.tokenizer.decode(own.batch([[]], 2, 50).input_ids[0, : len(own.opening)]) == ""
