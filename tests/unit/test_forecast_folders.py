"""A plan says beforehand what a run would trip over in the folders that its config names."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save

from vista.engine.forecast.folders import LANGUAGE, MODEL, PIPELINE, SAE, VISION, problems
from vista.engine.forecast.overview import forecast
from vista.engine.plan import load_plan
from vista.engine.stages import stages

CONFIGS = Path(__file__).parents[2] / "config"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n"
PLAIN = {"image_mean": 0.5, "image_std": 0.5, "size": 48}
LLM = {"model_type": "llama", "vocab_size": 9, "hidden_size": 8}
VIT = {"model_type": "vit", "hidden_size": 8, "patch_size": 8, "image_size": 48}


def write(folder: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        path.write_bytes(data)
    return folder


WEIGHTS = b"\x10\0\0\0\0\0\0\0"
PARTS = ("text_encoder", "tokenizer", "unet", "vae", "scheduler")
SAE_CONFIG = {
    "architecture": "standard",
    "d_in": 4,
    "d_sae": 8,
    "normalize_activations": "none",
    "apply_b_dec_to_input": True,
    "metadata": {"hook_name": "blocks.0.hook_resid_post"},
}
SHAPES = {"W_enc": (4, 8), "W_dec": (8, 4), "b_enc": (8,), "b_dec": (4,)}
SAE_WEIGHTS = save({name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()})
WHOLE: dict[str, dict[str, Any]] = {
    LANGUAGE: {"config.json": LLM, "model.safetensors": WEIGHTS, "tokenizer.json": {}},
    VISION: {"config.json": VIT, "model.safetensors": WEIGHTS, "preprocessor_config.json": PLAIN},
    MODEL: {"config.json": LLM, "model.safetensors": WEIGHTS, "vocab.txt": b"a\n"},
    SAE: {"cfg.json": SAE_CONFIG, "sae_weights.safetensors": SAE_WEIGHTS},
    PIPELINE: {"model_index.json": {}, **{f"{part}/config.json": {} for part in PARTS}},
}
QUANTISED = {**LLM, "quantization_config": {"quant_method": "bitsandbytes"}}
SHARDS = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model.safetensors"}}


@pytest.mark.parametrize("what", WHOLE)
def test_a_whole_folder_lacks_nothing(what: str, tmp_path: Path) -> None:
    assert list(problems(what, write(tmp_path, WHOLE[what]))) == []


@pytest.mark.parametrize(
    ("what", "changes", "sentence"),
    [
        (LANGUAGE, {"model.safetensors": POINTER}, "is a Git LFS pointer"),
        (LANGUAGE, {"model.safetensors": b"<!DOCTYPE html>"}, "is a web page"),
        (LANGUAGE, {"model.safetensors": None}, "has no safetensors weights"),
        (LANGUAGE, {"model.safetensors.index.json": SHARDS}, "00001-of-00002.* is missing"),
        (LANGUAGE, {"config.json": QUANTISED}, "quantised with bitsandbytes, which needs"),
        (LANGUAGE, {"config.json": VIT}, "holds a vision model, not a language model"),
        (LANGUAGE, {"config.json": None}, "has no config.json"),
        (LANGUAGE, {"config.json": None, "cfg.json": {}}, "holds an SAE, not a language model"),
        (LANGUAGE, {"config.json": b"{"}, "config.json is not JSON"),
        (LANGUAGE, {"tokenizer.json": None}, "has no tokenizer"),
        (LANGUAGE, {"tokenizer_config.json": b"{"}, "tokenizer_config.json is not JSON"),
        (
            LANGUAGE,
            {"tokenizer_config.json": {"chat_template": [{"name": "rag", "template": "x"}]}},
            'none of rag is named "default"',
        ),
        (LANGUAGE, {"additional_chat_templates/rag.jinja": b"x"}, 'named "default"'),
        (LANGUAGE, {"chat_template.jinja": b"{{ [1, 2] | random }}"}, "draws at random"),
        (VISION, {"preprocessor_config.json": None}, "preprocessor_config.json is missing"),
        (
            VISION,
            {"preprocessor_config.json": None, "processor_config.json": {}},
            "preprocessor_config.json is missing, and so is image_processor",
        ),
        (VISION, {"preprocessor_config.json": {**PLAIN, "image_std": 0}}, "image_std is 0"),
        (
            VISION,
            {"processor_config.json": {"image_processor": {**PLAIN, "image_mean": 0.4}}},
            "preprocessor_config.json and processor_config.json differ",
        ),
        (VISION, {"config.json": LLM}, "holds a language model, not a vision encoder"),
        (VISION, {"config.json": None, "model_index.json": {}}, "holds a pipeline of diffusers"),
        (VISION, {"model.safetensors": POINTER}, "is a Git LFS pointer"),
        (MODEL, {"model.safetensors": POINTER}, "is a Git LFS pointer"),
        (SAE, {"cfg.json": None}, r"cfg\.json is missing"),
        (SAE, {"cfg.json": [1]}, "must hold an object"),
        (SAE, {"sae_weights.safetensors": POINTER}, "is a Git LFS pointer"),
        (SAE, {"cfg.json": {**SAE_CONFIG, "d_sae": 9}}, r"W_dec is \[8, 4\].*\[9, 4\]"),
        (PIPELINE, {"model_index.json": None}, "has no model_index.json"),
        (PIPELINE, {"unet/model.safetensors": POINTER}, "is a Git LFS pointer"),
        (PIPELINE, {"vae/config.json": None}, "vae is missing: give the whole pipeline"),
    ],
)  # fmt: skip
def test_what_a_folder_lacks_is_one_sentence(
    what: str, changes: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("vista.foreign.weights._is_installed", lambda _: False)
    files = {name: data for name, data in (WHOLE[what] | changes).items() if data is not None}
    (line,) = problems(what, write(tmp_path, files))
    assert re.search(sentence, line)
    assert str(tmp_path) in line and line.endswith(".") and "\n" not in line


def test_a_video_pipeline_is_a_vision_encoder(tmp_path: Path) -> None:
    index = {"_class_name": "StableVideoDiffusionPipeline"}
    parts = {f"{part}/config.json": {} for part in ("unet", "vae", "image_encoder", "scheduler")}
    folder = write(tmp_path, {"model_index.json": index, **parts})
    assert list(problems(VISION, folder)) == []
    (folder / "unet/config.json").unlink()
    (folder / "unet").rmdir()
    (line,) = problems(VISION, folder)
    assert line.endswith("unet is missing: give the whole pipeline.")


def test_named_templates_with_a_default_lack_nothing(tmp_path: Path) -> None:
    listed = [{"name": name, "template": "x"} for name in ("rag", "default")]
    write(tmp_path, {**WHOLE[LANGUAGE], "tokenizer_config.json": {"chat_template": listed}})
    assert list(problems(LANGUAGE, tmp_path)) == []
    files = {"chat_template.jinja": b"x", "additional_chat_templates/rag.jinja": b"x"}
    assert list(problems(LANGUAGE, write(tmp_path, files))) == []


def test_settings_of_transformers_5_are_enough(tmp_path: Path) -> None:
    files = {**WHOLE[VISION], "processor_config.json": {"image_processor": PLAIN}}
    write(tmp_path, files)
    assert list(problems(VISION, tmp_path)) == []  # the two files agree
    (tmp_path / "preprocessor_config.json").unlink()
    assert list(problems(VISION, tmp_path)) == []


def plan_of(tmp_path: Path, **folders: Path) -> list[str]:
    """The missing lines of a small run with these folders."""
    content: dict[str, Any] = yaml.safe_load((CONFIGS / "smoke.yaml").read_text())
    content["results"] = str(tmp_path / "results")
    source = {"kind": "checkpoint"}
    if "vision" in folders:
        for encoder in content["encoders"].values():
            encoder["source"] = {**source, "path": str(folders["vision"]), "family": "vit"}
    if "llm" in folders:
        for llm in content["llms"].values():
            llm["model"] = {"source": {**source, "path": str(folders["llm"])}}
    if "judge" in folders:
        judge = {"source": {**source, "path": str(folders["judge"])}, "kind": "embedding"}
        content["metrics"]["matching_rate"] = {"judge": {**judge, "threshold": 0.5}}
    return list(forecast(load_plan(content), stages()).missing)


def test_the_plan_tells_each_folder_once(tmp_path: Path) -> None:
    llm = write(tmp_path / "llm", {**WHOLE[LANGUAGE], "model.safetensors": POINTER})
    vision = write(tmp_path / "vision", {**WHOLE[VISION], "model.safetensors": POINTER})
    judge = write(tmp_path / "judge", {**WHOLE[MODEL], "model.safetensors": POINTER})
    lines = plan_of(tmp_path, llm=llm, vision=vision, judge=judge)
    for folder in (llm, vision, judge):
        assert [str(folder) in line and "Git LFS" in line for line in lines].count(True) == 1
    for folder in (llm, vision, judge):
        (folder / "model.safetensors").write_bytes(WEIGHTS)
    assert plan_of(tmp_path, llm=llm, vision=vision, judge=judge) == []
    shutil.rmtree(judge)
    (line,) = plan_of(tmp_path, llm=llm, vision=vision, judge=judge)
    assert line.startswith(f"folder of the judge's model {judge} is not there")


ODD_SIZES = b'{"hidden_size": "x", "vocab_size": null, "patch_size": [], "text_config": 3}'


@pytest.mark.parametrize(
    "content",
    [b"", b"[1]", b"{", ODD_SIZES, b"\xff\xfe{"],
    ids=["empty", "a list", "cut off", "odd sizes", "UTF-16"],
)
def test_a_plan_fails_over_no_file(content: bytes, tmp_path: Path) -> None:
    llm, vision = (write(tmp_path / name, WHOLE[what]) for name, what in
                   (("llm", LANGUAGE), ("vision", VISION)))  # fmt: skip
    for file in (llm / "config.json", vision / "config.json", vision / "preprocessor_config.json"):
        kept = file.read_bytes()
        file.write_bytes(content)
        plan_of(tmp_path, llm=llm, vision=vision)
        file.write_bytes(kept)
