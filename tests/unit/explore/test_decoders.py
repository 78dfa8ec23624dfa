"""Neighbours by decoder cosine: against all pairs at once, from the server, and in an export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

pytest.importorskip("uvicorn", reason="needs the extra `explore`")

from explored_run import Client, explored

from tests.published import publish
from vista.errors import UserError
from vista.explore import decoders
from vista.explore.decoders import MOST, Decoder, neighbour_blocks
from vista.explore.export import export
from vista.explore.finished import Finished, NotServed
from vista.sae.top_table import write_top

SAE = "import_sae/gemma2-l4-0123456789"
D_SAE, WIDTH = 50, 12


def rows() -> NDArray[np.float32]:
    """Decoder rows: 3 is zero, 4 not finite, 7 is 6 times ten, 9 the opposite of 6."""
    rows_sd = np.random.default_rng(0).standard_normal((D_SAE, WIDTH), np.float32)
    rows_sd[3], rows_sd[4, 0], rows_sd[7], rows_sd[9] = 0, np.nan, 10 * rows_sd[6], -rows_sd[6]
    return rows_sd


def nearest(rows_sd: NDArray[np.float32], latent: int) -> list[tuple[int, float]]:
    """Return the neighbours of a latent from all cosines."""
    norm_s = np.linalg.norm(rows_sd.astype(np.float64), axis=1)
    good = [n for n in range(len(rows_sd)) if norm_s[n] > 0]  # NaN is not
    if latent not in good:
        return []
    cosine = {n: float(rows_sd[n] @ rows_sd[latent] / norm_s[n] / norm_s[latent]) for n in good}
    order = sorted(set(good) - {latent}, key=lambda n: (-round(cosine[n], 4), n))
    return [(n, cosine[n]) for n in order[:MOST]]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "sae.safetensors"
    save_file({"W_dec": rows(), "b_dec": np.zeros(WIDTH, np.float32)}, path)
    return path


def agree(found: list[tuple[int, float]], expected: list[tuple[int, float]]) -> None:
    assert [n for n, _ in found] == [n for n, _ in expected]
    assert [x for _, x in found] == pytest.approx([x for _, x in expected], abs=6e-5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("cells", [1, 100, 2**24])
def test_neighbours_are_those_of_all_pairs(
    weights: Path, monkeypatch: pytest.MonkeyPatch, cells: int
) -> None:
    monkeypatch.setattr(decoders, "_BLOCK_CELLS", cells)
    monkeypatch.setattr(decoders, "_COSINE_CELLS", cells)
    decoder = Decoder(weights)
    assert (decoder.latents, decoder.width) == (D_SAE, WIDTH)
    parts = list(neighbour_blocks(decoder))
    assert len(parts) == -(-D_SAE // decoder.step)
    found = [pairs for part in parts for pairs in map(part.of, range(len(part.index_nk)))]
    for latent in range(D_SAE):
        agree(found[latent], nearest(rows(), latent))
        assert decoder.nearest(latent, latent + 1).of(0) == found[latent]
    assert found[3] == found[4] == []
    assert found[6][0] == (7, 1.0) and 9 not in dict(found[6])


def test_a_small_dictionary_has_fewer_neighbours(tmp_path: Path) -> None:
    path = tmp_path / "sae.safetensors"
    save_file({"W_dec": np.ones((3, 2), np.float32)}, path)
    assert Decoder(path).nearest(1, 2).of(0) == [(0, 1.0), (2, 1.0)]  # of equals the smaller first


@pytest.mark.parametrize(
    "tensors",
    [
        {"W_enc": np.ones((3, 2), np.float32)},
        {"W_dec": np.ones((3, 2), np.float16)},
        {"W_dec": np.ones(3, np.float32)},
    ],
)
def test_what_is_no_decoder_is_refused(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    save_file(tensors, tmp_path / "sae.safetensors")
    for path in (tmp_path / "sae.safetensors", tmp_path / "none"):
        with pytest.raises(UserError, match="import the SAE again"):
            Decoder(path)


def write_sae(work: Path, config: str = '{"d_sae": 50}') -> None:
    save_file({"W_dec": rows()}, work / "sae.safetensors")
    (work / "sae.json").write_text(config)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """An SAE, one that is damaged, and an artifact that says to be read with both."""
    root = tmp_path / "results"

    def write_damaged(work: Path) -> None:
        (work / "sae.safetensors").write_bytes(b"\xff" * 100)
        (work / "sae.json").write_text('{"d_sae": 50}')

    saes = [publish(root, SAE, write_sae), publish(root, "import_sae/bad-1", write_damaged)]
    publish(root, "import_sae/unread-1", write_sae)
    publish(root, "label_latents/l4-1", lambda work: (work / "labels.parquet").touch(), saes=saes)
    return root


def test_the_server_answers_with_the_neighbours_of_a_latent(results: Path) -> None:
    with explored(results) as client:
        assert client.ask(f"/neighbours/{SAE}/6").status == 403
        client.enter()
        answer = client.ask(f"/neighbours/{SAE}/6")
        assert answer.headers["Content-Type"] == "application/json"
        found = [(n, x) for n, x in json.loads(answer.body)["neighbours"]]
        agree(found, nearest(rows(), 6))
        again = client.ask(f"/neighbours/{SAE}/6", If_None_Match=str(answer.headers["ETag"]))
        assert again.status == 304
        refuse(client, f"/neighbours/{SAE}/50", "has no latent 50: it has 0..49")
        refuse(client, "/neighbours/import_sae/bad-1/0", "is damaged: it has no decoder")
        for path in (
            "/neighbours/import_sae/none-1/0",
            "/neighbours/label_latents/l4-1/0",
            f"/neighbours/../{SAE}/6",
            f"/neighbours/{SAE}/-1",
            f"/neighbours/{SAE}/6/",
            f"/neighbours/{SAE}/1e3",
            f"/neighbours/{SAE}/{'9' * 10}",
            "/neighbours/import_sae/..%2f..%2fx/0",
        ):
            refuse(client, path, "no such")


@pytest.mark.parametrize("stage", ["train_vision_sae", "train_guided_sae", "import_vision_sae"])
def test_the_server_and_an_export_have_those_of_vision_saes(tmp_path: Path, stage: str) -> None:
    root, sae = tmp_path / "results", f"{stage}/dinov2-topk-1"
    of = publish(root, sae, write_sae)
    publish(root, f"{stage}/unlabelled-1", write_sae)
    labels = "label_vision_latents/dinov2-topk-1"
    names = ("latent", "rank", "image_id", "patch", "activation", "classes")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    publish(root, labels, lambda work: write_top(work / "top.parquet", columns), sae=of)
    with explored(root) as client:
        assert client.ask(f"/neighbours/{sae}/6").status == 403
        client.enter()
        found = json.loads(client.ask(f"/neighbours/{sae}/6").body)["neighbours"]
        agree([(n, x) for n, x in found], nearest(rows(), 6))
        refuse(client, f"/neighbours/{sae}/50", "has no latent 50: it has 0..49")
    export(Finished(root), tmp_path / "site")
    table = pq.read_table(tmp_path / "site" / "neighbours" / f"{sae}.parquet").to_pylist()
    agree(list(zip(*table[6].values(), strict=True)), nearest(rows(), 6))
    catalogue = json.loads((tmp_path / "site" / "catalogue.json").read_bytes())
    assert [e["folder"] for e in catalogue["artifacts"] if e.get("neighbours")] == [sae]


def refuse(client: Client, path: str, says: str) -> None:
    answer = client.ask(path)
    assert (answer.status, says in answer.body.decode()) == (404, True), (path, answer.body)


def test_a_link_to_weights_is_not_followed(results: Path, tmp_path: Path) -> None:
    path = results / SAE / "sae.safetensors"
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotServed, match="is damaged: a file of it is missing"):
        decoders.Decoders(Finished(results)).answer(SAE, 6)


def test_an_export_has_the_neighbours_of_the_saes_that_are_shown(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(Finished(results), tmp_path / "site")
    table = pq.read_table(tmp_path / "site" / "neighbours" / f"{SAE}.parquet")
    assert table.num_rows == D_SAE
    for latent, row in enumerate(table.to_pylist()):
        agree(list(zip(row["latents"], row["cosines"], strict=True)), nearest(rows(), latent))
    files = [path for path in (tmp_path / "site" / "neighbours").rglob("*") if path.is_file()]
    assert len(files) == 1
    assert "neighbours in gemma2-l4-0123456789" in capsys.readouterr().err
    catalogue = json.loads((tmp_path / "site" / "catalogue.json").read_bytes())
    having = [entry["folder"] for entry in catalogue["artifacts"] if entry.get("neighbours")]
    assert having == [SAE]
    # What an export leaves out, the server still answers.
    assert (
        sum(e.get("neighbours", False) for e in Finished(results).catalogue(live=True)["artifacts"])
        == 3
    )


@pytest.mark.parametrize(
    ("config", "facts"),
    [
        (
            '{"d_sae": 50, "neuronpedia": "gemma-2-2b/12-res.16k"}',
            {"neighbours": True, "neuronpedia": "gemma-2-2b/12-res.16k"},
        ),
        ('{"d_sae": 50, "neuronpedia": null}', {"neighbours": True}),
        ('{"d_sae": 1, "neuronpedia": "a/b/c"}', {}),
        ('{"neuronpedia": "a/../b"}', {}),
        ('{"neuronpedia": "a/b\\n"}', {}),
        ('{"neuronpedia": ["a/b"]}', {}),
        ("[1]", {}),
        ("[" * 50_000, {}),
        (" " * 200_000, {}),
    ],
)
def test_the_catalogue_says_where_an_sae_is_published(
    tmp_path: Path, config: str, facts: dict[str, object]
) -> None:
    publish(tmp_path, SAE, lambda work: write_sae(work, config))
    (entry,) = Finished(tmp_path).catalogue(live=True)["artifacts"]
    assert {key: entry[key] for key in ("neighbours", "neuronpedia") if key in entry} == facts


@pytest.mark.parametrize(
    ("labels", "published"),
    [
        ({"model": "gemma-2-2b", "source": "4-res-16k"}, "gemma-2-2b/4-res-16k"),
        ({"model": "gemma-2-2b", "source": "{layer}-res"}, None),
        ({"model": None, "source": "x"}, None),
        ({"path": "export"}, None),
        ("x", None),
    ],
)
def test_the_catalogue_says_where_labels_are_from(
    tmp_path: Path, labels: object, published: str | None
) -> None:
    path = "import_labels/gemma2-l4-1"
    publish(tmp_path, path, lambda work: (work / "a").touch(), {"labels": labels, "layer": 4})
    (entry,) = Finished(tmp_path).catalogue(live=True)["artifacts"]
    assert entry.get("neuronpedia") == published
