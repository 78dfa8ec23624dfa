"""Released vision SAEs: a file in each program's layout gives the SAE that the program runs, by a
computation of its own; what is not run, or does not fit, is refused in one sentence."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vista.errors import UserError
from vista.sae.neutral import SparseAutoencoder
from vista.sae.released import read_released, scaled_to

D, S, K = 6, 16, 3
Encode = Callable[[Tensor], Tensor]


def weights(seed: int = 0) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = {"W_enc": (D, S), "b_enc": (S,), "W_dec": (S, D), "b_dec": (D,)}
    return {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}


X = 2 * torch.randn(50, D, generator=torch.Generator().manual_seed(9)) + 1


def read(format: str, path: Path, **options: Any) -> SparseAutoencoder:
    return read_with_groups(format, path, **options)[0]


def read_with_groups(
    format: str, path: Path, **options: Any
) -> tuple[SparseAutoencoder, tuple[int, ...]]:
    return read_released(format, path, name="it", **{"d_in": D, "layer": 4, **options})


def top_k(pre: Tensor) -> Tensor:
    least = pre.sort(dim=1, descending=True).values[:, K - 1 : K]
    return torch.relu(pre) * (pre >= least)


def same(sae: SparseAutoencoder, z: Tensor, x: Tensor) -> None:
    torch.testing.assert_close(sae.encode(X), z, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(sae(X), x, rtol=1e-4, atol=1e-5)


def save_saev(path: Path, header: dict[str, Any], tensors: dict[str, Tensor]) -> Path:
    with path.open("wb") as file:
        file.write((json.dumps(header) + "\n").encode())
        torch.save(tensors, file)
    return path


def test_saev_by_schema_and_activation(tmp_path: Path) -> None:
    w = weights()
    pre = X @ w["W_enc"] + w["b_enc"]
    less = (X - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    old = {"d_vit": D, "exp_factor": 2, "seed": 0, "l1_coeff": 1e-4}
    cases: list[tuple[dict[str, Any], dict[str, Tensor], Tensor]] = [
        (old, w, torch.relu(less)),
        ({"schema": 1, "cls": "TopK", "cfg": {"d_vit": D, "top_k": K}}, w, top_k(less)),
    ]
    for schema, name, params in (
        (2, "Relu", {}),
        (3, "TopK", {"top_k": K}),
        (4, "BatchTopK", {"top_k": K}),
    ):
        header = {"schema": schema, "cfg": {"activation": {"cls": name, "params": params}}}
        cases.append((header, w, torch.relu(pre) if name == "Relu" else top_k(pre)))
    last = {"schema": 5, "cfg": {"d_model": D, "activation": {"cls": "BatchTopK", "params": {}}}}
    learnt = {**w, "activation.threshold": torch.tensor(0.7)}
    cases.append((last, learnt, torch.where(pre > 0.7, pre, 0.0)))
    for header, tensors, z in cases:
        path = save_saev(tmp_path / "sae.pt", header, tensors)
        same(read("saev", path), z, z @ w["W_dec"] + w["b_dec"])
    # The format's rule on b_dec can be overruled.
    path = save_saev(tmp_path / "sae.pt", old, w)
    z = torch.relu(pre)
    same(read("saev", path, subtract_decoder_bias=False), z, z @ w["W_dec"] + w["b_dec"])


@pytest.mark.parametrize("schema", [0, 2])
def test_features_are_standardised_in_the_weights(tmp_path: Path, schema: int) -> None:
    header = {"schema": 2, "cfg": {"activation": {"cls": "Relu", "params": {}}}} if schema else {}
    sae = read("saev", save_saev(tmp_path / "sae.pt", header, weights()))
    mean, scale = torch.linspace(-1, 1, D), 2.5
    z = sae.encode((X - mean) / scale)
    folded = scaled_to(sae, mean, scale)
    same(folded, z, sae.decode(z) * scale + mean)
    assert not torch.equal(folded.encode(X), sae.encode(X))


def save_prisma(folder: Path, tensors: dict[str, Tensor], suffix: str, **config: Any) -> Path:
    whole = {"d_in": D, "d_sae": S, "architecture": "standard", "activation_fn_str": "relu"}
    whole |= {"normalize_activations": "layer_norm", "hook_point_layer": 4, "is_transcoder": False}
    whole |= {"layer_subtype": "hook_resid_post", "activation_fn_kwargs": {}} | config
    (folder / "config.json").write_text(json.dumps(whole))
    path = folder / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    return path


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_prisma_normalises_then_subtracts(tmp_path: Path, suffix: str) -> None:
    w = weights()
    mean = X.mean(dim=1, keepdim=True)
    deviation = (X - mean).std(dim=1, keepdim=True)
    norm = X.norm(dim=1, keepdim=True) / D**0.5
    for normalisation, x, back in (
        ("layer_norm", (X - mean) / (deviation + 1e-5), lambda out: out * deviation + mean),
        ("constant_norm_rescale", X / norm, lambda out: out * norm),
        ("none", X, lambda out: out),
    ):
        pre = (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
        for activation, kwargs, z in (
            ("relu", {}, torch.relu(pre)),
            ("topk", {"k": K}, top_k(pre)),
        ):
            config = {"normalize_activations": normalisation, "activation_fn_str": activation}
            path = save_prisma(tmp_path, w, suffix, activation_fn_kwargs=kwargs, **config)
            same(read("prisma", path), z, back(z @ w["W_dec"] + w["b_dec"]))
    gate = {
        name: torch.linspace(-1, 1, S) * by
        for name, by in (("b_gate", 1), ("b_mag", 2), ("r_mag", 0.5))
    }
    x = (X - w["b_dec"]) @ w["W_enc"]
    z = (x + gate["b_gate"] > 0) * torch.relu(x * gate["r_mag"].exp() + gate["b_mag"])
    config = {"architecture": "gated", "normalize_activations": "none"}
    path = save_prisma(tmp_path, w | gate, suffix, **config)
    same(read("prisma", path), z, z @ w["W_dec"] + w["b_dec"])


def save_dictionary(folder: Path, name: str | None, tensors: dict[str, Tensor]) -> Path:
    (folder / "config.json").unlink(missing_ok=True)
    if name is not None:
        (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": name, "k": K}}))
    torch.save({key: value.contiguous() for key, value in tensors.items()}, folder / "ae.pt")
    return folder / "ae.pt"


def test_sae_for_vlm_by_class(tmp_path: Path) -> None:
    w = weights()
    pre = (X - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    linear = {
        "encoder.weight": w["W_enc"].T,
        "encoder.bias": w["b_enc"],
        "decoder.weight": w["W_dec"].T,
    }
    learnt = {"k": torch.tensor(K, dtype=torch.int), "threshold": torch.tensor(1.2)}
    out = lambda z: z @ w["W_dec"] + w["b_dec"]  # noqa: E731
    above = torch.where(pre > 1.2, pre, 0.0)
    path = save_dictionary(tmp_path, "BatchTopKSAE", {**linear, "b_dec": w["b_dec"], **learnt})
    same(read("sae_for_vlm", path), above, out(above))
    path = save_dictionary(tmp_path, "AutoEncoderTopK", {**linear, "b_dec": w["b_dec"], **learnt})
    same(read("sae_for_vlm", path), top_k(pre), out(top_k(pre)))
    with pytest.raises(UserError, match=r"do not tell top-k from batch top-k; copy both"):
        path = save_dictionary(tmp_path, None, {**linear, "b_dec": w["b_dec"], **learnt})
        read("sae_for_vlm", path)
    nested = {**w, **learnt, "group_sizes": torch.tensor([4, 12])}
    for name in ("MatroyshkaBatchTopKSAE", None):
        path = save_dictionary(tmp_path, name, nested)
        same(read("sae_for_vlm", path), above, out(above))
        assert read_with_groups("sae_for_vlm", path)[1] == (4, 16)
    for sizes in ([4, 8], [16, 0], []):
        with pytest.raises(UserError, match=r"group_sizes .* do not make up its 16 latents"):
            wrong = nested | {"group_sizes": torch.tensor(sizes, dtype=torch.int64)}
            read("sae_for_vlm", save_dictionary(tmp_path, None, wrong))
    # A threshold that was never learnt leaves a ReLU.
    never = {**nested, "threshold": torch.tensor(-1.0)}
    same(read("sae_for_vlm", save_dictionary(tmp_path, None, never)), pre.relu(), out(pre.relu()))
    threshold = torch.linspace(0, 2, S)
    raw = X @ w["W_enc"] + w["b_enc"]
    z = torch.where(raw > threshold, raw, 0.0).relu()
    path = save_dictionary(tmp_path, "JumpReluAutoEncoder", {**w, "threshold": threshold})
    same(read("sae_for_vlm", path), z, out(z))
    # Activations make up for decoder rows of norm 1.
    path = save_dictionary(tmp_path, "AutoEncoder", {**linear, "bias": w["b_dec"]})
    same(read("sae_for_vlm", path), pre.relu() * w["W_dec"].norm(dim=1), out(pre.relu()))


def settings_class(module: str, name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A class of another program, which only the writer can import."""
    made = type(name, (), {"__module__": module})
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        whole = ".".join(parts[:depth])
        monkeypatch.setitem(sys.modules, whole, types.ModuleType(whole))
    setattr(sys.modules[module], name, made)
    return made


def test_patchsae_with_its_pickled_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = weights()
    z = torch.relu((X - w["b_dec"]) @ w["W_enc"] + w["b_enc"])
    out = z @ w["W_dec"] + w["b_dec"]
    path = tmp_path / "clip.pt"
    torch.save({"config": {"gated_sae": False, "block_layer": -2}, "state_dict": w}, path)
    same(read("patchsae", path), z, out)
    with monkeypatch.context() as patched:
        cfg = settings_class("src.sae_training.config", "ViTSAERunnerConfig", patched)()
        cfg.__dict__.update(block_layer=4, device=torch.device("cpu"), dtype=torch.float32)
        torch.save({"cfg": cfg, "state_dict": w}, path)
    assert "src.sae_training" not in sys.modules
    same(read("patchsae", path), z, out)
    with pytest.raises(UserError, match=r"output of block 4, .* of block 5; set .*`layer` to 4"):
        read("patchsae", path, layer=5)
    with monkeypatch.context() as patched:
        unknown = settings_class("other.config", "Settings", patched)()
        torch.save({"cfg": unknown, "state_dict": w}, path)
    with pytest.raises(UserError, match=r"clip.pt: not a file of plain tensors \(it holds more"):
        read("patchsae", path)


class Harmful:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (Path.touch, (Path("harm"),))


def test_a_pickle_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": weights(), "cfg": Harmful()}, "a.pt")
    for format in ("patchsae", "sae_for_vlm"):
        with pytest.raises(UserError, match="it holds more than tensors"):
            read(format, Path("a.pt"))
    assert not Path("harm").exists()


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    w = weights()
    relu = {"schema": 2, "cfg": {"activation": {"cls": "Relu", "params": {}}}}
    path = save_saev(tmp_path / "sae.pt", relu, w)
    with pytest.raises(UserError, match=r"features of 6 channels, the encoder's have 8; name"):
        read("saev", path, d_in=8)
    with pytest.raises(UserError, match="does not exist"):
        read("sae_for_vlm", tmp_path / "none.pt")
    other = {"schema": 2, "cfg": {"activation": {"cls": "Gelu\nx", "params": {}}}}
    with pytest.raises(
        UserError, match="activation is Gelu x, which is not run here; expected Relu"
    ):
        read("saev", save_saev(path, other, w))
    with pytest.raises(UserError, match="has no tensor W_dec; correct `format`"):
        read("saev", save_saev(path, relu, {k: v for k, v in w.items() if k != "W_dec"}))
    with pytest.raises(UserError, match="b_enc holds NaN or infinity"):
        read("saev", save_saev(path, relu, w | {"b_enc": torch.full((S,), torch.nan)}))
    torch.save(w, path)
    with pytest.raises(UserError, match="does not begin with a line of JSON"):
        read("saev", path)
    with pytest.raises(UserError, match="reads hook_mlp_out, and features are the stream"):
        read("prisma", save_prisma(tmp_path, w, ".pt", layer_subtype="hook_mlp_out"))
    with pytest.raises(UserError, match="activation_fn_str is tanh-relu, which is not run"):
        read("prisma", save_prisma(tmp_path, w, ".pt", activation_fn_str="tanh-relu"))
