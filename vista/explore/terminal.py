"""Latents in a terminal: those of an image or a patch, and the images of a latent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vista.errors import UserError
from vista.explore.latents import LatentView
from vista.report.escape import clean
from vista.report.grid import Grid, Name, number
from vista.store.strongest import Active

_CONTEXTS = 4
_ON_A_LINE = 4
_LONGEST = 40


def show_latents(
    folder: Path,
    *,
    image: str | None,
    patch: tuple[int, int] | None,
    latent: int | None,
    layer: int | None,
    top: int | None,
    save: Path | None,
) -> str:
    """Return what `vista show` prints of an artifact of latents, and draw it if `save` is a file.

    Raises:
        UserError: The arguments do not fit together, or name what is not there.
    """
    if (image is None) == (latent is None):
        raise UserError("give either --image or --latent")
    if latent is not None and (layer is None or patch is not None):
        raise UserError("--latent needs --layer, and takes no --patch")
    if top is not None and top < 1:
        raise UserError("--top must be 1 or more")
    view = LatentView(folder)
    options: dict[str, Any] = {} if top is None else {"top": top}
    if image is not None:
        text = image_text(view, image, patch, layer, **options)
        if save is not None:
            from vista.explore.pictures import save_image_maps

            save_image_maps(view, image, save, patch, layer, **options)
    else:
        assert latent is not None and layer is not None
        text = latent_text(view, latent, layer, **options)
        if save is not None:
            from vista.explore.pictures import save_latent_maps

            save_latent_maps(view, latent, layer, save, **options)
    return text if save is None else f"{text}\nWritten: {save}"


def image_text(
    view: LatentView,
    image_id: str,
    patch: tuple[int, int] | None = None,
    layer: int | None = None,
    top: int = 8,
) -> str:
    """Return the strongest latents of an image, or of one of its patches, by layer.

    Args:
        view: The latents.
        image_id: Id of the image.
        patch: Row and column, from 0; None: the whole image, each latent at its strongest patch.
        layer: Layer; None: all.
        top: Latents of a layer that are shown.

    Raises:
        UserError: There is no such image, patch or layer.
    """
    place = view.place(image_id)
    token = None if patch is None else view.token(*patch)
    parts = [*_image_lines(view, place), ""]
    rows = []
    for shown in view.layers(layer):
        l0, error = view.reconstruction(shown, place, token)
        active = view.active(shown, place, token)
        kind = "mean active latents a token" if token is None else "active latents"
        parts.append(
            f"layer {shown}: {kind} {l0:.3g}, squared error of the SAE / squared norm {error:.3g}"
        )
        frequency_s = view.store.image_frequency(shown)
        for latent in active[:top]:
            rows.append([str(shown), *_latent(view, shown, latent), number(frequency_s[latent[0]])])
    head = ("layer", "latent", "label", "activation", "patch", "share of images")
    return "\n".join([*parts, "", Grid(head, rows).text() if rows else "No latent fires.", ""])


def latent_text(view: LatentView, latent: int, layer: int, top: int = 16) -> str:
    """Return what is known of one latent: its label, its texts, its top images.

    Args:
        view: The latents.
        latent: Number of the latent.
        layer: Its layer.
        top: Images that are shown.

    Raises:
        UserError: There is no such layer or latent.
    """
    view.layers(layer)
    view.known(layer, latent)
    lines = [f"latent {latent} of layer {layer}", *_label_lines(view, layer, latent)]
    share = view.store.image_frequency(layer)[latent]
    lines += [f"fires in {number(share)} of {len(view.store.image_ids)} images"]
    pairs = view.neighbours(layer, latent)
    lines += [*neighbour_lines(pairs, lambda n: view.label(layer, n)), ""]
    entries = view.store.top(layer, latent)
    rows = []
    for place, token, value in list(zip(*entries, strict=True))[:top]:
        record = view.record(int(place))
        shows = ", ".join(record.categories) if record else ""
        row, column = view.patch(token)
        image = Name(_short(view.store.image_ids[int(place)]))
        rows.append([image, number(float(value)), f"{row},{column}", Name(_short(shows) or "-")])
    head = ("image", "activation", "patch", "shows")
    return "\n".join([*lines, Grid(head, rows).text() if rows else "It fires at no image.", ""])


def _image_lines(view: LatentView, place: int) -> Iterator[str]:
    record, rows_columns = view.record(place), "x".join(map(str, view.store.grid))
    yield f"image {_short(view.store.image_ids[place])} of {view.artifact.path.name}"
    if record is not None:
        yield f"{record.width} x {record.height} px, {rows_columns} patches, {clean(record.path)}"
        if record.categories:
            yield f"shows {clean(', '.join(record.categories), 200)}"
        if record.captions:
            yield f"caption: {clean(record.captions[0], 200)}"
    if not view.labels:
        yield "labels: none of these SAEs is labelled in these results"


def _latent(view: LatentView, layer: int, active: Active) -> Sequence[str]:
    row, column = view.patch(active.token)
    label = view.label(layer, active.latent)
    name = Name("-" if label is None else _short(label))
    return [str(active.latent), name, number(active.value), f"{row},{column}"]


def _label_lines(view: LatentView, layer: int, latent: int) -> Iterator[str]:
    table = view.labels.get(layer)
    if table is None:
        yield "label: the SAE of this layer is not labelled in these results"
        return
    label = table.label_s[latent]
    yield f"label: {'none' if label is None else clean(label, 200)}" + _score(table, latent)
    yield f"density in text: {number(float(table.density_s[latent]), 4)}"
    for context in table.contexts_s[latent][:_CONTEXTS]:
        yield f"  {clean(context, 160)}"


def neighbour_lines(
    pairs: Sequence[tuple[int, float]], label: Callable[[int], str | None]
) -> Iterator[str]:
    """Yield lines for latents with their cosines, and their labels; none for no latents."""
    if pairs:
        yield "neighbours by cosine of decoder rows:"
    texts = [f"{n} {_short(label(n) or '-')} {number(cosine, 2)}" for n, cosine in pairs]
    for start in range(0, len(texts), _ON_A_LINE):
        yield "  " + ", ".join(texts[start : start + _ON_A_LINE])


def _score(table: Any, latent: int) -> str:
    share = f" ({number(float(table.share_s[latent]), 2)} of its strong activation"
    if table.auroc_s is None or table.auroc_s[latent] != table.auroc_s[latent]:  # NaN: unknown
        return share + ")"
    return f"{share}, AUROC {number(float(table.auroc_s[latent]), 2)})"


def _short(text: str) -> str:
    return clean(text, _LONGEST)
