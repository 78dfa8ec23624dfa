"""The commands beside stages: they plan, make, inspect, explain and clean up."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from vista.engine.artifacts import MANIFEST, open_artifact
from vista.engine.locks import WORK
from vista.engine.project import add_init
from vista.engine.shipped import project_config
from vista.engine.stages import stages
from vista.errors import USER_ERROR, UserError
from vista.explore.command import add_show
from vista.explore.serve_command import add_explore
from vista.library.export_command import add_export
from vista.library.look import add_look


def add_commands(commands: Any) -> None:
    """Add all commands to the subparsers of the command line."""
    for add in (add_init, add_show, add_explore, add_look, add_export):
        add(commands)
    _add_planning(commands)
    _add_upkeep(commands)


def _add_planning(commands: Any) -> None:
    plan = commands.add_parser(
        "plan", help="what a config asks for: jobs, disk, memory, time, and what is missing"
    )
    plan.add_argument("config", type=Path, help="a run's YAML file, e.g. config/default.yaml")
    plan.add_argument("--list", action="store_true", help="a line an artifact: done or to do")
    plan.add_argument("--prompts", action="store_true", help="a sample as each LLM is given it")
    plan.set_defaults(call=_plan)

    make = commands.add_parser(
        "make",
        help="make artifacts by their readable names, with all that they need",
        description="Make artifacts of a stage and all their ancestors. Other options are passed "
        "on to snakemake, e.g. -n for a dry run or --cores 2.",
    )
    make.add_argument("stage", help="e.g. latents")
    make.add_argument("names", nargs="*", help="e.g. dinov2-gemma2-w1-s0, 'dinov2-*'; none: all")
    _add_config(make)
    make.set_defaults(call=_make, passes_options=True)

    explain = commands.add_parser("explain", help="why an artifact would be made again, or not")
    explain.add_argument(
        "paths", nargs="+", help="RESULTS/STAGE/NAME-ID, finished or planned; globs"
    )
    _add_config(explain)
    explain.set_defaults(call=_explain)


def _add_upkeep(commands: Any) -> None:
    accept = commands.add_parser(
        "accept", help="keep artifacts whose code alone has changed, after a neutral edit"
    )
    accept.add_argument(
        "configs", type=Path, nargs="+", help="all configs that share the results folder"
    )
    accept.add_argument(
        "--yes", action="store_true", help="accept them; without this option they are listed"
    )
    accept.set_defaults(call=_accept)

    gc = commands.add_parser("gc", help="list, or delete, the artifacts that no config needs")
    gc.add_argument("configs", type=Path, nargs="+", help="all configs whose artifacts are kept")
    gc.add_argument("--results", type=Path, help="the results folder; default: that of the configs")
    gc.add_argument(
        "--delete", action="store_true", help="delete them; without this option they are listed"
    )
    gc.set_defaults(call=_gc)

    verify = commands.add_parser("verify", help="check every byte of finished artifacts")
    verify.add_argument(
        "paths", type=Path, nargs="+", help="folders of artifacts, or folders that hold such"
    )
    verify.set_defaults(call=_verify)

    schema = commands.add_parser("schema", help="print the JSON schema of a config")
    schema.set_defaults(call=_schema)

    summary = commands.add_parser("summary", help="publish a report's table and figures, print it")
    summary.add_argument("report", type=Path, help="a config file, or the folder of a report")
    summary.add_argument(
        "--results", type=Path, help="target folder; default: the report's results folder"
    )
    summary.set_defaults(call=_summary)


def _add_config(parser: argparse.ArgumentParser) -> None:
    config = project_config()
    parser.add_argument(
        "--config", type=Path, default=config, help=f"the run's YAML file; default: {config}"
    )


def _plan(arguments: argparse.Namespace) -> int:
    from vista.engine.forecast.overview import forecast, listing, render
    from vista.engine.plan import load_plan
    from vista.engine.prompts import prompts, refusals

    plan = load_plan(arguments.config)
    if arguments.prompts:
        print(prompts(plan))
    elif arguments.list:
        print(listing(plan))
    else:
        print(render(forecast(plan, stages(), refused=refusals(plan))))
    return 0


def _make(arguments: argparse.Namespace) -> int:
    from vista.engine.make import make

    make(arguments.stage, arguments.names, arguments.config, arguments.options)
    return 0


def _summary(arguments: argparse.Namespace) -> int:
    from vista.report.summary import publish_summary

    path: Path = arguments.report
    if path.suffix in (".yaml", ".yml"):
        from vista.engine.plan import load_plan

        plan = load_plan(path)
        path = Path(plan.report)
    report = open_artifact(path.parent if path.name == MANIFEST else path, "report")
    report.verify()
    print(publish_summary(report.path, arguments.results or report.path.parents[1]))
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    from vista.engine.explain import explain

    text, status = explain(arguments.paths, arguments.config)
    print(text)
    return status


def _accept(arguments: argparse.Namespace) -> int:
    from vista.engine.accept import accept

    for line in accept(arguments.configs, adopt=arguments.yes):
        print(line, flush=True)
    return 0


def _gc(arguments: argparse.Namespace) -> int:
    from vista.engine.gc import collect

    print(collect(arguments.configs, arguments.results, delete=arguments.delete))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    manifests = [
        manifest
        for path in arguments.paths
        for manifest in ([path / MANIFEST] if (path / MANIFEST).exists() else path.rglob(MANIFEST))
        if WORK not in manifest.parts
    ]
    if not manifests:
        raise UserError(f"no {MANIFEST} below {', '.join(map(str, arguments.paths))}.")
    bad = 0
    for manifest in sorted(manifests):
        try:
            open_artifact(manifest.parent).verify()
        except UserError as error:
            bad += 1
            print(f"vista: {error}", file=sys.stderr)
    print(f"{len(manifests)} artifacts checked, {bad} damaged.")
    return USER_ERROR if bad else 0


def _schema(_: argparse.Namespace) -> int:
    from vista.config.run import RunConfig

    print(json.dumps(RunConfig.model_json_schema(), indent=1, sort_keys=True))
    return 0
