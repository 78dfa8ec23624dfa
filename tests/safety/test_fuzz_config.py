"""A config that is wrong anywhere: a plan, or one error that tells the user, and soon."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safety.mutations import damaged, ends, read_or_told

from vista.config.reading import load_config, parse_config
from vista.engine.plan import Plan, load_plan
from vista.errors import UserError

CONFIGS = sorted((Path(__file__).parents[2] / "config").glob("*.yaml"))


@cache
def content(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@settings(max_examples=25)
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@given(data=st.data())
def test_a_damaged_config_is_planned_or_told(path: Path, data: st.DataObject) -> None:
    config = data.draw(damaged(content(path)))
    with read_or_told("config"):
        assert Plan(parse_config(config)).manifests()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("projector: {lr: .nan}", r"projector\.lr is nan"),
        ("sweep: [{sae_weights: [0, .inf]}]", r"sweep\.0\.sae_weights\.1 is inf"),
        ('results: "a\\0b"', "results holds a character"),
        ('results: "\\ud800"', "results holds a character"),
        ("results: " + "[" * 60 + "]" * 60, "results.* holds too much"),
        ("results: " + "[" * 20_000, "cannot be read as YAML|holds too much"),
        ("results: &a [*a, *a]", "holds too much|cannot be read as YAML"),
        ("name: !!python/object/apply:os.system [id]", "cannot be read as YAML"),
        ("seed: 2001-99-99", "cannot be read as YAML"),
        ("threads: " + "9" * 5000, "cannot be read as YAML"),
        ("? [a]\n: 1", "cannot be read as YAML"),
        ("1: 2", "keys should be strings"),
        ("- a", "must hold keys and values"),
        ("\x07", "cannot be read as YAML"),
    ],
)
def test_what_yaml_can_hold_and_no_setting_can(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    base = {**content(CONFIGS[0])}
    key = text.partition(":")[0]
    kept = yaml.safe_dump({name: value for name, value in base.items() if name != key})
    path.write_text(text if text[0] in "-\x07" else f"{kept}\n{text}\n")
    with pytest.raises(UserError, match=sentence) as told:
        load_plan(path)
    assert "mine.yaml" in str(told.value)


def test_aliases_do_not_multiply(tmp_path: Path) -> None:
    # Nine levels of nine aliases each: half a gigabyte once they are written out.
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    (tmp_path / "mine.yaml").write_text("\n".join(lines))
    with ends(), pytest.raises(UserError, match=r"mine\.yaml"):
        load_config(tmp_path / "mine.yaml")
