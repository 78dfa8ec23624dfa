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
from vista.engine.stages import is_stage, load_stage, stages
from vista.errors import USER_ERROR, UserError
from vista.stages import SPLIT


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status (2 for a user's mistake)."""
    words = sys.argv[1:] if argv is None else list(argv)
    parser = _parser(words)
    arguments, options = parser.parse_known_args(words)
    if options and not getattr(arguments, "passes_options", False):
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
        from vista.commands import add_commands

        add_commands(commands)
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
