"""The explorer's server over a real socket: what it serves byte by byte, and to whom."""

from __future__ import annotations

import gzip
import io
import json
import os
import socket
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("uvicorn", reason="needs the extra `explore`")

from explored_run import (
    IDS,
    LATENTS,
    NAME,
    RECORDS,
    SECRET,
    Client,
    explored,
    image,
    publish,
    run_to_explore,
)

from vista.engine.artifacts import open_artifact

SAE = "import_sae/gemma2-l4-0123456789"
WEIGHTS = f"/results/{SAE}/sae.safetensors"
GEOMETRY = "/results/features/dinov2-0123456789/geometry.json"
IMAGES = f"/images/{RECORDS.partition('/')[2]}"
THUMBS = f"/thumbs/{RECORDS.partition('/')[2]}"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_to_explore(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def server(results: Path) -> Iterator[Client]:
    with explored(results) as client:
        yield client


@pytest.fixture(scope="module")
def client(server: Client) -> Client:
    return Client(server.guard).enter()


# Who may ask


@pytest.mark.parametrize(
    "path", ["/", "/app.js", "/catalogue.json", WEIGHTS, f"{IMAGES}/0.png", "/nothing"]
)
def test_without_the_cookie_everything_is_refused_alike(server: Client, path: str) -> None:
    for cookie in ("", "vista_explore=x", f"vista_explore_{server.port}=x", "=", "a; b=\xff"):
        answer = server.ask(path, Cookie=cookie)
        assert answer.status == 403
        assert b"vista explore" in answer.body
        assert "ETag" not in answer.headers and "Set-Cookie" not in answer.headers


def test_the_token_becomes_a_cookie_that_no_script_and_no_other_site_has(server: Client) -> None:
    answer = server.ask(f"/app.js?x=1&token={server.token}&y=%2F")
    assert (answer.status, answer.headers["Location"]) == (303, "/app.js?x=1&y=%2F")
    parts = {part.strip().lower() for part in answer.headers["Set-Cookie"].split(";")[1:]}
    assert parts == {"httponly", "samesite=strict", "path=/"}
    assert answer.headers["Cache-Control"] == "no-store"
    name = answer.headers["Set-Cookie"].partition("=")[0]
    assert str(server.port) in name  # ports share cookies
    assert server.ask("/", Cookie=f"{name}={server.token}").status == 200
    assert server.ask("/", Cookie=f"{name}={server.token[:-1]}").status == 403


@pytest.mark.parametrize("query", ["token=", "token=x", "token=%00", "token={0}&token={0}"])
def test_another_token_is_refused_even_with_the_cookie(client: Client, query: str) -> None:
    assert client.ask("/?" + query.format(client.token)).status == 403


def test_a_redirect_never_leads_to_another_host(server: Client) -> None:
    for path in ("//evil.example/x", "/\\evil.example", "///evil.example", "/%0d%0aX:y"):
        answer = server.ask(f"{path}?token={server.token}")
        assert answer.status in (303, 400)
        if answer.status == 303:
            place = answer.headers["Location"]
            assert place.startswith("/") and place[1:2] not in ("/", "\\")
            assert "\r" not in place and "X" not in answer.headers


def test_after_a_link_on_another_site_the_cookie_reaches_the_page(server: Client) -> None:
    answer = server.ask(f"/?token={server.token}", Sec_Fetch_Site="cross-site")
    assert (answer.status, answer.headers["Refresh"]) == (200, "0; url=/")
    assert server.token not in answer.body.decode()
    assert "Set-Cookie" in answer.headers


def test_an_address_for_the_browser_works_once(server: Client) -> None:
    path = server.guard.address_once().partition(str(server.port))[2]
    assert server.token not in path
    assert [server.ask(path).status for _ in range(2)] == [303, 403]


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:{}", "127.0.0.1", "127.0.0.1:1", "localhost:{}.evil"),
        *("127.0.0.1:{}@evil.example", "0.0.0.0:{}", "[::1]:{}", "127.0.0.2:{}", ":{}"),
    ],
)
def test_another_host_name_is_refused_even_with_token_and_cookie(client: Client, host: str) -> None:
    host = host.format(client.port)
    for path in ("/", f"/?token={client.token}"):
        answer = client.ask(path, Host=host)
        assert answer.status == 403 and "Set-Cookie" not in answer.headers
        assert b"ssh -L" in answer.body


def test_both_names_of_the_loopback_are_answered(client: Client) -> None:
    for host in ("localhost", "LocalHost", "127.0.0.1"):
        assert client.ask("/", Host=f"{host}:{client.port}").status == 200
    assert client.ask("/", Host="").status in (400, 403)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "XYZ"])
def test_only_reading_is_allowed(client: Client, method: str) -> None:
    for path in ("/", "/catalogue.json", *(("/live/latents",) if method != "POST" else ())):
        answer = client.ask(path, method)
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_only_the_page_itself_may_ask_the_models(client: Client) -> None:
    own = f"http://127.0.0.1:{client.port}"
    for origin in ("", "null", "http://evil.example", f"{own}.evil", "http://127.0.0.1:1", own):
        answer = client.ask("/live/nothing", "POST", Origin=origin)
        assert answer.status == (404 if origin == own else 403)
    assert client.ask("/live/nothing", "POST").status == 403
    assert client.ask("/live/nothing", "POST", Origin=own, Cookie="x=y").status == 403
    evil = {"Origin": "http://evil.example", "Host": "evil.example"}
    assert client.ask("/live/nothing", "POST", **evil).status == 403


def test_it_listens_on_the_loopback_alone() -> None:
    from vista.explore.server import listen

    with listen(0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"


def test_small_answers_are_sent_at_once(server: Client) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
        times = []
        for _ in range(9):
            start = time.perf_counter()
            connection.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
            answer = b""
            while b"vista explore" not in answer:
                answer += connection.recv(65536)
            times.append(time.perf_counter() - start)
    # A body that waits for the receipt of its headers takes 40 ms.
    assert statistics.median(times) < 0.03


def test_every_answer_has_the_headers_that_protect_the_page(client: Client) -> None:
    paths = ["/", "/app.js", "/catalogue.json", WEIGHTS, f"{IMAGES}/0.png", "/nothing"]
    answers = [client.ask(path) for path in paths]
    answers += [client.ask("/", "POST"), client.ask("/", Cookie="x=y"), client.ask("/", Host="x")]
    answers += [client.ask(f"/?token={client.token}"), client.ask(WEIGHTS, Range="bytes=9999999-")]
    assert {answer.status for answer in answers} == {200, 303, 403, 404, 405, 416}
    for answer in answers:
        policy = dict(
            part.strip().partition(" ")[::2]
            for part in answer.headers["Content-Security-Policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        assert set(policy.values()) == {"'none'", "'self'", "'self' blob:"}
        assert {policy[k] for k in ("script-src", "style-src", "connect-src")} == {"'self'"}
        assert policy["img-src"] == "'self' blob:"  # images that the user drops
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "Server" not in answer.headers


def test_two_servers_at_once_have_their_own_tokens(client: Client, results: Path) -> None:
    with explored(results) as other:
        other.enter()
        assert other.token != client.token and other.port != client.port
        assert other.cookie is not None and client.cookie is not None
        both = f"{client.cookie}; {other.cookie}"  # as a browser sends them
        assert client.ask("/", Cookie=both).status == other.ask("/", Cookie=both).status == 200
        assert client.ask("/", Cookie=other.cookie).status == 403
        swapped = other.cookie.replace(str(other.port), str(client.port))
        assert client.ask("/", Cookie=swapped).status == 403


# What is served


def test_files_are_those_of_finished_artifacts_byte_by_byte(client: Client, results: Path) -> None:
    listed = json.loads(client.ask("/catalogue.json").body)["artifacts"]
    assert [e["folder"] for e in listed if e["stage"] == "latents"] == [LATENTS]
    served = 0
    for entry in listed:
        artifact = open_artifact(results / entry["folder"])
        for name in artifact.checksums:
            answer = client.ask(f"/results/{entry['folder']}/{name}")
            assert answer.status == 200
            assert answer.body == (artifact.path / name).read_bytes()
            assert int(answer.headers["Content-Length"]) == len(answer.body)
            served += 1
    assert served > 20


@pytest.mark.parametrize(
    "path",
    [
        *("/secret.txt", "/results/secret.txt", "/results", "/results/", "/results/latents"),
        *(f"/results/{LATENTS}", f"/results/{LATENTS}/", f"/results/{LATENTS}/latents.zarr"),
        f"/results/logs/latents/{NAME}.log",
        "/results/judgements/judge.jsonl",
        "/results/benchmarks/latents/b.txt",
        f"/results/.work/latents/{NAME}/half.txt",
        *(f"/results/{LATENTS}/{name}" for name in ("unlisted.txt", ".hidden", "link.txt")),
        *(f"/results/{LATENTS}/{name}" for name in ("manifest.json", "memo.json")),
        f"/results/{LATENTS}/up/secret.txt",
        "/results/latents/linked-0123456789/latents.zarr/zarr.json",
        f"/results/linked/results/{LATENTS}/latents.zarr/zarr.json",
        "/results/latents/unfinished-0123456789/content.txt",
        f"/results/{LATENTS}/../../../secret.txt",
        f"/results/{LATENTS}/%2e%2e/%2e%2e/%2e%2e/secret.txt",
        f"/results/{LATENTS}/%252e%252e/%252e%252e/secret.txt",
        f"/results/{LATENTS}/..%2f..%2f..%2fsecret.txt",
        f"/results/{LATENTS}/..%5c..%5c..%5csecret.txt",
        f"/results/{LATENTS}/..\\..\\secret.txt",
        f"/results/{LATENTS}/latents.zarr/zarr.json%00.txt",
        f"/results/{LATENTS}//latents.zarr/zarr.json",
        f"/results/{LATENTS}/latents.zarr/./zarr.json",
        f"/results/{LATENTS}/latents.zarr/x/../zarr.json",
        f"//results/{LATENTS}/latents.zarr/zarr.json",
        *("/etc/passwd", "//etc/passwd", "/results//etc/passwd", "/results/%2fetc/passwd"),
        *("/__init__.py", "/page/index.html", "/../guard.py", "/%2e%2e/guard.py"),
        *(f"{IMAGES}/../secret.txt", f"{IMAGES}/3.png", f"{IMAGES}/-1.png", f"{IMAGES}/0.jpg"),
        *(f"{IMAGES}/99999999999999999999.png", f"{IMAGES}/%C2%B2.png", f"{IMAGES}/0.png/"),
        "/images/../0.png",
        "/images/unfinished-0123456789/0.png",
    ],
)  # fmt: skip
def test_nothing_else_is_served(client: Client, path: str) -> None:
    answer = client.ask(path)
    assert answer.status == 404
    assert SECRET not in answer.body and b"root:" not in answer.body
    assert len(answer.body) < 300


def test_a_listed_file_that_became_a_link_or_pipe_is_refused(tmp_path: Path) -> None:
    results = run_to_explore(tmp_path)
    store = results / LATENTS / "latents.zarr"
    (store / "zarr.json").unlink()
    (store / "zarr.json").symlink_to(tmp_path / "secret.txt")
    layer = store / "layer_04"
    layer.rename(tmp_path / "moved")
    layer.symlink_to(tmp_path / "moved")
    weights = results / SAE / "sae.safetensors"
    weights.unlink()
    os.mkfifo(weights)
    with explored(results) as client:
        client.enter()
        below = next(p for p in (tmp_path / "moved").rglob("zarr.json"))
        inner = below.relative_to(tmp_path / "moved").as_posix()
        for path in (
            f"/results/{LATENTS}/latents.zarr/zarr.json",
            f"/results/{LATENTS}/latents.zarr/layer_04/{inner}",
            WEIGHTS,
        ):
            answer = client.ask(path)
            assert answer.status == 404 and b"damaged" in answer.body


def test_ranges_are_those_bytes(client: Client, results: Path) -> None:
    content = (results / SAE / "sae.safetensors").read_bytes()
    n = len(content)
    for header, start, stop in (
        ("bytes=0-0", 0, 1),
        ("bytes=5-900000", 5, 900_001),
        (f"bytes={n - 1}-", n - 1, n),
        ("bytes=0-", 0, n),
        ("bytes=-1", n - 1, n),
        (f"bytes=-{n}", 0, n),
        (f"bytes=-{10 * n}", 0, n),
        (f"bytes=7-{10 * n}", 7, n),
        ("BYTES=3-4", 3, 5),
    ):
        answer = client.ask(WEIGHTS, Range=header)
        assert answer.status == 206, header
        assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{n}"
        assert answer.body == content[start:stop]
        head = client.ask(WEIGHTS, "HEAD", Range=header)
        assert (head.status, head.body) == (206, b"")
        for name in ("Content-Range", "Content-Length", "ETag"):
            assert head.headers[name] == answer.headers[name]


def test_ranges_beyond_the_end_and_malformed_and_several_ones(
    client: Client, results: Path
) -> None:
    content = (results / SAE / "sae.safetensors").read_bytes()
    n = len(content)
    for header in (f"bytes={n}-", f"bytes={n}-{n + 5}", "bytes=-0", f"bytes={'9' * 18}-"):
        answer = client.ask(WEIGHTS, Range=header)
        assert (answer.status, answer.headers["Content-Range"]) == (416, f"bytes */{n}")
    many = "bytes=" + ",".join(f"{i}-{i + 1}" for i in range(200))
    for header in ("bytes=5-2", "bytes=-", "bytes=a-b", "lines=0-1", "bytes=0-1,5-6", many, "0-1"):
        answer = client.ask(WEIGHTS, Range=header)
        assert (answer.status, answer.body) == (200, content), header
        assert "Content-Range" not in answer.headers


def test_a_version_that_is_known_is_not_sent_again(client: Client) -> None:
    for path in (WEIGHTS, "/catalogue.json", "/", f"{IMAGES}/1.png", GEOMETRY):
        first = client.ask(path)
        tag = first.headers["ETag"]
        for known in (tag, f"W/{tag}", f'"x", {tag}', "*"):
            again = client.ask(path, If_None_Match=known)
            assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
        assert client.ask(path, If_None_Match='"x"').status == 200
        assert "no-store" not in first.headers["Cache-Control"]
        head = client.ask(path, "HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers["Content-Length"] == str(len(first.body))
    tag = client.ask(WEIGHTS).headers["ETag"]
    assert client.ask(WEIGHTS, Range="bytes=0-1", If_Range=tag).status == 206
    assert client.ask(WEIGHTS, Range="bytes=0-1", If_Range='"x"').status == 200
    packed = client.ask(GEOMETRY, Accept_Encoding="gzip").headers["ETag"]
    assert packed != client.ask(GEOMETRY).headers["ETag"]
    assert client.ask(GEOMETRY, If_None_Match=packed).status == 304


def test_an_artifact_that_is_made_again_is_new_at_the_same_address(tmp_path: Path) -> None:
    """A change of code keeps an artifact's folder; what was read of it before is no part of it."""
    results = tmp_path / "results"
    path = "import_sae/gemma2-l0-0123456789"

    def make(text: str) -> str:
        made = publish(results, path, lambda w: (w / "a.txt").write_text(text), {"text": text})
        return made.digest[:12]

    first = make("one")
    with explored(results) as client:
        client.enter()
        entry = json.loads(client.ask("/catalogue.json").body)["artifacts"][0]
        assert entry["digest"] == first
        answer = client.ask(f"/results/{path}/a.txt?v={first}")
        assert (answer.body, "immutable" in answer.headers["Cache-Control"]) == (b"one", True)
        plain = client.ask(f"/results/{path}/a.txt")
        assert plain.headers["Cache-Control"] == "private, no-cache"
        second = make("two")
        assert json.loads(client.ask("/catalogue.json").body)["artifacts"][0]["digest"] == second
        assert client.ask(f"/results/{path}/a.txt").body == b"two"
        assert client.ask(f"/results/{path}/a.txt?v={second}").body == b"two"
        stale = client.ask(f"/results/{path}/a.txt?v={first}")
        assert stale.status == 404 and b"made again" in stale.body
        (results / path / "manifest.json").unlink()  # a job makes it again
        assert client.ask(f"/results/{path}/a.txt").status == 404
        assert json.loads(client.ask("/catalogue.json").body)["artifacts"] == []


def test_json_is_packed_where_that_is_asked_for_and_nothing_else(
    client: Client, results: Path
) -> None:
    for path, name in ((GEOMETRY, results / GEOMETRY[9:]), ("/catalogue.json", None)):
        plain = client.ask(path)
        packed = client.ask(path, Accept_Encoding="br, gzip;q=0, gzip, deflate")
        assert "Content-Encoding" not in plain.headers
        assert packed.headers["Content-Encoding"] == "gzip"
        assert plain.headers["Vary"] == packed.headers["Vary"] == "Accept-Encoding"
        assert gzip.decompress(packed.body) == plain.body
        assert name is None or plain.body == name.read_bytes()
        assert len(packed.body) < len(plain.body)
        assert int(packed.headers["Content-Length"]) == len(packed.body)
    ranged = client.ask(GEOMETRY, Range="bytes=2-5", Accept_Encoding="gzip")
    assert (ranged.status, ranged.body) == (206, client.ask(GEOMETRY).body[2:6])
    for path in (WEIGHTS, f"{IMAGES}/0.png", f"/results/{RECORDS}/records.parquet"):
        assert "Content-Encoding" not in client.ask(path, Accept_Encoding="gzip").headers


# Images


def test_images_are_their_pixels_and_nothing_else_of_their_files(client: Client) -> None:
    for row in range(len(IDS)):
        answer = client.ask(f"{IMAGES}/{row}.png")
        shown = Image.open(io.BytesIO(answer.body))
        assert answer.headers["Content-Type"] == Image.MIME[str(shown.format)]
        assert shown.size == image(row).size
        assert SECRET not in answer.body
        assert not shown.getexif() and not {"exif", "comment", "icc_profile"} & set(shown.info)
        if row != 1:  # the photograph is lossy
            assert (np.asarray(shown.convert("RGB")) == np.asarray(image(row))).all()
    assert client.ask(f"{IMAGES}/1.png").headers["Content-Type"] == "image/jpeg"
    assert client.ask(f"{IMAGES}/0.png").headers["Content-Type"] == "image/png"


def test_thumbnails_are_small_and_keep_the_shape(client: Client) -> None:
    sizes = []
    for row in range(len(IDS)):
        answer = client.ask(f"{THUMBS}/{row}.png")
        shown = Image.open(io.BytesIO(answer.body))
        assert answer.headers["Content-Type"] == Image.MIME[str(shown.format)]
        assert SECRET not in answer.body
        sizes.append(shown.size)
    assert sizes == [(32, 16), (96, 72), (2, 96)]


def test_an_image_that_is_gone_damaged_outside_or_hidden_is_refused(tmp_path: Path) -> None:
    results = run_to_explore(tmp_path)
    images = tmp_path / "images"
    outside = tmp_path / "outside.png"
    image(2).save(outside)
    (images / "0.png").unlink()
    (images / "0.png").symlink_to(outside)
    (images / "1.jpg").write_bytes(SECRET)
    (images / "2.png").unlink()
    with explored(results) as client:
        client.enter()
        answers = [client.ask(f"{IMAGES}/{row}.png") for row in range(3)]
    assert [answer.status for answer in answers] == [404] * 3
    assert b"leads out of" in answers[0].body
    assert b"cannot be read" in answers[1].body
    assert b"missing" in answers[2].body
    assert all(SECRET not in answer.body for answer in answers)


def test_records_that_name_paths_outside_or_hidden_files_show_none(tmp_path: Path) -> None:
    from vista.data.record import Record
    from vista.data.records import write_records

    images = tmp_path / "images"
    (images / ".git").mkdir(parents=True)
    for path in (tmp_path / "outside.png", images / ".git" / "x.png", images / "huge.png"):
        image(0).save(path)
    paths = ["../outside.png", str(tmp_path / "outside.png"), ".git/x.png", "huge.png", "a\0b"]
    sizes = [(32, 16)] * 3 + [(10**6, 10**6), (32, 16)]
    records = [
        Record(str(i), "test", p, *s) for i, (p, s) in enumerate(zip(paths, sizes, strict=True))
    ]

    def write_table(work: Path) -> None:
        write_records(work / "records.parquet", records)

    settings = {"kind": "folder", "images": str(images), "fetch": []}
    publish(tmp_path / "results", "records/bad-0123456789", write_table, settings)
    with explored(tmp_path / "results") as client:
        client.enter()
        for size in ("images", "thumbs"):
            for row in range(len(paths)):
                answer = client.ask(f"/{size}/bad-0123456789/{row}.png")
                assert answer.status == 404, paths[row]
                # Refused before its pixels are decoded.
                assert row != 3 or b"another size" in answer.body


def test_scenes_of_the_run_behind_a_link_are_refused(tmp_path: Path) -> None:
    """Results from elsewhere must not show the pictures of this machine."""
    from vista.data.record import Record
    from vista.data.records import write_records

    results, private = tmp_path / "results", tmp_path / "private"
    private.mkdir()
    image(0).save(private / "0.png")

    def draw(work: Path) -> None:
        (work / "images").mkdir()
        image(0).save(work / "images" / "0.png")

    def write_table(work: Path) -> None:
        write_records(work / "records.parquet", [Record("0", "test", "0.png", *image(0).size)])

    world = publish(results, "draw_world/w-1", draw, {"kind": "drawn"})
    publish(results, "records/r-1", write_table, {"kind": "drawn"}, world=world)
    with explored(results) as client:
        assert client.enter().ask("/images/r-1/0.png").status == 200
    images = world.path / "images"
    images.rename(world.path / "moved")
    images.symlink_to(private)
    with explored(results) as client:
        answer = client.enter().ask("/images/r-1/0.png")
    assert answer.status == 404 and b"behind a link" in answer.body


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    results = run_to_explore(tmp_path)
    bomb = Image.new("1", (20_000, 20_000))
    Image.MAX_IMAGE_PIXELS, before = None, Image.MAX_IMAGE_PIXELS
    try:
        bomb.save(tmp_path / "images" / "0.png")
    finally:
        Image.MAX_IMAGE_PIXELS = before
    with explored(results) as client:
        client.enter()
        answer = client.ask(f"{IMAGES}/0.png")
    assert answer.status == 404 and b"cannot be read" in answer.body


# The page and a run that goes on


def test_the_page_is_served_with_its_types(client: Client) -> None:
    index = client.ask("/")
    assert index.headers["Content-Type"] == "text/html; charset=utf-8"
    assert index.body == client.ask("/index.html").body
    assert client.ask("/app.js").headers["Content-Type"].startswith("text/javascript")
    assert client.ask("/app.css").headers["Content-Type"].startswith("text/css")


def test_the_catalogue_grows_with_the_run(tmp_path: Path) -> None:
    results = run_to_explore(tmp_path)
    with explored(results) as client:
        client.enter()

        def listed() -> dict[str, dict[str, object]]:
            content = json.loads(client.ask("/catalogue.json").body)
            assert (content["format"], content["live"]) == ("vista catalogue 2", True)
            assert content["run"] is None and content["report"] is None
            return {entry["folder"]: entry for entry in content["artifacts"]}

        before = listed()
        assert before[LATENTS]["encoder"] == "dinov2" and before[LATENTS]["sae_weight"] == 1.0
        assert before["label_latents/gemma2-l4-0123456789"]["layer"] == 4
        new = f"latents/{NAME.replace('w1', 'w0')}-0123456789"
        publish(results, new, lambda work: (work / "a.txt").write_text("x"))
        after = listed()
        assert set(after) - set(before) == {new}
        assert after[new]["sae_weight"] == 0.0
