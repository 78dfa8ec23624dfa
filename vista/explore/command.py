"""`vista show`: its options, and what it prints. Light to import: the command line reads it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vista.errors import UserError

# Options that are of latents alone.
_OF_LATENTS = ("image", "patch", "latent", "layer", "top", "save")


def add_show(commands: Any) -> None:
    """Add the command `show` to the subparsers of the command line."""
    show = commands.add_parser(
        "show",
        help="print an artifact, a store or a table; the latents of an image, a patch",
        description="Print an artifact, a store or a table. Of latents also: the strongest ones of "
        "an image (--image) or of one of its patches (--patch), or one latent with its label, "
        "texts, neighbours and top images (--latent, --layer). Of label_vision_latents: one latent "
        "with its labels, neighbours and top images (--latent).",
    )
    show.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="an artifact's folder, a file in it, or STAGE:NAME, e.g. latents:dinov2-gemma2-w1-s0",
    )
    show.add_argument("--image", metavar="ID", help="strongest latents of this image, by layer")
    show.add_argument(
        "--patch", type=_patch, metavar="ROW,COLUMN", help="of this patch of it, from 0,0"
    )
    show.add_argument("--latent", type=int, metavar="N", help="what this latent stands for")
    show.add_argument("--layer", type=int, metavar="L", help="of this layer alone")
    show.add_argument("--top", type=int, metavar="N", help="latents a layer, or images of a latent")
    show.add_argument("--save", type=Path, metavar="PNG", help="draw them on the images, too")
    show.add_argument(
        "--results", type=Path, default=Path("results"), help="where STAGE:NAME is looked for"
    )
    show.set_defaults(call=_show)


def _patch(text: str) -> tuple[int, int]:
    try:
        row, column = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not ROW,COLUMN, e.g. 2,4") from None
    return row, column


def _show(arguments: argparse.Namespace) -> int:
    from vista.explore.addresses import find, is_address
    from vista.store.show import describe

    paths = [
        find(arguments.results, text) if is_address(text) else Path(text)
        for text in arguments.paths
    ]
    options = {name: getattr(arguments, name) for name in _OF_LATENTS}
    if arguments.image is None and arguments.latent is None:
        if any(value is not None for value in options.values()):
            raise UserError("--patch, --layer, --top and --save go with --image or --latent")
        print("\n\n".join(map(describe, paths)))
        return 0
    from vista.explore.terminal import show_latents
    from vista.explore.vision_latents import is_vision_labels, show_vision_latent

    if len(paths) != 1:
        raise UserError("--image and --latent are of one artifact of latents; name one")
    if is_vision_labels(paths[0]):
        given = {name: value for name, value in options.items() if value is not None}
        if not {"latent"} <= given.keys() <= {"latent", "top", "save"}:
            raise UserError("label_vision_latents takes --latent, --top and --save alone")
        print(show_vision_latent(paths[0], **given))
        return 0
    print(show_latents(paths[0], **options))
    return 0
