"""Vision-language models read as their own classes read them: the same pixels and prompt, by hand.

The class's own processor makes pixels and ids, its own forward the residual stream.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.tiny_vlms import GEMMA_CHAT, KINDS, LLAVA_CHAT, SIZE, save_vlm
from vista.data.records import Turn
from vista.encoders.contract import VisionEncoder, load_encoder
from vista.errors import UserError
from vista.language.model import LanguageModel

QUESTIONS = ("what is at left ?", "describe the scene and a blue dog .")
CLOSE = {"rtol": 1e-4, "atol": 5e-5}
Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("hub")

    def folder(kind: str) -> Path:
        if not (root / kind).exists():
            save_vlm(kind, root / kind)
        return root / kind

    return folder


class QwenProcessor:
    """What Qwen2_5_VLProcessor does with one image; the class itself needs a video processor."""

    def __init__(self, images: Any, tokenizer: Any) -> None:
        self.images, self.tokenizer = images, tokenizer

    def apply_chat_template(self, messages: Any, add_generation_prompt: bool) -> str:
        text = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=add_generation_prompt, tokenize=False
        )
        return str(text)

    def __call__(self, images: Pixels, text: str, **_: Any) -> dict[str, Any]:
        made = dict(self.images(images=images, return_tensors="pt"))
        n = int(made["image_grid_thw"].prod()) // self.images.merge_size**2
        token = self.tokenizer.image_token
        made |= self.tokenizer(text.replace(token, n * token), return_tensors="pt")
        made["mm_token_type_ids"] = (made["input_ids"] == self.tokenizer.image_token_id).int()
        return made


class ByHand:
    """A model of transformers' own class with its own processor."""

    def __init__(self, kind: str, folder: Path) -> None:
        import transformers

        self.kind = kind
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model: Any = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
        if kind == "gemma3":
            images: Any = transformers.Gemma3ImageProcessorPil.from_pretrained(folder)
            self.processor: Any = transformers.Gemma3Processor(
                images, tokenizer, chat_template=GEMMA_CHAT, image_seq_length=4
            )
        elif kind == "qwen2_5_vl":
            images = transformers.Qwen2VLImageProcessorPil.from_pretrained(folder)
            self.processor = QwenProcessor(images, tokenizer)
        else:
            images = transformers.CLIPImageProcessorPil.from_pretrained(folder)
            # Of LLaVA-NeXT the whole image alone, which is what this processor prepares.
            self.processor = transformers.LlavaProcessor(
                images,
                tokenizer,
                chat_template=LLAVA_CHAT,
                patch_size=8,
                vision_feature_select_strategy="default",
                num_additional_image_tokens=1,
            )

    def inputs(self, image: Pixels, question: str) -> dict[str, Any]:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        messages = [{"role": "user", "content": content}]
        text = self.processor.apply_chat_template(messages, add_generation_prompt=True)
        # Gemma's template writes BOS, LLaVA's leaves it to the tokenizer, Qwen has none.
        special = self.kind != "gemma3"
        made = self.processor(
            images=image, text=text, return_tensors="pt", add_special_tokens=special
        )
        inputs = dict(made)
        if self.kind == "llava_next":
            inputs["mm_encoder_outputs"] = self._whole_image(inputs.pop("pixel_values"))
        return inputs

    def _whole_image(self, pixels: torch.Tensor) -> dict[str, Any]:
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        inner = self.model.model
        states = inner.vision_tower(pixels, output_hidden_states=True).hidden_states
        tokens = inner.multi_modal_projector(states[-2][:, 1:])
        return {"image": BaseModelOutputWithPooling(pooler_output=list(tokens))}

    @torch.no_grad()
    def streams(self, inputs: dict[str, Any]) -> list[torch.Tensor]:
        """The residual stream [1, t, d] after each block."""
        last: list[torch.Tensor] = []
        handle = self.model.model.language_model.layers[-1].register_forward_hook(
            lambda _m, _i, out: last.append(out[0] if isinstance(out, tuple) else out)
        )
        try:
            out = self.model(**inputs, output_hidden_states=True, use_cache=False)
        finally:
            handle.remove()
        # The last entry is normed.
        return [*out.hidden_states[1:-1], *last]

    @cached_property
    def image_token(self) -> int:
        return int(self.model.config.image_token_id)


@pytest.fixture(scope="module")
def images() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, folder_of: Callable[[str], Path]) -> Any:
    folder = folder_of(request.param)
    ours = LanguageModel.load(folder, placement="image")
    return ByHand(request.param, folder), encoder_of(folder, request.param), ours


def encoder_of(folder: Path, kind: str) -> VisionEncoder:
    return load_encoder(folder, "vlm", size=SIZE if kind == "qwen2_5_vl" else None)


@torch.no_grad()
def test_taps_are_the_streams_of_the_class(pair: Any, images: Pixels) -> None:
    by_hand, encoder, llm = pair
    visual = encoder.encode(images)
    turns = [[Turn(question, "a cat")] for question in QUESTIONS]
    batch = llm.batch(turns, visual.shape[1], 200)
    assert int(batch.attention_mask.sum(1).min()) < batch.input_ids.shape[1], "one is padded"
    taps = llm.forward(
        batch.input_ids,
        batch.attention_mask,
        visual=visual,
        visual_start=batch.visual_start,
        taps=range(llm.n_blocks),
    ).taps
    here = slice(batch.visual_start, batch.visual_start + visual.shape[1])
    for i, question in enumerate(QUESTIONS):
        inputs = by_hand.inputs(images[i], question)
        ids = inputs["input_ids"][0]
        places = (ids == by_hand.image_token).nonzero()[:, 0]
        assert places.tolist() == list(range(here.start, here.stop))
        # Up to the answer, whose own pieces are tokenized by themselves.
        mine = batch.input_ids[i, : len(ids)].clone()
        mine[here] = by_hand.image_token
        assert mine.tolist() == ids.tolist()
        streams = by_hand.streams(inputs)
        assert len(streams) == llm.n_blocks
        for layer, stream in enumerate(streams):
            torch.testing.assert_close(taps[layer][i, : len(ids)], stream[0], **CLOSE)
    assert not torch.allclose(taps[0][0, here], taps[0][1, here], atol=1e-2)


@torch.no_grad()
def test_prompts_and_answers_are_those_of_the_class(pair: Any, images: Pixels) -> None:
    by_hand, encoder, llm = pair
    visual = encoder.encode(images)
    ids = llm.prompts(QUESTIONS, visual.shape[1])
    answers = llm.generate(visual, QUESTIONS, 6)
    for i, question in enumerate(QUESTIONS):
        inputs = by_hand.inputs(images[i], question)
        theirs = inputs["input_ids"][0]
        mine = torch.tensor(ids[i])
        mine[theirs == by_hand.image_token] = by_hand.image_token
        assert mine.tolist() == theirs.tolist()
        if "mm_encoder_outputs" not in inputs:
            out = by_hand.model.generate(**inputs, max_new_tokens=6, do_sample=False)
            text = llm.tokenizer.decode(out[0, len(theirs) :], skip_special_tokens=True)
            assert answers[i] == text


@torch.no_grad()
def test_visual_tokens_of_gemma_see_later_ones(
    folder_of: Callable[[str], Path], images: Pixels
) -> None:
    folder = folder_of("gemma3")
    llm = LanguageModel.load(folder, placement="image")
    visual = load_encoder(folder, "vlm").encode(images[:1])
    other = visual.clone()
    other[:, -1] += 1.0
    opening = [*llm.opening, *[0] * visual.shape[1]]
    ids = torch.tensor([opening])
    start = len(llm.opening)

    def first(tokens: torch.Tensor, placement: Any) -> torch.Tensor:
        llm.placement = placement
        taps = llm.forward(ids, visual=tokens, visual_start=start, taps=[0]).taps
        return taps[0][0, start]

    assert not torch.allclose(first(visual, "image"), first(other, "image"), atol=1e-3)
    # Trained projectors keep the causal order.
    torch.testing.assert_close(first(visual, "in_question"), first(other, "in_question"))


@torch.no_grad()
def test_reading_on_gives_what_one_pass_gives(pair: Any, images: Pixels) -> None:
    _, encoder, llm = pair
    visual = encoder.encode(images)
    question = QUESTIONS[0]
    ids = torch.tensor(llm.prompts([question, question], visual.shape[1]))
    image = llm.read(ids[:, : len(llm.opening) + visual.shape[1]], visual)
    # Another image that is read, or text alone, does not change where this one goes on.
    llm.read(ids)
    read = image.on(ids[:, image.ids_bt.shape[1] :])
    whole = llm.forward(ids, visual=visual, visual_start=len(llm.opening)).logits
    assert whole is not None
    torch.testing.assert_close(read.logits_bv, whole[:, -1], **CLOSE)
    text = llm.forward(ids).logits
    assert text is not None
    half = ids.shape[1] // 2
    alone = llm.read(ids[:, :half]).on(ids[:, half:])
    torch.testing.assert_close(alone.logits_bv, text[:, -1], **CLOSE)


def test_features_lie_on_the_grid_of_the_class(folder_of: Callable[[str], Path]) -> None:
    for kind in KINDS:
        side, patch = (2, 16) if kind == "gemma3" else (4, 8)
        encoder = encoder_of(folder_of(kind), kind)
        assert (encoder.grid, encoder.patch, encoder.size) == ((side, side), patch, SIZE)
        # A change within one cell moves the token of that cell the most.
        image = np.full((1, SIZE, SIZE, 3), 120, dtype=np.uint8)
        changed = image.copy()
        changed[:, patch : 2 * patch, :patch] = 255
        moved = (encoder.encode(changed) - encoder.encode(image)).norm(dim=-1)[0]
        assert int(moved.argmax()) == side


def test_what_cannot_be_read_is_refused(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    other = shutil.copytree(folder_of("llava"), tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "qwen3_vl"}))
    with pytest.raises(UserError, match="a qwen3_vl model cannot be read as a vision-language"):
        LanguageModel.load(other, placement="image")
    with pytest.raises(UserError, match="it is a qwen3_vl model, not of 'vlm'; expected one of"):
        load_encoder(other, "vlm")
    bare = shutil.copytree(folder_of("llava"), tmp_path / "bare")
    (bare / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"preprocessor_config\.json is missing"):
        load_encoder(bare, "vlm")
    (bare / "chat_template.json").unlink()
    with pytest.raises(UserError, match="placement: image needs a chat template that writes image"):
        _ = LanguageModel.load(bare, placement="image").opening
    text_alone = tmp_path / "template.jinja"
    text_alone.write_text("{% for m in messages %}{{ m.content[-1].text }} {% endfor %}")
    with pytest.raises(UserError, match="it does not write the image once, as <image>"):
        _ = LanguageModel.load(bare, placement="image", template=str(text_alone)).opening
    with pytest.raises(UserError, match="a qwen2_5_vl model takes images of any size; set `size`"):
        load_encoder(folder_of("qwen2_5_vl"), "vlm")
    odd = load_encoder(folder_of("qwen2_5_vl"), "vlm", size=SIZE + 4)
    with pytest.raises(UserError, match="the qwen2_5_vl model refuses images of 36 px"):
        odd.encode(np.zeros((1, SIZE + 4, SIZE + 4, 3), dtype=np.uint8))
    whole = shutil.copytree(folder_of("llava"), tmp_path / "whole")
    (whole / "config.json").write_text(
        json.dumps({**config, "vision_feature_select_strategy": "full"})
    )
    with pytest.raises(UserError, match="not 0 prefix tokens and 16 patches"):
        load_encoder(whole, "vlm").encode(np.zeros((1, SIZE, SIZE, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["llava", "gemma3"])
def test_images_of_another_size_than_the_towers_are_refused(kind: str, tmp_path: Path) -> None:
    save_vlm(kind, tmp_path, size=SIZE + 16)
    encoder = load_encoder(tmp_path, "vlm")
    with pytest.raises(UserError, match=f"the {kind} model refuses images of 48 px"):
        encoder.encode(np.zeros((1, SIZE + 16, SIZE + 16, 3), dtype=np.uint8))
