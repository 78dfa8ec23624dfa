"""The known hazards of the authors' reference program (method notes): one test each that they are
not ours. Each would fail on the program's own behaviour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
import yaml

from vista.data.geometry import ImageGeometry
from vista.data.records import Box
from vista.encoders.contract import VisionEncoder
from vista.engine.plan import Plan, load_plan
from vista.errors import UserError
from vista.language.model import LanguageModel
from vista.store.latents import LatentWriter

CONFIGS = Path(__file__).parents[2] / "config"


def feature_fits(plan: Plan, stage: str) -> set[str]:
    """How images become square in the features that some stage reads."""
    nodes = [node for node in plan.nodes.values() if node.stage == stage]
    assert nodes
    return {node.inputs["features"].settings["encoder"]["fit"] for node in nodes}  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["default", "paper"])
def test_training_and_evaluation_see_the_same_crop_of_held_out_images(name: str) -> None:
    plan = load_plan(CONFIGS / f"{name}.yaml")
    for stage in ("train_projector", "latents", "caption", "localization"):
        assert feature_fits(plan, stage) == {"pad"}
    # Directions are chosen on validation images; what is judged is neither those nor trained on.
    judged = [n.inputs["latents"] for n in plan.nodes.values() if n.stage == "matching_rate"]
    assert {each.settings["latents"]["split"] for each in judged} == {"test"}  # type: ignore[union-attr]


def test_the_published_pre_processing_is_a_switch_that_is_off() -> None:
    content = yaml.safe_load((CONFIGS / "paper.yaml").read_text())
    assert content["paper_faithful"] is False
    held_out = {**content["data"], "fractions": {"train": 0, "validation": 0.5, "test": 0.5}}
    with pytest.raises(UserError, match="'train', which paper_faithful evaluates on, but data has"):
        load_plan({**content, "paper_faithful": True, "data": held_out})
    # As the config's own comment says.
    learnt = {"fractions": {"train": 0.9, "validation": 0, "test": 0.1}}
    plan = load_plan({**content, "paper_faithful": True, "data": {**content["data"], **learnt}})
    assert feature_fits(plan, "train_projector") == {"pad"}
    for stage in ("latents", "caption", "localization"):
        assert feature_fits(plan, stage) == {"crop"}
    for stage, key in (("latents", "latents"), ("caption", "caption")):
        splits = {n.settings[key]["split"] for n in plan.nodes.values() if n.stage == stage}
        assert splits == {"train"}


def test_an_encoder_without_class_token_keeps_its_first_patch() -> None:
    shape: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": 24,
        "patch_size": 8,
    }
    torch.manual_seed(0)
    tower = transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**shape))
    mean = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 24, "width": 24}}
    encoder = VisionEncoder("siglip", tower, mean, layer=-1, final_norm=True)
    plain = np.full((1, 24, 24, 3), 128, dtype=np.uint8)
    corner = plain.copy()
    corner[:, :8, :8] = 255
    moved = (encoder.encode(corner) - encoder.encode(plain)).norm(dim=-1)[0]
    assert encoder.encode(plain).shape == (1, 9, 16)
    assert int(moved.argmax()) == 0


def test_boxes_are_mapped_to_patches_with_the_padding_counted() -> None:
    # A wide image: of its square, the upper and the lower quarter are padding.
    geometry = ImageGeometry(200, 100, size=64, patch=16, fit="pad")
    touched = geometry.box_to_patches(Box(0, 0, 100, 100)).reshape(4, 4)
    expected = np.zeros((4, 4), dtype=bool)
    expected[1:3, :2] = True
    assert np.array_equal(touched, expected)


def gemma(cap: float | None) -> LanguageModel:
    from transformers import PreTrainedTokenizerFast

    from vista.standins.llm import build_tokenizer

    tokenizer: PreTrainedTokenizerFast = build_tokenizer(["a cat on sand what is here ?"])
    torch.manual_seed(0)
    config = transformers.Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        initializer_range=0.5,
        final_logit_softcapping=cap,
    )
    return LanguageModel(transformers.Gemma2ForCausalLM(config), tokenizer)


def test_logits_go_through_the_models_own_head_and_its_soft_cap() -> None:
    capped, plain = gemma(2.0), gemma(None)
    ids = torch.tensor([[1, 5, 6, 7, 8]])
    visual = torch.randn(1, 2, 16)
    where = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        seen = capped.forward(ids, visual=visual, logits_at=where).logits
        bare = plain.forward(ids, visual=visual, logits_at=where).logits
    assert seen is not None
    assert bare is not None
    assert float(bare.abs().max()) > 2
    torch.testing.assert_close(seen, 2 * torch.tanh(bare / 2))


def test_generation_feeds_the_image_once_and_then_one_token_a_step() -> None:
    llm = gemma(2.0)
    llm.eos_ids = frozenset()
    lengths: list[int] = []
    handle = llm.blocks[0].register_forward_pre_hook(
        lambda _module, args, kwargs: lengths.append(
            (args[0] if args else kwargs["hidden_states"]).shape[1]
        ),
        with_kwargs=True,
    )
    llm.generate(torch.randn(2, 9, 16), ["what is here ?"] * 2, max_new_tokens=6)
    handle.remove()
    assert lengths[0] > 9
    assert lengths[1:] == [1] * 5


def test_latents_are_stored_sparse(tmp_path: Path) -> None:
    images, tokens, d_sae, active = 8, 64, 16_384, 60
    rng = np.random.default_rng(0)
    writer = LatentWriter(
        tmp_path / "latents.zarr",
        [str(i) for i in range(images)],
        grid=(8, 8),
        layers={0: d_sae},
        kinds={"image": tokens},
        k=active,
        d_model=4,
    )
    shape = (images, tokens, active)
    index = rng.permuted(np.broadcast_to(np.arange(active) * 273, shape), axis=2)
    value = rng.random(shape) + 0.1
    ones = np.ones(shape[:2])
    writer.set_valid("image", 0, np.ones(shape[:2], dtype=bool))
    nnz = np.full(shape[:2], active)
    writer.write("image", 0, 0, index, value, nnz, ones, ones, total=np.ones((images, 4)))
    writer.finish(0, "image")
    writer.close()
    stored = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    dense = images * tokens * d_sae * 4
    # The inverse for "where does latent j fire" is stored too.
    assert stored < dense / 50
