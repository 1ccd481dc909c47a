"""Fixtures for all tests."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import tools

if TYPE_CHECKING:
    from torchserve_models import serving

ROOT = Path(__file__).resolve().parent.parent
LONG_FIXTURES = {"calibrated"}
"""Fixtures that make their tests take long."""
SKIP_COUNTS = pytest.StashKey[dict[str, int]]()


def pytest_report_header() -> list[str]:
    return tools.describe_missing(tools.missing_tools())


class LongFixtureMarks:
    """Mark tests for `-m` before it selects."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if LONG_FIXTURES & set(getattr(item, "fixturenames", ())):
                item.add_marker("full")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(LongFixtureMarks())


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    counts = tools.skip_tests(items)
    config.stash[SKIP_COUNTS] = counts
    if counts and os.environ.get("PYTEST_XDIST_WORKER") == "gw0":
        _skips_file(config.workerinput["testrunuid"]).write_text(json.dumps(counts))  # type: ignore[attr-defined]


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    return tools.describe_skipped(config.stash.get(SKIP_COUNTS, {}))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any) -> None:
    """Report what the first worker collected: the process that prints collects nothing itself."""
    path = _skips_file(node.workerinput["testrunuid"])
    if node.gateway.id == "gw0" and path.exists():
        counts = json.loads(path.read_text())
        path.unlink()
        reporter = node.config.pluginmanager.get_plugin("terminalreporter")
        for line in tools.describe_skipped(counts):
            reporter.write_line(line)


def _skips_file(run_id: str) -> Path:
    return Path(tempfile.gettempdir()) / f"torchserve-models-skips-{run_id}.json"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photos, articles, tokenizers and weights that are not ours: beside a checkout or not at all."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("../shared/data is not on this machine")
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator["serving.Server"]:
    """One real TorchServe with the three starters on free ports, for all tests that ask for it."""
    from tests.live_server import alive, processes
    from torchserve_models import serving

    running = serving.start(
        weights="starter", run_dir=tmp_path_factory.mktemp("run"), store=tmp_path_factory.mktemp("store")
    )
    try:
        yield running
    finally:
        family = processes(running)
        running.stop()
        assert [process for process in family if alive(process)] == []
        assert running.failure is None
