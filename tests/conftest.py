"""What all tests share: the same hypothesis examples everywhere, one core a test, and at the end
what was skipped for want of a program."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest
from fake_endpoint import Endpoint
from hypothesis import HealthCheck, settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile(
    "same_everywhere",
    derandomize=True,
    deadline=None,
    # A loaded machine is no defect.
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("same_everywhere")


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """A real HTTP server on the loopback that speaks chat completions."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    endpoint = Endpoint()
    yield endpoint
    endpoint.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole workflows first: of several processes none is left with the longest file at the end."""
    items.sort(key=lambda item: "workflow" not in item.path.parts)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each reason of skipped tests, so that nobody takes them for passed."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports)
    for reason, n in sorted(reasons.items()):
        terminalreporter.write_line(f"{reason}, so {n} {'tests' if n > 1 else 'test'} skipped")
