"""The command line: `vista <stage> ...` runs one stage; the other commands inspect artifacts."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from vista.engine.artifacts import (
    MANIFEST,
    Artifact,
    Provenance,
    digest_text,
    input_digests,
    open_artifact,
    package_versions,
    publishing,
    sharing,
    with_options,
)
from vista.engine.code import is_fetch, source_digests, stage_code, third_party
from vista.engine.disk import full_disk
from vista.engine.environment import prepare
from vista.engine.gpus import claimed
from vista.engine.job import Job
from vista.engine.locks import WORK
from vista.engine.project import add_init
from vista.engine.shipped import project_config
from vista.engine.stages import is_stage, load_stage, stages
from vista.errors import UserError
from vista.explore.command import add_show
from vista.explore.serve_command import add_explore
from vista.library.export_command import add_export
from vista.library.look import add_look
from vista.stages import SPLIT

USER_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status (2 for a user's mistake)."""
    words = sys.argv[1:] if argv is None else list(argv)
    parser = _parser(words)
    arguments, options = parser.parse_known_args(words)
    if options and arguments.call is not _make:
        parser.error(f"unrecognized arguments: {' '.join(options)}")
    arguments.options = options
    try:
        status: int = arguments.call(arguments)
    except UserError as error:
        print(f"vista: {error}", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:
        # The reader of the output (head, less) has ended.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("vista: stopped; finished artifacts are kept, run again to go on.", file=sys.stderr)
        return 130
    return status


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vista",
        description="Read vision models through the labelled text SAEs of a language model. "
        "`snakemake --cores` runs the workflow; these commands plan, inspect and clean up.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    # A job of the workflow needs no help on the other commands.
    is_job = "--spec" in words and is_stage(words[0])
    if not is_job:
        add_init(commands)
        add_show(commands)
        add_explore(commands)
        add_look(commands)
        add_export(commands)

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
    make.set_defaults(call=_make)

    explain = commands.add_parser("explain", help="why an artifact would be made again, or not")
    explain.add_argument(
        "paths", nargs="+", help="RESULTS/STAGE/NAME-ID, finished or planned; globs"
    )
    _add_config(explain)
    explain.set_defaults(call=_explain)

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

    for name, makes in ({words[0]: "an artifact"} if is_job else stages()).items():
        stage = commands.add_parser(name, help=f"stage: {makes}", description=f"Make {makes}.")
        stage.add_argument(
            "--spec", required=True, help="JSON: settings, inputs, modules; or @FILE"
        )
        stage.add_argument(
            "--manifest", type=Path, required=True, help="RESULTS/STAGE/NODE/manifest.json to make"
        )
        stage.add_argument("--threads", type=int, default=1, help="CPU threads of this job")
        stage.add_argument("--log", type=Path, help="file that gets a copy of the output")
        if name in SPLIT:
            stage.add_argument("--part", type=_part, help="K/N: do the K-th of N parts only")
        stage.set_defaults(call=_run, stage=name, part=None)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    config = project_config()
    parser.add_argument(
        "--config", type=Path, default=config, help=f"the run's YAML file; default: {config}"
    )


def _part(text: str) -> tuple[int, int]:
    number, parts = map(int, text.split("/"))
    if not 1 <= number <= parts:
        raise ValueError(text)
    return number, parts


def _run(arguments: argparse.Namespace) -> int:
    with _logged(arguments.log):
        try:
            run_stage(
                arguments.stage,
                _order(arguments.spec),
                arguments.manifest,
                arguments.threads,
                arguments.part,
            )
        except UserError as error:
            print(f"vista {arguments.stage}: {error}", file=sys.stderr)
            return USER_ERROR
        except Exception as error:
            full = full_disk(error, arguments.manifest)
            if full is None:
                raise
            print(f"vista {arguments.stage}: {full}", file=sys.stderr)
            return USER_ERROR
    return 0


def _order(spec: str) -> str:
    """Return a job's order, from its file if it is long. Raises UserError."""
    if not spec.startswith("@"):
        return spec
    path = Path(spec[1:])
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"the job's order {path} cannot be read: {error}. Run snakemake.") from None
    if digest_text(text) != path.stem:
        raise UserError(f"the job's order {path} is damaged. Delete it and run snakemake again.")
    return text


def run_stage(
    stage: str,
    spec_text: str,
    manifest: Path,
    threads: int,
    part: tuple[int, int] | None = None,
) -> None:
    """Run one stage on the settings and inputs of its spec and publish the artifact.

    Args:
        stage: Name of the stage.
        spec_text: The job's order as JSON, as `Node.spec` makes it.
        manifest: Path of the artifact's manifest, RESULTS/STAGE/NODE/manifest.json.
        threads: CPU threads of the job.
        part: (k, n): do the k-th of n parts and publish nothing.

    Raises:
        UserError: An input is missing or damaged, or the stage found a user's mistake.
    """
    node, results = manifest.parent.name, manifest.parents[2]
    # Only fetch stages may use the network, and numeric libraries must not use more cores than the
    # workflow assigned to the job.
    prepare(threads, offline=not is_fetch(stage))
    spec: dict[str, Any] = json.loads(spec_text)
    inputs = {role: _open(results, paths) for role, paths in spec["inputs"].items()}
    code = stage_code(stage, spec["modules"])
    provenance = Provenance(
        stage=stage,
        settings=spec["settings"],
        inputs=input_digests(inputs, spec.get("files", ())),
        code={} if is_fetch(stage) else source_digests(code),
        packages={} if is_fetch(stage) else package_versions(third_party(code)),
        parents=spec["inputs"],
    )
    frame = publishing if part is None else sharing
    with frame(results, stage, node, provenance) as work:
        if work is None:
            print(f"{stage}/{node}: nothing that it depends on changed, kept.")
            return
        start = time.monotonic()
        options = spec.get("options", {})
        settings = with_options(spec["settings"], options)
        # Before torch is imported, which then sees these cards only.
        with claimed(options):
            load_stage(stage)(Job(stage, settings, inputs, work, threads, part))
        print(f"{stage}/{node}: done in {time.monotonic() - start:.1f} s.")


def _open(results: Path, paths: str | list[str]) -> Artifact | list[Artifact]:
    if isinstance(paths, list):
        return [open_artifact(results / path, path.split("/")[0]) for path in paths]
    return open_artifact(results / paths, paths.split("/")[0])


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


class _Log:
    """A job's log file. Errors in writing are ignored: a full disk must not end the job."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._file.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._file.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()


class _Tee:
    """Standard output or standard error, copied into a log."""

    def __init__(self, stream: TextIO, log: _Log) -> None:
        self._stream = stream
        self._log = log

    def write(self, text: str) -> int:
        self._stream.write(text)
        return self._log.write(text)

    def flush(self) -> None:
        self._stream.flush()
        self._log.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:
        return self._stream.encoding


@contextlib.contextmanager
def _logged(path: Path | None) -> Iterator[None]:
    """Copy standard output, standard error and the traceback of a crash into `path`."""
    if path is None:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(_Log(path)) as log:
        out: Any = _Tee(sys.stdout, log)
        err: Any = _Tee(sys.stderr, log)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                yield
            except BaseException:
                import traceback

                traceback.print_exc(file=log)
                raise


if __name__ == "__main__":
    sys.exit(main())
