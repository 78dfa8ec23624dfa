"""Writing a project: a folder with a config and a Snakefile that runs the package's workflow."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vista.engine.shipped import config_names, shipped
from vista.errors import UserError

CONFIG = "config/config.yaml"
SCHEMA = "config/vista.schema.json"
_FOLDER = re.compile(r"path: (config/architectures/\w+)")
_README = f"""\
# A VISTA project

{CONFIG} says what is run; it began as config/{{name}}.yaml of the package. `vista schema`
prints every key with its meaning. The Snakefile runs the workflow of the installed package.

| command | what it does |
|---|---|
| `vista plan {CONFIG}` | jobs, disk, memory, time, and what is missing |
| `snakemake --cores` | runs the config; `--configfile FILE` runs another one in its place |
| `vista make latents 'dinov2-*'` | makes artifacts by name, with all that they need |
| `vista summary {CONFIG}` | prints the table; it lies in results/summary.md, .csv and .parquet |
| `vista explore` | opens a page on results/ (extra `explore`) |
| `vista explain 'results/report/*'` | says whether artifacts are up to date, or what changed |
| `vista accept {CONFIG}` | keeps artifacts of which only the code changed (an update) |

On a cluster: `vista where` prints the folder with the package's workflow and configs.

    snakemake --workflow-profile "$(vista where)/workflow/profiles/slurm"

Its other profiles are local, cluster-generic and s3; s3 needs
`--snakefile "$(vista where)/workflow/profiles/s3/Snakefile" --configfile {CONFIG}` as well.
"""
_SNAKEFILE = f"""\
# The workflow of the installed package vista-saes, as a module: rules of your own can stand beside.
from vista.engine.shipped import shipped

# --configfile FILE replaces this config; Snakemake would merge the two.
if not workflow.overwrite_configfiles:

    configfile: "{CONFIG}"


module vista:
    snakefile:
        shipped() / "workflow" / "Snakefile"
    config:
        config


use rule * from vista


rule default:
    default_target: True
    input:
        rules.all.input,
"""
_GITIGNORE = """\
.snakemake/
results/
"""


def add_init(commands: Any) -> None:
    """Add the commands `init` and `where` to the subparsers of the command line."""
    init = commands.add_parser(
        "init",
        help="write a folder in which `snakemake --cores` runs a config",
        description=f"Write a project folder: {CONFIG}, a Snakefile that uses the package's "
        "workflow, a README and a .gitignore.",
    )
    init.add_argument("folder", type=Path, metavar="FOLDER", help="a new or an empty folder")
    init.add_argument(
        "--config",
        choices=config_names(),
        default="default",
        metavar="NAME",
        help=f"the config to begin with: {', '.join(config_names())}; default: default, which "
        "draws its own images and takes 13 minutes of two cores; smoke takes 2 minutes",
    )
    init.add_argument(
        "--force", action="store_true", help="also in a folder with files, which all stay as is"
    )
    init.set_defaults(call=_init)

    where = commands.add_parser(
        "where", help="print the folder that holds the package's workflow/ and config/"
    )
    where.set_defaults(call=_where)


def _init(arguments: argparse.Namespace) -> int:
    for line in init(arguments.folder, arguments.config, force=arguments.force):
        print(line)
    return 0


def _where(_: argparse.Namespace) -> int:
    print(shipped())
    return 0


def init(folder: Path, name: str, *, force: bool = False) -> Iterator[str]:
    """Write a project; files that are there stay as they are.

    Args:
        folder: The project's folder, which is made.
        name: The package's config to begin with.
        force: Whether the folder may hold files.

    Yields:
        The lines of a report.

    Raises:
        UserError: The folder holds files, without `force`; or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not force and any(folder.iterdir()):
            raise UserError(
                f"{folder} is not empty: name a new folder, or add the missing files with --force, "
                "which changes none of those that are there."
            )
        for path, content in _files(name).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            try:
                with (folder / path).open("xb") as file:
                    file.write(content)
            except FileExistsError:
                yield f"{folder / path}: kept as it is"
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error}. Name another folder.") from None
    yield f"{folder}: run `snakemake --cores` there; README.md has more."


def _files(name: str) -> dict[str, bytes]:
    """Return the files of a project by their path in it."""
    from vista.engine.plan import load_plan

    config = shipped() / "config" / f"{name}.yaml"
    files = {
        CONFIG: config.read_bytes(),
        # Its first line names it, for editors.
        SCHEMA: (shipped() / SCHEMA).read_bytes(),
        "Snakefile": _SNAKEFILE.encode(),
        "README.md": _README.replace("{name}", name).encode(),
        ".gitignore": _GITIGNORE.encode(),
    }
    # Files of the package that the config names, e.g. config/photographs/stamps.json.
    named = {file for node in load_plan(config).nodes.values() for file in node.files}
    ours = [file for file in named if not Path(file).is_absolute() and (shipped() / file).is_file()]
    # And folders of models, e.g. config/architectures/svd.
    for folder in set(_FOLDER.findall(config.read_text(encoding="utf-8"))):
        ours += [
            path.relative_to(shipped()).as_posix()
            for path in (shipped() / folder).rglob("*")
            if path.is_file()
        ]
    return files | {file: (shipped() / file).read_bytes() for file in sorted(ours)}
