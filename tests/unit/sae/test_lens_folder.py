"""Folders of SAEs by other versions, or damaged ones: the right SAE, or one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vista.errors import UserError
from vista.sae.convert import from_folder, from_release
from vista.sae.releases import release_entry

sae_lens = pytest.importorskip("sae_lens")

D_IN, D_SAE = 16, 40
HOOK = "blocks.3.hook_resid_post"
KWARGS = "model_from_pretrained_kwargs"
# As sae_lens 3 wrote it.
OLD: dict[str, Any] = {
    "model_name": "own",
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
    "device": "cuda",
    "prepend_bos": True,
    "sae_lens_training_version": "3.13.0",
}
METADATA = {"sae_lens_version": "6.4.0", "hook_name": HOOK}
NEW: dict[str, Any] = {
    "architecture": "standard",
    "d_in": D_IN,
    "d_sae": D_SAE,
    "dtype": "float32",
    "metadata": METADATA,
}
# As in the repository of gpt2-small-res-jb.
JB: dict[str, Any] = {
    "model_name": "gpt2-small",
    "hook_point": "blocks.1.hook_resid_pre",
    "hook_point_layer": 1,
    "hook_point_head_index": None,
    "d_in": D_IN,
    "d_sae": D_SAE,
    "dtype": "torch.float32",
}


def tensors(**more: torch.Tensor) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = {"W_dec": (D_SAE, D_IN), "W_enc": (D_IN, D_SAE), "b_dec": (D_IN,), "b_enc": (D_SAE,)}
    made = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {**made, **more}


def write(folder: Path, cfg: Any, weights: dict[str, torch.Tensor] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(cfg if isinstance(cfg, str) else json.dumps(cfg))
    save_file(tensors() if weights is None else weights, folder / "sae_weights.safetensors")
    return folder


def stream() -> torch.Tensor:
    return 3 * torch.randn(50, D_IN, generator=torch.Generator().manual_seed(9)) + 0.5


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "same_as"),
    [
        ({"d_in": "16", "d_sae": 40.0, "hook_layer": "3"}, {}),
        ({"normalize_activations": False, "apply_b_dec_to_input": 1}, {}),
        ({"normalize_activations": None, "activation_fn_kwargs": None}, {}),
        ({"apply_b_dec_to_input": "false"}, {"apply_b_dec_to_input": False}),
        ({"apply_b_dec_to_input": 0}, {"apply_b_dec_to_input": False}),
        (
            {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": "6"}},
            {"architecture": "topk", "k": 6},
        ),
        (
            {"architecture": "topk", "k": 6.0, "activation_fn_str": "topk"},
            {"architecture": "topk", "k": 6},
        ),
        ({KWARGS: {"center_writing_weights": "true"}}, {KWARGS: {"center_writing_weights": True}}),
        ({"metadata": None, "noise": 0.1, "use_ghost_grads": True, "lr": 1e-3}, {}),
    ],
)  # fmt: skip
def test_values_of_old_configs_are_read_as_they_are_meant(
    change: dict[str, Any], same_as: dict[str, Any], tmp_path: Path
) -> None:
    ours = from_folder(write(tmp_path / "a", OLD | change), name="x")
    expected = from_folder(write(tmp_path / "b", NEW | as_new(same_as)), name="x")
    assert ours.config == expected.config
    assert torch.equal(ours(stream()), expected(stream()))


def as_new(values: dict[str, Any]) -> dict[str, Any]:
    kwargs = {key: value for key, value in values.items() if key == KWARGS}
    rest = {key: value for key, value in values.items() if key != KWARGS}
    return rest | {"metadata": METADATA | kwargs}


def test_a_byte_order_mark_and_carriage_returns_are_no_part_of_a_config(tmp_path: Path) -> None:
    text = "\ufeff" + json.dumps(OLD, indent=1).replace("\n", "\r\n")
    assert from_folder(write(tmp_path, text)).config.d_sae == D_SAE


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_read_in_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    weights = {name: tensor.to(dtype) for name, tensor in tensors().items()}
    ours = from_folder(write(tmp_path, OLD, weights))
    assert torch.equal(ours.W_enc, weights["W_enc"].float())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"activation_fn_str": "tanh-relu"}, "`activation_fn_str` 'tanh-relu' is not run here"),
        ({"activation_fn": "topk"}, "`activation_fn` 'topk' is not run here"),  # _str says relu
        ({"activation_fn_str": "topk"}, "`k` must be one number of latents, not None"),
        ({"architecture": "gated", "activation_fn_str": "topk"}, "is not run here on a gated"),
        ({"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 41}}, "not 41"),
        ({"activation_fn_str": ["relu"]}, "['relu'] is not run here"),
        ({"architecture": "topk", "k": 5, "activation_fn_str": "topk",
          "activation_fn_kwargs": {"k": 6}}, "not [5, 6]"),
        ({"architecture": None}, "`architecture` must be"),
        ({"architecture": "standard", "d_in": "wide"}, "`d_in` must be a positive whole number"),
        ({"d_sae": 40.5}, "`d_sae` must be a positive whole number, not 40.5"),
        ({"d_sae": -1}, "`d_sae` must be"),
        ({"d_sae": None}, "`d_sae` must be"),
        ({"apply_b_dec_to_input": None}, "`apply_b_dec_to_input` must be true or false"),
        ({"normalize_activations": "constant_scalar_rescale"}, "`normalize_activations` must be"),
        ({"normalize_activations": 3}, "`normalize_activations` must be"),
        ({"hook_layer": 4}, "`hook_layer` says 4, but the hook is blocks.3.hook_resid_post"),
        ({"hook_layer": "three"}, "`hook_layer` must be the number of a block"),
        ({"hook_point": "blocks.4.hook_resid_post"}, "names two hooks"),
        ({"hook_name": 3}, "`hook_name` must be a text"),
        ({"hook_head_index": 2}, "reads an attention head"),
        ({"metadata": [1]}, "`metadata` must be an object"),
        ({KWARGS: True}, f"`{KWARGS}` must be an object"),
        ({KWARGS: {"center_writing_weights": "perhaps"}}, "`center_writing_weights` must be true"),
        ({"sae_lens_version": "new"}, "`sae_lens_version` must be a version"),
    ],
)  # fmt: skip
def test_a_value_that_changes_the_function_or_cannot_be_read_is_named(
    change: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    message = refusal(lambda: from_folder(write(tmp_path, OLD | change)))
    assert sentence in message
    assert "cfg.json" in message


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        # One tensor more, from finetuning: it multiplies the activations that are decoded.
        (
            tensors(finetuning_scaling_factor=torch.ones(D_SAE) * 1.2),
            "finetuning_scaling_factor [40] is no tensor of a standard SAE, which has W_dec "
            "[40, 16], W_enc [16, 40], b_dec [16], b_enc [40]; multiply it into the rows of W_dec",
        ),
        (tensors(scaling_factor=torch.ones(D_SAE) * 1.2), "scaling_factor [40] is not 1"),
        (
            tensors(W_enc=torch.zeros(D_SAE, D_IN)),
            "W_enc is [40, 16], but cfg.json (d_in 16, d_sae 40) makes it [16, 40]",
        ),
        (tensors(b_dec=torch.zeros(1, D_IN)), "b_dec is [1, 16], but cfg.json"),
        ({"encoder.weight": torch.zeros(2, 3)}, "has no tensor W_dec [40, 16]"),
        (tensors(b_enc=torch.zeros(D_SAE, dtype=torch.int64)), "b_enc holds I64 numbers"),
        (tensors(W_dec=torch.full((D_SAE, D_IN), float("nan"))), "W_dec holds NaN"),
        (tensors(b_dec=torch.full((D_IN,), float("inf"))), "b_dec holds NaN or infinity"),
        (tensors(b_dec=torch.full((D_IN,), 1e300, dtype=torch.float64)), "b_dec holds NaN"),
    ],
    ids=[
        "finetuned", "scaled", "transposed", "unsqueezed", "other names", "integers", "nan", "inf",
        "float64",
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_named_with_both_shapes(
    weights: dict[str, torch.Tensor], sentence: str, tmp_path: Path
) -> None:
    assert sentence in refusal(lambda: from_folder(write(tmp_path, OLD, weights)))


def test_a_threshold_of_the_wrong_shape_is_named(tmp_path: Path) -> None:
    write(tmp_path, OLD | {"architecture": "jumprelu"}, tensors(threshold=torch.ones(1)))
    assert "threshold is [1]" in refusal(lambda: from_folder(tmp_path))


def test_a_scaling_factor_of_ones_is_none(tmp_path: Path) -> None:
    cfg = OLD | {"finetuning_scaling_factor": True}
    ours = from_folder(write(tmp_path / "a", cfg, tensors(scaling_factor=torch.ones(D_SAE))))
    assert torch.equal(ours(stream()), from_folder(write(tmp_path / "b", OLD))(stream()))


def test_a_logarithm_of_the_threshold_is_the_threshold(tmp_path: Path) -> None:
    cfg = OLD | {"architecture": "jumprelu"}
    ours = from_folder(write(tmp_path, cfg, tensors(log_threshold=torch.zeros(D_SAE))))
    assert torch.equal(ours.threshold, torch.ones(D_SAE))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:11\nsize 5\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        (b"", "is empty"),
        (b"not a tensor in sight" * 9, "is no safetensors file"),
    ],
)
def test_weights_that_are_none_are_named(content: bytes, sentence: str, tmp_path: Path) -> None:
    (write(tmp_path, OLD) / "sae_weights.safetensors").write_bytes(content)
    message = refusal(lambda: from_folder(tmp_path))
    assert sentence in message and "sae_weights.safetensors" in message
    snapshot = tmp_path / "copy"
    write(snapshot / "blocks.1.hook_resid_pre", JB)
    (snapshot / "blocks.1.hook_resid_pre/sae_weights.safetensors").write_bytes(content)
    assert sentence in refusal(
        lambda: from_release("gpt2-small-res-jb", "blocks.1.hook_resid_pre", path=snapshot)
    )


def test_a_folder_one_level_too_high_or_too_low_is_told(tmp_path: Path) -> None:
    write(tmp_path / "saes" / "blocks.3", OLD)
    (tmp_path / "saes" / "blocks.3" / "deeper").mkdir()
    assert "one folder too high; give the folder of one SAE below it (blocks.3)" in refusal(
        lambda: from_folder(tmp_path / "saes")
    )
    assert "too low" in refusal(lambda: from_folder(tmp_path / "saes" / "blocks.3" / "deeper"))
    assert "is a file" in refusal(lambda: from_folder(tmp_path / "saes/blocks.3/cfg.json"))
    assert "does not exist" in refusal(lambda: from_folder(tmp_path / "none"))


def test_a_copy_of_a_release_one_level_too_high_or_too_low_is_told(tmp_path: Path) -> None:
    hook = "blocks.1.hook_resid_pre"
    repository = write(tmp_path / "saes" / hook, JB).parent
    for path in (tmp_path, repository / hook):
        message = refusal(lambda path=path: from_release("gpt2-small-res-jb", hook, path=path))  # type: ignore[misc]
        assert message.endswith(f": that is {repository}")


def test_weights_under_another_name_are_told(tmp_path: Path) -> None:
    write(tmp_path, OLD)
    (tmp_path / "sae_weights.safetensors").rename(tmp_path / "model.safetensors")
    assert "sae_weights.safetensors is missing, there is model.safetensors" in refusal(
        lambda: from_folder(tmp_path)
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not JSON"),
        ("[0.25]", "must hold an object"),
        ("{}", "not None"),
        *((f'{{"scaling_factor": {value}}}', "`scaling_factor` must be a positive number")
          for value in ("0", "-1", "NaN", "Infinity", '"a quarter"', "[0.25]", "true")),
    ],
)  # fmt: skip
def test_a_damaged_scaler_is_named(content: str, sentence: str, tmp_path: Path) -> None:
    write(tmp_path, OLD | {"normalize_activations": True})
    (tmp_path / "activation_scaler.json").write_text(content)
    message = refusal(lambda: from_folder(tmp_path))
    assert sentence in message and "activation_scaler.json" in message


def test_a_scaler_is_read_and_belongs_to_rescaled_activations(tmp_path: Path) -> None:
    write(tmp_path, OLD | {"normalize_activations": True})
    (tmp_path / "activation_scaler.json").write_text('\ufeff{"scaling_factor": "0.25"}')
    ours = from_folder(tmp_path)
    plain = from_folder(write(tmp_path / "plain", OLD))
    torch.testing.assert_close(ours(stream()), plain(0.25 * stream()) / 0.25)
    write(tmp_path, OLD)
    assert "activation_scaler.json rescales activations, but cfg.json" in refusal(
        lambda: from_folder(tmp_path)
    )
    (tmp_path / "activation_scaler.json").write_text('{"scaling_factor": null}')
    assert torch.equal(from_folder(tmp_path)(stream()), plain(stream()))


def test_a_copy_of_a_centred_release_is_never_run_uncentred(tmp_path: Path) -> None:
    """The same bytes mean the same SAE, or they are refused."""
    hook = "blocks.1.hook_resid_pre"
    folder = write(tmp_path / hook, JB)
    centred = from_release("gpt2-small-res-jb", hook, path=tmp_path)
    assert centred.config.normalisation == "centre"
    message = refusal(lambda: from_folder(folder))
    assert "`release: gpt2-small-res-jb` and `sae_id: blocks.1.hook_resid_pre`" in message
    assert f'"{KWARGS}": {{"center_writing_weights": true}}' in message
    for value in (True, False):
        kwargs = {KWARGS: {"center_writing_weights": value}}
        by_path = from_folder(write(tmp_path / "stated" / hook, JB | kwargs))
        x = stream()
        assert (by_path.config.normalisation == "centre") is value
        assert torch.equal(by_path(x), centred(x)) is value


@pytest.mark.parametrize(
    ("model", "is_refused"),
    [
        ("gpt2-small", True), ("openai-community/gpt2", True), ("gpt2-xl", True),
        ("EleutherAI/pythia-70m-deduped", True), ("tiny-stories-1M", True), ("own", False),
        ("google/gemma-2-2b", False), ("meta-llama/Meta-Llama-3-8B", False), ("mistral-7b", False),
    ],
)  # fmt: skip
def test_old_configs_of_models_with_layer_norm_must_say_whether_they_were_centred(
    model: str, is_refused: bool, tmp_path: Path
) -> None:
    folder = write(tmp_path, OLD | {"model_name": model})
    if is_refused:
        assert f"whether the activations of {model} were centred" in refusal(
            lambda: from_folder(folder)
        )
        write(tmp_path, OLD | {"model_name": model, KWARGS: {}})
    assert from_folder(folder).config.normalisation == "none"
    # Newer versions centre nothing that they do not name.
    write(tmp_path, NEW | {"metadata": METADATA | {"model_name": model}})
    assert from_folder(folder).config.normalisation == "none"


@pytest.mark.parametrize(
    "change",
    [
        {"normalize_activations": "layer_norm"},  # centres what it reads anyway
        {"model_class_name": "AutoModelForCausalLM"},  # is read as it is
    ],
)
def test_old_configs_that_cannot_have_been_centred_need_not_say_so(
    change: dict[str, Any], tmp_path: Path
) -> None:
    ours = from_folder(write(tmp_path, OLD | {"model_name": "gpt2-small"} | change))
    assert ours.config.normalisation == change.get("normalize_activations", "none")


def test_a_pointer_in_place_of_another_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "layer_0/width_16k/average_l0_105/params.npz"
    path.parent.mkdir(parents=True)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:11\nsize 5\n")
    assert "params.npz is a Git LFS pointer" in refusal(
        lambda: from_release(
            "gemma-scope-2b-pt-res-canonical", "layer_0/width_16k/canonical", path=tmp_path
        )
    )


def test_what_a_release_overrides_is_not_lost_with_its_name(tmp_path: Path) -> None:
    hook = "blocks.8.hook_resid_pre"
    cfg = JB | {"model_name": "mistral-7b", "hook_point": hook, "hook_point_layer": 8}
    copy = write(tmp_path / "mistral_7b_layer_8", cfg)
    by_release = from_release("mistral-7b-res-wg", hook, path=tmp_path)
    assert by_release.config.normalisation == "constant_norm_rescale"
    assert "`normalize_activations` is 'none', but sae_lens' directory runs" in refusal(
        lambda: from_folder(copy)
    )
    write(copy, cfg | {"normalize_activations": "constant_norm_rescale"})
    assert torch.equal(from_folder(copy)(stream()), by_release(stream()))
    # An SAE of one's own, in a folder of another name, is taken at its word.
    assert from_folder(write(tmp_path / "own", cfg)).config.normalisation == "none"


def test_the_repository_of_an_overridden_release_is_named_by_the_release() -> None:
    with pytest.raises(UserError, match="give `release: gpt2-small-res-jb`"):
        release_entry("jbloom/GPT2-Small-SAEs-Reformatted", "blocks.1.hook_resid_pre")


def test_a_config_that_a_release_completes_is_checked_too(tmp_path: Path) -> None:
    write(tmp_path / "blocks.1.hook_resid_pre", JB | {"activation_fn_str": "tanh-relu"})
    assert "'tanh-relu' is not run here" in refusal(
        lambda: from_release("gpt2-small-res-jb", "blocks.1.hook_resid_pre", path=tmp_path)
    )


def test_weights_stay_as_they_are(tmp_path: Path) -> None:
    write(tmp_path, OLD)
    ours = from_folder(tmp_path)
    for name, tensor in load_file(tmp_path / "sae_weights.safetensors").items():
        assert torch.equal(getattr(ours, name), tensor)
