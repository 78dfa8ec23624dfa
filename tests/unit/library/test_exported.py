"""A run opened from what `vista explore --export` wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vista
from tests.explore.planted import planted_run
from vista.cli import main

POINT = ("dinov2", "gemma2", 1.0)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A planted run's results, and an export of them."""
    folder = tmp_path_factory.mktemp("exported")
    results = planted_run(folder)
    assert main(["explore", str(results), "--export", str(folder / "site")]) == 0
    return results, folder / "site"


def test_an_export_gives_what_the_results_give(folders: tuple[Path, Path]) -> None:
    here, there = map(vista.open, folders)
    assert there.name == here.name and there.points().equals(here.points())
    latents, exported = here.latents(*POINT), there.latents(*POINT)
    image_id = latents.image_ids[3]
    assert exported.top(image_id).equals(latents.top(image_id)) and len(exported.top(image_id))
    assert there.labels().equals(here.labels()) and set(there.labels()["layer"]) == {1, 3}
    assert there.image(image_id).tobytes() == here.image(image_id).tobytes()
    assert there.table().equals(here.table())
    assert set(exported.tree.groups) == set(latents.tree.groups)


def test_an_export_has_no_models(folders: tuple[Path, Path]) -> None:
    there = vista.open(folders[1])
    with pytest.raises(vista.UserError, match="an export, which has no models"):
        there.readout(*POINT)


def test_a_catalogue_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    for folder in ("../x/y", "latents/..", "/etc/x", "records/y"):
        entry = {"stage": "latents", "name": "x", "folder": folder}
        (tmp_path / "catalogue.json").write_text(json.dumps({"run": None, "artifacts": [entry]}))
        with pytest.raises(vista.UserError, match="no catalogue"):
            vista.open(tmp_path)
