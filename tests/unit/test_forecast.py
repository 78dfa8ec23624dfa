"""The forecast: figures that a reader can compute by hand, what is missing, and no torch."""

from __future__ import annotations

import copy
import cProfile
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from vista.config.published import LLM_CONFIGS, SAE_BYTES, VISION, is_gated
from vista.engine.forecast import formulas
from vista.engine.forecast.formulas import Device, Dictionaries
from vista.engine.forecast.model_shapes import language_shape, vision_shape
from vista.engine.forecast.need import TORCH_START, Need
from vista.engine.forecast.needs import node_need
from vista.engine.forecast.overview import (
    Forecast,
    StageForecast,
    duration,
    forecast,
    listing,
    render,
    size,
)
from vista.engine.forecast.shapes import Shapes, width_of
from vista.engine.node import Node
from vista.engine.plan import Plan, load_plan
from vista.engine.stages import stages

CONFIGS = Path(__file__).parents[2] / "config"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def default(tmp_path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((CONFIGS / "default.yaml").read_text())
    return content | {"results": str(tmp_path / "results")}


@pytest.fixture
def published(tmp_path: Path) -> dict[str, Any]:
    """Gemma 2 2B seen by DINOv2 over LLaVA's first stage, evaluated on COCO."""
    data = tmp_path / "data"
    data.mkdir()
    for name in ("blip_laion_cc_sbu_558k.json", "instances_val2017.json"):
        (data / name).write_text("[]")
    folder = str(data)
    return {
        "name": "published",
        "results": str(tmp_path / "results"),
        "data": {
            "kind": "coco",
            "images": folder,
            "files": {"instances": f"{folder}/instances_val2017.json"},
            "fractions": {"train": 0, "validation": 0, "test": 1},
            "every": 5,
        },
        "training": {
            "pretrain": {
                "kind": "llava",
                "images": folder,
                "file": f"{folder}/blip_laion_cc_sbu_558k.json",
                "fractions": {"train": 1, "validation": 0, "test": 0},
            }
        },
        "text": {"kind": "captions"},
        "encoders": {"dinov2": checkpoint("facebook/dinov2-large", family="dinov2")},
        "llms": {
            "gemma": {
                "model": checkpoint("google/gemma-2-2b-it"),
                "saes": {
                    "layers": [0, 1],
                    "pretrained": {
                        "release": "gemma-scope-2b-pt-res-canonical",
                        "sae_id": "layer_{layer}/width_16k/canonical",
                        "revision": COMMIT,
                    },
                },
            }
        },
        "sweep": [{"sae_weights": [1], "seeds": [0]}],
        "projector": {"stages": [{"data": "pretrain", "micro_batch": 8}]},
        "metrics": {"caption": {}},
    }


def checkpoint(repo: str, **more: Any) -> dict[str, Any]:
    source = {"kind": "checkpoint", "repo": repo, "revision": COMMIT, **more}
    return {"source": source, "device": "cuda", "dtype": "bfloat16"}


def node(plan: Plan, stage: str, name: str = "") -> Node:
    return next(n for n in plan.nodes.values() if n.stage == stage and n.name.startswith(name))


def need(plan: Plan, stage: str, name: str = "") -> Need:
    shapes = Shapes(Path(plan.results), plan.nodes.values(), plan.config.threads)
    return node_need(node(plan, stage, name), shapes)


def told(content: dict[str, Any]) -> Forecast:
    return forecast(load_plan(content), stages())


def row(found: Forecast, stage: str) -> StageForecast:
    return next(each for each in found.stages if each.stage == stage)


def finish(plan: Plan, done: Node, sizes: dict[str, int]) -> Path:
    folder = Path(plan.results) / done.path
    folder.mkdir(parents=True)
    listed = {name: {"bytes": count, "sha256": ""} for name, count in sizes.items()}
    (folder / "checksums.json").write_text(json.dumps(listed))
    (folder / "manifest.json").write_text("{}")
    return folder


def test_features_and_latents_of_the_default_run(default: dict[str, Any]) -> None:
    plan = load_plan(default)
    features = need(plan, "features", "clip")
    # 3,700 scenes of 6 x 6 patches, width 128, two bytes; 12 d^2 parameters in each of 2 blocks.
    assert features.disk == 3700 * 36 * 128 * 2
    assert features.seconds == pytest.approx(2 * (2 * 12 * 128**2) * 37 * 3700 / 40e9 + TORCH_START)
    assert features.memory == 0
    # 400 test images, 36 visual and twice 26 text tokens, 3 SAEs trained for 5 active latents.
    assert need(plan, "latents").disk == pytest.approx(400 * (36 + 52) * 3 * 5 * 3.4 * 2)


def test_two_encoders_together_are_as_wide_or_as_long_as_both(default: dict[str, Any]) -> None:
    source = {"kind": "combined", "encoders": ["dinov2", "clip"]}
    default["encoders"] |= {
        "both": {"source": source},
        "turns": {"source": {**source, "how": "interleave"}},
    }
    default |= {"metrics": {}, "interventions": None, "probing": {"logit_lens": {}}}
    default["sweep"] = [{"llms": ["gemma2"], "sae_weights": [0]}]
    plan = load_plan(default)
    assert need(plan, "combine_features", "both").disk == 3700 * 36 * (96 + 128) * 2
    assert need(plan, "combine_features", "turns").disk == 3700 * 72 * 128 * 2
    # What follows knows their sizes: the projector its input, the lens its tokens.
    assert need(plan, "train_projector", "both").disk == 4 * (96 + 128 + 1) * 96
    lens = [need(plan, "logit_lens", name).seconds or 0 for name in ("clip", "turns")]
    assert lens[1] - TORCH_START == pytest.approx(2 * (lens[0] - TORCH_START))
    assert lens[0] > TORCH_START


def test_published_models_give_published_sizes(published: dict[str, Any]) -> None:
    plan = load_plan(published)
    # LLaVA's first stage, and every fifth of COCO's 5,000 validation images.
    features = row(forecast(plan, stages()), "features")
    assert features.todo == 2
    assert features.disk.known == (558128 + 1000) * 256 * 1024 * 2
    assert need(plan, "latents").disk == pytest.approx(1000 * (256 + 256) * 2 * 99 * 3.4 * 2)
    assert need(plan, "fetch_sae").disk == need(plan, "import_sae").disk == 2 * 2304 * 16384 * 4
    assert need(plan, "fetch_model", "gemma").disk == 2 * 2_614_341_888
    assert need(plan, "fetch_model", "dinov2").disk == pytest.approx(4 * 304.4e6)
    assert need(plan, "train_projector").disk == 4 * (1024 * 2304 + 2304)


@pytest.mark.parametrize(("dtype", "rate"), [("float32", 67e12), ("bfloat16", 989e12)])
@pytest.mark.parametrize(("processes", "machines"), [(1, 1), (4, 1), (3, 2)])
def test_time_of_training_by_hand(
    published: dict[str, Any], processes: int, machines: int, dtype: str, rate: float
) -> None:
    published["projector"]["sae_dtype"] = dtype
    published["projector"]["stages"][0] |= {"processes": processes, "machines": machines}
    steps = 558128 // 128
    visual, text = 256, 128
    forward = 2 * (2_024_515_584 * (visual + text) + 256_000 * 2304 * text)
    # Two, encoded once, without a decoder's product.
    saes = 2 * 2 * 2304 * 16384 * visual
    # Of each batch the first process of six takes 22 images.
    samples = steps * {1: 128, 4: 32, 6: 22}[processes * machines]
    # The backward pass costs as much as the forward: no gradients of the frozen weights.
    expected = samples * (2 * forward / (0.4 * 989e12) + saes / (0.4 * rate)) + TORCH_START
    assert need(load_plan(published), "train_projector").seconds == pytest.approx(expected)


@pytest.mark.parametrize(("processes", "machines"), [(2, 1), (1, 2), (2, 2)])
def test_processes_share_the_memory_of_a_batch_and_the_threads_of_a_cpu(
    published: dict[str, Any], processes: int, machines: int
) -> None:
    stage = published["projector"]["stages"][0]

    def training(**options: Any) -> Need:
        published["projector"]["stages"][0] = stage | {"micro_batch": None, **options}
        return need(load_plan(published), "train_projector")

    shared = training(processes=processes, machines=machines)
    assert shared.memory == training(micro_batch=128 // (processes * machines)).memory
    published["threads"], published["llms"]["gemma"]["model"]["device"] = 2, "cpu"
    alone, shared = training(), training(processes=processes, machines=machines)
    assert alone.seconds is not None
    assert shared.seconds == pytest.approx((alone.seconds - TORCH_START) / machines + TORCH_START)


def test_parts_of_features_are_jobs_that_start_on_their_own(published: dict[str, Any]) -> None:
    whole, before = need(load_plan(published), "features"), told(published)
    published["encoders"]["dinov2"]["jobs"] = 3
    part, after = need(load_plan(published), "features"), told(published)
    assert whole.seconds is not None
    assert part.seconds == pytest.approx(whole.seconds + 3 * TORCH_START)
    assert (part.disk, part.memory) == (whole.disk, whole.memory)
    # Three parts and one that puts them together, of each of two data sets.
    assert [row(each, "features").todo for each in (before, after)] == [2, 8]
    assert after.total.todo - before.total.todo == 6


def test_gpu_memory_counts_weights_saes_and_a_micro_batch(published: dict[str, Any]) -> None:
    memory = need(load_plan(published), "train_projector").memory
    assert memory is not None
    frozen = 2 * 2_614_341_888 + 2 * 2 * 2304 * 16384 * 4
    assert frozen < memory < 80e9
    published["projector"]["stages"][0]["micro_batch"] = 4
    halved = need(load_plan(published), "train_projector").memory
    assert halved is not None
    assert memory - halved > 0.3 * (memory - frozen)
    published["llms"]["gemma"]["model"]["device"] = "cpu"
    assert need(load_plan(published), "train_projector").memory == 0


def test_finished_artifacts_are_counted_and_read(default: dict[str, Any]) -> None:
    plan = load_plan(default)
    finish(plan, node(plan, "features", "clip"), {"a": 1000, "b": 24})
    records = finish(plan, node(plan, "records"), {"records.parquet": 10})
    table = {"split": ["train", "test", "test"], "path": ["a.png", "b.png", "a.png"]}
    pq.write_table(pa.table(table), records / "records.parquet")
    found = told(default)
    features = row(found, "features")
    assert (features.todo, features.done, features.disk_done) == (2, 1, 1024)
    assert found.total.done == 2
    # The table there has two different images, and two rows to encode.
    assert need(plan, "features", "dinov2").disk == 2 * 36 * 96 * 2
    assert need(plan, "latents").disk == pytest.approx(2 * 88 * 15 * 3.4 * 2)
    text = listing(plan)
    assert text.count("\n") == len(plan.nodes)
    assert f"done  {plan.results}/{node(plan, 'records').path}" in text
    assert text.endswith(f"{len(plan.nodes)} artifacts, {len(plan.nodes) - 2} to make.")


def test_a_damaged_list_of_files_does_not_stop_the_forecast(default: dict[str, Any]) -> None:
    plan = load_plan(default)
    folder = finish(plan, node(plan, "records"), {})
    (folder / "checksums.json").write_text("[1, ")
    (folder / "records.parquet").write_bytes(b"no table")
    assert row(told(default), "records").disk_done == 0
    assert need(plan, "features", "clip").disk == 3700 * 36 * 128 * 2


def test_a_finished_import_tells_the_width_of_its_sae(published: dict[str, Any]) -> None:
    published["llms"]["gemma"]["saes"]["pretrained"]["sae_id"] = "layer_{layer}/own"
    plan = load_plan(published)
    assert need(plan, "latents").disk is None
    for each in [n for n in plan.nodes.values() if n.stage == "import_sae"]:
        folder = finish(plan, each, {})
        (folder / "sae.json").write_text('{"d_sae": 512, "d_in": 2304}')
    assert need(plan, "latents").disk == pytest.approx(1000 * 512 * 2 * 99 * 3.4 * 2)


def test_sizes_that_are_not_known_are_called_unknown(published: dict[str, Any]) -> None:
    published["encoders"]["dinov2"] = checkpoint("owner/vit", family="dinov2")
    published["llms"]["gemma"]["model"] = checkpoint("owner/llm")
    found = told(published)
    for stage in ("features", "train_projector", "latents", "import_sae", "fetch_model"):
        assert row(found, stage).disk.known == 0
        assert row(found, stage).disk.unknown == row(found, stage).todo
    line = next(line for line in render(found).splitlines() if line.startswith("latents"))
    assert line.split() == ["latents", "1", "0", "-", "unknown", "-", "unknown", "unknown"]
    total = next(line for line in render(found).splitlines() if line.startswith("total"))
    assert "> " in total


def test_images_of_an_unknown_file_are_unknown_unless_limited(published: dict[str, Any]) -> None:
    data = published["training"]["pretrain"]
    data["file"] = data["file"].replace("blip_laion_cc_sbu_558k", "own")
    assert need(load_plan(published), "features", "dinov2-pretrain").disk is None
    data["limit"] = 100
    assert need(load_plan(published), "features", "dinov2-pretrain").disk == 100 * 256 * 1024 * 2


def test_missing_files_and_folders_are_named_once_with_a_remedy(
    published: dict[str, Any], tmp_path: Path
) -> None:
    published["data"]["files"]["captions"] = str(tmp_path / "captions.json")
    published["training"]["pretrain"]["images"] = str(tmp_path / "pictures")
    own = {"kind": "checkpoint", "path": str(tmp_path / "llm")}
    published["llms"]["gemma"]["model"] = {"source": own}
    published["llms"]["gemma"]["saes"]["pretrained"] = {"path": str(tmp_path / "sae-{layer}")}
    lines = told(published).missing
    for what in ("captions.json", "pictures", "llm", "sae-0", "sae-1"):
        found = [line for line in lines if f"{tmp_path / what} " in line]
        assert len(found) == 1, what
        assert "correct its path" in found[0]


def test_the_token_is_asked_for_and_never_shown(
    published: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    text = render(told(published))
    assert text.count("Missing: repository google/gemma-2-2b-it is gated") == 1
    assert "set HF_TOKEN" in text
    assert "dinov2-large is gated" not in text
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    text = render(told(published))
    assert "gated" not in text
    assert "hf_secretsecret" not in text


def test_unpinned_revisions_are_named(published: dict[str, Any]) -> None:
    assert "not pinned" not in render(told(published))
    published["encoders"]["dinov2"]["source"]["revision"] = "main"
    published["llms"]["gemma"]["saes"]["pretrained"]["revision"] = "v1"
    text = render(told(published))
    assert (
        "repository facebook/dinov2-large is not pinned (revision 'main'): set `revision`" in text
    )
    assert "SAE release gemma-scope-2b-pt-res-canonical is not pinned (revision 'v1')" in text


def test_too_little_disk_is_missing(
    default: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vista.engine.forecast.overview.free_bytes", lambda _: 1000)
    found = told(default)
    assert found.missing[-1].startswith(f"{size(found.total.disk.known - 1000)} of disk: 1 kB are")
    assert "set `results` to a folder on a larger disk" in found.missing[-1]


def test_the_table_is_in_the_order_of_the_pipeline_and_adds_up(default: dict[str, Any]) -> None:
    found = told(default)
    order = list(stages())
    assert [order.index(each.stage) for each in found.stages] == sorted(
        order.index(each.stage) for each in found.stages
    )
    assert found.total.todo == sum(each.todo for each in found.stages) > 50
    text = render(found)
    assert "Assumed, not measured" in text
    assert "Missing: nothing." in text
    folder = str(found.results)
    assert max(len(line) for line in text.splitlines() if folder not in line) <= 100
    names = [line.split()[0] for line in text.splitlines()[2 : 2 + len(found.stages)]]
    assert names == [each.stage for each in found.stages]


@pytest.mark.parametrize(
    ("repo", "parameters"),
    [
        ("google/gemma-2-2b-it", 2_614_341_888),
        ("google/gemma-2-9b-it", 9_241_705_984),
        ("meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248),
        ("Qwen/Qwen3-8B", 8_190_735_360),
        ("google/gemma-3-4b-it", 4_300_079_472),
        ("gpt2", 124_439_808),
    ],
)
def test_the_tables_configs_give_the_published_parameters(repo: str, parameters: int) -> None:
    shape = language_shape(LLM_CONFIGS[repo])
    assert shape is not None
    assert shape.loaded == pytest.approx(parameters, rel=0.005)


def test_the_tables_agree_with_themselves() -> None:
    for repo, shape in VISION.items():
        # A ViT's block has 12 d^2 parameters, less where its MLP is narrower (SigLIP So400m).
        assert shape.blocks * 11 * shape.d_vision**2 < shape.parameters <= shape.loaded, repo
        assert int(shape.patches**0.5) ** 2 == shape.patches
    assert is_gated("google/gemma-2-2b-it")
    assert is_gated("facebook/dinov3-vitl16-pretrain-lvd1689m")
    assert not is_gated("google/gemma-scope-2b-pt-res")
    assert set(SAE_BYTES.values()) == {2, 4}


def test_a_folders_config_gives_its_shape(tmp_path: Path) -> None:
    vision = {"hidden_size": 64, "num_hidden_layers": 3, "patch_size": 14, "image_size": 518}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "dinov2", **vision}))
    assert vision_shape(tmp_path) is not None
    preprocessor = {"do_center_crop": True, "crop_size": {"height": 224, "width": 224}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    shape = vision_shape(tmp_path)
    assert shape is not None
    assert (shape.d_vision, shape.patches, shape.prefix) == (64, 256, 1)
    assert shape.parameters == 3 * 12 * 64**2
    assert vision_shape(tmp_path / "nowhere") is None
    assert language_shape({"hidden_size": 64}) is None


def test_widths_that_ids_tell() -> None:
    assert width_of("layer_3/width_16k/canonical", None) == 16384
    assert width_of("layer_3/width_1m/average_l0_58", None) == 1 << 20
    assert width_of("l5r_8x", 4096) == 32768
    assert width_of("l5r_8x", None) is None
    assert width_of("blocks.5.hook_resid_post", 4096) is None


def test_decoding_is_bound_by_reading_the_weights() -> None:
    shape = language_shape(LLM_CONFIGS["gpt2"])
    assert shape is not None
    cpu = Device(gpu=False, dtype="float32", threads=2)
    assert cpu.decoding_seconds(10, shape) == pytest.approx(10 * shape.parameters * 4 / 10e9)
    gpu = Device(gpu=True, dtype="bfloat16", threads=2)
    assert gpu.decoding_seconds(10, shape) == pytest.approx(10 * 12e-3)


def test_activations_are_those_that_a_backward_pass_keeps() -> None:
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM

    def kept(blocks: int) -> float:
        """Bytes a token that autograd saves, weights aside."""
        made: Any = Gemma2ForCausalLM(Gemma2Config(**fields, num_hidden_layers=blocks))
        model = made.to(torch.bfloat16).eval().requires_grad_(False)
        own = {each.data_ptr() for each in (*model.parameters(), *model.buffers())}
        saved: dict[int, Any] = {}

        def pack(value: torch.Tensor) -> torch.Tensor:
            saved[value.untyped_storage().data_ptr()] = value
            return value

        stream = torch.randn(2, 128, 64, dtype=torch.bfloat16, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            model(inputs_embeds=stream, use_cache=False)
        sizes = [v.untyped_storage().nbytes() for p, v in saved.items() if p not in own]
        return sum(map(int, sizes)) / 256

    fields: dict[str, Any] = {
        "vocab_size": 16,
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
    }
    shape = language_shape({"model_type": "gemma2", "num_hidden_layers": 1, **fields})
    assert shape is not None
    found = formulas.block_bytes(shape, 128, 2)
    assert found == pytest.approx((kept(4) - kept(2)) / 2, rel=0.05)


def test_memory_grows_with_the_dictionaries_that_are_loaded() -> None:
    shape = language_shape(LLM_CONFIGS["gpt2"])
    assert shape is not None
    gpu = Device(gpu=True, dtype="float32", threads=1)
    one, two = (
        formulas.reading_memory(shape, gpu, Dictionaries(range(n), [4096] * n, [9.0] * n), 2, 64)
        for n in (1, 2)
    )
    assert two - one == 2 * 768 * 4096 * 4 + 2 * 64 * 768 * 8


def test_units() -> None:
    assert [size(each) for each in (0, 999, 34_099_200, 292.6e9, 1.77e12)] == [
        "0 B",
        "999 B",
        "34.1 MB",
        "293 GB",
        "1.77 TB",
    ]
    assert [duration(each) for each in (0.2, 75, 600, 5 * 3600)] == ["1 s", "75 s", "10 min", "5 h"]


def test_work_grows_no_faster_than_the_plan(default: dict[str, Any]) -> None:
    content = copy.deepcopy(default)
    calls = []
    for seeds in (20, 40):
        content["sweep"] = [{"seeds": list(range(seeds))}]
        # Calls are counted: the clock says more about the machine than about the code.
        profile = cProfile.Profile()
        text = profile.runcall(lambda: render(forecast(load_plan(content), stages())))
        assert re.search(rf"train_projector +{12 * seeds}\b", text)
        calls.append(sum(entry.callcount for entry in profile.getstats()))
    assert calls[1] < 2.2 * calls[0]


def test_a_forecast_loads_no_heavy_library(default: dict[str, Any], tmp_path: Path) -> None:
    plan = load_plan(default)
    records = finish(plan, node(plan, "records"), {"records.parquet": 10})
    pq.write_table(pa.table({"split": ["test"], "path": ["a"]}), records / "records.parquet")
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(default))
    script = (
        "import sys; from pathlib import Path\n"
        "from vista.engine.forecast.overview import forecast, render\n"
        "from vista.engine.plan import load_plan\n"
        f"print(render(forecast(load_plan(Path({str(tmp_path / 'run.yaml')!r})), ())))\n"
        "heavy = {'torch', 'transformers', 'sae_lens', 'sklearn', 'matplotlib', 'zarr', 'pandas'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    lines = out.stdout.splitlines()
    assert any(line.split()[:3] == ["records", "0", "1"] for line in lines)
    assert lines[-1] == "[]"
