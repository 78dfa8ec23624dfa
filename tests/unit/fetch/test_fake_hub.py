"""The hub of these tests is one that huggingface_hub itself takes for real."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fake_hub import FakeHub
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url, snapshot_download


def test_huggingface_hub_lists_and_downloads_from_it(
    hub: FakeHub, put: Callable[[str, bytes], Path], tmp_path: Path
) -> None:
    files = {"config.json": b"{}", "folder/model.safetensors": b"weights" * 1000}
    for name, content in files.items():
        put(f"maker/model/{name}", content)
    folder = Path(snapshot_download("maker/model", local_dir=tmp_path / "local"))
    assert {name: (folder / name).read_bytes() for name in files} == files

    listed = {each.path: each for each in HfApi(endpoint=hub.url).list_repo_tree("maker/model")}
    url = hf_hub_url("maker/model", "folder/model.safetensors")
    stated = get_hf_file_metadata(url)
    assert (stated.commit_hash, stated.size) == (hub.commit("maker/model"), 7000)
    assert listed["folder/model.safetensors"].lfs.sha256 == stated.etag
