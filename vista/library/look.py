"""`vista look`: its options. Light to import: the command line reads it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vista.errors import UserError, reason_of


def add_look(commands: Any) -> None:
    """Add the command `look` to the subparsers of the command line."""
    look = commands.add_parser(
        "look",
        help="your own images: their strongest labelled latents, heat maps, captions",
        description="Read images by the models of a run: the strongest latents of each by layer, "
        "and its caption. Without options the run in results/ is read, its first encoder and "
        "language model, and the projector with the largest weight of the SAE term.",
    )
    look.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files")
    look.add_argument(
        "--run",
        type=Path,
        default=Path("results"),
        metavar="RESULTS",
        help="a results folder, a config, or a folder of Readout.save_pretrained; default: results",
    )
    look.add_argument("--encoder", help="name of the encoder, e.g. dinov2")
    look.add_argument("--llm", help="name of the language model, e.g. gemma2")
    look.add_argument("--weight", type=float, help="weight of the SAE term, e.g. 1")
    look.add_argument("--seed", type=int, help="seed of the projector")
    look.add_argument("--layer", type=int, help="of this layer alone")
    look.add_argument("--top", type=_count, default=5, metavar="N", help="latents a layer")
    look.add_argument("--question", help="asked for the caption; default: that of the training")
    look.add_argument(
        "--save", type=Path, metavar="FOLDER", help="write heat maps there, a PNG an image"
    )
    look.set_defaults(call=_look)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return int(text)


def _look(arguments: argparse.Namespace) -> int:
    from vista.readout.images import open_images
    from vista.report.escape import clean
    from vista.report.grid import Grid, Name, number

    open_images(arguments.images)  # a file that is none is told before models are loaded
    readout = _readout(arguments)
    seen = readout(arguments.images)
    for image, path in enumerate(arguments.images):
        table = seen[image].top(arguments.top, arguments.layer)
        rows = [
            [
                str(row.layer),
                Name(clean(row.label, 40) if isinstance(row.label, str) else "-"),
                str(row.latent),
                number(row.activation),
                f"{row.row},{row.column}",
            ]
            for row in table.itertuples()
        ]
        print(clean(str(path), 200))
        print("caption: " + clean(readout.caption(seen.images[image], arguments.question), 400))
        head = ("layer", "label", "latent", "activation", "patch")
        print(Grid(head, rows).text() if rows else "No latent fires.")
        if arguments.save is not None:
            name = f"{path.stem}.png" if len(seen) == 1 else f"{image}-{path.stem}.png"
            picture = seen.show(arguments.top, arguments.layer, image)
            print(f"heat maps: {_written(picture, arguments.save / name)}")
        print()
    return 0


def _readout(arguments: argparse.Namespace) -> Any:
    """Return the readout that is asked for, and print which it is."""
    from vista.library.run import open_run
    from vista.readout import Readout
    from vista.readout.pretrained import DESCRIPTION

    place = (arguments.encoder, arguments.llm, arguments.weight, arguments.seed)
    if (arguments.run / DESCRIPTION).is_file():
        if any(value is not None for value in place):
            raise UserError(f"{arguments.run} is one saved readout: leave out what chooses one")
        readout = Readout.from_pretrained(arguments.run)
    else:
        run = open_run(arguments.run)
        readout = run.readout(*run.first(*place))
    assert readout.parts is not None
    print(f"read by {readout.parts.name}\n")
    return readout


def _written(picture: Any, path: Path) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {reason_of(error)}") from error
    return path
