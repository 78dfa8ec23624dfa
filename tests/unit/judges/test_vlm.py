"""The local image-text model as a judge: a LLaVA of width 16 whose answers are known."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_endpoint import png

from vista.errors import UserError
from vista.judges import NO, UNANSWERED, YES, Resources, Shown, load_judge
from vista.judges.asking import AskingJudge
from vista.judges.kinds.vlm import Settings as VlmJudgeSettings
from vista.judges.naming import Evidence, clean_name, load_namer
from vista.judges.prompts import NAMING, PROMPTS, quoted

WORDS = ["<pad>", "<unk>", "<s>", "</s>", "<image>", "yes", "no", "cat", "dog", "text", "Label"]
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} {% for c in m['content'] %}{% if c['type'] == 'image' "
    "%}<image> {% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = tmp_path_factory.mktemp("llava")
    torch.manual_seed(3)
    small: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**small, image_size=28, patch_size=14),
        text_config=LlamaConfig(**small, vocab_size=len(WORDS), num_key_value_heads=2),
        image_token_id=WORDS.index("<image>"),
        vision_feature_layer=-1,
    )
    llava = LlavaForConditionalGeneration(config)
    with torch.no_grad():
        # Large weights: what is shown and asked moves the answer.
        for parameter in llava.parameters():
            if parameter.ndim > 1:
                parameter.mul_(12)
    llava.save_pretrained(folder)
    vocabulary = Tokenizer(models.WordLevel(dict(zip(WORDS, range(11), strict=True)), "<unk>"))
    vocabulary.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=vocabulary,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=["<image>"],
    )
    LlavaProcessor(
        CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}),
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        image_token="<image>",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    ).save_pretrained(folder)
    return folder


def judge_of(folder: Path, cache: Path | None = None, **changes: Any) -> AskingJudge:
    source = {"kind": "checkpoint", "path": str(folder)}
    settings = VlmJudgeSettings.model_validate({"source": source, **changes})
    judge = load_judge(settings, Resources(cache=None if cache is None else str(cache)))
    assert isinstance(judge, AskingJudge)
    return judge


def expected(folder: Path, prompt: str, image: bytes | None) -> bool:
    """The same question by hand: logits of a plain forward, no batch and no padding."""
    import io

    import torch
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor: Any = AutoProcessor.from_pretrained(folder)
    llava = AutoModelForImageTextToText.from_pretrained(folder)
    images = None if image is None else Image.open(io.BytesIO(image))
    inputs = processor(images=images, text=prompt, return_tensors="pt")
    with torch.no_grad():
        logits_v = llava(**inputs).logits[0, -1]
    return bool(logits_v[WORDS.index("yes")] > logits_v[WORDS.index("no")])


def test_the_likelier_of_yes_and_no(model: Path, tmp_path: Path) -> None:
    judge = judge_of(model, tmp_path)
    images = [png(colour) for colour in ("red", "blue", "white", "black")]
    labels = ["cat", "dog", None, "cat dog cat <image>", "text text text"]
    found = judge.judge_images([Shown(lambda i=i: i, labels) for i in images])  # type: ignore[misc]
    question = PROMPTS["1"].one_image
    for i, image in enumerate(images):
        for j, label in enumerate(labels):
            want = False
            if label is not None:
                asked = question.format(label=quoted(label))
                want = expected(model, f"user <image> {asked}", image)
            assert found[i, j] == (YES if want else NO)
    assert {YES, NO} == set(found[:, [0, 1, 3, 4]].flatten().tolist())
    # A second judge needs no answer of the model, in whatever folder that lies.
    again = judge_of(model, tmp_path)
    assert (again.judge_images([Shown(lambda: images[0], labels)]) == found[:1]).all()
    assert (again.tally.sent, again.tally.kept) == (0, 1)


def test_texts_without_an_image(model: Path) -> None:
    judge = judge_of(model, batch_size=3)
    texts = ["cat dog", "text", "cat"]
    names = ["cat", "dog dog", "Label Label Label Label", "text text text", "cat dog cat <image>"]
    found = judge.judge([*texts, None], [*names, ""])
    for i, text in enumerate(texts):
        for j, name in enumerate(names):
            asked = PROMPTS["1"].one_text.format(text=quoted(text), label=quoted(name))
            assert found[i, j] == expected(model, f"user {asked}", None)
    assert set(found[:3, :5].flatten().tolist()) == {True, False}
    assert not found[3].any() and not found[:, 5].any()


@pytest.mark.parametrize("image", [None, png("red")], ids=["texts", "image"])
def test_a_name_is_the_likeliest_answer(model: Path, tmp_path: Path, image: bytes | None) -> None:
    import io

    import torch
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    def speak(weights: dict[str, Any], head: str) -> None:
        weights[head][:5] = 0  # words alone, no control tokens

    model = changed(model, tmp_path / "speaking", speak)
    source = {"kind": "checkpoint", "path": str(model)}
    settings = VlmJudgeSettings.model_validate({"source": source})
    namer = load_namer(settings, Resources(cache=str(tmp_path)))
    item = Evidence.of_texts(["cat", "dog"]) if image is None else Evidence.of_image(lambda: image)
    asked = NAMING["1"].texts + ' ["cat", "dog"]' if image is None else NAMING["1"].images
    prompt = f"user {'' if image is None else '<image> '}{asked} {NAMING['1'].alone}"
    processor: Any = AutoProcessor.from_pretrained(model)
    llava = AutoModelForImageTextToText.from_pretrained(model)
    shown = None if image is None else Image.open(io.BytesIO(image))
    inputs = processor(images=shown, text=prompt, return_tensors="pt")
    ids, said = inputs.pop("input_ids"), []
    for other in set(inputs) - {"pixel_values"}:
        inputs.pop(other)
    with torch.no_grad():
        for _ in range(12):
            said.append(int(llava(input_ids=ids, **inputs).logits[0, -1].argmax()))
            if said[-1] == WORDS.index("</s>"):
                break
            ids = torch.cat([ids, torch.tensor([said[-1:]])], dim=1)
    spoken = " ".join(WORDS[token] for token in said if token > 4)
    found = namer._asker([item])  # type: ignore[attr-defined]
    assert spoken and list(found) == [(0, spoken, None)]
    assert namer.names([item]) == [clean_name(spoken)]
    assert namer.tally.unanswered == (clean_name(spoken) is None)


def changed(model: Path, folder: Path, change: Callable[[dict[str, Any], str], None]) -> Path:
    """A copy of the model whose weights, and the name of its head's, were given to `change`."""
    from safetensors.torch import load_file, save_file

    folder.mkdir()
    for file in model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    [head] = [name for name in weights if name.endswith("lm_head.weight")]
    change(weights, head)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_no_number_is_unanswered(model: Path, tmp_path: Path) -> None:
    def spoil(weights: dict[str, Any], head: str) -> None:
        weights[head][WORDS.index("yes")] = float("nan")

    broken = changed(model, tmp_path / "broken", spoil)
    image = png("red")
    judge = judge_of(broken)
    assert judge.judge_images([Shown(lambda: image, ["cat"])]).tolist() == [[UNANSWERED]]
    assert judge.name != judge_of(model).name


def test_what_cannot_be_used_is_told(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"judge\.source: .*cannot be used"):
        judge_of(tmp_path)
    silent = tmp_path / "silent"
    silent.mkdir()
    for file in model.iterdir():
        if file.name != "chat_template.jinja":
            (silent / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="no chat template"):
        judge_of(silent)
    with pytest.raises(UserError, match="image cannot be read"):
        judge_of(model).judge_images([Shown(lambda: b"\x89PNG", ["cat"])])


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{% for m in messages %}{{ m['role'] }}{% endfor %}", "does not write the question"),
        ("{{ raise_exception('no images here') }}", "no images here"),
        ("{{ ['a', 'b'] | random }}" + TEMPLATE, "draws at random"),
    ],
)
def test_a_chat_template_that_cannot_ask_is_told(
    model: Path, tmp_path: Path, template: str, sentence: str
) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    (folder / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match=sentence):
        judge_of(folder).judge(["a cat"], ["cat"])


def test_a_question_does_not_depend_on_the_day(model: Path, tmp_path: Path) -> None:
    from vista.judges.backends.image_text import ImageTextModel

    folder = shutil.copytree(model, tmp_path / "model")
    (folder / "chat_template.jinja").write_text("{{ strftime_now('%d %b %Y') }} " + TEMPLATE)
    judge = ImageTextModel(str(folder), device="cpu", dtype="float32")
    written = judge._prompt([{"type": "text", "text": "is it a cat?"}])
    assert written == "26 Jul 2024 user is it a cat?"
