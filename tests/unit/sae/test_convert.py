"""sae_lens -> neutral form: equal encode and decode for each architecture, refusals by name."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from vista.errors import UserError
from vista.sae.convert import from_folder, from_release, from_sae_lens
from vista.sae.neutral import load_sae, save_sae

sae_lens = pytest.importorskip("sae_lens")

D_IN, D_SAE = 12, 40
HOOK = "blocks.3.hook_resid_post"


def metadata(**values: Any) -> Any:
    from sae_lens.saes.sae import SAEMetadata

    return SAEMetadata(**{"hook_name": HOOK, **values})


def randomised(sae: Any, seed: int = 0) -> Any:
    """Random weights everywhere: zero biases and unit norms would hide a left-out term."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in sae.state_dict().items():
        if name in ("threshold", "topk_threshold"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.1)
        else:
            scale = 0.5 if tensor.ndim == 1 else 1.0
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale)
    return sae.eval()


def make(name: str, **settings: Any) -> Any:
    cls, config = getattr(sae_lens, name), getattr(sae_lens, f"{name}Config")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return randomised(cls(config(d_in=D_IN, d_sae=D_SAE, metadata=metadata(), **settings)))


def stream(n: int = 64, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(n, D_IN, generator=torch.Generator().manual_seed(9)) + 0.5


CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("StandardSAE", "standard", {}),
    ("StandardSAE", "standard", {"apply_b_dec_to_input": False}),
    ("StandardSAE", "standard", {"normalize_activations": "constant_norm_rescale"}),
    ("GatedSAE", "gated", {}),
    ("GatedSAE", "gated", {"normalize_activations": "layer_norm"}),
    ("TopKSAE", "topk", {"k": 6}),
    ("TopKSAE", "topk", {"k": 6, "rescale_acts_by_decoder_norm": True}),
    ("JumpReLUSAE", "jumprelu", {}),
    ("JumpReLUSAE", "jumprelu", {"apply_b_dec_to_input": False}),
    ("JumpReLUSAE", "jumprelu", {"normalize_activations": "layer_norm"}),
]


@pytest.mark.parametrize(("cls", "architecture", "settings"), CASES)
def test_parity_through_the_folder(
    cls: str, architecture: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    theirs = make(cls, **settings)
    theirs.save_model(tmp_path / "lens")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "lens")
    save_sae(tmp_path, from_folder(tmp_path / "lens"))
    ours = load_sae(tmp_path, expect_d_in=D_IN)
    x = stream()
    with torch.no_grad():
        z = theirs.encode(x)
        assert 0 < (z > 0).float().mean() < 1  # neither dead nor dense: the gate is put to the test
        torch.testing.assert_close(ours.encode(x), z, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours(x), theirs.decode(z), rtol=1e-5, atol=1e-4)
        torch.testing.assert_close(ours(x[None]), theirs(x[None]), rtol=1e-5, atol=1e-4)
    assert ours.config.architecture == architecture
    assert ours.config.layer == 3


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize(
    ("cls", "architecture", "settings"),
    [
        ("BatchTopKTrainingSAE", "batchtopk", {"k": 5}),
        (
            "MatryoshkaBatchTopKTrainingSAE",
            "matryoshka",
            {"k": 5, "matryoshka_widths": [10, D_SAE]},
        ),
        ("JumpReLUTrainingSAE", "jumprelu", {}),
        ("TopKTrainingSAE", "topk", {"k": 5}),
        ("GatedTrainingSAE", "gated", {}),
        ("StandardTrainingSAE", "standard", {}),
    ],
)
def test_parity_of_trained_saes(
    cls: str, architecture: str, settings: dict[str, Any], rescale: bool, tmp_path: Path
) -> None:
    """What sae_lens saves for inference, and its raw checkpoint, both become the same function."""
    if "topk" in architecture or architecture == "matryoshka":
        settings = {**settings, "rescale_acts_by_decoder_norm": rescale}
    trained = make(cls, **settings)
    trained.save_inference_model(tmp_path / "inference")
    trained.save_model(tmp_path / "checkpoint")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "inference")
    x = stream()
    with torch.no_grad():
        z = theirs.encode(x)
        assert 0 < (z > 0).float().mean() < 1
        for folder in ("inference", "checkpoint"):
            ours = from_folder(tmp_path / folder)
            assert ours.config.architecture == architecture
            torch.testing.assert_close(ours.encode(x), z, rtol=1e-5, atol=1e-4)
            torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("cls", ["JumpReLUSAE", "BatchTopKTrainingSAE"])
def test_the_scale_of_expected_average_is_folded_never_dropped(cls: str) -> None:
    """sae_lens ignores an unfolded expected_average_only_in at inference; that must not pass."""
    extra = {"k": 5} if cls.startswith("Batch") else {}
    theirs = make(cls, normalize_activations="expected_average_only_in", **extra)
    with pytest.raises(UserError, match="activation_scale"):
        from_sae_lens(theirs, "scaled")
    x = stream()
    plain = make(cls, **extra)
    with pytest.raises(UserError, match="leave out `activation_scale`"):
        from_sae_lens(plain, "plain", activation_scale=0.25)
    ours, unscaled = (
        from_sae_lens(theirs, "scaled", activation_scale=0.25),
        from_sae_lens(plain, "x"),
    )
    with torch.no_grad():
        expected = unscaled(0.25 * x) / 0.25
        torch.testing.assert_close(ours(x), expected, rtol=1e-5, atol=1e-4)
        active = unscaled.encode(0.25 * x) > 0
        assert torch.equal(ours.encode(x) > 0, active)
    assert ours.config.normalisation == "none"
    assert (
        theirs.cfg.normalize_activations == "expected_average_only_in"
    )  # the original is untouched


def test_the_scale_is_found_beside_a_checkpoint(tmp_path: Path) -> None:
    theirs = make("JumpReLUSAE", normalize_activations="expected_average_only_in")
    theirs.save_model(tmp_path)
    (tmp_path / "activation_scaler.json").write_text('{"scaling_factor": 0.25}')
    x = stream()
    direct = from_sae_lens(theirs, "scaled", activation_scale=0.25)
    torch.testing.assert_close(from_folder(tmp_path)(x), direct(x))


@pytest.mark.parametrize(
    ("cls", "settings"),
    [
        ("Transcoder", {"d_out": D_IN, "apply_b_dec_to_input": False}),
        ("AbsTopKSAE", {"k": 4}),
        ("MatchingPursuitSAE", {}),
    ],
)
def test_other_architectures_are_refused_by_name(
    cls: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    theirs = make(cls, **settings)
    name = theirs.cfg.architecture()
    with pytest.raises(UserError, match=rf"`?{name}`?, which is not run here"):
        from_sae_lens(theirs, "other")
    theirs.save_model(tmp_path)
    with pytest.raises(UserError, match=name):
        from_folder(tmp_path)


@pytest.mark.parametrize(
    ("hook", "layer"),
    [
        ("blocks.4.hook_resid_post", 4),
        ("blocks.4.hook_resid_pre", 3),
        ("model.layers.4", 4),
        ("transformer.h.4", 4),
    ],
)
def test_layer_from_hook_name(hook: str, layer: int) -> None:
    theirs = make("StandardSAE")
    theirs.cfg.metadata.hook_name = hook
    assert from_sae_lens(theirs, "x").config.layer == layer
    with pytest.raises(UserError, match=f"block {layer}, but `layer` says 7"):
        from_sae_lens(theirs, "x", layer=7)


@pytest.mark.parametrize(
    "hook",
    ["blocks.4.attn.hook_z", "blocks.4.hook_mlp_out", "hook_embed", "blocks.0.hook_resid_pre"],
)
def test_other_hook_points_are_refused(hook: str) -> None:
    theirs = make("StandardSAE")
    theirs.cfg.metadata.hook_name = hook
    with pytest.raises(UserError, match=hook):
        from_sae_lens(theirs, "x", layer=4)


def test_an_unknown_hook_needs_a_layer() -> None:
    theirs = make("StandardSAE")
    theirs.cfg.metadata.hook_name = None
    with pytest.raises(UserError, match="give its `layer`"):
        from_sae_lens(theirs, "x")
    assert from_sae_lens(theirs, "x", layer=5).config.layer == 5


def test_unfolded_whitening_is_refused_by_name() -> None:
    theirs = make("StandardSAE", normalize_activations="covariance_whitening")
    with pytest.raises(UserError, match="covariance_whitening"):
        from_sae_lens(theirs, "x")


def test_broken_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cfg.json"):
        from_folder(tmp_path)
    make("StandardSAE").save_model(tmp_path)
    (tmp_path / "sae_weights.safetensors").unlink()
    with pytest.raises(UserError, match=r"sae_weights\.safetensors is missing"):
        from_folder(tmp_path)
    (tmp_path / "cfg.json").write_text(json.dumps(["not", "a", "dict"]))
    with pytest.raises(UserError, match=r"cfg.json"):
        from_folder(tmp_path)


def test_an_unknown_release_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no-such-release") as caught:
        from_release("no-such-release", "layer_0", path=tmp_path)
    assert "\n" not in str(caught.value)
