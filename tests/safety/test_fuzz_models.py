"""Damaged files of models: they are read as they say, or told in one short sentence.

VISTA_FUZZ sets how many damaged copies of each file are read.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from safety.mutations import damaged_files, read_or_told
from tokenizers import ByteLevelBPETokenizer

from vista.encoders.contract import load_encoder
from vista.engine.forecast.folders import LANGUAGE, VISION, problems
from vista.engine.forecast.model_shapes import language_shape, read_config, vision_shape
from vista.foreign.preprocessor import PREPROCESSOR, PROCESSOR, image_steps, read_preprocessor
from vista.language.model import LanguageModel
from vista.language.prompt import IGNORED, build_batch, prompt_ids

CLIP = {
    "crop_size": {"height": 24, "width": 24},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"shortest_edge": 24},
}
NESTED = {"image_processor": CLIP, "processor_class": "CLIPProcessor"}
# The turns of three families as their published templates write them, in short.
TEMPLATES = {
    "llama": (
        "{{- bos_token }}\n{%- if not date_string is defined %}\n"
        "    {%- set date_string = strftime_now('%d %b %Y') %}\n{%- endif %}\n"
        "{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: ' + date_string }}\n"
        "{{- '<|eot_id|>' }}\n{%- for message in messages %}\n"
        "    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' "
        "+ message['content'] | trim + '<|eot_id|>' }}\n{%- endfor %}\n"
        "{%- if add_generation_prompt %}\n"
        "    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n{%- endif %}\n"
    ),
    "gemma": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for message in messages %}"
        "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate') }}{% endif %}"
        "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}"
        "{% set role = message['role'] %}{% endif %}"
        "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
    ),
    "chatml": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "parts": (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}: "
        "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>"
        "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}"
    ),
}


@dataclass(frozen=True)
class QA:
    question: str
    answer: str


TURNS = [QA("What is at left?", "A red cat."), QA("And at right?", "Two blue dogs\non grass.")]


@contextlib.contextmanager
def damage(copy: bytes) -> Iterator[None]:
    """Shows the damaged copy where reading it fails in another way than a UserError."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"in this damaged copy: {copy!r}")
        raise


def small_vision() -> Any:
    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    return transformers.CLIPVisionConfig(**sizes, intermediate_size=8, image_size=24, patch_size=8)


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    transformers.CLIPVisionModel(small_vision()).save_pretrained(folder)
    (folder / PREPROCESSOR).write_text(json.dumps(CLIP))
    return folder


@pytest.fixture(scope="module")
def language(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of a few thousand weights, with a tokenizer that gives back every byte."""
    folder = tmp_path_factory.mktemp("llm")
    special = ["<pad>", "<s>", "</s>", "<|eot_id|>", "<end_of_turn>", "<|im_start|>", "<|im_end|>"]
    bytes_ = ByteLevelBPETokenizer()
    bytes_.train_from_iterator(["What is at left? A red cat."], 300, special_tokens=special)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=bytes_._tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["chat_template"] = TEMPLATES["llama"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    sizes: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    model: Any = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**sizes, intermediate_size=8, vocab_size=len(tokenizer))
    )
    model.save_pretrained(folder)
    return folder


def copies(folder: Path, file: str, tmp_path: Path) -> Iterator[tuple[Path, bytes]]:
    """Copies of a folder, a file of each damaged in another way, and that file's content."""
    for content in damaged_files((folder / file).read_bytes(), file):
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy, copy_function=shutil.copyfile)
        (copy / file).write_bytes(content)
        yield copy, content


@pytest.mark.parametrize("place", [PREPROCESSOR, PROCESSOR])
def test_damaged_settings_of_an_image_processor(place: str, tmp_path: Path) -> None:
    content = json.dumps(CLIP if place == PREPROCESSOR else NESTED, indent=2).encode()
    for copy in damaged_files(content, place):
        with damage(copy):
            (tmp_path / place).write_bytes(copy)
            list(problems(VISION, tmp_path))
            vision_shape(tmp_path)
            with read_or_told(place):
                check_steps(read_preprocessor(tmp_path))


def check_steps(content: Any) -> None:
    """The steps can be taken, and are those that the file says where it says them plainly."""
    steps = image_steps(content)
    numbers = [steps.scale, *steps.mean, *steps.std]
    assert all(math.isfinite(n) for n in numbers) and min(steps.std) > 0 and steps.scale > 0
    assert steps.size is None or 1 <= steps.size <= 10_000
    for key, values in (("image_mean", steps.mean), ("image_std", steps.std)):
        if content.get("do_normalize") is True and isinstance(content.get(key), list):
            assert [float(n) for n in content[key]] == list(values)
    crop = content.get("crop_size")
    if content.get("do_center_crop") is True and isinstance(crop, dict) and "height" in crop:
        assert crop["height"] is None or float(crop["height"]) == steps.size


@pytest.mark.parametrize("file", [PREPROCESSOR, "config.json"])
def test_damaged_files_of_an_encoder(file: str, vision: Path, tmp_path: Path) -> None:
    for folder, content in copies(vision, file, tmp_path):
        with damage(content):
            list(problems(VISION, folder))
            vision_shape(folder)
        with (
            damage(content),
            read_or_told(str(folder), "vision encoder", "encoders:", "clip encoder", "family"),
        ):
            encoder = load_encoder(folder, "clip")
            assert encoder.model.config.num_hidden_layers == 2
            if encoder.size > 256 or encoder.d_vision > 1000:
                continue
            tokens = encoder.encode(np.zeros((1, encoder.size, encoder.size, 3), dtype=np.uint8))
            assert tokens.shape == (1, math.prod(encoder.grid), encoder.d_vision)
            assert tokens.isfinite().all()


def check_prompts(tokenizer: Any, text: Callable[[Any], str]) -> None:
    """Each question and answer is in the prompt, in order, and answers are what is labelled."""
    batch = build_batch(tokenizer, [TURNS], 2, 2000)
    whole, ids, labels = text(batch.input_ids[0]), batch.input_ids[0], batch.labels[0]
    place = 0
    for turn in TURNS:
        for part in (turn.question, turn.answer):
            place = whole.index(part, place) + len(part)
    learnt = labels != IGNORED
    assert (ids[learnt] == labels[learnt]).all()
    runs, last = [], False
    for token, now in zip(ids.tolist(), learnt.tolist(), strict=True):
        if now and not last:
            runs.append([])
        if now:
            runs[-1].append(token)
        last = now
    labelled = text([token for run in runs for token in run])
    place = 0
    for turn in TURNS:
        place = labelled.index(turn.answer, place) + len(turn.answer)
        assert turn.question not in labelled
    assert turn.question in text(prompt_ids(tokenizer, turn.question, 2))


@pytest.mark.parametrize("family", TEMPLATES)
def test_damaged_chat_templates(family: str, language: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(language)
    whole = TEMPLATES[family].encode()
    for copy in [whole, *damaged_files(whole, family)]:
        with damage(copy):
            tokenizer.chat_template = copy.decode(errors="replace")
            with read_or_told("chat template"):
                check_prompts(tokenizer, tokenizer.decode)
                assert build_batch(tokenizer, [TURNS], 2, 2000).input_ids.tolist() == (
                    build_batch(tokenizer, [TURNS], 2, 2000).input_ids.tolist()
                )
            assert copy != whole or check_prompts(tokenizer, tokenizer.decode) is None


@pytest.mark.parametrize("file", ["tokenizer_config.json", "config.json", "generation_config.json"])
def test_damaged_files_of_a_language_model(file: str, language: Path, tmp_path: Path) -> None:
    for folder, content in copies(language, file, tmp_path):
        with damage(content):
            list(problems(LANGUAGE, folder))
            language_shape(read_config(folder / "config.json"))
        with (
            damage(content),
            read_or_told(str(folder), "language model", "chat template", "tokenizer"),
        ):
            llm = LanguageModel.load(folder)
            assert (llm.n_blocks, llm.d_model) == (2, 8)
            check_prompts(llm.tokenizer, llm.tokenizer.decode)
            assert len(llm.generate(None, [TURNS[0].question], 2)) == 1
