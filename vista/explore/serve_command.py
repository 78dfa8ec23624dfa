"""`vista explore`: its options. Light to import: the command line reads it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from vista.errors import UserError

EXTRA = "pip install 'vista-saes[explore]'"


def add_explore(commands: Any) -> None:
    """Add the command `explore` to the subparsers of the command line."""
    explore = commands.add_parser(
        "explore",
        help="look at a run in the browser: images, latents, labels, edits, metrics",
        description="Look at a run in the browser, also at one that is half done. Ctrl-C stops "
        "it. With --export the page and what it reads become a folder for any web host.",
    )
    explore.add_argument(
        "target",
        type=Path,
        nargs="?",
        default=Path("results"),
        metavar="RESULTS",
        help="a results folder, or a config, whose results are taken; default: results",
    )
    explore.add_argument("--port", type=_port, default=0, help="default: a free one")
    explore.add_argument(
        "--no-browser", action="store_true", help="print the address and open nothing"
    )
    explore.add_argument(
        "--export", type=Path, metavar="FOLDER", help="write a folder for a web host, and end"
    )
    explore.add_argument(
        "--link", action="store_true", help="of an export: hard links to the artifacts, no copies"
    )
    explore.add_argument(
        "--force", action="store_true", help="of an export: replace an earlier export"
    )
    explore.set_defaults(call=_explore)


def _port(text: str) -> int:
    port = int(text) if text.isascii() and text.isdigit() and len(text) < 6 else -1
    if not 0 <= port < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 to 65535")
    return port


def _explore(arguments: argparse.Namespace) -> int:
    if arguments.export is None and (arguments.link or arguments.force):
        raise UserError("--link and --force are of an export: give --export FOLDER, too")
    results = results_of(arguments.target)
    from vista.explore.finished import Finished

    finished = Finished(results)
    if not finished.catalogue(live=False)["artifacts"]:
        raise UserError(
            f"{results} has no finished artifact yet: run snakemake, and look again when the first "
            "jobs are done"
        )
    if arguments.export is not None:
        from vista.explore.export import export

        export(finished, arguments.export, link=arguments.link, force=arguments.force)
        return 0
    try:
        from vista.explore.serve import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise UserError(f"the explorer's server is an extra of this package: {EXTRA}") from error
    serve(finished, arguments.port, browser=not arguments.no_browser)
    return 0


def results_of(target: Path) -> Path:
    """Return a results folder, or that of a config.

    Raises:
        UserError: There is none, or the config is wrong.
    """
    results = target
    if target.suffix in (".yaml", ".yml") and not target.is_dir():
        from vista.config.reading import load_config

        results = Path(load_config(target).results)
    if not results.is_dir():
        raise UserError(
            f"{results} is no folder; name a results folder, or a config whose run has begun"
        )
    return results
