"""fetch_model: what transformers reads, at one commit, checked; and what users are told."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from fake_hub import FakeHub

from vista.engine.artifacts import open_artifact
from vista.engine.job import Job
from vista.errors import UserError
from vista.fetch import download
from vista.fetch.hub import HubFile, Listing, fetch, pinned_listing
from vista.stages import fetch_model

REPO = "maker/model"
WEIGHTS = bytes(range(256)) * 1200
TOKEN = "hf_thisTokenMustNeverBeWritten"
Put = Callable[[str, bytes], Path]
MakeJob = Callable[..., Job]

WANTED = {
    "config.json": b'{"model_type": "any"}',
    "generation_config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "preprocessor_config.json": b"{}",
    "tokenizer.json": b"{}",
    "tokenizer.model": b"pieces",
    "merges.txt": b"a b",
    "chat_template.jinja": b"{{ bos }}",
    "additional_chat_templates/short.jinja": b"{{ eos }}",
}
UNWANTED = (
    "README.md",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "consolidated.00.pth",
    "model.fp16.safetensors",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "modeling_any.py",
    "tf_model.h5",
    "flax_model.msgpack",
    "model.gguf",
    "onnx/config.json",
    "original/tokenizer.model",
    "original/params.json",
)


@pytest.fixture
def model(put: Put) -> None:
    for name, content in WANTED.items():
        put(f"{REPO}/{name}", content)
    for name in UNWANTED:
        put(f"{REPO}/{name}", b"not to be fetched")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refusal(job: Job) -> str:
    with pytest.raises(UserError) as caught:
        fetch_model.run(job)
    return str(caught.value)


@pytest.mark.usefixtures("model")
def test_fetches_what_transformers_reads_and_notes_the_commit(
    hub: FakeHub, job: MakeJob, capsys: pytest.CaptureFixture[str]
) -> None:
    order = job("fetch_model", repo=REPO, revision="main")
    fetch_model.run(order)
    assert contents(order.work / "model") == WANTED
    assert not any(path.is_symlink() for path in order.work.rglob("*"))
    commit = hub.commit(REPO)
    source = json.loads((order.work / "source.json").read_text())
    assert source == {"repo": REPO, "revision": "main", "commit": commit}
    assert f"revision: {commit}" in capsys.readouterr().out

    pinned = job("pinned", repo=REPO, revision=commit)
    fetch_model.run(pinned)
    assert contents(pinned.work / "model") == WANTED
    assert "pins" not in capsys.readouterr().out


def test_fetches_shards_where_weights_are_divided(put: Put, job: MakeJob) -> None:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    for name in ["config.json", "model.safetensors.index.json", "consolidated.safetensors", *names]:
        put(f"{REPO}/{name}", name.encode())
    order = job("fetch_model", repo=REPO, revision="main")
    fetch_model.run(order)
    expected = ["config.json", *names, "model.safetensors.index.json"]
    assert sorted(contents(order.work / "model")) == expected


def test_fetches_the_parts_of_a_pipeline(put: Put, job: MakeJob) -> None:
    # As stabilityai/stable-video-diffusion-img2vid has them.
    names = [
        "feature_extractor/preprocessor_config.json",
        "image_encoder/config.json",
        "image_encoder/model.safetensors",
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    unwanted = [
        "svd.safetensors",
        "image_encoder/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.bin",
    ]
    for name in names + unwanted:
        put(f"{REPO}/{name}", name.encode())
    order = job("fetch_model", repo=REPO, revision="main")
    fetch_model.run(order)
    assert sorted(contents(order.work / "model")) == names


def test_refuses_weights_that_may_run_code(put: Put, job: MakeJob, hub: FakeHub) -> None:
    put(f"{REPO}/config.json", b"{}")
    put(f"{REPO}/pytorch_model.bin", b"pickle")
    assert "safetensors" in refusal(job("fetch_model", repo=REPO, revision="main"))
    assert hub.asked("pytorch_model.bin") == 0


@pytest.mark.usefixtures("model")
def test_goes_on_after_failures_and_cuts(
    hub: FakeHub, job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(download.time, "sleep", pauses.append)
    monkeypatch.setattr(download, "FIRST_PAUSE", 1.0)
    hub.fail("/api/models", 503, times=2)
    hub.fail("resolve/", 503, times=3)
    hub.fail("resolve/", 429, wait=20)
    hub.cut("cdn/", after=100_000, times=2)
    order = job("fetch_model", repo=REPO, revision="main")
    fetch_model.run(order)
    assert contents(order.work / "model") == WANTED
    # No byte twice: each try asks for the rest.
    assert hub.sent("cdn/") == len(WEIGHTS)
    assert pauses[:5] == [1.0, 2.0, 1.0, 2.0, 4.0]
    assert pauses[5] == 20.0


@pytest.mark.usefixtures("model")
def test_a_file_that_differs_from_what_the_hub_states_is_fetched_once_more_and_refused(
    hub: FakeHub, job: MakeJob
) -> None:
    order = job("fetch_model", repo=REPO, revision="main")
    partial = order.work / "model" / "model.safetensors.partial"
    partial.parent.mkdir()
    for rest in (b"of another file", b"of a longer one" + WEIGHTS):
        partial.write_bytes(rest)
        fetch_model.run(order)
        assert contents(order.work / "model") == WANTED
        (order.work / "model" / "model.safetensors").unlink()

    # The hub states the checksum of other bytes of the same length.
    listing = pinned_listing(REPO, "main", order.work)
    wrong = hashlib.sha256(WEIGHTS[::-1]).hexdigest()
    stated = HubFile("model.safetensors", len(WEIGHTS), download.Checksum("sha256", wrong))
    hub.requests.clear()
    with pytest.raises(UserError, match=r"model.safetensors differs from its checksum .*" + wrong):
        fetch(
            Listing(REPO, listing.commit, {stated.name: stated}),
            [stated.name],
            order.work / "again",
        )
    assert hub.sent("cdn/") == 2 * len(WEIGHTS)
    assert not (order.work / "again" / "model.safetensors").exists()


@pytest.mark.usefixtures("model")
def test_says_what_to_do_about_licences_and_tokens(
    hub: FakeHub, job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = job("fetch_model", repo=REPO, revision="main")
    hub.gated = {REPO}
    hub.tokens = {TOKEN: set()}
    without = refusal(order)
    assert f"{hub.url}/{REPO}" in without and "HF_TOKEN" in without and "not set" in without

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    stranger = refusal(order)
    assert f"{hub.url}/{REPO}" in stranger and "without access" in stranger

    monkeypatch.setenv("HF_TOKEN", "hf_revoked")
    assert "does not accept the token in HF_TOKEN" in refusal(order)
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\n x")
    assert TOKEN not in refusal(order)

    hub.tokens = {TOKEN: {REPO}}
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.requests.clear()
    fetch_model.run(order)
    assert contents(order.work / "model") == WANTED
    # The host that large files are redirected to does not learn the token.
    told = {request.host for request in hub.requests if request.token is not None}
    assert told == {"127.0.0.1"}
    assert [request for request in hub.requests if request.host == "localhost"]


@pytest.mark.usefixtures("model")
def test_a_stored_login_is_not_used(
    hub: FakeHub, job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants, get_token

    stored = tmp_path / "home" / "token"
    stored.parent.mkdir()
    stored.write_text(TOKEN)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(stored))  # HF_HOME, read at import
    assert get_token() == TOKEN
    hub.tokens = {TOKEN: {REPO}, "hf_own": {REPO}}
    fetch_model.run(job("without", repo=REPO, revision="main"))
    assert {request.token for request in hub.requests} == {None}
    hub.gated = {REPO}
    assert "HF_TOKEN (not set)" in refusal(job("gated", repo=REPO, revision="main"))

    monkeypatch.setenv("HF_TOKEN", "hf_own\n")
    hub.requests.clear()
    fetch_model.run(job("with", repo=REPO, revision="main"))
    assert {request.token for request in hub.requests} == {None, "hf_own"}


def test_a_redirect_from_https_to_http_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(_: object, request: httpx2.Request) -> httpx2.Response:
        asked.append(str(request.url))
        target = request.url.params.get("to")
        if target is None:
            return httpx2.Response(200, content=iter([b"bytes"]))
        return httpx2.Response(302, headers={"location": target})

    monkeypatch.setattr(httpx2.HTTPTransport, "handle_request", answer)

    def fetched(url: str) -> bytes:
        file = download.RemoteFile(url, tmp_path / "file")
        with download.client() as http:
            download.fetch_files(http, [file], "files", "leave it")
        content = file.target.read_bytes()
        file.target.unlink()
        return content

    for url in ("https://a.org?to=https://b.org/", "http://a.org?to=http://b.org/"):
        assert fetched(url) == b"bytes"
    assert fetched("https://a.org?to=/elsewhere") == b"bytes"
    assert asked[-1] == "https://a.org/elsewhere"
    asked.clear()
    with pytest.raises(UserError, match=r"a\.org redirects to http://b\.org, .* not encrypted"):
        fetched("https://a.org?to=http://b.org/")
    assert len(asked) == 1


@pytest.mark.usefixtures("model")
def test_says_what_does_not_exist(hub: FakeHub, job: MakeJob) -> None:
    hub.fail("/api/models", 200)  # a page that is no answer of a hub, as before logging in
    assert "does not answer like a hub" in refusal(job("page", repo=REPO, revision="main"))
    assert "no repository maker/none" in refusal(job("a", repo="maker/none", revision="main"))
    assert "correct `repo`" in refusal(job("b", repo="not a repository", revision="main"))
    revision = refusal(job("c", repo=REPO, revision="0" * 40))
    assert "no revision" in revision and f"{REPO}/commits" in revision


@pytest.mark.usefixtures("model")
def test_says_that_the_disk_is_full_before_it_begins(
    hub: FakeHub, job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    assert "is full" in refusal(job("fetch_model", repo=REPO, revision="main"))
    assert hub.asked("resolve/") == 0


def test_says_what_to_do_without_a_network(
    hub: FakeHub, job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    # A port on which nobody listens any more.
    with FakeHub(hub.root) as gone:
        url = gone.url
    monkeypatch.setattr(constants, "ENDPOINT", url)
    message = refusal(job("fetch_model", repo=REPO, revision="main"))
    assert "127.0.0.1 cannot be reached" in message
    assert "machine with network" in message and "`path`" in message

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in refusal(job("fetch_model", repo=REPO, revision="main"))


@pytest.mark.usefixtures("model")
def test_a_name_that_leads_out_of_the_folder_is_refused(hub: FakeHub, job: MakeJob) -> None:
    order = job("fetch_model", repo=REPO, revision="main")
    listing = pinned_listing(REPO, "main", order.work)
    evil = Listing(REPO, listing.commit, {"../../evil.json": listing.files["config.json"]})
    with pytest.raises(UserError, match="leads out of its folder"):
        fetch(evil, evil.files, order.work / "model")


@pytest.mark.usefixtures("model")
def test_the_stage_survives_a_kill_and_never_writes_the_token(hub: FakeHub, tmp_path: Path) -> None:
    hub.gated, hub.tokens = {REPO}, {TOKEN: {REPO}}
    hub.stall("cdn/", after=200_000)
    results, log = tmp_path / "results", tmp_path / "log.txt"
    manifest = results / "fetch_model" / "node" / "manifest.json"
    spec = {"settings": {"repo": REPO, "revision": "main"}, "inputs": {}, "modules": []}
    command = [sys.executable, "-m", "vista.cli", "fetch_model", "--spec", json.dumps(spec)]
    command += ["--manifest", str(manifest), "--log", str(log)]
    environment = {**os.environ, **hub.env, "HF_TOKEN": TOKEN, "HF_HOME": str(tmp_path / "home")}
    environment.pop("HF_HUB_OFFLINE", None)

    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)
    partial = results / ".work/fetch_model/node/model/model.safetensors.partial"
    deadline = time.monotonic() + 120
    while not (partial.is_file() and partial.stat().st_size >= 100_000):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not manifest.exists()
    there = partial.stat().st_size

    hub.requests.clear()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert contents(manifest.parent / "model") == WANTED
    open_artifact(manifest.parent, "fetch_model").verify()
    (rest,) = (each for each in hub.requests if "cdn/" in each.path)
    assert (rest.range, rest.sent) == (f"bytes={there}-", len(WEIGHTS) - there)
    # What was complete before the kill, all that sorts before the weights, is not asked for again.
    marked = [each.path.partition("/resolve/") for each in hub.requests]
    resolved = {rest.partition("/")[2] for _, found, rest in marked if found}
    assert resolved == {name for name in WANTED if name >= "model.safetensors"}

    # Everything that the stage wrote: its results, its log, the library's own folder.
    written = [each for each in tmp_path.rglob("*") if each.is_file()]
    assert log in written and manifest in written
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
    assert TOKEN not in done.stdout + done.stderr and f"{hub.commit(REPO)}" in log.read_text()
