"""A hub on disk with everything that the published setting fetches, small and with random weights:
encoders and LLMs of every family, SAEs, labels, COCO and LLaVA data. `fake_hub.FakeHub` serves it.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

UNIT = Path(__file__).parents[1] / "unit"
ENCODERS = ("clip", "dinov2_registers")
LLMS = {"gemma2": 32, "llama31": 24}
LAYERS = (0, 1)
D_SAE = 48


def load(path: Path) -> ModuleType:
    """A file of tests as a module: pytest's own import mode gives them no common package."""
    name = f"hub_on_disk_{path.parent.name}_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def build(root: Path) -> None:
    """Write the whole hub below `root`."""
    world = draw(root / "world")
    save_encoders(root)
    save_llms(root, [json.dumps(row) for row in world])
    for family, d_model in LLMS.items():
        for layer in LAYERS:
            save_sae(root / "saes" / family / f"layer_{layer}", layer, d_model)
            save_labels(root / "neuronpedia" / "v1" / family, f"{layer}-test-res")
    pack(root)
    shutil.rmtree(root / "world")


def save_encoders(root: Path) -> None:
    """Every family's checkpoint as the repository encoders/NAME."""
    import torch
    import transformers

    builders = load(UNIT / "encoders" / "conftest.py")
    for name, case in builders.CASES.items():
        torch.manual_seed(0)
        case.build(transformers).save_pretrained(root / "encoders" / name)
        path = root / "encoders" / name / "preprocessor_config.json"
        path.write_text(json.dumps(case.preprocessor))


def save_llms(root: Path, vocabulary: list[str]) -> None:
    """Every family's checkpoint as the repository llms/NAME."""
    checkpoints = load(UNIT / "language" / "checkpoints.py")
    save: Callable[..., None] = checkpoints.save_checkpoint
    for family in checkpoints.FAMILIES:
        d_model = LLMS.get(family, 16)
        save(family, root / "llms" / family, vocabulary=vocabulary, d_model=d_model)
    # What a repository also holds and nobody should fetch.
    (root / "llms" / "gemma2" / "pytorch_model.bin").write_bytes(b"a pickle")


def save_sae(folder: Path, layer: int, d_model: int) -> None:
    """An SAE with latents of random directions, in sae_lens' own format."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(layer)
    rows_sd = torch.randn(D_SAE, d_model, generator=generator)
    rows_sd /= rows_sd.norm(dim=1, keepdim=True)
    folder.mkdir(parents=True)
    cfg = {
        "architecture": "jumprelu",
        "d_in": d_model,
        "d_sae": D_SAE,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"hook_name": f"blocks.{layer}.hook_resid_post", "model_name": "test"},
    }
    (folder / "cfg.json").write_text(json.dumps(cfg))
    weights = {
        "W_enc": rows_sd.T.contiguous(),
        "W_dec": rows_sd,
        "b_enc": torch.zeros(D_SAE),
        "b_dec": torch.zeros(d_model),
        "threshold": torch.full((D_SAE,), 0.1),
    }
    save_file(weights, folder / "sae_weights.safetensors")


def save_labels(folder: Path, source: str) -> None:
    """A Neuronpedia export in which latents are named after nouns of the scenes; one has no name,
    and one has a name that would be markup."""
    nouns = ("cat", "star", "umbrella", "anchor", "cloud", "heart")
    explanations, features = [], []
    for latent in range(D_SAE):
        row = {"modelId": folder.name, "layer": source, "index": str(latent)}
        text = f"references to {nouns[latent % len(nouns)]}s and the like"
        text = "<script>alert(1)</script>" if latent == 1 else text
        features.append({**row, "frac_nonzero": 0.001})
        if latent != 2:
            kind = {"typeName": "oai_token-act-pair", "explanationModelName": "gpt-4o-mini"}
            explanations.append({**row, **kind, "description": text})
    for name, rows in (("explanations", explanations), ("features", features)):
        path = folder / source / name / "batch-0.jsonl.gz"
        path.parent.mkdir(parents=True)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        path.write_bytes(gzip.compress(text.encode(), mtime=0))


def draw(folder: Path) -> list[Any]:
    """A drawn world: its files are COCO's and LLaVA's formats. Returns the training rows."""
    from vista.config.drawn import DrawnData
    from vista.data.world import draw_world

    settings = DrawnData(
        scenes={"train": 24, "validation": 1, "test": 12},  # type: ignore[arg-type]
        documents={"train": 10, "heldout": 10},  # type: ignore[arg-type]
    )
    folder.mkdir(parents=True)
    draw_world(settings, folder, settings.seed)
    rows: list[Any] = json.loads((folder / "annotations" / "llava_train.json").read_text())
    return rows


def pack(root: Path) -> None:
    """The archives and JSON files that a config names by URL, below files/."""
    world, files = root / "world", root / "files"
    files.mkdir()
    rows = json.loads((world / "annotations" / "llava_train.json").read_text())
    # mix665k: text-only rows, one image in several rows, images that nobody has any more.
    mixed = [
        {**rows[0], "id": "again"},
        {"id": "text", "conversations": rows[0]["conversations"]},
        {**rows[1], "id": "gone", "image": "train/gone.png"},
        *rows[:12],
    ]
    (files / "pretrain.json").write_text(json.dumps(rows))
    (files / "mix.json").write_text(json.dumps(mixed))
    archives = {"images.zip": world / "images", "annotations.zip": world / "annotations"}
    for name, folder in archives.items():
        with zipfile.ZipFile(files / name, "w") as archive:
            for path in sorted(each for each in folder.rglob("*") if each.is_file()):
                archive.write(path, f"{folder.name}/{path.relative_to(folder).as_posix()}")
