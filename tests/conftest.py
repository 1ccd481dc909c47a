"""Fixtures for all tests."""

import json
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import psutil
import pytest
from filelock import FileLock

from tests import groups, tools

if TYPE_CHECKING:
    from torchserve_models import serving

ROOT = Path(__file__).resolve().parent.parent
LONG_FIXTURES = {"calibrated"}
"""Fixtures that make their tests take long."""
MEMORY_PER_PROCESS = 3 * 2**30
"""Bytes that a process of unit tests may need."""
SKIP_COUNTS = pytest.StashKey[dict[str, int]]()

# The time of one example depends on what else the machine does: no example has a deadline.
COMMON_SETTINGS = hypothesis.settings(
    deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow], print_blob=True
)
hypothesis.settings.register_profile(
    "fast", COMMON_SETTINGS, max_examples=50, derandomize=True, database=None
)
hypothesis.settings.register_profile("all", COMMON_SETTINGS, max_examples=500)
hypothesis.settings.load_profile("fast")


def pytest_report_header() -> list[str]:
    return tools.describe_missing(tools.missing_tools())


class Marks:
    """Mark tests before `-m` selects from them."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if LONG_FIXTURES & set(getattr(item, "fixturenames", ())):
                item.add_marker("full")


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a shell's background jobs
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(Marks())


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    groups.check_groups(items)
    if "PYTEST_XDIST_WORKER" in os.environ:
        groups.sort_groups(items)
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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return one process more than cores, as tests also wait, where each has the memory that it may need."""
    fitting = psutil.virtual_memory().available // MEMORY_PER_PROCESS
    return max(1, min((os.cpu_count() or 1) + 1, fitting))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> groups.GroupScheduling:
    return groups.GroupScheduling(config, log)


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
def fast_java(pytestconfig: pytest.Config) -> Iterator[None]:
    """Let all servers of this session start with an ahead-of-time cache of TorchServe's classes."""
    from tests.java_cache import create_java_cache

    with pytest.MonkeyPatch.context() as patched:
        if (cache := create_java_cache(pytestconfig)) is not None:
            patched.setenv("JDK_JAVA_OPTIONS", f"-XX:AOTCache={cache}")
            patched.setenv("TORCHSERVE_MODELS_PASS_ENV", "JDK_JAVA_OPTIONS")
        yield


@pytest.fixture(scope="module")
def fast_toys(fast_java: None) -> Iterator[None]:
    """Let the workers of this module's servers, which serve toys alone, start without PyTorch."""
    from tests.faults.without_torch import PATH

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TORCHSERVE_MODELS_PASS_ENV", "JDK_JAVA_OPTIONS PYTHONPATH")
        patched.setenv("PYTHONPATH", str(PATH), prepend=os.pathsep)
        yield


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, fast_java: None) -> Iterator["serving.Server"]:
    """One real TorchServe with the three starters on free ports, for all tests that ask for it."""
    from tests.live_server import alive, processes
    from torchserve_models import serving

    # One process after the other: the second finds the files that the first has prepared.
    with FileLock(Path(tempfile.gettempdir()) / f"torchserve-models-tests-{os.getuid()}.lock"):
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
