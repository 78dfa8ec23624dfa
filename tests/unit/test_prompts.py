"""`vista plan CONFIG --prompts`: how each language model is given a sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_gguf
import yaml

from vista.cli import main
from vista.data.records import Record, Turn, write_records
from vista.engine.plan import Plan, load_plan
from vista.standins.llm import build_tokenizer

DEFAULT = Path(__file__).parents[2] / "config" / "default.yaml"
WORDS = "a red cat describe the image . this is the caption . be brief"


def written(content: dict[str, Any], folder: Path) -> tuple[Path, Plan]:
    content |= {"results": str(folder / "results")}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path, load_plan(path)


def finish(plan: Plan, stage: str) -> list[Path]:
    """Folders of a stage's artifacts, which count as made."""
    folders = [Path(plan.results) / n.path for n in plan.nodes.values() if n.stage == stage]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    return folders


def test_a_sample_of_each_model_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load(DEFAULT.read_text())
    path, plan = written(content, tmp_path)
    assert main(["plan", str(path), "--prompts"]) == 0
    assert capsys.readouterr().out.count("its prompt can be shown once it is there.") == 2
    for folder in finish(plan, "train_llm"):
        build_tokenizer([WORDS]).save_pretrained(folder / "model")
    assert main(["plan", str(path), "--prompts"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("template: tokenizer, placement: after_bos\n") == 2
    assert "\n<s>[36 visual tokens]describe the image .«this is the caption . </s>»\n" in shown
    # Another template leaves the model where it is; the records have a conversation now.
    content["llms"]["gemma2"]["model"] |= {"template": "none"}
    path, plan = written(content, tmp_path)
    for folder in finish(plan, "records"):
        rows = [
            Record("0", "test", "0.png", 8, 8),
            Record("1", "test", "1.png", 8, 8, turns=(Turn("", "a red cat"),)),
        ]
        write_records(folder / "records.parquet", rows)
    assert main(["plan", str(path), "--prompts"]) == 0
    shown = capsys.readouterr().out
    assert "template: none, placement: after_bos\n<s>[36 visual tokens]«a red cat </s>»\n" in shown


def test_a_prompt_that_cannot_be_written_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load(DEFAULT.read_text())
    for entry in content["llms"].values():
        entry["model"] |= {"system": "be brief"}
    path, plan = written(content, tmp_path)
    tokenizer = build_tokenizer([WORDS])
    tokenizer.chat_template = None
    for folder in finish(plan, "train_llm"):
        tokenizer.save_pretrained(folder / "model")
    assert main(["plan", str(path), "--prompts"]) == 2
    assert "no chat template that could write a system message" in capsys.readouterr().err


# As SmolLM2's: BOS opens every turn.
TURNS = (
    "{% for m in messages %}{{ bos_token }}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}{{ bos_token }}assistant {% endif %}"
)


def test_a_plan_warns_of_a_prompt_that_a_pretrained_model_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    tokenizer = build_tokenizer([WORDS])
    tokenizer.chat_template = TURNS
    tokenizer.save_pretrained(folder)
    tiny_gguf.llama(len(tokenizer)).save_pretrained(folder)
    content = yaml.safe_load(DEFAULT.read_text())
    model = content["llms"]["gemma2"]["model"]
    model["source"] = {"kind": "checkpoint", "path": str(folder)}

    def told() -> list[str]:
        path, _ = written(content, tmp_path)
        assert main(["plan", str(path)]) == 0
        lines = capsys.readouterr().out.splitlines()
        return [line for line in lines if line.startswith("Missing: ")]

    (line,) = told()
    assert f"prompts of the language model {folder} are refused: placement: after_bos" in line
    for remedy in ({"template": "none"}, {"placement": "in_question"}):
        model |= remedy
        assert told() == ["Missing: nothing."]
        for key in remedy:
            del model[key]
    # What the folder lacks is told once.
    (folder / "model.safetensors").unlink()
    (line,) = told()
    assert "refused" not in line and str(folder) in line
