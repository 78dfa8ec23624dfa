"""The real workflow on a small config, run once: every claim about a run is checked on it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from installed_package import InstalledPackage
from PIL import Image
from workflow_run import ROOT, jobs, snakemake
from workflow_run import SMOKE as CONFIG

import vista
from tests.docs.examples import run_examples
from tests.docs.tutorials import FOLDER, NAMES, cells_of, execute
from vista.engine.artifacts import open_artifact
from vista.engine.code import SILENT, source_digests, stage_code
from vista.engine.plan import Plan, load_plan

COLUMNS = [
    *("metric", "of", "set", "k", "encoder", "llm", "sae_weight", "seed", "control", "method"),
    *("layer", "token_kind"),
    *("value", "ci_low", "ci_high", "chance", "n"),
]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, package: InstalledPackage) -> Path:
    """A run as a user of the wheel makes it, who has no checkout: the tests of this file continue
    it with the checkout's workflow and code, to which that must make no difference."""
    folder = tmp_path_factory.mktemp("smoke")
    package.run(folder, "vista", "init", ".", "--config", "smoke")
    (folder / "trace").mkdir()
    package.run(folder, "python", "-m", "snakemake", "--cores", "2", trace=folder / "trace")
    return folder


@pytest.fixture(scope="session")
def plan() -> Plan:
    return load_plan(CONFIG)


def changed(folder: Path, old: str, new: str) -> Path:
    """Return a copy of the smoke config with one text replaced."""
    text = CONFIG.read_text()
    assert text.count(old) == 1, f"{old!r} must stand once in {CONFIG.name}"
    path = folder / "changed.yaml"
    path.write_text(text.replace(old, new))
    return path


def test_every_artifact_is_there_and_whole(run: Path, plan: Plan) -> None:
    for manifest in plan.manifests():
        open_artifact((run / manifest).parent).verify()


def test_the_code_that_ran_is_the_code_that_a_digest_is_over(run: Path, plan: Plan) -> None:
    """A function that runs and does not count could change and leave old results in place."""
    modules: dict[str, set[str]] = {}
    for node in plan.nodes.values():
        modules.setdefault(node.stage, set()).update(node.modules)
    traces = [path for path in (run / "trace").iterdir() if path.name.split(".")[0] in modules]
    assert all(f"{ROOT}/" not in path.read_text(encoding="utf-8") for path in traces)
    assert {path.name.split(".")[0] for path in traces} == set(modules)
    for path in traces:
        stage = path.name.split(".")[0]
        counted = set(source_digests(stage_code(stage, modules[stage])))
        functions = 0
        for line in path.read_text(encoding="utf-8").splitlines():
            file, _, name = line.rpartition(":")
            parts = Path(file.rpartition("/vista/")[2]).with_suffix("").parts
            module = ".".join(["vista", *parts]).removesuffix(".__init__")
            # The frame around a stage, and what talks to people, cannot change a result.
            if module in SILENT or module == "vista.cli" or module.startswith("vista.engine."):
                continue
            # The silent search for plug-ins lists the names that this package has.
            if (module, name.split(".")[0]) == ("vista.config.registry", "names_in"):
                continue
            # A name of a class alone is its body, which runs when it is imported.
            if name[0] == "<" or (name.lstrip("_")[:1].isupper() and "." not in name):
                continue
            assert f"{module}:{name.split('.')[0]}" in counted, f"{stage} ran {module}:{name}"
            functions += 1
        assert functions > 1 or stage in ("text", "train_llm")


def test_the_table_has_its_columns_and_a_row_a_figure(run: Path, plan: Plan) -> None:
    table = pq.read_table(run / "results" / "summary.parquet")
    assert table.column_names == COLUMNS
    header = (run / "results" / "summary.csv").read_text().splitlines()[0]
    assert header.split(",") == COLUMNS
    rows = table.to_pylist()
    key = COLUMNS[: COLUMNS.index("value")]
    keys = [tuple(row[name] for name in key) for row in rows]
    assert len(set(keys)) == len(keys)
    points = {(r["encoder"], r["llm"], r["sae_weight"], r["seed"]) for r in rows if r["encoder"]}
    assert {point[:4] for point in plan.config.points()} <= points
    assert {row["control"] for row in rows} == {None, "norm_matched", "text_scale"}
    assert all(row["n"] > 0 for row in rows if row["value"] is not None)


def test_figures_are_drawn(run: Path) -> None:
    names = {path.name for path in (run / "results" / "figures").iterdir()}
    for name in ("matching_rate", "reconstruction_fvu", "localization", "training"):
        assert {f"{name}.png", f"{name}.svg"} <= names


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_runs(name: str, run: Path, tmp_path: Path) -> None:
    cells = cells_of((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    outputs = execute(cells, run / "results", tmp_path)
    assert any(output and (output.printed or output.text) for output in outputs)


def test_the_examples_of_docstrings_hold(run: Path, tmp_path: Path) -> None:
    for module, (failed, attempted) in run_examples(run / "results", tmp_path).items():
        assert (failed, attempted > 0) == (0, True), module


def test_a_second_run_has_nothing_to_do(run: Path) -> None:
    assert jobs(snakemake(run, "--dry-run")) == {}


def test_touched_files_and_reordered_keys_run_nothing(run: Path, tmp_path: Path) -> None:
    for manifest in (run / "results").glob("*/*/manifest.json"):
        manifest.touch()
    lines = CONFIG.read_text().splitlines(keepends=True)
    start = next(i for i, line in enumerate(lines) if line.startswith("metrics:"))
    # The whole block of metrics moves to the front.
    end = next(
        (i for i in range(start + 1, len(lines)) if lines[i][:1] not in (" ", "#", "\n")),
        len(lines),
    )
    moved = tmp_path / "moved.yaml"
    moved.write_text("".join(lines[start:end] + lines[:start] + lines[end:]))
    assert jobs(snakemake(run, "--dry-run", config=moved)) == {}


def test_a_new_sae_weight_runs_its_projector_latents_and_metrics_only(
    run: Path, tmp_path: Path, plan: Plan
) -> None:
    config = changed(tmp_path, "- {sae_weights: [0, 1]", "- {sae_weights: [0, 1, 3]")
    per_weight = len(plan.config.points()) // 2
    stages = ("train_projector", "latents", "reconstruction", "matching_rate", "localization")
    expected = {**dict.fromkeys((*stages, "spliced_loss", "caption"), per_weight), "report": 1}
    assert jobs(snakemake(run, "--dry-run", config=config)) == expected


def test_a_metrics_setting_runs_that_metric_only(run: Path, tmp_path: Path, plan: Plan) -> None:
    config = changed(tmp_path, "top_k: 3", "top_k: 2")
    measured = len(plan.config.points()) + len(plan.config.controls())
    expected = {"matching_rate": measured, "report": 1}
    assert jobs(snakemake(run, "--dry-run", config=config)) == expected


def test_a_damaged_input_stops_the_stage_with_its_name(run: Path, plan: Plan) -> None:
    node = next(node for node in plan.nodes.values() if node.stage == "naming")
    labels = run / "results" / node.parents()[0].path / "labels.parquet"
    whole = labels.read_bytes()
    try:
        damaged = bytearray(whole)
        damaged[len(damaged) // 2] ^= 4
        labels.write_bytes(bytes(damaged))
        (run / "results" / node.path / "manifest.json").unlink()
        memo = run / "results" / node.path / "memo.json"
        memo.unlink()
        done = snakemake(run, f"results/{node.path}/manifest.json", ok=False)
        said = done.stdout + done.stderr
        assert "labels.parquet is damaged" in said
        assert "Traceback" not in said
    finally:
        labels.write_bytes(whole)
    snakemake(run, f"results/{node.path}/manifest.json")
    open_artifact(run / "results" / node.path).verify()


def test_a_deleted_artifact_is_made_again_with_the_same_bytes(run: Path, plan: Plan) -> None:
    node = next(node for node in plan.nodes.values() if node.stage == "reconstruction")
    folder = run / "results" / node.path
    before = (folder / "manifest.json").read_bytes()
    shutil.rmtree(folder)
    done = snakemake(run, f"results/{node.path}/manifest.json")
    assert jobs(done) == {"reconstruction": 1}
    assert (folder / "manifest.json").read_bytes() == before


def test_a_projector_killed_in_training_ends_with_the_same_bytes(run: Path, plan: Plan) -> None:
    node = next(
        node
        for node in plan.nodes.values()
        if node.stage == "train_projector" and node.settings["sae_weight"] == 1
    )
    folder = run / "results" / node.path
    before = (folder / "manifest.json").read_bytes()
    shutil.rmtree(folder)
    checkpoints = run / "results" / ".work" / node.path / "checkpoints"
    command = [sys.executable, "-m", "vista.cli", node.stage, "--spec", node.spec]
    command += ["--manifest", f"results/{node.path}/manifest.json"]
    job = subprocess.Popen(command, cwd=run, stderr=subprocess.DEVNULL)
    while job.poll() is None and not list(checkpoints.glob("step-*")):
        time.sleep(0.001)
    job.kill()
    assert job.wait() == -signal.SIGKILL, "the job ended before it could be killed"
    assert not (folder / "manifest.json").exists()
    assert list(checkpoints.glob("step-*"))
    snakemake(run, f"results/{node.path}/manifest.json")
    assert (folder / "manifest.json").read_bytes() == before


def by_hand(folder: Path) -> dict[str, Any]:
    """Write six photos with COCO annotations; return the config's `data`."""
    (folder / "photos").mkdir()
    images, annotations, captions = [], [], []
    for i in range(6):
        name, side = f"photo_{i}.png", 40 + 8 * (i % 3)
        picture = Image.new("RGB", (side + 16, side), (20, 40 + 10 * i, 60))
        picture.paste((250, 220, 40), (8, 8, 24, 24))
        picture.save(folder / "photos" / name)
        images.append({"id": i, "file_name": name, "width": side + 16, "height": side})
        box = {"bbox": [8, 8, 16, 16], "area": 256, "iscrowd": 0}
        outline = [[8, 8, 24, 8, 24, 24, 8, 24]]
        annotations.append(
            {**box, "id": i, "image_id": i, "category_id": 1, "segmentation": outline}
        )
        captions.append({"id": i, "image_id": i, "caption": "a yellow square at top left"})
    whole = {"images": images, "annotations": annotations}
    whole["categories"] = [{"id": 1, "name": "square"}]
    (folder / "instances.json").write_text(json.dumps(whole))
    (folder / "captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    files = {"instances": "instances.json", "captions": "captions.json"}
    return {"kind": "coco", "images": "photos", "files": files, "fractions": FRACTIONS}


FRACTIONS = {"train": 0.5, "validation": 0.0, "test": 0.5}


def test_the_workflow_runs_on_a_users_own_coco_files(run: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(CONFIG.read_text())
    content["pretraining"] = content["data"]
    content["data"] = by_hand(run)
    content |= {"name": "by_hand", "encoders": {"dinov2": content["encoders"]["dinov2"]}}
    content["sweep"] = [{"sae_weights": [1], "seeds": [0]}]
    content["projector"] = {"stages": [{"steps": 4, "batch_size": 2}]}
    del content["metrics"]["probe"]
    content["metrics"]["spliced_loss"] = {"mean_split": "train"}
    config = tmp_path / "by_hand.yaml"
    config.write_text(yaml.safe_dump(content))
    done = jobs(snakemake(run, config=config))
    # The stand-ins and their SAEs are those of the smoke config: two configs share stages.
    assert not {"draw_world", "train_encoder", "train_llm", "train_sae"} & set(done)
    assert {"records", "features", "train_projector", "latents", "caption"} <= set(done)
    rows = pq.read_table(run / "results" / "summary.parquet").to_pylist()
    named = [row for row in rows if row["metric"] == "pointing_game"]
    assert named
    summary = (run / "results" / "summary.md").read_text()
    assert "by\\_hand" in summary


def test_interventions_add_their_own_stages_to_what_is_there(run: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(CONFIG.read_text())
    bounds = dict.fromkeys(("max_fvu", "min_l0", "max_l0", "max_dead_share"))
    content["vision_saes"] = {
        "topk": {
            "train": {"steps": 20, "batch_patches": 256, "expansion": 2},
            "check": {**bounds, "patches": 200},
            "labels": {"min_share": 0.1, "min_images": 1},
        }
    }
    short = {"coefficients": [2], "max_new_tokens": 6}
    vision = {"directions": {"method": "vision_latent"}, "vision_sae": "topk"}
    content["interventions"] = {
        "encoders": ["dinov2"],
        "methods": {"latent": {"sae_weights": [1]}, "vision": {**vision, "sae_weights": [0]}},
        "removal": {"task": "remove", **short},
        "replacement": {"task": "replace", "how": "remove_add", **short},
    }
    config = tmp_path / "edited.yaml"
    config.write_text(yaml.safe_dump({**content, "name": "edited"}))
    done = jobs(snakemake(run, config=config))
    assert done == {
        "latents": 1,
        "train_vision_sae": 1,
        "check_vision_sae": 1,
        "label_vision_latents": 1,
        "directions": 2,
        "edit_captions": 8,
        "intervention": 4,
        "report": 1,
    }
    rows = pq.read_table(run / "results" / "summary.parquet").to_pylist()
    methods = {(r["method"], r["sae_weight"]) for r in rows if r["metric"] == "edit_ms"}
    assert methods == {("latent", 1.0), ("vision", 0.0)}
    assert (run / "results" / "figures" / "interventions.png").is_file()
    assert jobs(snakemake(run, "--dry-run", config=config)) == {}


def test_the_library_gives_what_the_artifacts_hold(run: Path, tmp_path: Path) -> None:
    """Latents of ten images, captions and edits; a saved readout that is moved gives the same."""
    started = time.perf_counter()
    opened = vista.open(run / "results")
    readout = opened.readout("dinov2", "gemma2", sae_weight=1)
    stored = opened.latents("dinov2", "gemma2", sae_weight=1)
    ids = stored.image_ids[:10]
    seen = readout([opened.image(image_id) for image_id in ids])
    assert not seen.top(k=3, layer=1).empty
    assert time.perf_counter() - started < 30  # 5 s on a machine with nothing beside it
    for place, layers in enumerate(seen.layers):
        for layer, found in layers.items():
            held = stored.view.store.tokens(layer, "image", slice(place, place + 1))
            # Another batch size changes the last bits, so a latent at its threshold may differ.
            same_p = held.nnz[0] == found.nnz_p
            assert same_p.mean() > 0.95
            used = min(found.value_pk.shape[1], held.value.shape[2])
            values = held.value[0][same_p, :used], found.value_pk[same_p, :used]
            assert np.allclose(*values, rtol=2e-3, atol=1e-3)
            assert np.allclose(held.error[0], found.error_p, rtol=1e-2)
    table = stored.top(ids[0], k=1)
    assert table["latent"].tolist() == seen[0].top(k=1)["latent"].tolist()
    group = stored["layer_01/image"]
    assert dict(group.sizes)["image"] == len(stored.image_ids) and "nnz" in group
    features = opened.features("dinov2")
    assert features.dims == ("image", "token", "channel") and features.dtype == np.float16
    assert opened.table().columns.tolist() == COLUMNS
    assert {"layer", "latent", "label"} <= set(opened.labels("gemma2", 1).columns)

    readout.save_pretrained(tmp_path / "first")
    (tmp_path / "first").rename(tmp_path / "moved")
    loaded = vista.Readout.from_pretrained(tmp_path / "moved")
    loaded.save_pretrained(tmp_path / "again")
    assert bytes_below(tmp_path / "moved") == bytes_below(tmp_path / "again")
    assert "| matching" in (tmp_path / "moved" / "README.md").read_text()

    edited = [
        artifact
        for path in (run / "results" / "edit_captions").glob("dinov2-gemma2-w1-s0-latent-*")
        if (artifact := open_artifact(path)).settings["edit"]["task"] == "remove"
        and artifact.settings.get("control") is None
    ]
    rows = pq.read_table(edited[0].file("captions.parquet")).to_pylist()
    wanted = [row for row in rows if row["variant"] == "object" and row["n_tokens"]]
    assert wanted
    columns = readout.encoder.grid[1]
    for row in wanted[:3]:
        image = opened.image(row["image_id"])
        unedited = next(r for r in rows if r["image_id"] == row["image_id"])
        where = [divmod(patch, columns) for patch in row["patches"]]
        change = {"remove": row["source"], "strength": row["coefficient"], "where": where}
        for reader in (readout, loaded):
            assert reader.caption(image, max_new_tokens=6) == unedited["caption"]
            after = reader.caption(image, **change, blocks=row["blocks"], max_new_tokens=6)
            assert after == row["caption"]


def bytes_below(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_labels_of_another_sae_are_refused(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    vista.open(run / "results").readout("dinov2", "gemma2").save_pretrained(folder)
    other = next((run / "results" / "label_vision_latents").iterdir())
    shutil.rmtree(folder / "labels_0")
    shutil.copytree(other, folder / "labels_0")
    with pytest.raises(vista.UserError, match="is not the part that was saved"):
        vista.Readout.from_pretrained(folder)
    described = json.loads((folder / "readout.json").read_text())
    described["digests"]["labels_0"] = open_artifact(other).digest
    (folder / "readout.json").write_text(json.dumps(described))
    with pytest.raises(vista.UserError, match="labels another SAE"):
        vista.Readout.from_pretrained(folder)


def test_one_image_at_the_command_line(run: Path, tmp_path: Path) -> None:
    opened = vista.open(run / "results")
    path = tmp_path / "scene.png"
    opened.image(opened.latents("dinov2", "gemma2", 1).image_ids[0]).save(path)
    command = [sys.executable, "-m", "vista.cli", "look", str(path), "--save", str(tmp_path)]
    said = subprocess.run(command, cwd=run, capture_output=True, text=True, check=True).stdout
    assert "caption: " in said and "layer  label" in said
    assert Image.open(tmp_path / "scene.png").width > 400


def test_a_file_that_is_no_image_is_named(run: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(CONFIG.read_text())
    content["pretraining"] = content["data"]
    (run / "pictures").mkdir()
    (run / "pictures" / "cat.png").write_text("not a picture")
    content["data"] = {"kind": "folder", "images": "pictures"}
    config = tmp_path / "broken.yaml"
    config.write_text(yaml.safe_dump(content))
    done = snakemake(run, "--until", "records", "features", config=config, ok=False)
    said = done.stdout + done.stderr
    assert "cat.png cannot be read as an image" in said
    assert "Traceback" not in said


def test_a_mistyped_key_is_named_without_a_traceback(tmp_path: Path) -> None:
    config = changed(tmp_path, "matching_rate:", "matching_rates:")
    done = snakemake(tmp_path, "--dry-run", config=config, ok=False)
    said = done.stdout + done.stderr
    assert "unknown key metrics.matching_rates; did you mean 'matching_rate'?" in said
    assert "Traceback" not in said


def test_manifests_say_what_made_them(run: Path, plan: Plan) -> None:
    for node in plan.nodes.values():
        manifest = json.loads((run / "results" / node.path / "manifest.json").read_text())
        assert manifest["settings"] == json.loads(node.spec)["settings"]
        assert set(manifest["inputs"]) == set(node.inputs)
        assert str(run) not in json.dumps(manifest)
