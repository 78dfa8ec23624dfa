"""A plan of vision-language models alone, run stage by stage on tiny random ones."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.tiny_vlms import CLIP_STEPS, LINES, SIGLIP_STEPS, SIZE, save_vlm
from vista.data.glyphs import NOUNS
from vista.data.records import read_records
from vista.engine.artifacts import (
    Artifact,
    Provenance,
    input_digests,
    open_artifact,
    publishing,
)
from vista.engine.code import stage_module
from vista.engine.job import Job
from vista.engine.node import Node
from vista.engine.plan import Plan, load_plan
from vista.sae.neutral import SaeConfig, SparseAutoencoder, load_sae, save_sae
from vista.store.latents import LatentReader

KINDS = ("gemma3", "llava")
LAYERS = (1, 2)
RESAMPLE = {"gemma3": Image.Resampling.BILINEAR, "llava": Image.Resampling.BICUBIC}


def config(root: Path) -> dict[str, Any]:
    open_mask = {"max_image_share": 1.0, "max_label_density": 1.0}
    edit = {"coefficients": [8], "max_images": 4, "max_new_tokens": 4}
    return {
        "name": "vlms",
        "results": str(root / "results"),
        "data": {
            "kind": "drawn",
            "nouns": [0, 4],
            "scenes": {"train": 4, "validation": 24, "test": 12},
            "documents": {"train": 60, "heldout": 20},
        },
        "vlms": {
            kind: {
                "model": {"source": {"kind": "checkpoint", "path": str(root / kind)}},
                "saes": {"layers": LAYERS, "pretrained": {"path": str(root / "sae{layer}")}},
            }
            for kind in KINDS
        },
        "check_sae": {"tokens": 300, "max_fvu": 1e6, "max_dead_share": None},
        "label_latents": {"tokens": 1500},
        "interventions": {
            "methods": {"means": {"directions": {"method": "mean_difference", "layer": 1}}},
            "removal": {"task": "remove", "how": "subtract", **edit},
            "replacement": None,
        },
        "metrics": {
            "reconstruction": {},
            "matching_rate": {"top_k": 3, "mask": open_mask},
            "localization": {"mask": open_mask},
            "caption": {"max_new_tokens": 4},
        },
        "report": {"heatmap_examples": 1, "dpi": 40},
    }


def word_sae(model: Any, words: list[str], layer: int) -> SparseAutoencoder:
    """An SAE with a latent for each word: it reads the word's own direction in the stream."""
    texts = [f"a {word} ." for word in words]
    ids = model.tokenizer(texts, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        # Between the article and the full stop.
        means = [
            model.forward(torch.tensor([row]), taps=[layer]).taps[layer][0, 1:-1].mean(0)
            for row in ids
        ]
    rows = torch.stack(means)
    rows = torch.nn.functional.normalize(rows - rows.mean(0), dim=1)
    d_sae, d_in = rows.shape
    config = SaeConfig("topk", d_in, d_sae, layer, f"words{layer}", k=2)
    weights = {
        "W_enc": rows.T,
        "b_enc": torch.zeros(d_sae),
        "W_dec": rows,
        "b_dec": torch.zeros(d_in),
    }
    return SparseAutoencoder(config, {name: w.contiguous() for name, w in weights.items()})


def run_plan(plan: Plan, results: Path, saes: dict[str, SparseAutoencoder]) -> dict[str, Artifact]:
    """Run every node after its inputs; SAEs are written in the place of imported ones."""
    made: dict[str, Artifact] = {}

    def opened(source: Any) -> Any:
        return [run(n) for n in source] if isinstance(source, tuple) else run(source)

    def run(node: Node) -> Artifact:
        if node.path not in made:
            inputs = {role: opened(source) for role, source in node.inputs.items()}
            digests = input_digests(inputs)
            provenance = Provenance(node.stage, node.settings, digests, {}, {}, node.input_paths)
            with publishing(results, node.stage, node.folder, provenance) as work:
                assert work is not None
                if node.stage == "import_sae":
                    save_sae(work, saes[node.name])
                else:
                    stage = importlib.import_module(stage_module(node.stage))
                    stage.run(Job(node.stage, node.order, inputs, work))
            made[node.path] = open_artifact(results / node.path)
        return made[node.path]

    for node in plan.nodes.values():
        run(node)
    return {f"{node.stage}/{node.name}": made[node.path] for node in plan.nodes.values()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    from vista.language.model import LanguageModel

    root = tmp_path_factory.mktemp("vlms")
    words = sorted(NOUNS)[:4]
    saes = {}
    for kind in KINDS:
        save_vlm(kind, root / kind, lines=[*LINES, *(f"a {word} ." for word in words)])
        model = LanguageModel.load(root / kind, placement="image")
        saes |= {f"{kind}-l{layer}": word_sae(model, words, layer) for layer in LAYERS}
    content = config(root)
    return run_plan(load_plan(content), root / "results", saes)


def test_every_figure_of_the_points_is_in_the_table(made: dict[str, Artifact]) -> None:
    table = pq.read_table(made["report/vlms"].file("summary.parquet")).to_pylist()
    metrics = {"fvu", "matching_rate", "pointing_game", "caption_cross_entropy", "edit_found"}
    for kind in KINDS:
        rows = [row for row in table if (row["encoder"], row["llm"]) == (kind, kind)]
        assert metrics <= {row["metric"] for row in rows}
        assert {row["sae_weight"] for row in rows} == {0.0}


@pytest.mark.parametrize("kind", KINDS)
def test_latents_are_those_of_the_streams_of_the_class(
    kind: str, made: dict[str, Artifact]
) -> None:
    """From the drawn picture to the store, against the class's own forward."""
    import transformers

    records = read_records(made["records/glyphs"].file("records.parquet"))
    first = records.select(records.rows_of("test")[:1])[0]
    picture = Image.open(made["draw_world/glyphs"].path / "images" / first.path).convert("RGB")
    pixels = np.asarray(picture.resize((SIZE, SIZE), RESAMPLE[kind]))
    steps = CLIP_STEPS if kind == "llava" else SIGLIP_STEPS
    mean, std = (np.array(steps[key], dtype=np.float32) for key in ("image_mean", "image_std"))
    pixels_bchw = torch.from_numpy((pixels / np.float32(255) - mean) / std).permute(2, 0, 1)[None]
    folder = made["report/vlms"].path.parents[2] / kind
    model: Any = transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    # LLaVA's tokenizer writes BOS by itself.
    opening, token, n = {
        "gemma3": ("<bos><start_of_turn>user\n\n\n<start_of_image>", "<image_soft_token>", 4),
        "llava": ("USER: ", "<image>", 16),
    }[kind]
    ids = tokenizer(opening + n * token, return_tensors="pt")["input_ids"]
    types = {"token_type_ids": (ids == model.config.image_token_id).long()}
    with torch.no_grad():
        streams = model(
            input_ids=ids,
            pixel_values=pixels_bchw.float(),
            output_hidden_states=True,
            **(types if kind == "gemma3" else {}),
        ).hidden_states
    store = LatentReader(made[f"latents/{kind}-{kind}-w0-s0"].store("latents.zarr"))
    assert store.image_ids[0] == first.image_id
    assert store.grid[0] * store.grid[1] == n
    for layer in LAYERS:
        stream_pd = streams[layer + 1][0, -n:]
        sae = load_sae(made[f"import_sae/{kind}-l{layer}"].path)
        codes = sae.encode_sparse(stream_pd, sae.config.d_sae, "")
        # Features are stored in float16.
        norm2 = store.column(layer, "image", "norm2", slice(0, 1))[0]
        np.testing.assert_allclose(norm2, stream_pd.square().mean(-1).numpy(), rtol=0.02)
        value = store.column(layer, "image", "value", slice(0, 1))[0]
        np.testing.assert_allclose(value, codes[1].numpy(), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_edits_reach_the_answers(kind: str, made: dict[str, Artifact]) -> None:
    name = f"edit_captions/{kind}-{kind}-w0-s0-means-remove-test"
    rows = pq.read_table(made[name].file("captions.parquet")).to_pylist()
    losses: dict[str, dict[str, float]] = {}
    for row in rows:
        if row["found"]:
            losses.setdefault(row["image_id"], {})[row["variant"]] = row["loss_sum"]
    assert losses
    assert all(abs(loss["object"] - loss["none"]) > 1e-3 for loss in losses.values())
