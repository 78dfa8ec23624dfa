"""The committed page is what its source builds, and its source is sound."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.explore.conftest import SOURCE

PAGE = SOURCE.parent / "page"


def test_the_committed_page_is_the_built_one(node: str, tmp_path: Path) -> None:
    subprocess.run([node, "build.mjs", str(tmp_path)], cwd=SOURCE, check=True)
    built = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_bytes() for path in PAGE.iterdir()}
    assert built == committed, "build it again: npm run build in vista/explore/page_src"


def test_types(node: str) -> None:
    checker = SOURCE / "node_modules" / "typescript" / "bin" / "tsc"
    done = subprocess.run(
        [node, str(checker), "--noEmit"], cwd=SOURCE, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_versions_are_exact() -> None:
    package = json.loads((SOURCE / "package.json").read_text())
    wanted = package["dependencies"] | package["devDependencies"]
    lock = json.loads((SOURCE / "package-lock.json").read_text())["packages"]
    assert wanted
    for name, version in wanted.items():
        assert lock[f"node_modules/{name}"]["version"] == version
    # No address of a registry: whoever builds has their own.
    assert not any("resolved" in entry for entry in lock.values())


def test_the_page_asks_nobody_else() -> None:
    """No address of another origin, no code out of text, and the licences of what is built in."""
    script = (PAGE / "app.js").read_text()
    index = (PAGE / "index.html").read_text()
    style = (PAGE / "app.css").read_text()
    for text in (script, index, style):
        # A text of a library, and a link that somebody may follow.
        for known in ("https://zarr.dev", "https://www.neuronpedia.org/"):
            text = text.replace(known, "")
        assert "https://" not in text
    for part in ("eval(", "new Function", "innerHTML =", "dangerouslySetInnerHTML:"):
        assert part not in script
    assert "@import" not in style and "url(" not in style
    licences = (PAGE / "licences.txt").read_text()
    for name in ("preact 11.2.0", "zarrita 0.7.5", "hyparquet 1.33.0", "fzstd 0.1.1"):
        assert f"{name} (MIT)" in licences
