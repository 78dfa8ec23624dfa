"""`vista export`: its options. Light to import: the command line reads it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vista.errors import UserError


def add_export(commands: Any) -> None:
    """Add the command `export` to the subparsers of the command line."""
    export = commands.add_parser(
        "export",
        help="stored latents for other programs: a Parquet table, or Neuronpedia's files",
        description="Write the active latents of every patch as a Parquet table (--parquet), or "
        "the labelled latents with their top images as Neuronpedia imports them (--neuronpedia).",
    )
    export.add_argument(
        "latents",
        metavar="LATENTS",
        help="latents:NAME, e.g. latents:dinov2-gemma2-w1-s0, or a folder",
    )
    target = export.add_mutually_exclusive_group(required=True)
    target.add_argument("--parquet", type=Path, metavar="FILE", help="a row an active latent")
    target.add_argument(
        "--neuronpedia", type=Path, metavar="FOLDER", help="labels, and activations on patches"
    )
    export.add_argument("--layer", type=int, metavar="L", help="of this layer alone")
    export.add_argument(
        "--top", type=int, metavar="N", help="with --neuronpedia: images of a latent; default: 20"
    )
    export.add_argument(
        "--results", type=Path, default=Path("results"), help="where latents:NAME is looked for"
    )
    export.set_defaults(call=_export)


def _export(arguments: argparse.Namespace) -> int:
    from vista.explore.addresses import find, is_address
    from vista.explore.latents import LatentView
    from vista.library.exports import write_neuronpedia, write_parquet

    if arguments.parquet is not None and arguments.top is not None:
        raise UserError("--top goes with --neuronpedia: a table has all active latents")
    text = arguments.latents
    view = LatentView(find(arguments.results, text) if is_address(text) else Path(text))
    if arguments.parquet is not None:
        rows = write_parquet(view, arguments.parquet, arguments.layer)
        print(f"{arguments.parquet}: {rows:,} active latents")
    else:
        top = 20 if arguments.top is None else arguments.top
        latents = write_neuronpedia(view, arguments.neuronpedia, arguments.layer, top)
        print(f"{arguments.neuronpedia}: {latents:,} labelled latents")
    return 0
