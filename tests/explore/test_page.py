"""The built page in Chromium: each view, the keyboard, links, hostile texts, damage."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from tests.explore.browser import CONTROLS, Browser
from tests.explore.conftest import ANSWER, ON_BOTH, Show, still
from tests.explore.planted import HOSTILE, IDS, LAYERS, OUTLIER, SHAPES, WORDS
from vista.explore.decoders import Decoder
from vista.store.latents import LatentReader

POINT = "latents/dinov2-gemma2-w0-s0-0123456789"
CLIP = "latents/clip-gemma2-w1-s0-0123456789"
FIRST = "document.querySelectorAll('.latent').length >= 8"


def strongest(planted: Path, point: str, layer: int, place: int, token: int | None) -> list[int]:
    """Return the latents that fire at an image or its token, strongest first."""
    tokens = LatentReader(planted / point / "latents.zarr").tokens(
        layer, "image", slice(place, place + 1)
    )
    best: dict[int, float] = {}
    for t in range(tokens.nnz.shape[1]) if token is None else [token]:
        if tokens.valid[0, t]:
            used = int(tokens.nnz[0, t])
            for latent, value in zip(
                tokens.index[0, t, :used], tokens.value[0, t, :used], strict=True
            ):
                best[int(latent)] = max(best.get(int(latent), 0.0), float(value))
    return sorted(best, key=lambda latent: -best[latent])


def shown(browser: Browser, layer: int, side: int) -> list[int]:
    """Return the latents that the page lists in a layer, on its left (0) or right (1)."""
    latents: list[int] = browser.run(
        f"[...document.querySelectorAll('#layer-{layer} .side')][{side}]"
        ".querySelectorAll('.latent .id').values().map(e => Number(e.textContent)).toArray()"
    )
    return latents


def test_first_latents(browser: Browser, show: Show, planted: Path) -> None:
    show("", "document.querySelectorAll('.latent').length >= 32")
    assert browser.text(".panel h2") == "Whole image"
    names = browser.run("[...document.querySelectorAll('.side-name')].map(e => e.textContent)")
    assert names == ["dinov2 · gemma2 · weight 0 · seed 0", "dinov2 · gemma2 · weight 1 · seed 0"]
    for layer in LAYERS:
        assert shown(browser, layer, 0) == strongest(planted, POINT, layer, 0, None)[:8]
        other = POINT.replace("-w0-", "-w1-")
        assert shown(browser, layer, 1) == strongest(planted, other, layer, 0, None)[:8]
    assert "300 images" in browser.text(".list-head")
    # The first image has a name that needs encoding in addresses.
    assert browser.text(".item.on .item-id") == IDS[0]


def test_hovering_asks_for_nothing(browser: Browser, show: Show, planted: Path) -> None:
    show(f"#images?image={quote(IDS[0])}", FIRST)
    still(browser)
    browser.requests.clear()
    for row, column in ((0, 0), (2, 3), (3, 1)):
        # The image is square: the grid fills the middle of its square element.
        browser.run("document.querySelector('.stage').scrollIntoView()")
        box = browser.run(
            "(() => { const b = document.querySelector('.stage').getBoundingClientRect();"
            " return [b.width, b.height]; })()"
        )
        side = min(box)
        x = ((box[0] - side) / 2 + (column + 0.5) * side / 4) / box[0]
        y = ((box[1] - side) / 2 + (row + 0.5) * side / 4) / box[1]
        browser.hover(".stage", x, y)
        browser.wait(f"document.querySelector('.panel h2').textContent === 'Patch {row},{column}'")
        token = 4 * row + column
        assert shown(browser, 1, 0) == strongest(planted, POINT, 1, 0, token)[:8]
    browser.hover(".latent button")
    browser.wait("document.querySelector('.heat') !== null")
    time.sleep(0.3)
    assert browser.run("1") == 1  # events are read
    assert browser.requests == []
    browser.requests.append(browser.run("location.href"))


@ON_BOTH
def test_a_link_restores_what_was_shown(browser: Browser, show: Show, planted: Path) -> None:
    reader = LatentReader(planted / POINT / "latents.zarr")
    entries = reader.by_latent(3, 5)
    place = int(entries.image[0])
    fires = int((entries.image == place).sum())
    show(
        f"#images?a=dinov2-gemma2-w0-s0&b=clip-gemma2-w1-s0&image={quote(IDS[place])}"
        "&patch=1,2&layer=3&latent=5",
        "document.querySelectorAll('.heat rect').length > 0",
    )
    browser.wait("document.querySelectorAll('#layer-3 .side .facts').length === 2")
    assert browser.text(".panel h2") == "Patch 1,2"
    assert browser.text(".item.on .item-id") == IDS[place]
    assert browser.run("document.querySelectorAll('.heat rect').length") == fires
    assert browser.run("document.querySelector('.jump button.on').textContent") == "3"
    assert shown(browser, 3, 0) == strongest(planted, POINT, 3, place, 6)[:8]
    # The other encoder has 3 x 3 patches: the same place of the image is another token.
    assert "clip · gemma2 · weight 1" in browser.text(".side-name.b")
    assert f"{float(entries.value[entries.image == place].max()):.3g}" in browser.text(".scale")


def test_the_keyboard_alone(browser: Browser, show: Show) -> None:
    show("", FIRST)
    browser.run("document.querySelector('.list-body').focus()")
    browser.press("ArrowDown", "ArrowDown")
    browser.wait(f"location.hash.includes('image={IDS[2].replace(' ', '+')}')")
    browser.wait(f"document.querySelector('.about dd').textContent.startsWith('{IDS[2]} ')")
    browser.press("End")
    browser.wait("document.querySelector('.item.on .item-id')?.textContent === 'image 299'")
    browser.press("k")
    browser.wait("document.querySelector('.item.on .item-id')?.textContent === 'image 298'")
    browser.run("document.querySelector('.stage').focus()")
    browser.press("ArrowRight", "ArrowRight", "ArrowUp")
    browser.wait("document.querySelector('.panel h2').textContent === 'Patch 1,3'")
    browser.press("ArrowRight")  # at the edge it stays
    assert browser.text(".panel h2") == "Patch 1,3"
    browser.press("]")
    browser.wait("location.hash.includes('layer=3') && !document.querySelector('.stale')")
    browser.run("document.querySelector('#layer-3 .latent button').focus()")
    browser.press("ArrowDown", "Enter")
    browser.wait(
        "document.querySelector('.latent.here') !== null && location.hash.includes('latent=')"
    )
    assert browser.run(
        "document.querySelectorAll('#layer-3 .latent')[1].classList.contains('here')"
    )
    browser.press("Escape")
    browser.wait("!location.hash.includes('latent=')")
    browser.press("Escape")
    browser.wait("document.querySelector('.panel h2').textContent === 'Whole image'")
    browser.press("?")
    browser.wait("document.querySelector('dialog[open]') !== null")
    browser.press("Escape")
    browser.wait("document.querySelector('dialog[open]') === null")
    for key, view in (
        ("4", "Metrics"),
        ("5", "Edits"),
        ("3", "Vision SAEs"),
        ("2", "Latents"),
        ("1", "Images"),
    ):
        browser.press(key)
        browser.wait(f"document.querySelector('[aria-current]').textContent === '{view}'")
    browser.wait("document.getElementById('filter') !== null")
    browser.press("/")
    browser.wait("document.activeElement.id === 'filter'")


def test_everything_that_takes_input_has_a_name(browser: Browser, show: Show) -> None:
    for view, ready in (
        ("#images?layer=1&latent=2", FIRST),
        ("#latent?layer=1&latent=2", "document.querySelector('.tile image') !== null"),
        ("#vision?number=2", "document.querySelector('.tile image') !== null"),
        ("#metrics", "document.querySelector('.tr .fill') !== null"),
        ("#metrics?show=figures", "document.querySelector('.pictures img') !== null"),
        ("#edits", "document.querySelector('.edit') !== null"),
    ):
        show(view, ready)
        named = browser.names(CONTROLS)
        assert len(named) > 8 and [role for role, name in named if not name] == []
    browser.press("?")
    assert ("button", "Close") in browser.names(CONTROLS)


def test_hostile_texts_are_text(browser: Browser, show: Show) -> None:
    hostile = WORDS.index(HOSTILE)
    show(
        f"#latent?layer=1&latent={hostile}&q={quote('<img')}",
        "document.querySelector('.contexts mark') !== null",
    )
    assert browser.text(".one h2") == HOSTILE
    assert HOSTILE in browser.text(".found") and HOSTILE in browser.text(".contexts")
    assert browser.run("document.querySelector('[onerror], main script') === null")
    show("#images", FIRST)
    browser.wait("document.querySelector('.about').textContent.includes('<script>')")
    assert "<script>document.title='hacked'</script> cat" in browser.text(".about")
    assert browser.run("document.querySelector('[onerror], main script') === null")


def test_the_filter_of_images(browser: Browser, show: Show) -> None:
    show("", FIRST)
    browser.run("document.getElementById('filter').focus()")
    browser.type("NUMBER 27 dog")
    browser.wait("document.querySelector('.list-head .muted').textContent.includes(' of ')")
    # Images with an even number show a dog.
    names = browser.run("[...document.querySelectorAll('.item-id')].map(e => e.textContent)")
    expected = [n for n in range(1, 300) if str(n).startswith("27") and n % 2 == 0]
    assert names == [f"image {n}" for n in expected]
    browser.run("document.querySelector('.item').click()")
    browser.wait(f"location.hash.includes('image+{expected[0]}')")


def test_images_where_a_latent_fires(browser: Browser, show: Show, planted: Path) -> None:
    reader = LatentReader(planted / POINT / "latents.zarr")
    n = len(np.unique(reader.by_latent(3, 5).image))
    show("#images?layer=3&latent=5", "document.querySelector('.list-head .check') !== null")
    browser.click(".list-head .check input")
    browser.wait(f"document.querySelector('.list-head .muted').textContent.startsWith('{n} of')")


@ON_BOTH
def test_a_latent(browser: Browser, show: Show, planted: Path) -> None:
    reader = LatentReader(planted / POINT / "latents.zarr")
    show("#latent?layer=3&latent=5", "document.querySelectorAll('.tile image').length >= 4")
    assert browser.text(".one h2") == "kätzchen"
    facts = browser.text(".numbers")
    assert "label_latents/gemma2-l3-0123456789" in facts and "AUROC" in facts
    share = float(reader.image_frequency(3)[5])
    assert f"{float(f'{100 * share:.3g}'):g} % of 300 images" in facts
    assert browser.run("document.querySelector('.contexts mark').textContent") == "kätzchen"
    assert browser.run("document.querySelectorAll('.histogram rect').length") == 32
    links = browser.run(
        "[...document.querySelectorAll('.tile a')].map(e => e.getAttribute('href'))"
    )
    top = [IDS[int(place)] for place in reader.top(3, 5).image[:16]]
    assert len(links) == 16
    for link, image_id in zip(links, top, strict=True):
        assert f"image={quote(image_id, safe='').replace('%20', '+')}&" in link
    browser.run("document.querySelector('.tile a').click()")
    browser.wait("document.querySelectorAll('.stage .heat rect').length > 0")
    assert browser.text(".item.on .item-id") == top[0]


@pytest.mark.parametrize("address", ["export"], indirect=True)
def test_a_latent_leads_to_its_neighbours_and_its_public_page(
    browser: Browser, show: Show, planted: Path
) -> None:
    show("#latent?layer=1&latent=5", "document.querySelectorAll('.neighbours a').length === 8")
    decoder = Decoder(planted / "import_sae/gemma2-l1-0123456789/sae.safetensors")
    nearest = decoder.nearest(5, 6).of(0)
    lines = browser.run("[...document.querySelectorAll('.neighbours li')].map(e => e.innerText)")
    for line, (latent, cosine) in zip(lines, nearest, strict=True):
        label = WORDS[latent % len(WORDS)] or "unlabelled"
        assert line.split() == [*label.split(), str(latent), f"{cosine:.3g}"]
    link = browser.run(
        "(a => [a.href, a.rel, a.target])(document.querySelector('.one > p a'))",
    )
    page = "https://www.neuronpedia.org/gemma-2-2b/1-gemmascope-res-16k/5"
    assert link == [page, "noopener noreferrer", "_blank"]
    browser.run("document.querySelector('.neighbours a').click()")
    browser.wait(f"location.hash.includes('latent={nearest[0][0]}')")
    # A name that is none makes no link.
    show("#latent?layer=3&latent=5", "document.querySelectorAll('.neighbours a').length === 8")
    assert browser.run("document.querySelector('.one > p a, [onclick]')") is None


def test_masks_on_request(browser: Browser, show: Show) -> None:
    show(f"#images?image={quote(IDS[1])}", FIRST)
    assert browser.run("document.querySelector('.mask')") is None
    switch = "[...document.querySelectorAll('.switches label')].find(e => e.innerText === 'masks')"
    browser.run(f"{switch}.click()")
    browser.wait("document.querySelectorAll('.mask path').length === 2")
    width, height = SHAPES[1]
    # In px of the model's input: the image is 32 wide, padded above and below.
    box = browser.run(
        "(b => [b.x, b.y, b.width, b.height])(document.querySelector('.masks').getBBox())"
    )
    assert box == [4, 4, width // 2, height // 2]
    inside = (
        "(p => [[10, 20], [7, 7], [60, 20]].map(([x, y]) => p.isPointInFill(new DOMPoint(x, y))))"
        "(document.querySelector('.mask-area'))"
    )
    assert browser.run(inside) == [True, False, False]
    browser.run(f"{switch}.click()")
    browser.wait("document.querySelector('.mask') === null")


def test_the_search_over_labels(browser: Browser, show: Show) -> None:
    show(
        "#latent",
        "document.querySelector('.search [role=status]').textContent.includes('labelled')",
    )
    browser.run("document.getElementById('filter').focus()")
    browser.type("SKY the")
    browser.wait("document.querySelectorAll('.found a').length > 0")
    expected = sum(1 for size in LAYERS.values() for n in range(size) if WORDS[n % 6] == "the sky")
    assert f"{expected} latents" in browser.text(".search-head")
    browser.run("document.querySelector('.found a').focus()")
    browser.press("ArrowDown", "Enter")
    browser.wait("document.querySelector('.one h2')?.textContent === 'the sky'")


def test_an_unlabelled_latent_and_one_that_is_not_there(browser: Browser, show: Show) -> None:
    show("#latent?layer=1&latent=3", "document.querySelector('.one h2') !== null")
    assert browser.text(".one h2") == "unlabelled"
    show("#latent?layer=1&latent=40", ANSWER)
    assert "Layer 1 has no latent 40: it has 0 to 39." in browser.text("main")
    show("#latent?layer=2&latent=0", ANSWER)
    assert "no layer 2; it has 1, 3." in browser.text("main")


@ON_BOTH
def test_the_long_table(browser: Browser, show: Show) -> None:
    show("#metrics?f_metric=fvu", "document.querySelector('.tr .fill') !== null")
    assert "4 of 12 figures" in browser.text(".filters")
    assert browser.run("document.querySelectorAll('.table-length .tr').length") == 4
    name = browser.run("document.querySelector('.interval').getAttribute('aria-label')")
    assert name == "0.2, interval 0.05 to 0.9, chance 0.02; scale 0 to 0.9"
    browser.run(
        "(() => { const s = [...document.querySelectorAll('.filters label')]"
        ".find(e => e.textContent.startsWith('weight')).querySelector('select');"
        " s.value = '1'; s.dispatchEvent(new Event('change')); })()"
    )
    browser.wait("document.querySelectorAll('.table-length .tr').length === 2")
    assert "f_sae_weight=1" in browser.run("location.hash")
    browser.run("document.querySelector('.tr.head button').click()")
    browser.wait("document.querySelector('.strong').textContent === '0.8'")
    browser.run("document.querySelector('.table-length a').click()")
    browser.wait(FIRST)
    assert browser.text(".side-name.a") == "dinov2 · gemma2 · weight 1 · seed 0"
    show("#metrics?show=figures", "document.querySelector('.pictures img')?.naturalWidth === 60")
    assert browser.text(".pictures figcaption") == "Matching _rate"


def test_an_outlier_leaves_something_of_the_other_bars(browser: Browser, show: Show) -> None:
    show("#metrics?f_metric=l0", "document.querySelectorAll('.tr .fill').length === 4")
    widths = browser.run("[...document.querySelectorAll('.fill')].map(e => e.style.width)")
    assert widths == ["25%", "100%", "75%", "100%"]
    (mark,) = browser.run("[...document.querySelectorAll('.beyond')].map(e => e.textContent)")
    assert mark == f"{OUTLIER:.0f} ▸"
    names = browser.run("[...document.querySelectorAll('.interval')].map(e => e.ariaLabel)")
    assert names[3] == "8000, no interval; scale 0 to 2, which it exceeds"
    assert names[0] == "0.5, no interval; scale 0 to 2"


@ON_BOTH
def test_edits(browser: Browser, show: Show) -> None:
    show("#edits", "document.querySelectorAll('.edit image').length === 2")
    first = browser.text(".edit")
    assert "cat → dog" in first and "<script>" in first
    # The reported strength, and the control at the same.
    assert "a dog with strength 4" in first and "a random_sourcedog with strength 4" in first
    assert "random source" in browser.text(".edit dt:last-of-type")
    show("#edits?score=2", "document.querySelectorAll('.edit').length === 1")
    assert "clean" in browser.text(".edit")
    show("#edits?score=1", ANSWER)
    assert "No edit passes" in browser.text(".edits")


@pytest.mark.parametrize("width", [360, 800, 1100, 3840])
def test_nothing_is_wider_than_the_page(browser: Browser, show: Show, width: int) -> None:
    browser.resize(width, 900)
    for view, ready in (
        ("#images", "document.querySelector('.layer') !== null"),
        ("#latent?layer=1&latent=2", "document.querySelector('.one h2') !== null"),
        ("#vision?number=2", "document.querySelector('.tile image') !== null"),
        ("#metrics", "document.querySelector('.tr .fill') !== null"),
        ("#edits", "document.querySelector('.edit') !== null"),
    ):
        show(view, ready)
        wide = (
            "[document.documentElement, document.querySelector('main')]"
            ".map(e => e.scrollWidth - e.clientWidth)"
        )
        assert browser.run(wide) == [0, 0], view


def test_only_layers_in_sight_are_loaded(browser: Browser, show: Show) -> None:
    browser.resize(1400, 250)
    show("", "document.querySelectorAll('#layer-1 .latent').length >= 8")
    still(browser)
    assert not any("layer_03/image" in url for url in browser.requests)
    browser.press("]")
    browser.press("]")
    browser.wait("document.querySelectorAll('#layer-3 .latent').length >= 8")
