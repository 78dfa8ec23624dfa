"""The files of a report, and their publication to the top of the results folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from vista.config.report import ReportSettings
from vista.engine.disk import write_synced
from vista.errors import UserError
from vista.report.catalogue import CATALOGUE, catalogue_text
from vista.report.collapse import collapse_section, collapses
from vista.report.comparison_section import comparison_headline
from vista.report.contents import all_sections
from vista.report.escape import markdown
from vista.report.groups_section import groups_section
from vista.report.sections import glance_section, naming_section
from vista.report.shown import Measured
from vista.report.table import LongTable

TABLES = ("summary.csv", "summary.parquet", "summary.md")
HEADLINE = "headline.txt"
FIGURES = "figures"


def summary_markdown(
    measured: Measured,
    *,
    name: str,
    figures: Sequence[tuple[str, str]],
    notes: Sequence[str],
) -> str:
    """Return the readable summary.

    Args:
        measured: What the run measured.
        name: Name of the run.
        figures: (file name of a PNG, what it shows), in order.
        notes: Sentences for "How to read this".
    """
    parts = [f"# Results of {markdown(name)}"]
    sections = all_sections(measured, notes)
    parts += [section.markdown() for section in sections]
    if figures:
        parts.append("## Figures")
        parts += [f"![{markdown(shows)}]({FIGURES}/{file})" for file, shows in figures]
    return "\n\n".join(parts) + "\n"


def headline(table: LongTable, settings: ReportSettings, of_groups: LongTable | None = None) -> str:
    """Return the few tables that a terminal shows after a run, in plain ASCII.

    `of_groups` has the figures of groups of images, if there are any.
    """
    sections = [
        naming_section(table, settings.aims),
        comparison_headline(table, settings),
        glance_section(table, settings),
        groups_section(of_groups or LongTable(()), settings.top_k, settings.least_n),
    ]
    # The warning stands last, where a terminal's reader looks.
    sections.append(collapse_section(collapses(table, settings.collapse)))
    shown = [s.terminal() for s in sections if any(g.rows for g in s.grids)]
    return "\n\n".join(shown) + "\n"


def publish_summary(report_artifact_path: Path, results_dir: Path) -> str:
    """Copy a report's tables and figures to the top of the results folder, with the catalogue of
    its run.

    Each file appears whole or not at all; summary.md comes last. Figures of an earlier report
    that this one does not have are removed.

    Args:
        report_artifact_path: Folder of a finished report artifact.
        results_dir: Where summary.csv, .parquet, .md, catalogue.json and figures/ go.

    Returns:
        The tables to print, with the paths of the files at the end.

    Raises:
        UserError: The report is incomplete.
    """
    for file in (*TABLES, HEADLINE):
        if not (report_artifact_path / file).is_file():
            raise UserError(
                f"{report_artifact_path / file} is missing; delete that folder and run the "
                "workflow again"
            )
    source = report_artifact_path / FIGURES
    pictures = sorted(path.name for path in source.iterdir()) if source.is_dir() else []
    target = results_dir / FIGURES
    target.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        _copy(source / picture, target / picture)
    for old in target.iterdir():
        if old.suffix in (".png", ".svg") and old.name not in pictures:
            old.unlink(missing_ok=True)
    listing = catalogue_text(report_artifact_path.absolute()).encode()
    target_file = results_dir / CATALOGUE
    write_synced(target_file, listing, target_file.with_name(f".{CATALOGUE}.{os.getpid()}"))
    for file in TABLES:
        _copy(report_artifact_path / file, results_dir / file)
    text = (report_artifact_path / HEADLINE).read_text(encoding="utf-8")
    return (
        f"{text}\nAll figures: {results_dir / 'summary.md'} (readable), "
        f"{results_dir / 'summary.csv'} (long table)\nPictures: {target}\n"
    )


def _copy(source: Path, target: Path) -> None:
    """Copy through a temporary file beside the target, so that nobody reads half a file."""
    # Another run may copy the same tables.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
