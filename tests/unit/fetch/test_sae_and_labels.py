"""fetch_sae and fetch_labels: the files of one SAE and the export of its labels."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_hub import FakeHub

from vista.engine.job import Job
from vista.errors import UserError
from vista.sae.hub import cached_snapshot, require_files
from vista.stages import fetch_labels, fetch_sae

RELEASE, SAE = "gemma-scope-2b-pt-res-canonical", "layer_0/width_16k/canonical"
REPO, FILE = "google/gemma-scope-2b-pt-res", "layer_0/width_16k/average_l0_105/params.npz"
EXPORT = "neuronpedia/v1/gemma-2-2b/0-gemmascope-res-16k"
Put = Callable[[str, bytes], Path]
MakeJob = Callable[..., Job]


def test_fetches_the_files_of_one_sae_as_a_cache(hub: FakeHub, put: Put, job: MakeJob) -> None:
    put(f"{REPO}/{FILE}", b"weights")
    put(f"{REPO}/layer_1/width_16k/average_l0_102/params.npz", b"another SAE's")
    order = job("fetch_sae", release=RELEASE, sae_id=SAE, revision="main")
    fetch_sae.run(order)
    snapshot = cached_snapshot(order.work / "hub", REPO)
    require_files(snapshot, [FILE], "the SAE")
    assert snapshot.name == hub.commit(REPO)
    assert (snapshot / FILE).read_bytes() == b"weights"
    files = [path for path in (order.work / "hub").rglob("*") if path.is_file()]
    assert len(files) == 2 and not any(path.is_symlink() for path in files)
    source = json.loads((order.work / "source.json").read_text())
    assert source == {"repo": REPO, "revision": "main", "commit": hub.commit(REPO)}


def test_fetches_optional_files_where_they_are(put: Put, job: MakeJob) -> None:
    for name in ("cfg.json", "sae_weights.safetensors"):
        put(f"maker/saes/blocks.1/{name}", name.encode())
    settings = {"release": "maker/saes", "sae_id": "blocks.1", "revision": "main"}
    fetch_sae.run(job("without", **settings))
    put("maker/saes/blocks.1/sparsity.safetensors", b"log sparsity")
    order = job("with", **settings)
    fetch_sae.run(order)
    names = {path.name for path in cached_snapshot(order.work / "hub", "maker/saes").rglob("*.*")}
    assert names == {"blocks.1", "cfg.json", "sae_weights.safetensors", "sparsity.safetensors"}


def test_says_which_file_the_repository_lacks(put: Put, job: MakeJob) -> None:
    put(f"{REPO}/README.md", b"moved")
    with pytest.raises(UserError, match=f"{REPO} has no {FILE}"):
        fetch_sae.run(job("fetch_sae", release=RELEASE, sae_id=SAE, revision="main"))


@pytest.fixture
def export(put: Put) -> dict[str, bytes]:
    files = {
        f"{kind}/batch-{n}.jsonl.gz": gzip.compress(f'{{"index": "{n}"}}\n'.encode() * 50, mtime=0)
        for kind in ("explanations", "features")
        for n in range(5)
    }
    for name, content in files.items():
        put(f"{EXPORT}/{name}", content)
    put(f"{EXPORT}/activations/batch-0.jsonl.gz", b"not asked for")
    put(f"{EXPORT}-other/explanations/batch-0.jsonl.gz", b"of another source")
    return files


def order(job: MakeJob, source: str = "0-gemmascope-res-16k") -> Job:
    return job("fetch_labels", model="gemma-2-2b", source=source)


def test_fetches_an_export_page_by_page(
    hub: FakeHub, job: MakeJob, export: dict[str, bytes]
) -> None:
    hub.page = 2
    asked = order(job)
    fetch_labels.run(asked)
    folder = asked.work / "export"
    paths = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths} == export
    listed = json.loads((asked.work / "source.json").read_text())["files"]
    assert {key.split("/", 3)[3] for key in listed} == set(export)

    # A job that was killed on its last metre: everything is there.
    hub.requests.clear()
    fetch_labels.run(asked)
    assert hub.asked("batch-") == 0


@pytest.mark.usefixtures("export")
def test_an_export_file_that_differs_from_the_listing_is_refused(
    hub: FakeHub, job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vista.fetch import neuronpedia

    listing = neuronpedia.get

    def altered(*arguments: object) -> bytes:
        return listing(*arguments).replace(b"&quot;</ETag><Size>", b"&quot;</ETag><Size>1")

    monkeypatch.setattr(neuronpedia, "get", altered)
    with pytest.raises(UserError, match="differs from its checksum"):
        fetch_labels.run(order(job))


@pytest.mark.usefixtures("export")
def test_says_what_the_bucket_does_not_have(
    hub: FakeHub, job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match="no explanations of gemma-2-2b/none"):
        fetch_labels.run(order(job, "none"))
    hub.fail("neuronpedia", 403)
    with pytest.raises(UserError, match=r"refuses the export .*403"):
        fetch_labels.run(order(job))
    # Some page that is no listing, as networks show before one logs in.
    monkeypatch.setenv("VISTA_NEURONPEDIA_URL", f"{hub.url}/api/models/a/b")
    with pytest.raises(UserError, match="refuses"):
        fetch_labels.run(order(job))


@pytest.mark.parametrize(
    "body",
    [
        b"<html><body>Log in</body></html>",
        b"not XML",
        b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "aa">]><ListBucketResult>&a;'
        b"</ListBucketResult>",
        b"<ListBucketResult><Contents><Key>elsewhere</Key><Size>1</Size></Contents>"
        b"</ListBucketResult>",
    ],
    ids=["page", "text", "entities", "other prefix"],
)
def test_an_answer_that_is_no_listing_is_refused(
    hub: FakeHub, job: MakeJob, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    from vista.fetch import neuronpedia

    monkeypatch.setattr(neuronpedia, "get", lambda *_: body)
    with pytest.raises(UserError, match="does not answer like a bucket"):
        fetch_labels.run(order(job))
