"""A file that comes in parts: fetched on its terms alone, joined, checked, read as any other."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_gguf
import yaml
from tiny_packages import deb, fake_client, sha256

from vista.cli import run_stage
from vista.config.language import LanguageSettings
from vista.config.packages import JoinedPackage
from vista.config.reading import parse_config
from vista.engine.artifacts import Artifact, open_artifact
from vista.engine.forecast.missing import missing
from vista.engine.forecast.shapes import Shapes
from vista.engine.node import Node
from vista.engine.package_nodes import package_node
from vista.errors import UserError
from vista.inputs.models import load_llm
from vista.inputs.package_files import package_file
from vista.stages import join_package

FILE, TERMS = "m.gguf", "https://example.org/terms"
Run = Callable[[Node], Artifact]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / FILE
    tiny_gguf.write_gguf(path, tiny_gguf.llama(tiny_gguf.tokenizer().get_vocab_size()))
    return path.read_bytes()


@pytest.fixture
def entry(whole: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """An entry of three parts of different sizes, and a client that has their packages."""
    packages: dict[str, Path] = {}
    parts: list[dict[str, Any]] = []
    cuts = [0, 1000, len(whole) // 2, len(whole)]
    for number, (start, end) in enumerate(itertools.pairwise(cuts)):
        name = f"tiny{number}"
        content = deb({f"usr/{name}/{FILE}.part{number}": whole[start:end]}, name)
        packages[f"{name}=1.0"] = tmp_path / f"{name}.deb"
        packages[f"{name}=1.0"].write_bytes(content)
        entry = {"kind": "apt", "package": name, "version": "1.0", "sha256": sha256(content)}
        parts.append({**entry, "files": ["*.part?"]})
    fake_client(tmp_path / "bin" / "apt-get", packages)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return {"kind": "joined", "file": FILE, "sha256": sha256(whole), "parts": parts}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that makes a node's artifact after those that it reads."""

    def made(node: Node) -> Artifact:
        for parent in node.parents():
            made(parent)
        place = tmp_path / "results" / node.path
        if not (place / "manifest.json").is_file():
            run_stage(node.stage, node.spec, place / "manifest.json", 1)
        return open_artifact(place, node.stage)

    return made


def joined(entry: dict[str, Any], name: str = "tiny") -> Node:
    return package_node(name, JoinedPackage.model_validate(entry))


def test_the_parts_make_the_file_of_which_a_model_is_read(
    entry: dict[str, Any], whole: bytes, run: Run
) -> None:
    node = joined(entry)
    package = run(node)
    assert package_file(package, FILE, "file").read_bytes() == whole
    with pytest.raises(UserError, match=r"joined file m\.gguf has no file 'x'; it has m\.gguf"):
        package_file(package, "x", "file")
    source = {"kind": "gguf", "file": FILE, "stored_dtype": "float32"}
    model = run(Node("import_gguf", "tiny", source, {"package": node}))
    settings = LanguageSettings.model_validate({"source": source})
    assert load_llm(settings, model).n_blocks == tiny_gguf.BLOCKS


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2, 1), (0, 2), (0, 1), (0, 1, 1, 2)])
def test_parts_that_are_shuffled_missing_or_there_twice_are_told(
    entry: dict[str, Any], run: Run, order: tuple[int, ...]
) -> None:
    parts = [entry["parts"][number] for number in order]
    with pytest.raises(
        UserError, match=rf"the {len(order)} parts of m\.gguf, joined, have SHA-256"
    ):
        run(joined({**entry, "parts": parts}))


def test_a_part_whose_package_has_several_files_is_told(entry: dict[str, Any], run: Run) -> None:
    loose = {**entry["parts"][1], "files": []}
    with pytest.raises(UserError, match=r"^parts\.1\.files of .*tiny1 1\.0 has 2 files"):
        run(joined({**entry, "parts": [entry["parts"][0], loose]}))


def test_nothing_is_fetched_before_its_terms_are_accepted(
    entry: dict[str, Any], run: Run, tmp_path: Path
) -> None:
    node = joined({**entry, "terms": TERMS})
    sentence = rf"tiny0 1\.0 has terms of use \({TERMS}\) .* set `accept_terms: true`"
    with pytest.raises(UserError, match=sentence):
        run(node)
    assert not list(tmp_path.rglob("received"))
    told = missing(Shapes(tmp_path / "results", [*node.parents(), node]))
    assert [line.split()[0] for line in told] == ["tiny0", "tiny1", "tiny2"]
    assert all(TERMS in line and line.endswith(".") for line in told)
    accepted = joined({**entry, "terms": TERMS, "accept_terms": True})
    assert missing(Shapes(tmp_path / "results", [*accepted.parents(), accepted])) == []
    run(accepted)


def test_terms_and_the_name_of_an_entry_are_no_part_of_an_id(entry: dict[str, Any]) -> None:
    ids = {
        joined(changed, name).id
        for name in ("a", "b")
        for changed in (entry, {**entry, "terms": TERMS, "accept_terms": True})
    }
    assert len(ids) == 1
    reordered = {**entry, "parts": entry["parts"][::-1]}
    assert joined(reordered).id not in ids and joined({**entry, "file": "n.gguf"}).id not in ids


def test_a_part_may_lie_in_a_folder(
    entry: dict[str, Any], whole: bytes, run: Run, tmp_path: Path
) -> None:
    rest = tmp_path / "own" / "rest"
    rest.parent.mkdir()
    rest.write_bytes(whole[1000:])
    folder = {"kind": "folder", "path": str(rest.parent)}
    package = run(joined({**entry, "parts": [entry["parts"][0], folder]}))
    assert package_file(package, FILE, "file").read_bytes() == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": []}, "packages.tiny.parts: "),
        ({"file": "../m.gguf"}, "packages.tiny.file: "),
        ({"file": "a/m.gguf"}, "packages.tiny.file: "),
        ({"sha256": "x"}, "packages.tiny.sha256: "),
        ({"terms": ""}, "packages.tiny.terms: "),
        ({"files": ["*"]}, "unknown key packages.tiny.files"),
    ],
)
def test_what_an_entry_may_not_say(
    entry: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    config = Path(__file__).parents[3] / "config" / "smoke.yaml"
    content = yaml.safe_load(config.read_text()) | {"packages": {"tiny": {**entry, **changes}}}
    with pytest.raises(UserError) as error:
        parse_config(content)
    assert message in str(error.value)


def test_the_forecast_knows_sizes_that_are_stated(entry: dict[str, Any], tmp_path: Path) -> None:
    node = joined({**entry, "parts": [{**part, "bytes": 10**9} for part in entry["parts"]]})
    shapes = Shapes(tmp_path, [])
    assert join_package.need(node, shapes).disk == 3e9
    assert join_package.need(joined(entry), shapes).disk is None
