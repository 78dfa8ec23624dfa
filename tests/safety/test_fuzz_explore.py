"""No address gives a byte of a file that is not the page's to read; no manifest does harm."""

from __future__ import annotations

import copy
import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safety.mutations import FUZZ, damaged_files, ends

pytest.importorskip("uvicorn", reason="needs the extra `explore`")

from explored_run import LATENTS, RECORDS, SECRET, Client, explored, run_to_explore

from vista.explore.finished import Finished
from vista.explore.page_files import page_files
from vista.explore.ranges import Unsatisfiable, span_of

WEIGHTS = "import_sae/gemma2-l4-0123456789/sae.safetensors"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_to_explore(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def client(results: Path) -> Iterator[Client]:
    with explored(results) as client:
        yield client.enter()


@pytest.fixture(scope="module")
def allowed(results: Path, client: Client) -> set[bytes]:
    """What may be answered: the page, the catalogue, artifacts' files, images."""
    listed = Finished(results).catalogue(live=True)["artifacts"]
    files = {
        (results / entry["folder"] / name).read_bytes()
        for entry in listed
        for name in json.loads((results / entry["folder"] / "checksums.json").read_bytes())
    }
    name = RECORDS.partition("/")[2]
    images = {
        client.ask(f"/{size}/{name}/{row}.png").body
        for size in ("images", "thumbs")
        for row in range(3)
    }
    return files | images | {client.ask("/catalogue.json").body} | set(page_files().values())


PIECES = st.one_of(
    st.sampled_from(
        [
            *("..", ".", "", "%2e%2e", "%2E%2E", "%252e%252e", "..%2f", "..%5c", "%c0%ae%c0%ae"),
            *("%00", "..%00", "%ff", "~", "*", "etc", "passwd", "proc", "self", "environ"),
            *("results", "images", "thumbs", "catalogue.json", "index.html", "0.png", "1.png"),
            *("latents", "logs", "judgements", ".work", "secret.txt", ".hidden", "unlisted.txt"),
            *("up", "link.txt", "manifest.json", "memo.json", "checksums.json", "latents.zarr"),
            *("zarr.json", "unfinished-0123456789", "linked-0123456789", "linked", "content.txt"),
            *(LATENTS, RECORDS, WEIGHTS, LATENTS.partition("/")[2], RECORDS.partition("/")[2]),
        ]
    ),
    st.text(max_size=8).map(lambda text: quote(text.encode("utf-8", "surrogatepass"))),
)
SEPARATORS = st.sampled_from(["/", "/", "/", "//", "\\", "%2f", "%5c", ";", "?", "/./"])


@st.composite
def addresses(draw: st.DrawFn) -> str:
    address = "/"
    for piece in draw(st.lists(PIECES, min_size=1, max_size=9)):
        address += piece + draw(SEPARATORS)
    if draw(st.booleans()):
        address = re.sub(r"(/|\\|%2f|%5c|;|\?|\./)+$", "", address) or "/"
    return address


@settings(max_examples=8 * FUZZ)
@given(address=addresses())
def test_no_address_gives_a_byte_from_outside(
    client: Client, allowed: set[bytes], address: str
) -> None:
    answer = client.ask(address)
    assert answer.status in (200, 400, 403, 404), address
    assert SECRET not in answer.body, address
    assert answer.status != 200 or answer.body in allowed, address
    assert answer.status == 200 or len(answer.body) < 600, address


@settings(max_examples=2 * FUZZ)
@given(address=addresses(), cookie=st.text('abc=;" \\,%', max_size=30))
def test_no_address_answers_a_stranger(client: Client, address: str, cookie: str) -> None:
    answer = client.ask(address, Cookie=cookie.strip() or "x=y")
    assert answer.status in (400, 403), address


def test_every_file_that_may_be_read_can_be(client: Client, allowed: set[bytes]) -> None:
    """The fuzz tests would pass on a server that serves nothing."""
    assert client.ask(f"/results/{WEIGHTS}").body in allowed
    assert len(allowed) > 20


@settings(max_examples=4 * FUZZ)
@given(
    header=st.one_of(
        st.text("bytes=0123456789-, \t", max_size=30),
        st.from_regex(r"bytes=[0-9]{0,20}-[0-9]{0,20}", fullmatch=True),
        st.tuples(st.integers(-1, 40), st.integers(-1, 40)).map(
            lambda p: f"bytes={'' if p[0] < 0 else p[0]}-{'' if p[1] < 0 else p[1]}"
        ),
    ),
    size=st.integers(0, 30),
)
def test_a_range_is_whole_refused_or_within_the_file(header: str, size: int) -> None:
    content = bytes(range(size))
    try:
        span = span_of(header, size)
    except Unsatisfiable:
        match = re.fullmatch(r"bytes=\s*(\d*)\s*-\s*(\d*)\s*", header.strip())
        assert match is not None
        assert int(match[1]) >= size if match[1] else int(match[2]) == 0 or size == 0
        return
    if span is None:
        return
    assert 0 <= span.start < span.stop <= size
    first, last = re.fullmatch(r"bytes=\s*(\d*)\s*-\s*(\d*)\s*", header.strip()).groups()  # type: ignore[union-attr]
    expected = (
        content[int(first) : int(last) + 1 if last else None] if first else content[-int(last) :]
    )
    assert content[span.start : span.stop] == expected


# Manifests


def valid(content: dict[str, Any]) -> None:
    """A catalogue is what a page can read: JSON without NaN, of the documented types."""
    text = json.dumps(content, allow_nan=False)
    text.encode("utf-8")
    assert content["format"] == "vista catalogue 2"
    assert content["run"] is None or isinstance(content["run"], str)
    assert all(isinstance(note, str) and len(note) < 600 for note in content["notes"])
    for entry in content["artifacts"]:
        assert re.fullmatch(r"[a-z_]+/[A-Za-z0-9][A-Za-z0-9_.+-]*", entry["folder"])
        assert entry["folder"].startswith(f"{entry['stage']}/")
        for role, paths in entry["parents"].items():
            assert re.fullmatch(r"\w+", role, re.ASCII)
            assert all(re.fullmatch(r"[a-z_]+/[\w.+-]+", path, re.ASCII) for path in paths)
            assert all(".." not in path.split("/") for path in paths)
        for key in ("encoder", "llm", "control", "method"):
            assert isinstance(entry.get(key, ""), str) and str(entry.get(key, "")).isprintable()
        for key in ("seed", "layer"):
            assert type(entry.get(key, 0)) is int
        weight = entry.get("sae_weight", 0.0)
        assert type(weight) in (int, float) and math.isfinite(weight)


POINT = {"encoder": "dinov2", "llm": "gemma2", "sae_weight": 1.0, "seed": 0, "control": None}
REPORT = {
    "stage": "report",
    "digest": "0" * 64,
    "settings": {
        "name": "demo",
        "latents": [POINT],
        "points": [{**POINT, "metric": "matching_rate"}],
        "labels": [{"llm": "gemma2"}],
    },
    "parents": {
        "latents": [LATENTS],
        "metrics": ["matching_rate/dinov2-gemma2-w1-s0-0123456789"],
        "labels": ["label_latents/gemma2-l4-0123456789"],
        "records": RECORDS,
    },
}


@pytest.mark.parametrize("which", ["report/demo-0123456789", LATENTS])
def test_damaged_manifests_give_a_catalogue_without_them(
    results: Path, tmp_path: Path, which: str
) -> None:
    copied = tmp_path / "results"
    shutil.copytree(results, copied, symlinks=True)
    report = copied / "report" / "demo-0123456789"
    report.mkdir(parents=True)
    (report / "manifest.json").write_text(json.dumps(REPORT))
    whole = Finished(copied).catalogue(live=True)
    valid(whole)
    assert (whole["run"], whole["report"]) == ("demo", "report/demo-0123456789")
    assert all("digest" in entry for entry in whole["artifacts"])
    manifest = copied / which / "manifest.json"
    others = {e["folder"] for e in whole["artifacts"]} - {which}
    finished = Finished(copied)
    for number, content in enumerate(damaged_files(manifest.read_bytes(), f"explore {which}")):
        manifest.write_bytes(content)
        os.utime(manifest, ns=(number, number))
        with ends():
            catalogue = finished.catalogue(live=True)
        valid(catalogue)
        folders = {entry["folder"] for entry in catalogue["artifacts"]}
        assert others <= folders
        assert which in folders or any(which in note for note in catalogue["notes"])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"[" * 500_000,
        b'{"a":' * 200_000,
        b'{"stage": "latents", "digest": 3}',
        b'{"stage": "records", "digest": "x"}',
        b" " * 9_000_000 + b"{}",
        b'{"stage": "latents", "digest": ' + b"9" * 10_000 + b"}",
        b"\xff\xfe\x00",
    ],
    ids=range(10),
)
def test_hostile_manifests_are_left_out_with_a_note(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "latents" / "bad-0123456789"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_bytes(content)
    with ends():
        catalogue = Finished(tmp_path).catalogue(live=True)
    assert catalogue["artifacts"] == []
    assert len(catalogue["notes"]) == 1 and "latents/bad-0123456789" in catalogue["notes"][0]


def test_values_of_wrong_types_circles_and_pipes_do_no_harm(tmp_path: Path) -> None:
    def write(path: str, **content: Any) -> None:
        folder = tmp_path / path
        folder.mkdir(parents=True)
        whole = {"stage": path.partition("/")[0], "digest": "0" * 64, **content}
        (folder / "manifest.json").write_text(json.dumps(whole))

    write("latents/a-1", parents={"latents": "latents/b-1", "\ud800": "latents/b-1", "x y": "a/b"})
    write("latents/b-1", parents={"latents": ["latents/a-1", "../../etc", 3, None, "a/.."]})
    write("latents/own-1", parents={"latents": "latents/own-1"})
    write(
        "train_projector/p-1", settings={"sae_weight": float("nan"), "seed": 10**400, "layer": []}
    )
    write("train_projector/q-1", settings={"sae_weight": True, "seed": "0", "layer": 2.5})
    reported = {"latents": ["latents/a-1", "latents/b-1"], "metrics": ["latents/a-1"]}
    said = {"name": "\x1b[31m", "points": 3, "latents": [3, {"llm": []}]}
    write("report/r-1", settings=said, parents=reported)
    write("report/s-1", settings=[], parents=3)
    chain = [f"text/t{i}-1" for i in range(3000)]
    for path, parent in zip(chain, [*chain[1:], chain[0]], strict=True):
        write(path, parents={"text": parent})
    pipe = tmp_path / "text" / "pipe-1"
    pipe.mkdir()
    os.mkfifo(pipe / "manifest.json")
    (tmp_path / "text" / "folder-1" / "manifest.json").mkdir(parents=True)
    (tmp_path / "text" / "a file").touch()
    linked = tmp_path / "text" / "linked-1"
    linked.mkdir()
    (linked / "manifest.json").symlink_to(tmp_path / "text" / "t1-1" / "manifest.json")
    with ends():
        catalogue = Finished(tmp_path).catalogue(live=True)
    valid(catalogue)
    entries = {entry["folder"]: entry for entry in catalogue["artifacts"]}
    assert len(entries) == 7 + len(chain)
    assert entries["latents/b-1"]["parents"] == {"latents": ["latents/a-1"]}
    assert entries["latents/a-1"]["parents"] == {"latents": ["latents/b-1"]}
    for name in "pq":
        assert not {"sae_weight", "seed", "layer"} & set(entries[f"train_projector/{name}-1"])
    assert catalogue["run"] is None


def test_a_list_of_files_that_is_damaged_serves_none(results: Path, tmp_path: Path) -> None:
    copied = tmp_path / "results"
    shutil.copytree(results, copied, symlinks=True)
    listing = copied / LATENTS / "checksums.json"
    content = json.loads(listing.read_bytes())
    forged = copy.deepcopy(content)
    forged["unlisted.txt"] = forged["../../secret.txt"] = {"bytes": len(SECRET), "sha256": "0"}
    listing.write_text(json.dumps(forged))
    with explored(copied) as client:
        client.enter()
        for name in ("unlisted.txt", "latents.zarr/zarr.json", "..%2f..%2fsecret.txt"):
            answer = client.ask(f"/results/{LATENTS}/{name}")
            assert answer.status == 404 and SECRET not in answer.body


def test_a_forged_list_with_its_digest_leads_nowhere_outside(results: Path, tmp_path: Path) -> None:
    """Results from elsewhere can list what they like: paths out, absolute ones, links."""
    import hashlib

    copied = tmp_path / "results"
    shutil.copytree(results, copied, symlinks=True)
    (tmp_path / "secret.txt").write_bytes(SECRET)
    (copied / LATENTS / "out").symlink_to(tmp_path)
    names = ["../../../secret.txt", "../../secret.txt", str(tmp_path / "secret.txt"), ".hidden",
             "out/secret.txt", "a\0b", "", "/", "../../judgements/judge.jsonl"]  # fmt: skip
    listing = json.dumps({name: {"bytes": len(SECRET)} for name in names}).encode()
    (copied / LATENTS / "checksums.json").write_bytes(listing)
    manifest = copied / LATENTS / "manifest.json"
    content = json.loads(manifest.read_bytes())
    content["digest"] = hashlib.sha256(listing).hexdigest()
    manifest.write_text(json.dumps(content))
    with explored(copied) as client:
        client.enter()
        for name in names:
            for text in (quote(name, safe=""), quote(name)):
                answer = client.ask(f"/results/{LATENTS}/{text}")
                assert answer.status == 404, name
                assert SECRET not in answer.body
