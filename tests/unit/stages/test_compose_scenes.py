"""From cut-outs and grounds, in packages or the user's own folders, to records in groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.composed_scenes import composed, write_cutouts
from vista.config.data import records_settings
from vista.data.images import ImageSource
from vista.data.records import read_records
from vista.data.source import images_root
from vista.engine.artifacts import Artifact, Provenance, open_artifact, publishing
from vista.engine.job import Job
from vista.errors import UserError
from vista.stages import compose_scenes, fetch_package, records


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    write_cutouts(folder, {"cat": 3, "owl": 2})
    Image.new("L", (60, 50), 120).save(folder / "stone.png")
    return folder


def make(
    root: Path, stage: Any, settings: dict[str, Any], **inputs: Artifact | list[Artifact]
) -> Artifact:
    name = stage.__name__.rsplit(".", 1)[-1]
    place = root / name / str(len(list(root.glob(f"{name}/*"))))
    with publishing(root, name, place.name, Provenance(name, settings, {}, "code", {})) as work:
        assert work is not None
        stage.run(Job(name, settings, dict(inputs), work))
    return open_artifact(place, name)


def in_package(files: Path, ground: dict[str, Any], folder: str = "cutouts") -> dict[str, Any]:
    cutouts = {"map": str(files / "map.json"), "package": "0", "folder": folder}
    return composed(files, cutouts=cutouts, grounds=[ground]).model_dump(mode="json")


@pytest.mark.parametrize("ground", ["file", "folder"])
def test_photographs_in_a_package_give_the_scenes_that_the_users_own_do(
    tmp_path: Path, files: Path, ground: str
) -> None:
    order = {"kind": "folder", "name": "stamps", "path": str(files), "files": [], "state": ""}
    package = make(tmp_path, fetch_package, {"package": order})
    path = {"file": "stone.png"} if ground == "file" else {"folder": "cutouts/cat"}
    made = make(
        tmp_path,
        compose_scenes,
        in_package(files, {**path, "package": "0"}),
        packages=[package],
    )
    own = {key: str(files / name) for key, name in path.items()}
    same = make(tmp_path, compose_scenes, composed(files, grounds=[own]).model_dump(mode="json"))
    assert made.checksums == same.checksums
    settings = records_settings(composed(files))
    table = make(tmp_path, records, settings, world=made)
    read = read_records(table.file("records.parquet"))
    assert [record.group for record in read if record.split == "test"] == [
        *["seen"] * 8,
        *["held_out"] * 6,
    ]
    source = ImageSource(images_root(table.settings, made.path))
    assert all(source.open(record).size == (48, 48) for record in read)


def test_what_a_package_does_not_have_is_refused(tmp_path: Path, files: Path) -> None:
    order = {"kind": "folder", "name": "stamps", "path": str(files), "files": [], "state": ""}
    package = make(tmp_path, fetch_package, {"package": order})
    ground = {"file": "sand.png", "package": "0"}
    with pytest.raises(UserError, match=r"grounds\.0\.file: package 'stamps'.* no file 'sand"):
        make(tmp_path, compose_scenes, in_package(files, ground), packages=[package])
    ground = {"file": "stone.png", "package": "0"}
    with pytest.raises(UserError, match=r"cutouts\.folder: package 'stamps'.* no folder 'cuts'"):
        make(tmp_path, compose_scenes, in_package(files, ground, "cuts"), packages=[package])
    with pytest.raises(UserError, match=r"grounds\.0\.file: .*sand\.png is not a file"):
        missing = composed(files, grounds=[{"file": str(files / "sand.png")}])
        make(tmp_path, compose_scenes, missing.model_dump(mode="json"))
