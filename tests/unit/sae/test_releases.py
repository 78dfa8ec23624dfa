"""Published SAEs: random weights in exactly the files that each release has on the hub, read by
sae_lens' own loaders and by ours, without a network."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

from vista.config.sae import ImportSaeSettings
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.errors import UserError
from vista.sae.convert import from_release
from vista.sae.hub import cached_snapshot
from vista.sae.neutral import load_sae
from vista.sae.releases import release_entry
from vista.stages import import_sae

sae_lens = pytest.importorskip("sae_lens")

D_IN, D_SAE = 16, 128
SMALL = {"d_in": D_IN, "d_sae": D_SAE}  # for loaders that know the real sizes by heart
COMMIT = "c0ffee" * 6 + "c0ff"


def weights(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Random tensors; thresholds are positive, biases are not zero."""
    generator = torch.Generator().manual_seed(3)
    return {
        name: (
            torch.rand(shape, generator=generator) + 0.5
            if "threshold" in name
            else torch.randn(shape, generator=generator) * (0.5 if len(shape) < 2 else 0.3)
        )
        for name, shape in shapes.items()
    }


def native(
    folder: Path, cfg: dict[str, Any], path: str, sparsity: bool = False, **extra: Any
) -> None:
    """sae_lens' own format: cfg.json, sae_weights.safetensors, at times sparsity.safetensors."""
    (folder / path).mkdir(parents=True)
    cfg = {"d_in": D_IN, "d_sae": D_SAE, "dtype": "float32", "device": "cpu", **cfg}
    (folder / path / "cfg.json").write_text(json.dumps(cfg))
    tensors = weights(
        W_enc=(D_IN, D_SAE), W_dec=(D_SAE, D_IN), b_enc=(D_SAE,), b_dec=(D_IN,), **extra
    )
    save_file(tensors, folder / path / "sae_weights.safetensors")
    if sparsity:
        save_file({"sparsity": torch.zeros(D_SAE)}, folder / path / "sparsity.safetensors")


def gemma_scope(folder: Path) -> None:
    path = folder / "layer_0/width_16k/average_l0_105"
    path.mkdir(parents=True)
    tensors = weights(
        W_enc=(D_IN, D_SAE),
        W_dec=(D_SAE, D_IN),
        b_enc=(D_SAE,),
        b_dec=(D_IN,),
        threshold=(D_SAE,),
    )
    np.savez(path / "params.npz", **{name: tensor.numpy() for name, tensor in tensors.items()})


def gemma_scope_2(folder: Path, config: bool = True) -> None:
    path = folder / "resid_post_all/layer_5_width_16k_l0_small"
    path.mkdir(parents=True)
    tensors = weights(
        w_enc=(D_IN, D_SAE),
        w_dec=(D_SAE, D_IN),
        b_enc=(D_SAE,),
        b_dec=(D_IN,),
        threshold=(D_SAE,),
    )
    save_file(tensors, path / "params.safetensors")
    if config:
        cfg = {"architecture": "jump_relu", "model_name": "gemma-v3-1b-pt"}
        (path / "config.json").write_text(json.dumps(cfg))


def gemma_scope_2_without_config(folder: Path) -> None:
    gemma_scope_2(folder, config=False)


def llama_scope(folder: Path) -> None:
    path = folder / "Llama3_1-8B-Base-L2R-8x"
    (path / "checkpoints").mkdir(parents=True)
    cfg = {
        "d_model": D_IN,
        "d_sae": D_SAE,
        "jump_relu_threshold": 0.6,
        "hook_point_in": "blocks.2.hook_resid_post",
        "dataset_average_activation_norm": {"in": 2.5, "out": 2.5},
    }
    (path / "hyperparams.json").write_text(json.dumps(cfg))
    tensors = {
        "encoder.weight": (D_SAE, D_IN),
        "encoder.bias": (D_SAE,),
        "decoder.weight": (D_IN, D_SAE),
        "decoder.bias": (D_IN,),
    }
    halves = {name: tensor.bfloat16() for name, tensor in weights(**tensors).items()}
    save_file(halves, path / "checkpoints" / "final.safetensors")


def llama_scope_r1(folder: Path) -> None:
    path = folder / "800M-Slimpajama-0-OpenR1-Math-220k/L0R"
    path.mkdir(parents=True)
    cfg = {"d_model": D_IN, "expansion_factor": 8, "hook_point_in": "blocks.0.hook_resid_post"}
    (path / "config.json").write_text(json.dumps(cfg))
    shapes = {
        "encoder.weight": (D_SAE, D_IN),
        "encoder.bias": (D_SAE,),
        "decoder.weight": (D_IN, D_SAE),
        "decoder.bias": (D_IN,),
        "log_jumprelu_threshold": (D_SAE,),
    }
    save_file(weights(**shapes), path / "sae_weights.safetensors")


def qwen_scope(folder: Path) -> None:
    tensors = weights(W_enc=(D_SAE, D_IN), W_dec=(D_IN, D_SAE), b_enc=(D_SAE,), b_dec=(D_IN,))
    torch.save(tensors, folder / "layer3.sae.pt")


def gpt2_jb(folder: Path) -> None:
    cfg = {"hook_point": "blocks.1.hook_resid_pre", "model_name": "gpt2-small"}
    native(folder, cfg, "blocks.1.hook_resid_pre", sparsity=True)


def gpt2_openai(folder: Path) -> None:
    cfg = {
        "hook_name": "blocks.4.hook_resid_post",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 32},
        "normalize_activations": "layer_norm",
        "apply_b_dec_to_input": True,
    }
    native(folder, cfg, "v5_32k_layer_4.pt")


def gpt2_ajt(folder: Path) -> None:
    native(folder, {"hook_name": "blocks.6.hook_resid_pre"}, "6-res_scefr-ajt", sparsity=True)


def matryoshka(folder: Path) -> None:
    cfg = {
        "architecture": "jumprelu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": "6.4.0",
            "hook_name": "blocks.3.hook_resid_post",
            "training_architecture": "matryoshka_batchtopk",
        },
    }
    native(folder, cfg, "standard/blocks.3.hook_resid_post", threshold=(D_SAE,))


def dictionary(
    path: str, dict_class: str, layer: int, **shapes: tuple[int, ...]
) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        trainer = {
            "dict_class": dict_class,
            "layer": layer,
            "activation_dim": D_IN,
            "dict_size": D_SAE,
            "lm_name": "google/gemma-2-2b",
            "k": 20,
        }
        (folder / path).mkdir(parents=True)
        cfg = {"trainer": trainer, "buffer": {"ctx_len": 128}}
        (folder / path / "config.json").write_text(json.dumps(cfg))
        tensors = weights(**shapes)
        if dict_class in ("AutoEncoderTopK", "BatchTopKSAE"):
            tensors["k"] = torch.tensor(20)
        torch.save(tensors, folder / path / "ae.pt")

    return write


LINEAR = {"encoder.weight": (D_SAE, D_IN), "decoder.weight": (D_IN, D_SAE)}


def one_file(name: str, encoder: str, decoder: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        shapes = {
            f"{encoder}.weight": (D_SAE, D_IN),
            f"{encoder}.bias": (D_SAE,),
            f"{decoder}.weight": (D_IN, D_SAE),
            f"{decoder}.bias": (D_IN,),
        }
        torch.save(weights(**shapes), folder / name)

    return write


class Case(NamedTuple):
    release: str
    sae_id: str
    write: Callable[[Path], None]
    layer: int
    architecture: str
    normalisation: str = "none"
    overrides: dict[str, Any] | None = None


CASES = [
    Case(
        "gemma-scope-2b-pt-res-canonical",
        "layer_0/width_16k/canonical",
        gemma_scope,
        0,
        "jumprelu",
        overrides=SMALL,
    ),
    Case("gemma-scope-2-1b-pt-res-all", "layer_5_width_16k_l0_small", gemma_scope_2, 5, "jumprelu"),
    Case(
        "gemma-scope-2-1b-pt-res-all",
        "layer_5_width_16k_l0_small",
        gemma_scope_2_without_config,
        5,
        "jumprelu",
    ),
    Case("llama_scope_lxr_8x", "l2r_8x", llama_scope, 2, "jumprelu"),
    Case("llama_scope_r1_distill", "l0r_800m_slimpajama", llama_scope_r1, 0, "jumprelu"),
    Case("qwen-scope-3-1.7b-base-w32k-l50", "layer3", qwen_scope, 3, "topk", overrides=SMALL),
    Case("gpt2-small-res-jb", "blocks.1.hook_resid_pre", gpt2_jb, 0, "standard", "centre"),
    Case(
        "gpt2-small-resid-post-v5-32k",
        "blocks.4.hook_resid_post",
        gpt2_openai,
        4,
        "topk",
        "layer_norm",
    ),
    Case("gpt2-small-res_scefr-ajt", "blocks.6.hook_resid_pre", gpt2_ajt, 5, "standard"),
    Case("gemma-2-2b-res-matryoshka-dc", "blocks.3.hook_resid_post", matryoshka, 3, "matryoshka"),
    Case(
        "sae_bench_pythia70m_sweep_gated_ctx128_0730",
        "blocks.3.hook_resid_post__trainer_0",
        dictionary(
            "pythia70m_sweep_gated_ctx128_0730/resid_post_layer_3/trainer_0",
            "GatedAutoEncoder",
            3,
            **LINEAR,
            decoder_bias=(D_IN,),
            gate_bias=(D_SAE,),
            mag_bias=(D_SAE,),
            r_mag=(D_SAE,),
        ),
        3,
        "gated",
    ),
    Case(
        "sae_bench_gemma-2-2b_topk_width-2pow12_date-1109",
        "blocks.12.hook_resid_post__trainer_0",
        dictionary(
            "gemma-2-2b_topk_width-2pow12_date-1109/resid_post_layer_12/trainer_0",
            "AutoEncoderTopK",
            12,
            **LINEAR,
            **{"encoder.bias": (D_SAE,)},
            b_dec=(D_IN,),
            threshold=(),
        ),
        12,
        "topk",
    ),
    Case(
        "llama-3.1-8b-instruct-andyrdt",
        "resid_post_layer_3_trainer_1",
        dictionary(
            "resid_post_layer_3/trainer_1",
            "BatchTopKSAE",
            3,
            **LINEAR,
            **{"encoder.bias": (D_SAE,)},
            b_dec=(D_IN,),
            threshold=(),
        ),
        3,
        "jumprelu",
    ),
    Case(
        "goodfire-llama-3.1-8b-instruct",
        "layer_19",
        one_file("Llama-3.1-8B-Instruct-SAE-l19.pth", "encoder_linear", "decoder_linear"),
        19,
        "standard",
        overrides=SMALL,
    ),
    Case(
        "deepseek-r1-distill-llama-8b-qresearch",
        "blocks.19.hook_resid_post",
        one_file("DeepSeek-R1-Distill-Llama-8B-SAE-l19.pt", "encoder", "decoder"),
        19,
        "standard",
        overrides=SMALL,
    ),
]
JB, LLAMA, GEMMA_3 = (
    next(case for case in CASES if case.write is write)
    for write in (gpt2_jb, llama_scope, gemma_scope_2)
)


def lay_out(hub: Path, case: Case) -> Path:
    """Write the release's files into a Hugging Face cache at `hub`; return the snapshot."""
    repo = release_entry(case.release, case.sae_id).repo
    folder = hub / f"models--{repo.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    case.write(snapshot)
    return snapshot


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may reach for the network, nor find anything in the machine's own cache."""
    import huggingface_hub.constants
    import requests

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a loader asked the network")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", "/nonexistent")
    monkeypatch.setattr(requests, "get", refuse)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[[Case], None]:
    """Tell sae_lens the small sizes where a loader takes the real ones from the repository's name;
    config_overrides of its directory are for that."""
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    def shrink(case: Case) -> None:
        if case.overrides:
            entry = get_pretrained_saes_directory()[case.release]
            monkeypatch.setattr(
                entry, "config_overrides", {**(entry.config_overrides or {}), **case.overrides}
            )

    return shrink


def theirs(case: Case, hub: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """sae_lens' own SAE.from_pretrained on the cache at `hub`."""
    import huggingface_hub.constants
    from sae_lens.loading import pretrained_sae_loaders
    from safetensors.torch import load_file

    def shapes(repo: str, name: str) -> dict[str, list[int]]:
        path = hub / f"models--{repo.replace('/', '--')}" / "snapshots" / COMMIT / name
        return {key: list(tensor.shape) for key, tensor in load_file(path).items()}

    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub))
        # The one thing that sae_lens asks by HTTP even where the file is there.
        patch.setattr(pretrained_sae_loaders, "get_safetensors_tensor_shapes", shapes)
        return sae_lens.SAE.from_pretrained(case.release, case.sae_id)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.release}-{case.write.__name__}")
def test_parity_with_sae_lens(
    case: Case,
    tmp_path: Path,
    small: Callable[[Case], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small(case)
    snapshot = lay_out(tmp_path, case)
    entry = release_entry(case.release, case.sae_id)
    listed = {*entry.required, *entry.optional}
    written = {
        path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()
    }
    assert written <= listed  # what a fetch of the listed files would bring
    expected = theirs(case, tmp_path, monkeypatch)
    x = 3 * torch.randn(40, D_IN, generator=torch.Generator().manual_seed(1)) + 0.5
    # sae_lens leaves it to the model to centre the stream; the plain model's is not centred.
    shift = x.mean(dim=-1, keepdim=True) if case.normalisation == "centre" else torch.zeros(1)
    with torch.no_grad():
        z = expected.encode(x - shift)
        y = expected.decode(z) + shift
        assert 0 < (z > 0).float().mean() < 1
        ours = from_release(
            case.release, case.sae_id, case.layer, path=cached_snapshot(tmp_path, entry.repo)
        )
        torch.testing.assert_close(ours.encode(x), z, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours(x), y, rtol=1e-5, atol=1e-5)
        assert ours.config.architecture == case.architecture
        assert ours.config.layer == case.layer
        assert ours.config.normalisation == case.normalisation


def test_the_layer_may_be_left_to_the_release_and_the_hub_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", "of the user")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    path = lay_out(tmp_path, GEMMA_3)
    assert from_release(GEMMA_3.release, GEMMA_3.sae_id, path=path).config.layer == GEMMA_3.layer
    assert huggingface_hub.constants.HF_HUB_CACHE == "of the user"
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False


def test_a_repository_that_no_directory_lists(tmp_path: Path) -> None:
    native(tmp_path, {"hook_name": "blocks.6.hook_resid_post"}, "block_6")
    sae = from_release("someone/own-saes", "block_6", path=tmp_path)
    assert (sae.config.layer, sae.config.name) == (6, "someone/own-saes/block_6")


def test_llama_scopes_norm_factor_is_folded(tmp_path: Path) -> None:
    """Its factor stands in sae_lens' directory; a second one from the user is refused."""
    snapshot = lay_out(tmp_path, LLAMA)
    with pytest.raises(UserError, match="leave out `activation_scale`"):
        from_release(LLAMA.release, LLAMA.sae_id, activation_scale=2.0, path=snapshot)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_norm_factor_that_is_not_listed_must_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    snapshot = lay_out(tmp_path, LLAMA)
    entry = get_pretrained_saes_directory()[LLAMA.release]
    factor = entry.norm_scaling_factor[LLAMA.sae_id]
    folded = from_release(LLAMA.release, LLAMA.sae_id, path=snapshot)
    monkeypatch.setattr(entry, "norm_scaling_factor", {})
    with pytest.raises(UserError, match="give it as `activation_scale`"):
        from_release(LLAMA.release, LLAMA.sae_id, path=snapshot)
    given = from_release(LLAMA.release, LLAMA.sae_id, activation_scale=factor, path=snapshot)
    torch.testing.assert_close(given.W_enc, folded.W_enc)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Base-L2R-8x/hyperparams\.json is missing"):
        from_release(LLAMA.release, LLAMA.sae_id, path=tmp_path)
    with pytest.raises(UserError, match="was not fetched into this cache"):
        cached_snapshot(tmp_path, "owner/name")


class Trap:
    """Pickled code that would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_pickled_code_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"W_enc": Trap(tmp_path / "ran")}, tmp_path / "layer3.sae.pt")
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(UserError, match="could not load"):
        from_release("qwen-scope-3-1.7b-base-w32k-l50", "layer3", path=tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("release", "sae_id", "sentence"),
    [
        ("llama_scope_lxr_8", "l2r_8x", r"not in sae_lens' directory \(closest: llama_scope_lxr"),
        ("llama_scope_lxr_8x", "l40r_8x", r"has no SAE l40r_8x \(closest: l.*correct `sae_id`"),
        ("temporal-sae-gemma-2-2b", "blocks.12.hook_resid_post", "kind temporal"),
        ("gemma-scope-2b-pt-transcoders", "layer_0/width_16k/average_l0_76", "transcoder"),
    ],
)
def test_names_that_cannot_be_run(release: str, sae_id: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        release_entry(release, sae_id)


def test_every_release_is_found_as_in_the_whole_directory() -> None:
    path = Path(sae_lens.__file__).parent / "pretrained_saes.yaml"
    whole = yaml.load(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    others = set()
    for release, block in whole.items():
        last = block["saes"][-1]
        try:
            entry = release_entry(release, str(last["id"]))
        except UserError:
            others.add(block["conversion_func"])
            continue
        assert entry.repo == block["repo_id"]
        assert all(name.startswith(str(last["path"])) for name in entry.required)
        assert entry.neuronpedia == last.get("neuronpedia")
    assert others == {
        "connor_rob_hook_z",
        "gemma_2_transcoder",
        "mntss_clt_layer_transcoder",
        "mwhanna_transcoder",
        "temporal",
    }


def publish(root: Path, stage: str, write: Callable[[Path], object]) -> Artifact:
    with publishing(root, stage, "one", Provenance(stage, {}, {}, "code", {})) as work:
        assert work is not None
        write(work)
    return open_artifact(root / stage / "one")


def test_the_stage_reads_a_fetched_release_or_a_local_copy(tmp_path: Path) -> None:
    fetched = publish(tmp_path / "results", "fetch_sae", lambda work: lay_out(work / "hub", JB))
    source = ImportSaeSettings(release=JB.release, sae_id="blocks.1.hook_resid_pre")
    settings = {"sae": source.model_dump(), "layer": 0, "name": "gpt2-l0"}
    import_sae.run(Job("import_sae", settings, {"fetched": fetched}, tmp_path))
    once = load_sae(tmp_path)
    assert once.config.neuronpedia == "gpt2-small/1-res-jb"
    (tmp_path / "copy").mkdir()
    JB.write(tmp_path / "copy")
    local = source.model_copy(update={"path": str(tmp_path / "copy")})
    settings["sae"] = local.model_dump()
    (tmp_path / "second").mkdir()
    import_sae.run(Job("import_sae", settings, {}, tmp_path / "second"))
    for file in ("sae.safetensors", "sae.json"):
        assert (tmp_path / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_looking_a_release_up_imports_no_sae_lens(tmp_path: Path) -> None:
    import subprocess

    code = (
        "import sys; from vista.sae.releases import release_entry;"
        "print(release_entry('llama_scope_lxr_8x', 'l2r_8x').repo);"
        "assert not {'sae_lens', 'torch'} & set(sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "fnlp/Llama3_1-8B-Base-LXR-8x"
